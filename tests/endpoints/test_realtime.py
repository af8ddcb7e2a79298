"""The Realtime front door over real sockets: a client, the relay, and an upstream that says what the test wants."""

import asyncio
import base64
import contextlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from relay import ToolContext, tool
from relay.app.context import AUTHENTICATOR, reload_access
from relay.app.session_limiter import SessionLimiter
from relay.auth.keyring import Keyring
from relay.config import AccessSettings, Settings
from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.realtime_client import RealtimeClient, realtime_client, relayed_session, tool_registry
from tests.support.relay_server import running_relay

KEY = "relay-key-0123456789abcdef"
PCM = bytes(range(256)) * 4


@tool
def clock() -> dict[str, str]:
    """Tells the time."""
    return {"time": "noon"}


TOOLS = tool_registry(clock)


async def ready(client: RealtimeClient, upstream: Any, **session: Any) -> None:
    await upstream.emit({"type": "session.created", "session": {"type": "realtime", "model": "scripted"} | session})
    await client.expect("session.created")


# -- frames -----------------------------------------------------------------------------------------------------------


async def test_frames_that_no_rule_touches_pass_byte_for_byte_in_both_directions() -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        down = [
            '{"type":"response.output_audio.delta","event_id":"e","delta":"AAAA",  "response_id":"r","item_id":"i"}',
            '{ "event_id":"x", "type" : "brand.new" , "n" : 1e3, "ü":"\\u00fc"}',
            '{"type":"rate_limits.updated","event_id":"e2","rate_limits":[]}',
        ]
        for text in down:
            await upstream.emit_raw(text)
        for text in down:
            assert await client.connection.recv() == text
        audio = base64.b64encode(PCM).decode()
        up = [
            f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}',
            f'{{ "type": "input_audio_buffer.append", "event_id": "a.1-b_2:c", "audio": "{audio}" }}',
            '{"type":"input_audio_buffer.commit","event_id":"k"}',
        ]
        for text in up:
            await client.connection.send(text)
        await upstream.expect("input_audio_buffer.commit")
        assert await upstream.expect_audio(2 * len(PCM)) == 2 * PCM


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"input_audio_buffer.append","audio":"AAAA","type":"session.update","session":{"instructions":"x"}}',
        '{"type":"input_audio_buffer.append","audio":"AAAA","audio":"BBBB"}',
        '{"type":"input_audio_buffer.append","audio":"AAAA","x":{"type":"session.update"}}',
        '{"type":"input_audio_buffer.append","event_id":"a","event_id":"relay_1","audio":"AAAA"}',
        '{"type":"input_audio_buffer.append","audio":"AAAA\\"},{\\""}',
        '{"audio":"AAAA","type":"input_audio_buffer.append"}',
    ],
)
async def test_what_hides_behind_an_append_is_read_and_written_anew(frame: str) -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        await client.connection.send(frame)
        await client.send(type="input_audio_buffer.commit")
        await upstream.expect("input_audio_buffer.commit")
        last_wins = json.loads(frame)
        got = [event for event in upstream.seen if event["type"] != "input_audio_buffer.commit"]
        if last_wins["type"] == "session.update":
            assert [event["type"] for event in got] == ["session.update"]
        else:
            assert got == []


async def test_hostile_frames_are_told_and_cost_nothing_else() -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        hostile = [
            "{",
            "[]",
            "7",
            '{"type":7}',
            "[" * 5000,
            '{"type":"x","a":' + "[" * 500 + "]" * 500 + "}",
            '{"a":NaN}',
        ]
        for frame in hostile:
            await client.connection.send(frame)
        await client.connection.send(b"\x00\x01")
        for _ in range(len(hostile) + 1):
            assert (await client.next())["error"]["type"] == "invalid_request_error"
        await client.connection.send('{"type":"brand.new","n":123456789012345678901234567890,"f":1e999999}')
        error = await client.next()
        assert error["type"] == "error"


async def test_faults_without_end_are_ended() -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        for _ in range(12):
            await client.connection.send("{")
        await client.until_closed()
        assert client.connection.close_code == 1008


