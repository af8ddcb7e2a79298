"""`relay check` against scripted providers: each failure names the setting to change."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from relay.cli.upstream_checks import Finding, check_upstreams
from relay.config import Environment, Settings
from relay.errors import ConfigError
from tests.support.contract_client import AZURE_KEY, BACKEND_KEY, elevenlabs_env
from tests.support.relay_server import groups_of
from tests.support.scripted_elevenlabs import local_engine
from tests.support.scripted_provider import ScriptedProvider, ScriptedResponse, scripted_provider

TODAY = date(2026, 11, 21)
MODEL = "gpt-realtime-2.1"


async def findings(provider: ScriptedProvider, env: dict[str, str] | None = None, **settings: Any) -> list[Finding]:
    if "upstream_target" not in settings:
        settings |= {
            "upstream_target": "openai",
            "openai_api_key": BACKEND_KEY,
            "openai_base_url": f"{provider.url}/v1",
        }
        settings = {"session_model": MODEL} | settings
    loaded = Settings.load(Environment(env or {}), **groups_of(**settings))
    return [finding async for finding in check_upstreams(loaded, loaded.navai_options(), today=TODAY)]


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.status, one.subject) for one in found]


async def test_all_is_well_with_openai() -> None:
    async with scripted_provider() as provider:
        found = await findings(provider)
        assert told(found) == [("ok", "key"), ("ok", "model"), ("ok", "session")]
        assert provider.seen[0].path == f"/v1/models/{MODEL}"
        assert provider.last.body["session"]["audio"]["output"]["voice"] == "marin"
        assert not any(one.method == "WS" and one.body["type"] == "response.create" for one in provider.seen)


@pytest.mark.parametrize(
    ("shut_down", "today_is", "status"),
    [(None, TODAY, "ok"), ("2027-01-20", TODAY, "warn"), ("2026-11-21", TODAY, "fail"), ("soon", TODAY, "ok")],
)
async def test_a_shutdown_that_is_announced_is_told(shut_down: str | None, today_is: date, status: str) -> None:
    async with scripted_provider() as provider:
        provider.models[MODEL] = shut_down
        model = (await findings(provider))[1]
        assert (model.status, model.subject) == (status, "model")
        assert (str(shut_down) in model.text) is (status != "ok")
        assert ("OPENAI_REALTIME_MODEL" in model.text) is (status != "ok")


@pytest.mark.parametrize(
    ("script", "setting"),
    [
        (
            ScriptedResponse(status=401, json={"error": {"code": "invalid_api_key"}}),
            "OPENAI_API_KEY is not accepted; set a valid key",
        ),
        (ScriptedResponse(status=403, json={}), "OPENAI_REALTIME_MODEL"),
        (ScriptedResponse(status=429, json={}), "billing"),
        (ScriptedResponse(status=500, json={}), "OPENAI_BASE_URL answers with an error"),
        (ScriptedResponse(hang_up=True), "OPENAI_BASE_URL"),
        (ScriptedResponse(body=b"<html>"), "OPENAI_BASE_URL"),
    ],
)
async def test_openais_refusals_name_the_setting(script: ScriptedResponse, setting: str) -> None:
    async with scripted_provider() as provider:
        provider.script = script
        (found,) = await findings(provider)
        assert (found.status, setting in found.text) == ("fail", True)
        assert BACKEND_KEY not in found.text


async def test_an_unknown_model_names_its_setting() -> None:
    async with scripted_provider() as provider:
        (found,) = await findings(provider, session_model="gpt-nonsense")
        assert "gpt-nonsense" in found.text
        assert "OPENAI_REALTIME_MODEL" in found.text


async def test_an_unknown_voice_names_its_setting() -> None:
    async with scripted_provider() as provider:
        found = (await findings(provider, session_voice="nobody"))[-1]
        assert (found.status, found.text) == ("fail", "change OPENAI_REALTIME_VOICE: Invalid value: 'nobody'.")


async def test_nobody_at_the_address() -> None:
    async with scripted_provider() as provider:
        pass
    (found,) = await findings(provider)
    assert "OPENAI_BASE_URL" in found.text


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "RELAY_UPSTREAM_KEY"), (404, "the model in RELAY_UPSTREAM"), (500, "RELAY_UPSTREAM")]
)
async def test_a_url_of_ones_own(status: int, setting: str) -> None:
    async with scripted_provider() as provider:
        url = "ws" + provider.url.removeprefix("http") + "/v1/realtime"
        assert told(await findings(provider, upstream_target=url)) == [("ok", "session")]
        provider.script = ScriptedResponse(status=status, json={})
        (found,) = await findings(provider, upstream_target=url)
        assert setting in found.text


async def test_a_session_is_configured_in_the_dialect_of_the_upstream() -> None:
    async with scripted_provider() as provider:
        url = "ws" + provider.url.removeprefix("http") + "/v1/realtime"
        assert told(await findings(provider, upstream_target=url, upstream_dialect="openai-beta")) == [
            ("ok", "session")
        ]
        assert provider.last.body["session"]["voice"] == "marin"


async def test_the_local_engine_is_started_and_asked() -> None:
    async with scripted_provider() as provider:
        assert told(await findings(provider, upstream_target="local")) == [("ok", "session")]


# -- Azure ------------------------------------------------------------------------------------------------------------


def azure(provider: ScriptedProvider, **settings: Any) -> dict[str, Any]:
    return {
        "upstream_target": "azure",
        "azure_endpoint": provider.url,
        "azure_deployment": "dep",
        "azure_api_key": AZURE_KEY,
    } | settings


async def test_all_is_well_with_azure() -> None:
    async with scripted_provider() as provider:
        found = await findings(provider, **azure(provider))
        assert told(found) == [("ok", "session"), ("ok", "azure pages, GA")]
        local = azure(provider, upstream_target="local", azure_api_version="v")
        assert told(await findings(provider, **local)) == [("ok", "session"), ("ok", "azure pages, preview")]


@pytest.mark.parametrize(
    ("status", "setting"),
    [
        (401, "AZURE_OPENAI_API_KEY"),
        (403, "AZURE_OPENAI"),
        (404, "AZURE_OPENAI_DEPLOYMENT"),
        (429, "quota"),
        (500, "AZURE_OPENAI_ENDPOINT"),
    ],
)
async def test_azures_refusals_name_the_setting(status: int, setting: str) -> None:
    async with scripted_provider() as provider:
        provider.script = ScriptedResponse(status=status, json={"error": {"code": "DeploymentNotFound"}})
        session, pages = await findings(provider, **azure(provider))
        assert (session.status, pages.status) == ("fail", "fail")
        assert setting in session.text
        assert AZURE_KEY not in session.text + pages.text


@pytest.mark.parametrize(
    ("version", "missing", "said"),
    [
        ("v", "/realtimeapi/", "unset AZURE_OPENAI_API_VERSION"),
        (None, "/client_secrets", "set AZURE_OPENAI_API_VERSION=2025-04-01-preview"),
    ],
)
async def test_ga_and_preview_are_told_apart(version: str | None, missing: str, said: str) -> None:
    async with scripted_provider() as provider:
        provider.missing = missing
        found = await findings(provider, **azure(provider, upstream_target="local", azure_api_version=version))
        assert said in found[-1].text


# -- ElevenLabs -------------------------------------------------------------------------------------------------------


async def test_the_voice_of_elevenlabs_is_looked_up() -> None:
    async with scripted_provider() as provider:
        voice, model = (await findings(provider, elevenlabs_env(provider)))[-2:]
        assert (voice.status, voice.text) == ("ok", "the voice is Ana")
        assert (model.status, model.text) == ("ok", "the model is eleven_flash_v2_5")
        voice, _ = (await findings(provider, elevenlabs_env(provider) | {"ELEVENLABS_VOICE_ID": "nobody/1"}))[-2:]
        assert (voice.status, "change ELEVENLABS_VOICE_ID" in voice.text) == ("fail", True)
        assert "voice_not_found" in voice.text, "the provider's own code"
        assert "/v1/voices/nobody%2F1" in [one.path for one in provider.seen]
        provider.keys = {BACKEND_KEY}
        found = await findings(provider, elevenlabs_env(provider))
        assert (found[-1].status, "ELEVENLABS_API_KEY" in found[-1].text) == ("fail", True)
        assert "invalid_api_key" in found[-1].text
        assert found[-2].subject != "elevenlabs", "of a key that is not accepted nothing more is asked"


@pytest.mark.parametrize("model", ["eleven_nonsense", "eleven_english_sts_v2"])
async def test_a_model_of_elevenlabs_that_is_not_there_or_does_not_speak_names_its_setting(model: str) -> None:
    async with scripted_provider() as provider:
        found = (await findings(provider, elevenlabs_env(provider) | {"ELEVENLABS_MODEL_ID": model}))[-1]
        assert (found.status, model in found.text, "ELEVENLABS_MODEL_ID" in found.text) == ("fail", True, True)


async def test_the_voice_of_a_policy_is_looked_up_too(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text('[policies.kiosk]\nvoice = "elevenlabs:nobody"\n')
    async with scripted_provider() as provider:
        env = elevenlabs_env(provider) | {"NAVAI_TTS_PROVIDER": ""}
        found = await findings(provider, env, access_policies=tmp_path / "policies.toml")
        told_of = [(one.status, one.text) for one in found if one.subject == "elevenlabs"]
        assert told_of[0][0] == "fail"
        assert "no voice nobody; change policies.kiosk.voice" in told_of[0][1]


async def test_the_local_engine_in_elevenlabs_place_passes() -> None:
    async with scripted_provider() as provider, local_engine() as engine:
        env = {"NAVAI_TTS_PROVIDER": "elevenlabs", "ELEVENLABS_BASE_URL": engine}
        assert told(await findings(provider, env))[-2:] == [("ok", "elevenlabs"), ("ok", "elevenlabs")]
        missing = (await findings(provider, env | {"ELEVENLABS_VOICE_ID": "missing-1"}))[-2]
        assert "voice_id_does_not_exist" in missing.text


async def test_numbers_out_of_range_are_named_all_at_once() -> None:
    async with scripted_provider() as provider:
        env = elevenlabs_env(provider) | {"ELEVENLABS_STABILITY": "1.5", "ELEVENLABS_STYLE": "-1"}
        with pytest.raises(ConfigError, match=r"ELEVENLABS_STABILITY must be from 0 to 1(.|\n)*ELEVENLABS_STYLE"):
            await findings(provider, env)


async def test_a_key_that_may_not_look_at_voices_is_no_failure() -> None:
    async with scripted_provider() as provider:
        provider.script = ScriptedResponse(status=401, json={"detail": {"status": "missing_permissions"}})
        voice, model = (await findings(provider, elevenlabs_env(provider)))[-2:]
        assert (voice.status, "ELEVENLABS_VOICE_ID" in voice.text) == ("warn", True)
        assert (model.status, "ELEVENLABS_MODEL_ID" in model.text) == ("warn", True)
