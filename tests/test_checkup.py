"""`relay check` against scripted providers: each failure names the setting to change."""

from datetime import date
from typing import Any

import pytest

from relay.checkup import Finding, check_all
from relay.endpoints.navai_options import NavaiOptions
from tests.support.contracts import AZURE_KEY, BACKEND_KEY, elevenlabs_env
from tests.support.relay_server import settings_for
from tests.support.scripted_provider import Script, ScriptedProvider, scripted_provider

TODAY = date(2026, 11, 21)
MODEL = "gpt-realtime-2.1"


async def findings(provider: ScriptedProvider, env: dict[str, str] | None = None, **settings: Any) -> list[Finding]:
    if "upstream" not in settings:
        settings |= {"upstream": "openai", "openai_api_key": BACKEND_KEY, "openai_base_url": f"{provider.url}/v1"}
        settings = {"model": MODEL} | settings
    navai = NavaiOptions.from_env(env or {})
    return [one async for one in check_all(settings_for(**settings), navai, today=TODAY)]


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.status, one.what) for one in found]


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
        assert (model.status, model.what) == (status, "model")
        assert (str(shut_down) in model.text) is (status != "ok")
        assert ("OPENAI_REALTIME_MODEL" in model.text) is (status != "ok")


@pytest.mark.parametrize(
    ("script", "setting"),
    [
        (Script(status=401, json={"error": {"code": "invalid_api_key"}}), "OPENAI_API_KEY is not accepted"),
        (Script(status=403, json={}), "OPENAI_REALTIME_MODEL"),
        (Script(status=429, json={}), "billing"),
        (Script(status=500, json={}), "OPENAI_BASE_URL answers with an error"),
        (Script(hang_up=True), "OPENAI_BASE_URL"),
        (Script(body=b"<html>"), "OPENAI_BASE_URL"),
    ],
)
async def test_openais_refusals_name_the_setting(script: Script, setting: str) -> None:
    async with scripted_provider() as provider:
        provider.script = script
        (found,) = await findings(provider)
        assert (found.status, setting in found.text) == ("fail", True)
        assert BACKEND_KEY not in found.text


async def test_an_unknown_model_names_its_setting() -> None:
    async with scripted_provider() as provider:
        (found,) = await findings(provider, model="gpt-nonsense")
        assert "gpt-nonsense" in found.text
        assert "OPENAI_REALTIME_MODEL" in found.text


async def test_an_unknown_voice_names_its_setting() -> None:
    async with scripted_provider() as provider:
        found = (await findings(provider, voice="nobody"))[-1]
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
        assert told(await findings(provider, upstream=url)) == [("ok", "session")]
        provider.script = Script(status=status, json={})
        (found,) = await findings(provider, upstream=url)
        assert setting in found.text


async def test_the_local_engine_is_started_and_asked() -> None:
    async with scripted_provider() as provider:
        assert told(await findings(provider, upstream="local")) == [("ok", "session")]


# -- Azure ------------------------------------------------------------------------------------------------------------


def azure(provider: ScriptedProvider, **settings: Any) -> dict[str, Any]:
    return {
        "upstream": "azure",
        "azure_endpoint": provider.url,
        "azure_deployment": "dep",
        "azure_api_key": AZURE_KEY,
    } | settings


async def test_all_is_well_with_azure() -> None:
    async with scripted_provider() as provider:
        found = await findings(provider, **azure(provider))
        assert told(found) == [("ok", "session"), ("ok", "azure pages, GA")]
        local = azure(provider, upstream="local", azure_api_version="v")
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
        provider.script = Script(status=status, json={"error": {"code": "DeploymentNotFound"}})
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
        found = await findings(provider, **azure(provider, upstream="local", azure_api_version=version))
        assert said in found[-1].text


# -- ElevenLabs -------------------------------------------------------------------------------------------------------


async def test_the_voice_of_elevenlabs_is_looked_up() -> None:
    async with scripted_provider() as provider:
        found = (await findings(provider, elevenlabs_env(provider)))[-1]
        assert (found.status, found.text) == ("ok", "the voice is Ana")
        found = (await findings(provider, elevenlabs_env(provider) | {"ELEVENLABS_VOICE_ID": "nobody/1"}))[-1]
        assert (found.status, "ELEVENLABS_VOICE_ID" in found.text) == ("fail", True)
        assert provider.last.path == "/v1/voices/nobody%2F1"
        provider.keys = {BACKEND_KEY}
        found = (await findings(provider, elevenlabs_env(provider)))[-1]
        assert (found.status, "ELEVENLABS_API_KEY" in found.text) == ("fail", True)


async def test_a_key_that_may_not_look_at_voices_is_no_failure() -> None:
    async with scripted_provider() as provider:
        provider.script = Script(status=401, json={"detail": {"status": "missing_permissions"}})
        found = (await findings(provider, elevenlabs_env(provider)))[-1]
        assert (found.status, "ELEVENLABS_VOICE_ID" in found.text) == ("warn", True)
