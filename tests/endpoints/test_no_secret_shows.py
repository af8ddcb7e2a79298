"""Every secret of a run, searched for in every log line, body, header and event, while providers echo them."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from tests.support.contract_client import (
    AZURE_KEY,
    BACKEND_KEY,
    ELEVENLABS_KEY,
    SECRET_PATH,
    SESSION_PATH,
    SPEECH_PATH,
    contract_client,
)
from tests.support.relay_server import DeviceClient
from tests.support.scripted_provider import ScriptedResponse

REQUEST_KEY = "sk-request-very-secret-0002"
RELAY_KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"
TOKEN = "entra-token-0123456789"
SECRETS = (BACKEND_KEY, ELEVENLABS_KEY, AZURE_KEY, REQUEST_KEY, RELAY_KEY, ADMIN_KEY, TOKEN)
TIMEOUT_S = 30.0


def echoes() -> list[ScriptedResponse]:
    """Providers that repeat every secret wherever they can."""
    scripts = []
    for secret in SECRETS:
        loud = {"error": {"code": secret, "type": secret, "message": f"key {secret} is wrong", "param": secret}}
        detail = {"detail": {"status": secret, "message": secret}}
        headers = {
            "X-Echo": secret,
            "Location": f"https://x:{secret}@evil.example/?key={secret}",
            "Retry-After": secret,
        }
        scripts += [
            ScriptedResponse(status=401, json=loud, headers=headers),
            ScriptedResponse(status=403, json=detail, headers=headers),
            ScriptedResponse(status=302, json=loud, headers=headers),
            ScriptedResponse(status=500, body=f"<html>{secret}</html>".encode(), headers=headers),
            ScriptedResponse(body=f"not json {secret}".encode(), headers={"Content-Type": f"text/{secret}"}),
        ]
    return [*scripts, ScriptedResponse(hang_up=True), ScriptedResponse(cut_after=9, body=REQUEST_KEY.encode())]


def check(said: str, where: str) -> None:
    shown = [secret for secret in SECRETS if secret in said]
    assert not shown, f"{shown} in {where}"


@pytest.mark.parametrize("own_key", [True, False], ids=["backend's key", "request's key"])
async def test_nobody_is_told_a_secret(own_key: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    env = {} if own_key else {"OPENAI_API_KEY": ""}
    azure: dict[str, Any] = {"azure_deployment": "dep"}
    if not own_key:
        azure |= {"azure_api_key": None, "azure_token_provider": lambda: TOKEN}
    relay_keys: dict[str, Any] = {"access_api_keys": (RELAY_KEY,), "access_admin_keys": (ADMIN_KEY,)}
    limits = {"limits_provider_secrets_per_minute": 0, "limits_speech_per_minute": 0}
    said: list[str] = []
    async with (
        asyncio.timeout(TIMEOUT_S),
        contract_client(env, elevenlabs=True, **azure, **relay_keys, **limits) as harness,
    ):

        async def call(path: str, body: Any, **headers: str) -> None:
            sent = {"Authorization": f"Bearer {RELAY_KEY}"} | headers
            async with harness.http.post(harness.relay.http(path), json=body, headers=sent) as response:
                raw = await response.content.read(100_000)
                said.append(f"{response.headers} {raw!r}")

        for script in echoes():
            harness.provider.script = script
            is_speech_itself = script.status == 200 and script.cut_after is None
            await call(SECRET_PATH, {"apiKey": REQUEST_KEY} if not own_key else {})
            await call(SESSION_PATH, {})
            if not is_speech_itself:  # what comes with a 200 is the sound, and its type
                await call(SPEECH_PATH, {"text": "x"})
        harness.provider.script = ScriptedResponse()
        for body in ({"apiKey": REQUEST_KEY}, {"apiKey": f"{REQUEST_KEY}\n"}, {"apiKey": [REQUEST_KEY]}):
            await call(SECRET_PATH, body)
        await call(SECRET_PATH, {}, Authorization=f"Bearer {ADMIN_KEY}x")
        assert len(said) > 100
        assert harness.provider.seen[0].headers["authorization"]
    for one in said:
        check(one, "an answer")
    check(caplog.text + repr([vars(record) for record in caplog.records]), "the log")


async def test_no_event_of_a_session_shows_the_upstreams_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with contract_client(azure_deployment="dep", upstream="azure") as harness, asyncio.timeout(TIMEOUT_S):
        for script in echoes():
            harness.provider.script = replace(script, status=script.status if script.status != 200 else 401)
            async with await DeviceClient.connect(harness.relay.ws()) as client:
                await client.wait_closed()
            check(str(client.messages) + str(client.connection.close_reason), "a session's events")
    check(caplog.text, "the log")
