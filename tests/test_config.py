"""Settings: what the environment says, every mistake at once, and where the model is."""

import pytest

from relay.config import Settings
from relay.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No settings of whoever runs the tests."""
    for field in Settings.model_fields.values():
        if field.alias:
            monkeypatch.delenv(field.alias, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_without_any_setting_the_local_engine_answers_on_loopback() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.resolve_upstream().kind) == ("127.0.0.1", 8080, "local")
    assert settings.session_config().transcription_model == "gpt-transcribe"


def test_a_dotenv_file_is_read_and_the_environment_wins(clean, tmp_path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nOPENAI_REALTIME_VOICE=cedar\n")
    clean.setenv("PORT", "9002")
    settings = Settings.load()
    assert (settings.port, settings.voice) == (9002, "cedar")


def test_an_empty_value_is_unset(clean) -> None:
    clean.setenv("PORT", "")
    clean.setenv("OPENAI_API_KEY", "")
    settings = Settings.load()
    assert (settings.port, settings.openai_api_key) == (8080, None)


def test_all_mistakes_are_told_at_once_by_their_names(clean) -> None:
    clean.setenv("PORT", "99999")
    clean.setenv("RELAY_TURN", "sometimes")
    clean.setenv("RELAY_UPSTREAM", "moon")
    with pytest.raises(ConfigError) as error:
        Settings.load()
    for name in ("PORT", "RELAY_TURN", "RELAY_UPSTREAM"):
        assert name in str(error.value)


def test_a_mistake_in_a_secret_does_not_show_it(clean) -> None:
    clean.setenv("RELAY_API_KEYS", "short-secret")
    with pytest.raises(ConfigError) as error:
        Settings.load()
    assert "short-secret" not in str(error.value)
    clean.setenv("RELAY_API_KEYS", "long-enough-to-be-a-key")
    clean.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    assert "sk-secret" not in repr(Settings.load())
    assert "long-enough" not in repr(Settings.load())


def test_a_key_means_openai(clean) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    upstream = Settings.load().resolve_upstream()
    assert (upstream.kind, upstream.url) == ("openai", "wss://api.openai.com/v1/realtime?model=gpt-realtime")


def test_openai_without_a_key_is_a_mistake(clean) -> None:
    clean.setenv("RELAY_UPSTREAM", "openai")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Settings.load()


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("ws://model.lan", "ws://model.lan/v1/realtime?model=gpt-realtime"),
        ("wss://model.lan:99/v1", "wss://model.lan:99/v1/realtime?model=gpt-realtime"),
        ("ws://model.lan/custom/path", "ws://model.lan/custom/path?model=gpt-realtime"),
        ("wss://x.example/openai/v1/realtime?model=mine", "wss://x.example/openai/v1/realtime?model=mine"),
    ],
)
def test_a_url_wins_and_is_completed_where_it_is_short(clean, url, dialled) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("RELAY_UPSTREAM", url)
    upstream = Settings.load().resolve_upstream()
    assert (upstream.kind, upstream.url) == ("url", dialled)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("wss://elsewhere.example/v1/realtime", None),
        ("wss://api.openai.com/v1/realtime", "sk-x"),
        ("ws://127.0.0.1:9000/v1/realtime", "sk-x"),
    ],
)
def test_the_openai_key_goes_to_its_own_host_and_to_this_machine_only(clean, url, sent) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("RELAY_UPSTREAM", url)
    key = Settings.load().resolve_upstream().key
    assert (key.get_secret_value() if key else None) == sent
    clean.setenv("RELAY_UPSTREAM_KEY", "its-own")
    assert Settings.load().resolve_upstream().key.get_secret_value() == "its-own"


def test_instructions_get_their_lines(clean) -> None:
    clean.setenv("OPENAI_REALTIME_INSTRUCTIONS", " Be brief. ")
    clean.setenv("OPENAI_REALTIME_LANGUAGE", "Spanish")
    clean.setenv("OPENAI_REALTIME_VOICE_ACCENT", "  ")
    clean.setenv("OPENAI_REALTIME_VOICE_TONE", "warm")
    config = Settings.load().session_config()
    assert config.full_instructions == "Be brief.\nAlways reply in Spanish.\nUse a warm tone while speaking."


def test_vad_numbers_and_off_switches_reach_the_session(clean) -> None:
    clean.setenv("RELAY_TURN", "semantic_vad")
    clean.setenv("RELAY_VAD_EAGERNESS", "low")
    clean.setenv("RELAY_TRANSCRIPTION_MODEL", "off")
    clean.setenv("RELAY_NOISE_REDUCTION", "far_field")
    config = Settings.load().session_config()
    assert (config.turn.kind, config.turn.eagerness) == ("semantic_vad", "low")
    assert (config.transcription_model, config.noise_reduction) == (None, "far_field")


def test_origins_come_under_both_names(clean) -> None:
    clean.setenv("NAVAI_CORS_ORIGIN", "https://a.example, https://b.example")
    assert Settings.load().allowed_origins == ("https://a.example", "https://b.example")
    clean.setenv("RELAY_ALLOWED_ORIGINS", "https://c.example/path")
    with pytest.raises(ConfigError, match="without a path"):
        Settings.load()


@pytest.mark.parametrize(
    ("model", "warned"),
    [("gpt-realtime", True), ("gpt-realtime-mini-2025-10-06", True), ("gpt-realtime-2.1", False), ("mine", False)],
)
def test_a_model_that_is_shut_down_soon_is_warned_about(clean, model, warned) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-x")
    clean.setenv("OPENAI_REALTIME_MODEL", model)
    assert bool(Settings.load().warnings()) is warned


@pytest.mark.parametrize("url", ["ws://host:99999", "ws://[", "https://h/v1?api-key=SUPERSECRET", "ws://"])
def test_an_upstream_that_is_no_url_is_told_without_its_secrets(clean, url) -> None:
    clean.setenv("RELAY_UPSTREAM", url)
    with pytest.raises(ConfigError, match="RELAY_UPSTREAM") as error:
        Settings.load()
    assert "SUPERSECRET" not in str(error.value)