async def test_messages_that_are_too_big_or_no_text_are_closed_with_their_codes() -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        with contextlib.suppress(ConnectionClosed):
            await client.connection.send("x" * (16 * 1024 * 1024 + 1))
        await client.connection.wait_closed()
        assert client.connection.close_code == 1009
    async with relayed_session() as (client, upstream, _):
        await client.connection.send([b"\xff"], text=True)
        await client.connection.wait_closed()
        assert client.connection.close_code == 1007


# -- tools ------------------------------------------------------------------------------------------------------------


async def test_a_server_tool_runs_unseen() -> None:
    async with relayed_session(tools=TOOLS) as (client, upstream, _):
        await upstream.configure()
        await client.expect("session.created")
        await client.send(type="response.create", event_id="mine", response={"metadata": {"a": "b"}})
        create = await upstream.expect("response.create")
        assert (create["event_id"], create["response"]["metadata"]) == ("mine", {"a": "b"})
        await upstream.call(("call_1", "clock", {}))
        output = await upstream.expect("conversation.item.create")
        assert json.loads(output["item"]["output"]) == {"time": "noon"}
        follow_up = await upstream.expect("response.create")
        assert "response" not in follow_up
        await upstream.respond("It is noon.", response_id="resp_2", item_id="item_2")
        await client.expect("response.done")
        await client.expect("response.done")
        assert "call_1" not in json.dumps(client.seen)
        assert "clock" not in json.dumps(client.seen)


async def test_a_tool_ends_the_session_after_the_answer() -> None:
    @tool
    def hang_up(context: ToolContext) -> str:
        """Ends the call."""
        context.end_session("the user said goodbye")
        return "bye"

    async with relayed_session(tools=tool_registry(hang_up)) as (client, upstream, _):
        await upstream.configure()
        await client.expect("session.created")
        await upstream.call(("call_1", "hang_up", {}))
        await upstream.expect("response.create")
        await upstream.respond("Goodbye.", response_id="resp_2", item_id="item_2")
        await client.until_closed()
        assert client.seen[-1]["type"] == "response.done"
        assert (client.connection.close_code, client.connection.close_reason) == (1000, "the user said goodbye")


async def test_an_interruption_ends_the_calls_that_are_made_for_it() -> None:
    @tool(cancel_on_interrupt=True)
    async def wait() -> str:
        """Waits for ever."""
        await asyncio.Event().wait()
        return ""

    async with relayed_session(tools=tool_registry(wait)) as (client, upstream, _):
        await upstream.configure()
        await client.expect("session.created")
        await upstream.call(("call_1", "wait", {}))
        await upstream.emit({"type": "input_audio_buffer.speech_started", "item_id": "u", "audio_start_ms": 0})
        output = await upstream.expect("conversation.item.create")
        assert json.loads(output["item"]["output"])["error"] == "cancelled"


# -- ways in ----------------------------------------------------------------------------------------------------------


async def test_a_page_brings_its_key_in_a_subprotocol_which_is_never_echoed() -> None:
    offers = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-agents-sdk.0.20.0"]
    async with relayed_session(subprotocols=offers, server_host="0.0.0.0", access_api_keys=(KEY,)) as (
        client,
        upstream,
        _,
    ):
        assert client.connection.subprotocol == "realtime"
        assert KEY not in str(client.connection.response)
        await ready(client, upstream)


@pytest.mark.parametrize(
    ("path", "dialled"),
    [
        ("/v1/realtime?model=gpt-realtime-2.1", "model=gpt-realtime-2.1"),
        ("/openai/v1/realtime?model=my-deployment", "model=my-deployment"),
        ("/openai/realtime?api-version=2025-04-01-preview&deployment=my-deployment", "model=my-deployment"),
        ("/v1/realtime", "model=gpt-realtime"),
    ],
)
async def test_the_model_of_the_url_is_dialled(path: str, dialled: str) -> None:
    async with relayed_session(path=path) as (_, upstream, _relay):
        assert upstream.connection.request.path == f"/v1/realtime?{dialled}"


