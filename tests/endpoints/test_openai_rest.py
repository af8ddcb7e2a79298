"""OpenAI's REST surface: tickets by its own SDK, and the errors that its SDKs show."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, PermissionDeniedError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.auth.keyring import key_identity
from relay.testing import ScriptedUpstream
from tests.support.realtime_client import RealtimeClient, realtime_client
from tests.support.relay_server import RunningRelay, running_relay

KEY = "relay-key-0123456789abcdef"
KIOSK_KEY = "kiosk-key-0123456789abcdef"
PUBLIC = {"server_host": "0.0.0.0", "access_api_keys": (KEY, KIOSK_KEY)}


def sdk(relay: RunningRelay, key: str = KEY) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=relay.http("/v1"), api_key=key, max_retries=0)


async def models_of(relay: RunningRelay, key: str) -> list[str]:
    async with sdk(relay, key) as openai:
        return [model.id for model in (await openai.models.list()).data]


def policies(tmp_path: Path) -> Path:
    path = tmp_path / "policies.toml"
    kiosk = f'[policies.kiosk]\nmodels = ["kiosk-model"]\nkeys = ["{key_identity(KIOSK_KEY)}"]\n'
    path.write_text(f'[policies.default]\nmay_mint = ["kiosk"]\n{kiosk}')
    return path


async def post(relay: RunningRelay, body: Any, key: str = KEY) -> tuple[int, Any, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(relay.http("/v1/realtime/client_secrets"), data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def test_the_sdk_mints_a_ticket_that_opens_a_session_as_it_says() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, **PUBLIC) as relay, sdk(relay) as openai:
        secret = await openai.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60},
            session={"type": "realtime", "instructions": "Be kind."},
        )
        assert secret.value.startswith("ek_relay_")
        assert secret.session.type == "realtime"
        assert secret.session.to_dict()["instructions"] == "Be kind."
        for options in (
            {"additional_headers": {"Authorization": f"Bearer {secret.value}"}},
            {"additional_headers": {"api-key": secret.value}},
            {"subprotocols": ["realtime", f"openai-insecure-api-key.{secret.value}"]},
        ):
            async with realtime_client(relay, **options) as client:
                session = await upstream.accept()
                update = await session.configure()
                assert update["session"]["instructions"] == "Be kind."
                created = await client.expect("session.created")
                assert created["session"]["instructions"] == "Be kind."


async def test_a_device_may_come_with_a_ticket_in_its_url_once() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, **PUBLIC) as relay:
        body = json.dumps({"expires_after": {"seconds": 60}, "single_use": True})
        _, secret, headers = await post(relay, body)
        assert headers["Cache-Control"] == "no-store"
        url = relay.ws(f"/ws?ticket={secret['value']}")
        async with connect(url) as connection:
            session = await upstream.accept()
            await session.configure()
            assert "AIConnected" in str(await connection.recv())
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 401


async def test_a_device_may_come_with_a_ticket_wherever_it_may_with_a_key() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, **PUBLIC) as relay:
        _, secret, _ = await post(relay, "{}")
        ticket = secret["value"]
        for options in (
            {"additional_headers": {"Authorization": f"Bearer {ticket}"}},
            {"additional_headers": {"api-key": ticket}},
            {"subprotocols": ["relay", f"relay-ticket.{ticket}"]},
            {"subprotocols": ["realtime", f"openai-insecure-api-key.{ticket}"]},
        ):
            async with connect(relay.ws("/"), **options) as connection:
                assert ticket not in str(connection.response)
                await (await upstream.accept()).configure()
                assert "AIConnected" in str(await connection.recv())


async def test_a_ticket_has_the_policy_of_its_maker_or_the_one_asked_for(tmp_path: Path) -> None:
    async with running_relay("ws://127.0.0.1:9/", access_policies=policies(tmp_path), **PUBLIC) as relay:
        _, secret, _ = await post(relay, '{"policy":"kiosk","identity":"visitor 7"}')
        assert await models_of(relay, secret["value"]) == ["kiosk-model"]
        _, secret, _ = await post(relay, "", KIOSK_KEY)
        assert await models_of(relay, secret["value"]) == ["kiosk-model"]
        status, error, _ = await post(relay, '{"policy":"default"}', KIOSK_KEY)
        assert (status, error["error"]["param"]) == (403, "policy")
        assert await models_of(relay, KEY) == ["gpt-realtime"]


async def test_a_ticket_makes_no_tickets() -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        _, secret, _ = await post(relay, "{}")
        async with sdk(relay, secret["value"]) as openai:
            with pytest.raises(PermissionDeniedError, match="A client secret may not be used to make client secrets"):
                await openai.realtime.client_secrets.create()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("{", 400, None),
        ("[]", 400, None),
        ('{"colour":1}', 400, "colour"),
        ('{"policy":"default","zeta":1,"alpha":2,"mu":3,"beta":4}', 400, "zeta"),
        ('{"expires_after":{"seconds":9}}', 400, "expires_after.seconds"),
        ('{"expires_after":{"seconds":7201}}', 400, "expires_after.seconds"),
        ('{"expires_after":{"seconds":true}}', 400, "expires_after.seconds"),
        ('{"expires_after":{"anchor":"now","seconds":60}}', 400, "expires_after.anchor"),
        ('{"policy":"nobody"}', 400, "policy"),
        ('{"identity":"a\\nb"}', 400, "identity"),
        ('{"single_use":1}', 400, "single_use"),
        ('{"session":7}', 400, "session"),
        ('{"session":{"type":"realtime","tools":[{"type":"mcp","server_label":"x"}]}}', 400, "session.tools[0]"),
        ('{"session":{"type":"transcription"}}', 501, "session.type"),
    ],
)
async def test_bad_bodies_are_refused_by_name(body: str, status: int, param: str | None) -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        seen, error, _ = await post(relay, body)
        assert (seen, error["error"]["param"]) == (status, param)
        assert error["error"]["message"]


async def test_what_is_no_json_and_what_is_no_object_have_codes_of_their_own() -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        for body, code in (("{", "invalid_json"), ("[]", "invalid_type"), ('"{}"', "invalid_type")):
            _, error, _ = await post(relay, body)
            assert error["error"]["code"] == code


async def test_a_tickets_policy_holds_for_what_it_configures_and_for_the_session(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, access_policies=policies(tmp_path), **PUBLIC) as relay,
    ):
        _, secret, _ = await post(relay, '{"policy":"kiosk"}')
        bearer = {"Authorization": f"Bearer {secret['value']}"}
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws("/v1/realtime?model=other"), additional_headers=bearer)
        assert refused.value.response.status_code == 404
        async with connect(relay.ws("/v1/realtime?model=kiosk-model"), additional_headers=bearer) as connection:
            session = await upstream.accept()
            await session.emit({"type": "session.created", "session": {"type": "realtime"}})
            client = RealtimeClient(connection)
            await client.expect("session.created")
            await client.send(type="session.update", event_id="u", session={"type": "realtime", "model": "other"})
            error = await client.expect("error")
            assert (error["error"]["param"], error["error"]["event_id"]) == ("session.model", "u")


# -- single use: spent when a session is had, and not before ----------------------------------------------------------


async def single_use(relay: RunningRelay) -> str:
    _, secret, _ = await post(relay, json.dumps({"expires_after": {"seconds": 60}, "single_use": True}))
    return secret["value"]


@pytest.mark.parametrize("path", ["/ws", "/v1/realtime"])
async def test_a_secret_is_not_spent_by_a_relay_that_has_no_session_to_give(path: str) -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, limits_max_sessions=1, **PUBLIC) as relay:
        bearer = {"Authorization": f"Bearer {await single_use(relay)}"}
        async with connect(relay.ws("/ws"), additional_headers={"Authorization": f"Bearer {KEY}"}):
            await (await upstream.accept()).configure()
            with pytest.raises(InvalidStatus) as refused:
                await connect(relay.ws(path), additional_headers=bearer)
            assert refused.value.response.status_code == 503
        await relay.sessions.all_ended.wait()
        async with connect(relay.ws(path), additional_headers=bearer) as connection:
            session = await upstream.accept()
            if path == "/ws":
                await session.configure()
            else:
                await session.emit({"type": "session.created", "session": {"type": "realtime"}})
            assert await connection.recv()
        await relay.sessions.all_ended.wait()
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws(path), additional_headers=bearer)
        assert refused.value.response.status_code == 401


@pytest.mark.parametrize("path", ["/ws", "/v1/realtime"])
async def test_nor_by_an_upstream_that_is_not_there(path: str) -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        secret = await single_use(relay)
        page = {"Origin": "https://app.example.com", "Authorization": f"Bearer {secret}"}
        for _ in range(2):
            async with connect(relay.ws(path), additional_headers=page) as connection:
                assert "error" in str(await connection.recv())
            await relay.sessions.all_ended.wait()


async def test_one_secret_opens_one_session_however_many_try_at_once() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, **PUBLIC) as relay:
        bearer = {"Authorization": f"Bearer {await single_use(relay)}"}
        attempts = [connect(relay.ws("/ws"), additional_headers=bearer) for _ in range(8)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        opened = [result for result in results if not isinstance(result, BaseException)]
        assert len(opened) == 1
        assert {result.response.status_code for result in results if isinstance(result, InvalidStatus)} == {401}
        await opened[0].close()


async def test_a_used_secret_is_no_tool_for_other_routes() -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay, aiohttp.ClientSession() as http:
        bearer = {"Authorization": f"Bearer {await single_use(relay)}"}
        async with http.get(relay.http("/navai/functions"), headers=bearer) as answer:
            assert answer.status == 403
            assert "one session" in await answer.text()


# -- bounds of minting ------------------------------------------------------------------------------------------------


async def test_a_key_that_fills_its_share_is_told_so_and_no_other_key_notices() -> None:
    async with running_relay("ws://127.0.0.1:9/", limits_client_secrets_max_mb=0.1, **PUBLIC) as relay:
        body = json.dumps({"session": {"type": "realtime", "instructions": "x" * 40_000}})
        for _ in range(2):
            assert (await post(relay, body))[0] == 200
        status, error, headers = await post(relay, body)
        assert status == 429
        assert "RELAY_MINTED_MAX_MB" in error["error"]["message"]
        assert int(headers["Retry-After"]) > 0
        assert (await post(relay, body, KIOSK_KEY))[0] == 200
        assert (await post(relay, "{}"))[0] == 200


async def test_a_session_that_is_too_big_is_a_400() -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        status, error, _ = await post(
            relay, json.dumps({"session": {"type": "realtime", "instructions": "x" * 66_000}})
        )
        assert (status, error["error"]["param"]) == (400, "session")


async def test_a_body_that_is_nested_300_deep_is_a_400() -> None:
    async with running_relay("ws://127.0.0.1:9/", **PUBLIC) as relay:
        nested = '{"session":{"type":"realtime","tracing":' + '{"a":' * 300 + "1" + "}" * 300 + "}}"
        status, error, _ = await post(relay, nested)
        assert (status, error["error"]["param"]) == (400, "session")
