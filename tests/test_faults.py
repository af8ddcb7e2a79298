"""The relay's reaction to upstream faults over real sockets, as a table: the client's messages and freed resources.

Each row is one fault of `relay.testing.faults`. The conversation is always the same: a spoken turn and its answer, then
a second answer. A session that does not survive the fault must be freed, and the next one must work.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import websockets

from relay.session.device import responses
from relay.testing import FakeClock, ScriptedSession, ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry, tool
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay

AUDIO_DELTA = "response.output_audio.delta"
SPEECH = {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0}
TURN = ["AISpeechDetected", "AISpeechEnded"]
ANSWER = ["AIResponseStart", "textDelta", "audioStart", "binary", "audioEnd", "transcript", "usage", "AIResponseEnd"]
CUT = ["AIResponseStart", "textDelta", "audioStart", "binary"]


@dataclass
class Row:
    """A fault, the error code that the client receives, if any, and the messages of the first answer."""

    fault: str
    messages: list[str]
    code: str | None = None
    retryable: bool = True
    says: str = ""


HANDSHAKE = [
    Row("refuse", [], "upstream_unreachable", says="closed the connection during the handshake"),
    Row("401", [], "upstream_refused", retryable=False, says="the key is not accepted; check the key"),
    Row("403", [], "upstream_refused", retryable=False, says="may not use this model"),
    Row("429=3", [], "upstream_refused", says="too many requests or no quota"),
    Row("500", [], "upstream_refused", says="500: try again later"),
]
FATAL = [
    Row(f"drop=1001@{AUDIO_DELTA}", CUT, "upstream_closed", says="(1001); reconnect to continue"),
    Row(f"drop=1006@{AUDIO_DELTA}", CUT, "upstream_closed", says="(1006); reconnect to continue"),
    Row(f"drop=1011@{AUDIO_DELTA}", CUT, "upstream_closed", says="(1011); reconnect to continue"),
    Row(f"session_expired@{AUDIO_DELTA}", CUT, "session_expired", says="maximum duration"),
    Row("error=insufficient_quota@response.created", [], "upstream_refused", retryable=False, says="quota"),
]
SURVIVED = [
    Row("slow-accept=200", ANSWER),
    Row(f"stall=200@{AUDIO_DELTA}", ANSWER),
    Row("error=server_error@response.created", ANSWER, "upstream_error", says="server_error"),
    Row("malformed@response.created", ANSWER),
    Row("unknown-event@response.created", ANSWER),
    Row("late-done=200", ANSWER),
    Row("double-done", ANSWER),
    Row("two-items", [*ANSWER[:6], *ANSWER[1:]]),
    Row("wrong-order", ANSWER),
    Row("burst", ANSWER),
]


async def begin(client: DeviceClient, upstream: ScriptedUpstream) -> ScriptedSession:
    session = await upstream.accept()
    await session.configure()
    await client.expect("AIConnected")
    return session


async def user_turn(session: ScriptedSession) -> None:
    await session.emit(
        SPEECH,
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 20},
        {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
    )


def order(client: DeviceClient) -> list[str]:
    """Return the received messages in order, consecutive repetitions once, without those outside an answer."""
    kinds = [kind for kind in client.order if kind not in ("AIConnected", "latency", "error")]
    return [kind for kind, _ in itertools.groupby(kinds)]


async def next_session_works(relay: RunningRelay, upstream: ScriptedUpstream) -> None:
    async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
        session = await begin(client, upstream)
        await session.respond("Well again.")
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Well again."


async def all_freed(relay: RunningRelay) -> None:
    async with asyncio.timeout(5):
        await relay.sessions.all_ended.wait()


@asynccontextmanager
async def faulty_session(
    faults: str = "", tools: ToolRegistry | None = None
) -> AsyncIterator[tuple[DeviceClient, Any]]:
    """Yield a client of a relay, and its session as the upstream sees it."""
    async with (
        ScriptedUpstream(faults=faults) as upstream,
        running_relay(upstream.url, tools or ToolRegistry()) as relay,
        await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
    ):
        yield client, await begin(client, upstream)


@pytest.mark.parametrize("row", HANDSHAKE, ids=lambda row: row.fault)
async def test_handshake_faults(row: Row) -> None:
    async with (
        ScriptedUpstream(faults=f"{row.fault}#1") as upstream,
        running_relay(upstream.url, ToolRegistry()) as relay,
    ):
        async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
            error = await client.expect("error")
            assert (error["code"], error["retryable"]) == (row.code, row.retryable)
            assert row.says in error["message"]
            assert (await client.wait_closed())[0] == 1011
        await all_freed(relay)
        assert upstream.handshakes == 1
        await next_session_works(relay, upstream)


@pytest.mark.parametrize("row", FATAL, ids=lambda row: row.fault)
async def test_what_ends_the_session(row: Row) -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, ToolRegistry()) as relay:
        async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
            session = await begin(client, upstream)
            await user_turn(session)
            await session.misbehave(row.fault)
            await session.respond(ms=300)
            error = await client.expect("error")
            assert (error["code"], error["retryable"]) == (row.code, row.retryable)
            assert row.says in error["message"]
            assert (await client.wait_closed())[0] == 1011
            assert order(client) == [*TURN, *row.messages]
        await all_freed(relay)
        await next_session_works(relay, upstream)


@pytest.mark.parametrize("row", SURVIVED, ids=lambda row: row.fault)
async def test_what_the_session_survives(row: Row) -> None:
    async with ScriptedUpstream(faults=row.fault) as upstream, running_relay(upstream.url, ToolRegistry()) as relay:
        async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
            session = await begin(client, upstream)
            await user_turn(session)
            await session.respond("First.", ms=300)
            if row.code:
                error = await client.expect("error")
                assert (error["code"], error["retryable"]) == (row.code, row.retryable)
                assert row.says in error["message"]
            await client.expect("AIResponseEnd")
            await session.respond("Second.", ms=100, response_id="resp_2", item_id="item_2")
            assert (await client.expect("AIResponseEnd"))["finalText"] == "Second."
            assert order(client) == [*TURN, *row.messages, *ANSWER]
            assert len([message for message in client.messages if message["type"] == "error"]) == bool(row.code)
        await all_freed(relay)


async def test_an_answer_without_an_end_makes_room_for_the_next() -> None:
    async with faulty_session("no-done") as (client, session):
        await session.respond("First.", ms=100)
        await session.respond("Second.", ms=100, response_id="resp_2", item_id="item_2")
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Second."
        assert order(client) == [*ANSWER[:6], *ANSWER]


async def test_an_upstream_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "STALL_TIMEOUT_S", 0.3)
    async with faulty_session() as (client, session):
        await session.misbehave(f"stall@{AUDIO_DELTA}")
        await session.respond("Never mind.", ms=300)
        error = await client.expect("error")
        assert (error["code"], error["retryable"]) == ("upstream_stalled", True)
        assert (await client.expect("AIResponseEnd"))["status"] == "failed"
        await session.expect("response.cancel")


async def test_a_call_that_comes_twice_runs_once() -> None:
    runs: list[str] = []

    @tool
    async def note() -> str:
        """Write something down."""
        runs.append("note")
        return "noted"

    registry = ToolRegistry([Tool.from_function(note)])
    async with faulty_session("duplicate-calls", registry) as (client, session):
        await session.call(("call_1", "note", {}))
        await session.expect("conversation.item.create")
        await session.expect("response.create")
        await session.respond("Noted.", response_id="resp_2")
        await client.expect("AIResponseEnd")
        assert session.types().count("conversation.item.create") == 1
        assert runs == ["note"]


async def test_arguments_for_a_cancelled_answer_start_nothing() -> None:
    async with faulty_session("late-arguments") as (client, session):
        await session.respond("A long answer.", ms=1000, finish=False)
        await client.expect("audioStart")
        await session.emit(SPEECH)
        await client.expect("interrupted")
        await session.done("resp_1", [], status="cancelled")
        await session.respond("Second.", response_id="resp_2", item_id="item_2")
        assert (await client.expect("AIResponseEnd"))["status"] == "cancelled"
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Second."
        assert "conversation.item.create" not in session.types()


async def test_a_client_of_the_wire_sees_the_same_faults() -> None:
    clock = FakeClock()
    async with ScriptedUpstream(faults="429=2#1, late-done=5000", clock=clock) as upstream:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(upstream.url)
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "2"
        async with websockets.connect(upstream.url) as client:
            session = await upstream.accept()
            await session.respond(ms=0)
            await session.emit({"type": "rate_limits.updated", "rate_limits": []})
            kinds = [(await receive(client))["type"] for _ in range(7)]
            assert "response.done" not in kinds
            assert kinds[-1] == "rate_limits.updated"
            clock.advance(5)
            assert (await receive(client))["type"] == "response.done"
            await session.misbehave("drop=1011")
            with pytest.raises(websockets.ConnectionClosedError):
                await client.recv()
            assert client.close_code == 1011


async def receive(client: websockets.ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        event: dict[str, Any] = json.loads(await client.recv())
        return event