async def http_answer(url: str, **options: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.request(options.pop("method", "GET"), url, **options) as answer:
        return answer.status, await answer.json()


UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "upgrade"),
    [
        ("GET", "/v1/realtime?call_id=rtc_1", True),
        ("GET", "/v1/realtime?intent=transcription", True),
        ("GET", "/v1/realtime/translations?model=m", True),
        ("POST", "/v1/realtime/calls", False),
        ("POST", "/v1/realtime/translations/client_secrets", False),
    ],
)
async def test_what_is_not_there_yet_is_a_clear_501(method: str, path: str, upgrade: bool) -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        headers = UPGRADE if upgrade else {}
        status, body = await http_answer(relay.http(path), method=method, headers=headers)
        assert (status, body["error"]["code"]) == (501, "not_implemented")
        assert body["error"]["message"]


async def test_a_plain_request_is_told_to_upgrade() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        status, body = await http_answer(relay.http("/v1/realtime"))
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")


# -- refusals and ends ------------------------------------------------------------------------------------------------


def refusing(status: int) -> Any:
    return lambda connection, request: Response(status, HTTPStatus(status).phrase, Headers(), b"key sk-secret-1234567")


@pytest.mark.parametrize(("upstream_says", "client_sees"), [(401, 502), (403, 502), (404, 404), (429, 429), (503, 503)])
async def test_a_refused_dial_is_an_http_status(upstream_says: int, client_sees: int) -> None:
    async with ScriptedUpstream(refuse=refusing(upstream_says)) as upstream, running_relay(upstream.url) as relay:
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws("/v1/realtime"))
        assert refused.value.response.status_code == client_sees
        error = json.loads(refused.value.response.body)["error"]
        assert error["code"] == "upstream_refused"
        assert "sk-secret" not in error["message"]
        assert relay.sessions.active == {}


async def test_a_page_is_accepted_and_told() -> None:
    async with (
        ScriptedUpstream(refuse=refusing(401)) as upstream,
        running_relay(upstream.url) as relay,
        realtime_client(relay, origin="http://localhost:3000", subprotocols=["realtime"]) as client,
    ):
        error = await client.next()
        assert error["error"]["code"] == "upstream_refused"
        await client.connection.wait_closed()
        assert client.connection.close_code == 1011


async def test_an_upstream_that_cannot_be_reached_is_a_504() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws("/v1/realtime"))
        assert refused.value.response.status_code == 504


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (1008, 1008), (3000, 3000), (1011, 1011)])
async def test_the_upstreams_end_is_the_clients(code: int, seen: int) -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        await upstream.emit(
            {"type": "error", "error": {"type": "x", "code": "session_expired", "message": "60 minutes"}}
        )
        await upstream.close(code, "Your session hit the maximum duration of 60 minutes.")
        assert (await client.expect("error"))["error"]["code"] == "session_expired"
        await client.connection.wait_closed()
        assert client.connection.close_code == seen
        assert "60 minutes" in client.connection.close_reason


