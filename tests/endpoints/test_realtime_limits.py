"""What a Realtime client may take, over real sockets: it is read more slowly, and nobody else notices."""

import asyncio
import base64
import json
from typing import Any

import pytest

from relay.session.common import read_allowance
from relay.testing import ScriptedUpstream
from relay.transport.read_budget import ReadBudget
from tests.endpoints.test_realtime import ready
from tests.support.raw_websocket import RawClient, masked, text, upgrade_request
from tests.support.realtime_client import realtime_client, relayed_session
from tests.support.relay_server import RunningRelay, running_relay
from tests.transport.test_upgrade import until

APPEND = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(960)).decode()}


async def raw_session(relay: RunningRelay, upstream: ScriptedUpstream) -> tuple[RawClient, Any]:
    """A client on which every byte is the test's own, and its upstream."""
    client = await RawClient.open(relay.port)
    client.writer.write(upgrade_request("/v1/realtime"))
    session = await upstream.accept()
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    await session.emit({"type": "session.created", "session": {"type": "realtime"}})
    assert json.loads((await client.frame())[1])["type"] == "session.created"
    return client, session


async def test_events_that_come_too_fast_are_read_at_their_rate_and_none_is_lost(monkeypatch) -> None:
    monkeypatch.setattr(read_allowance, "REALTIME_EVENT_CREDIT", 50.0)
    monkeypatch.setattr(read_allowance, "REALTIME_EVENTS_PER_S", 100.0)
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(120):
            await client.send(type="conversation.item.delete", item_id=f"item_{number}")
        seen = [(await upstream.expect("conversation.item.delete"))["item_id"] for _ in range(120)]
        assert seen == [f"item_{number}" for number in range(120)]
        assert loop.time() - began_s > 0.4, "120 at 100 a second, and 50 for nothing; some are read ahead"
        assert (await client.expect("error"))["error"]["code"] == "too_fast"


SHAPES = {
    "as JavaScript writes it": '{"type":"input_audio_buffer.append","audio":"%s"}',
    "with an id behind it": '{"type":"input_audio_buffer.append","audio":"%s","event_id":"e"}',
    "with blanks": '{"audio": "%s", "type": "input_audio_buffer.append"}',
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
async def test_audio_that_comes_too_fast_is_read_at_its_rate_and_none_is_lost(shape: str, monkeypatch) -> None:
    monkeypatch.setattr(read_allowance, "REALTIME_CREDIT_BYTES", 50_000)
    monkeypatch.setattr(read_allowance, "REALTIME_BYTES_PER_S", 200_000)
    monkeypatch.setattr(read_allowance, "REALTIME_EVENT_CREDIT", 10.0)
    monkeypatch.setattr(read_allowance, "REALTIME_EVENTS_PER_S", 0.001)
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(60):  # each counts as 3,333 bytes
            await client.connection.send(shape % APPEND["audio"])
        await upstream.expect_audio(60 * 960)
        assert loop.time() - began_s > 0.4, "60 at 60 a second, and 15 for nothing; some are read ahead"
        assert (await client.expect("error"))["error"]["code"] == "too_fast"


async def test_an_event_of_many_members_counts_as_many_events(monkeypatch) -> None:
    monkeypatch.setattr(read_allowance, "REALTIME_EVENT_CREDIT", 60.0)
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(2):
            tools = [{"type": "function", "name": f"f{number}", "parameters": {"enum": list(range(1000))}}]
            await client.send(type="session.update", session={"type": "realtime", "tools": tools})
            await upstream.expect("session.update")
        await client.send(type="input_audio_buffer.clear")
        await upstream.expect("input_audio_buffer.clear")
        assert loop.time() - began_s > 0.3, "2,000 members are 80 events, 20 more than there are for nothing"


async def test_an_event_of_too_many_members_is_refused_and_the_session_goes_on() -> None:
    async with relayed_session() as (client, upstream, _):
        await ready(client, upstream)
        await client.send(type="response.create", response={"input": [{}] * 190_000})
        error = (await client.expect("error"))["error"]
        assert error["code"] == "too_many_members"
        assert "at most 10000 members" in error["message"]
        await client.send(type="input_audio_buffer.clear")
        await upstream.expect("input_audio_buffer.clear")


async def test_an_idle_session_ends_with_its_own_code() -> None:
    async with relayed_session(limits_max_idle_s=0.2) as (client, upstream, _):
        await ready(client, upstream)
        assert (await client.expect("error"))["error"]["code"] == "session_idle"
        await client.until_closed()
        assert client.connection.close_code == 4002


async def test_a_session_ends_at_its_longest_whatever_it_does() -> None:
    async with relayed_session(limits_max_duration_s=0.3) as (client, upstream, _):
        await ready(client, upstream)

        async def talk() -> None:
            while True:
                await client.send(**APPEND)
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        assert (await client.expect("error"))["error"]["code"] == "session_limit"
        await client.until_closed()
        assert client.connection.close_code == 4002
        await asyncio.gather(talking, return_exceptions=True)


async def test_an_unfinished_message_gives_way_to_one_that_waits_for_its_room() -> None:
    long = text(json.dumps({"type": "conversation.item.delete", "item_id": "i" * 400_000}))
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        relay.sessions.read_budget = ReadBudget(max_bytes=300_000, stall_timeout_s=0.2)
        hostile, _ = await raw_session(relay, upstream)
        honest, session = await raw_session(relay, upstream)
        hostile.send(masked(long)[:-1])
        await until(lambda: relay.sessions.read_budget.reserved_bytes > 0)
        honest.send(masked(long))
        await session.expect("conversation.item.delete")
        assert json.loads((await hostile.frame())[1])["error"]["code"] == "message_too_slow"
        assert await hostile.close_code() == 1013
        for client in (hostile, honest):
            await client.close()
        async with asyncio.timeout(5):
            await relay.sessions.all_ended.wait()
        assert relay.sessions.read_budget.reserved_bytes == 0


async def test_audio_and_small_events_go_on_while_there_is_no_room_for_long_messages() -> None:
    long = text(json.dumps({"type": "x", "pad": "i" * 400_000}))
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        relay.sessions.read_budget = ReadBudget(max_bytes=100_000, stall_timeout_s=60)
        hostile, _ = await raw_session(relay, upstream)
        hostile.send(masked(long)[:-1])
        async with realtime_client(relay) as client:
            session = await upstream.accept()
            await ready(client, session)
            await client.send(**APPEND)
            await client.send(type="input_audio_buffer.clear")
            await session.expect_audio(960)
            await session.expect("input_audio_buffer.clear")
        await hostile.close()


@pytest.mark.parametrize("n_bytes", [100_000, 400_000])
async def test_a_long_message_passes_whole(n_bytes: int) -> None:
    async with relayed_session() as (client, upstream, relay):
        await ready(client, upstream)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "é" * (n_bytes // 2)}]}
        event = {"type": "conversation.item.create", "item": item}
        await client.connection.send(json.dumps(event, ensure_ascii=False))
        seen = await upstream.expect("conversation.item.create")
        assert seen["item"]["content"][0]["text"] == "é" * (n_bytes // 2)
        await upstream.emit({"type": "conversation.item.retrieved", "event_id": "e", "item": seen["item"]})
        assert (await client.expect("conversation.item.retrieved"))["item"] == seen["item"]
        assert relay.sessions.read_budget.reserved_bytes == 0
