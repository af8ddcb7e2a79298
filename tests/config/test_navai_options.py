"""The NAVAI backend's options: what the environment says, and what stops the start."""

import re
from pathlib import Path
from typing import Any

import pytest

from relay.config.navai_options import ElevenLabsVoiceSettings, NavaiOptions, NavaiPaths
from relay.errors import ConfigError

KEY = {"OPENAI_API_KEY": "sk-backend-0001"}
VOICE = {"NAVAI_TTS_PROVIDER": "elevenlabs", "ELEVENLABS_API_KEY": "el-key", "ELEVENLABS_VOICE_ID": "v1"}


def test_an_empty_environment_is_all_defaults_and_takes_the_requests_keys() -> None:
    options = NavaiOptions.from_env({})
    assert options == NavaiOptions(allow_api_key_from_request=True)
    assert (options.default_model, options.default_voice) == ("gpt-realtime", "marin")
    assert (options.client_secret_ttl_s, options.tts_provider) == (600, "openai")
    assert options.paths.functions_execute == "/navai/functions/execute"


def test_every_key_of_the_environment() -> None:
    options = NavaiOptions.from_env(
        KEY
        | VOICE
        | {
            "OPENAI_REALTIME_MODEL": "gpt-realtime-mini",
            "OPENAI_REALTIME_VOICE": "cedar",
            "OPENAI_REALTIME_INSTRUCTIONS": "Be brief.",
            "OPENAI_REALTIME_LANGUAGE": " Spanish ",
            "OPENAI_REALTIME_VOICE_ACCENT": "neutral",
            "OPENAI_REALTIME_VOICE_TONE": "friendly",
            "OPENAI_REALTIME_CLIENT_SECRET_TTL": "7200",
            "OPENAI_BASE_URL": "https://example.com/v1",
            "NAVAI_ALLOW_FRONTEND_API_KEY": "TRUE",
            "NAVAI_FUNCTIONS_FOLDERS": "src/a,src/b/...",
            "NAVAI_AGENTS_FOLDERS": "main,food",
            "NAVAI_FUNCTIONS_BASE_DIR": "/srv/app",
            "ELEVENLABS_MODEL_ID": "m1",
            "ELEVENLABS_OUTPUT_FORMAT": "pcm_16000",
            "ELEVENLABS_OPTIMIZE_STREAMING_LATENCY": "2.5",
            "ELEVENLABS_BASE_URL": "https://el.example.com/proxy",
            "ELEVENLABS_STABILITY": "0.5",
            "ELEVENLABS_SIMILARITY_BOOST": "1e0",
            "ELEVENLABS_STYLE": "0",
            "ELEVENLABS_USE_SPEAKER_BOOST": " Yes ",
        }
    )
    assert options == NavaiOptions(
        openai_api_key="sk-backend-0001",
        default_model="gpt-realtime-mini",
        default_voice="cedar",
        default_instructions="Be brief.",
        default_language="Spanish",
        default_voice_accent="neutral",
        default_voice_tone="friendly",
        client_secret_ttl_s=7200,
        openai_base_url="https://example.com/v1",
        allow_api_key_from_request=True,
        functions_folders="src/a,src/b/...",
        agents_folders="main,food",
        functions_base_dir=Path("/srv/app"),
        tts_provider="elevenlabs",
        elevenlabs_api_key="el-key",
        elevenlabs_voice_id="v1",
        elevenlabs_model_id="m1",
        elevenlabs_output_format="pcm_16000",
        elevenlabs_optimize_streaming_latency=2.5,
        elevenlabs_base_url="https://el.example.com/proxy",
        elevenlabs_voice_settings=ElevenLabsVoiceSettings(
            stability=0.5, similarity_boost=1.0, style=0.0, use_speaker_boost=True
        ),
    )


def test_blank_is_unset() -> None:
    blank = dict.fromkeys(
        ("OPENAI_API_KEY", "OPENAI_REALTIME_MODEL", "OPENAI_REALTIME_CLIENT_SECRET_TTL", "ELEVENLABS_STYLE"), "  "
    )
    assert NavaiOptions.from_env(blank) == NavaiOptions.from_env({})
    explicit = NavaiOptions(openai_api_key="k", default_voice=" ", elevenlabs_base_url="", default_language=" ")
    assert explicit == NavaiOptions(openai_api_key="k")


@pytest.mark.parametrize("text", ["9", "7201", "abc", "60.5", "1e3", "0x40", "-10", "Infinity", "600s"])
def test_a_ttl_that_is_no_integer_in_range_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"must be between 10 and 7200. Received: {text}")):
        NavaiOptions.from_env(KEY | {"OPENAI_REALTIME_CLIENT_SECRET_TTL": text})


@pytest.mark.parametrize("ttl", [9, 7201, 60.0, True, None])
def test_so_does_an_explicit_one(ttl: Any) -> None:
    with pytest.raises(ConfigError, match=f"Received: {ttl}"):
        NavaiOptions(openai_api_key="k", client_secret_ttl_s=ttl)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("ELEVENLABS_API_KEY", "Missing elevenLabsApiKey in NavaiVoiceBackendOptions."),
        ("ELEVENLABS_VOICE_ID", "Missing elevenLabsVoiceId in NavaiVoiceBackendOptions."),
    ],
)
def test_elevenlabs_needs_its_key_and_voice(without: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NavaiOptions.from_env({key: value for key, value in (KEY | VOICE).items() if key != without})


def test_explicit_options_need_a_key_or_leave_to_take_the_requests() -> None:
    with pytest.raises(ConfigError, match=r"Missing openaiApiKey in NavaiVoiceBackendOptions\."):
        NavaiOptions()
    assert NavaiOptions(allow_api_key_from_request=True).openai_api_key is None


def test_with_a_backend_key_only_the_word_true_lets_requests_bring_theirs() -> None:
    for text, allowed in (("true", True), (" True ", True), ("1", False), ("yes", False), ("", False)):
        options = NavaiOptions.from_env(KEY | {"NAVAI_ALLOW_FRONTEND_API_KEY": text})
        assert options.allow_api_key_from_request is allowed


def test_what_can_be_ignored_is_a_warning() -> None:
    options = NavaiOptions.from_env(
        {
            "NAVAI_TTS_PROVIDER": "elevenlab",
            "ELEVENLABS_STABILITY": "high",
            "ELEVENLABS_STYLE": "inf",
            "ELEVENLABS_USE_SPEAKER_BOOST": "on",
        }
    )
    assert options.tts_provider == "openai"
    assert options.elevenlabs_voice_settings == ElevenLabsVoiceSettings()
    assert [warning.split()[1] for warning in options.warnings] == [
        "NAVAI_TTS_PROVIDER",
        "ELEVENLABS_STABILITY",
        "ELEVENLABS_STYLE",
        "ELEVENLABS_USE_SPEAKER_BOOST",
    ]


@pytest.mark.parametrize("path", ["navai", "/", "", "/a{b}", "/a?b", "/a b"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="functions_list"):
        NavaiPaths(functions_list=path)


def test_two_routes_cannot_share_a_path() -> None:
    with pytest.raises(ConfigError, match="functions_list and functions_execute are the same"):
        NavaiPaths(functions_list="/a", functions_execute="/A/")


def test_keys_do_not_show() -> None:
    assert "sk-backend-0001" not in repr(NavaiOptions.from_env(KEY | VOICE))
    assert "el-key" not in repr(NavaiOptions.from_env(KEY | VOICE))