async def test_a_client_that_leaves_frees_everything_within_two_seconds() -> None:
    stopped = asyncio.Event()

    @tool
    async def slow() -> str:
        """Takes its time."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async with relayed_session(tools=tool_registry(slow)) as (client, upstream, relay):
        await upstream.configure()
        await client.expect("session.created")
        await upstream.call(("call_1", "slow", {}))
        await client.expect("response.done")
        client.connection.transport.abort()
        async with asyncio.timeout(2):
            await upstream.closed.wait()
            await stopped.wait()
            await relay.sessions.all_ended.wait()


async def test_a_client_that_leaves_during_the_dial_is_noticed() -> None:
    gate, dialled = asyncio.Event(), asyncio.Event()

    async def slow(connection: Any, request: Any) -> None:
        dialled.set()
        await gate.wait()

    async with ScriptedUpstream(refuse=slow) as upstream, running_relay(upstream.url) as relay:  # type: ignore[arg-type]
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        writer.write(f"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        await dialled.wait()
        writer.transport.abort()
        async with asyncio.timeout(2):
            await relay.sessions.all_ended.wait()
        gate.set()


@pytest.mark.parametrize("path", ["/v1/realtime", "/ws"])
async def test_a_key_that_is_revoked_while_its_session_waits_for_its_turn_opens_none(path: str, monkeypatch) -> None:
    turn = SessionLimiter.wait_session_turn
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, access_api_keys=(KEY,)) as relay:

        async def revoked_meanwhile(door: SessionLimiter) -> None:
            await turn(door)
            relay.app[AUTHENTICATOR].keys = Keyring()

        monkeypatch.setattr(SessionLimiter, "wait_session_turn", revoked_meanwhile)
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws(path), additional_headers={"Authorization": f"Bearer {KEY}"})
        assert refused.value.response.status_code == 401
        assert not relay.sessions.active
    assert upstream.handshakes == 0


@pytest.mark.parametrize(("ends_by", "status"), [("key", 401), ("shutdown", 503)])
async def test_a_session_that_ends_during_the_dial_is_not_accepted_after_it(
    ends_by: str, status: int, monkeypatch
) -> None:
    monkeypatch.setattr("relay.app.sessions.DRAIN_TIMEOUT_S", 0.1)
    gate, dialled = asyncio.Event(), asyncio.Event()

    async def slow(connection: Any, request: Any) -> None:
        dialled.set()
        await gate.wait()

    async with (
        ScriptedUpstream(refuse=slow) as upstream,  # type: ignore[arg-type]
        running_relay(upstream.url, access_api_keys=(KEY,)) as relay,
    ):

        async def connecting() -> None:
            await connect(relay.ws("/v1/realtime"), additional_headers={"Authorization": f"Bearer {KEY}"})

        client = asyncio.create_task(connecting())
        await dialled.wait()
        if ends_by == "key":
            monkeypatch.setattr(Settings, "reread", lambda own: own.model_copy(update={"access": AccessSettings()}))
            reload_access(relay.app)
        else:
            await relay.sessions.drain()
        gate.set()
        with pytest.raises(InvalidStatus) as refused:
            await client
        assert refused.value.response.status_code == status
        session = await upstream.accept()
        async with asyncio.timeout(2):
            await session.closed.wait()
        assert not relay.sessions.active


async def test_shutting_down_says_goodbye_with_1001() -> None:
    async with relayed_session() as (client, upstream, relay):
        await ready(client, upstream)
        await relay.sessions.drain()
        await client.connection.wait_closed()
        assert client.connection.close_code == 1001
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws("/v1/realtime"))
        assert refused.value.response.status_code == 503


async def emit_for_ever(upstream: ScriptedSession, text: str) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await upstream.emit_raw(text)


async def test_a_client_that_does_not_read_holds_the_upstream_back_and_is_then_cut(monkeypatch) -> None:
    monkeypatch.setattr("relay.runtime.timers.MAX_STALL_S", 0.3)
    async with relayed_session() as (client, upstream, relay):
        await ready(client, upstream)
        client.connection.transport.pause_reading()
        delta = '{"type":"response.output_audio.delta","event_id":"e","delta":"' + "A" * 60_000 + '"}'
        [live] = relay.sessions.active.values()
        talking = asyncio.create_task(emit_for_ever(upstream, delta))
        async with asyncio.timeout(5):
            await relay.sessions.all_ended.wait()
        assert live.client.unsent_bytes < 4 * 1024 * 1024
        talking.cancel()
        client.connection.transport.abort()


# -- policy -----------------------------------------------------------------------------------------------------------


def policy_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    return path


async def test_a_policy_of_a_file_is_in_force(tmp_path: Path) -> None:
    path = policy_file(
        tmp_path,
        '[policies.default]\ninstructions = "Be the museum."\nmodels = ["gpt-realtime*"]\nmax_output_tokens = 100\n',
    )
    async with relayed_session(path="/v1/realtime?model=gpt-realtime-2.1", access_policies=path) as (
        client,
        upstream,
        relay,
    ):
        update = await upstream.configure()
        assert update["session"] == {"type": "realtime", "instructions": "Be the museum.", "max_output_tokens": 100}
        created = await client.expect("session.created")
        assert "museum" not in json.dumps(created)
        await client.send(type="response.create", event_id="r", response={"max_output_tokens": "inf"})
        assert (await upstream.expect("response.create"))["response"]["max_output_tokens"] == 100
        with pytest.raises(InvalidStatus) as refused:
            await connect(relay.ws("/v1/realtime?model=gpt-expensive"))
        assert refused.value.response.status_code == 404
        assert json.loads(refused.value.response.body)["error"]["code"] == "model_not_found"
