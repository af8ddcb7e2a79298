"""What a device client may take of the relay, over real sockets: each bound with what happens at it."""

import asyncio
import json

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from relay.session.common import read_allowance
from relay.testing import ScriptedUpstream
from tests.support.raw_websocket import RawClient
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as scripted:
        yield scripted


async def connected(relay: RunningRelay, upstream: ScriptedUpstream, path: str = "/?rate=24000"):
    client = await DeviceClient.connect(relay.ws(path))
    session = await upstream.accept()
    await session.configure()
    await client.expect("AIConnected")
    return client, session


async def test_audio_that_comes_too_fast_is_read_more_slowly_and_none_is_lost(upstream, monkeypatch) -> None:
    monkeypatch.setattr(read_allowance, "AUDIO_CREDIT_S", 1.0)
    monkeypatch.setattr(read_allowance, "AUDIO_RATE", 8.0)
    loop = asyncio.get_running_loop()
    async with running_relay(upstream.url) as relay:
        client, session = await connected(relay, upstream)
        async with client:
            begun = loop.time()
            pcm = bytes(range(256)) * (24 * 9 * 1000 // 128)  # nine seconds
            for start in range(0, len(pcm), 48_000):
                await client.speak(pcm[start : start + 48_000])
            told = await client.expect("error")
            assert (told["code"], told["retryable"]) == ("too_fast", False)
            assert await session.expect_audio(len(pcm)) == pcm
            assert loop.time() - begun > 0.5, "seven seconds more than at once allowed, at eight times real time"
            assert [message["type"] for message in client.messages].count("error") == 1


async def test_messages_that_come_too_fast_are_read_more_slowly_and_none_is_lost(upstream, monkeypatch) -> None:
    monkeypatch.setattr(read_allowance, "MESSAGE_CREDIT", 20.0)
    async with running_relay(upstream.url) as relay:
        client, session = await connected(relay, upstream)
        async with client:
            for _ in range(40):
                await client.send(type="clear")
            assert (await client.expect("error"))["code"] == "too_fast"
            for _ in range(40):
                await session.expect("input_audio_buffer.clear")


async def test_pings_without_end_are_read_more_slowly_and_their_answers_fill_no_memory(upstream, monkeypatch) -> None:
    async with running_relay(upstream.url) as relay:
        client, _ = await connected(relay, upstream)
        async with client:
            client.connection.transport.pause_reading()
            live = next(iter(relay.sessions.active.values()))
            ping = Frame(Opcode.PING, bytes(125)).serialize(mask=True)
            for _ in range(200):
                client.connection.transport.write(ping * 100)
                await asyncio.sleep(0)
            assert live.client.unsent_bytes < 1024 * 1024
            client.connection.transport.resume_reading()
            assert (await client.expect("error"))["code"] == "too_fast", "the relay reads no more for now"
            client.connection.transport.abort()


async def test_a_client_that_floods_and_leaves_is_gone_before_all_it_sent_is_read(upstream) -> None:
    async with running_relay(upstream.url) as relay:
        client, session = await connected(relay, upstream)
        ping = Frame(Opcode.PING, b"").serialize(mask=True)
        client.connection.transport.write(ping * 5000)  # at 50 a second: a minute and a half
        assert (await client.expect("error"))["code"] == "too_fast"
        client.connection.transport.close()
        async with asyncio.timeout(10):
            await session.closed.wait()
            await relay.sessions.all_ended.wait()
        await client.wait_closed()


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"])
async def test_who_never_asks_for_anything_to_the_end_is_cut_off(upstream, head: bytes) -> None:
    async with running_relay(upstream.url, keepalive_timeout_s=0.5, request_timeout_s=0.5) as relay:
        client = await RawClient.open(relay.port)
        dripping = asyncio.create_task(drip(client, head))
        await client.wait_closed()
        dripping.cancel()
        await client.close()


async def drip(client: RawClient, head: bytes) -> None:
    """One byte now and then, for ever."""
    client.writer.write(head)
    while head:
        await asyncio.sleep(0.05)
        client.writer.write(b"x")


async def test_a_page_that_finds_no_room_is_told_why(upstream) -> None:
    async with running_relay(upstream.url, limits_max_sessions=1) as relay:
        client, _ = await connected(relay, upstream)
        async with client:
            origin = f"http://127.0.0.1:{relay.port}"
            page = await DeviceClient.connect(relay.ws(), origin=origin)
            told = await page.expect("error")
            assert (told["code"], told["retryable"]) == ("full", True)
            code, reason = await page.wait_closed()
            assert code == 1013
            assert "RELAY_MAX_SESSIONS" in (reason or "")


async def refusal(url: str, **headers: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=headers)
    return refused.value


async def test_one_address_may_not_take_all_places(upstream) -> None:
    key = {"Authorization": f"Bearer {'k' * 16}"}
    forwarded = key | {"X-Forwarded-For": "203.0.113.7"}
    options = {"limits_max_sessions_per_address": 1, "access_proxies": ("127.0.0.0/8",), "access_api_keys": ("k" * 16,)}
    async with (
        running_relay(upstream.url, **options) as relay,
        await DeviceClient.connect(relay.ws(), additional_headers=forwarded),
    ):
        refused = await refusal(relay.ws(), **forwarded)
        assert refused.response.status_code == 503
        assert b"RELAY_MAX_SESSIONS_PER_ADDRESS" in refused.response.body
        chained = key | {"X-Forwarded-For": "203.0.113.7, 203.0.113.8, 127.0.0.2"}
        async with await DeviceClient.connect(relay.ws(), additional_headers=chained):
            assert len(relay.sessions.active) == 2, "the last hop that is no proxy of ours is the address"


async def test_without_trusted_proxies_what_they_say_is_nobodys_address(upstream) -> None:
    async with (
        running_relay(upstream.url, limits_max_sessions_per_address=1, access_api_keys=("k" * 16,)) as relay,
        await DeviceClient.connect(relay.ws()),
    ):
        refused = await refusal(relay.ws(), **{"X-Forwarded-For": "203.0.113.9", "api-key": "k" * 16})
        assert refused.response.status_code == 503


async def test_who_knocks_too_often_is_told_how_long_to_wait(upstream) -> None:
    async with running_relay(upstream.url, limits_max_handshakes_per_minute=2, access_api_keys=("k" * 16,)) as relay:
        for _ in range(2):
            assert (await refusal(relay.ws(), Authorization="Bearer wrong")).response.status_code == 401
        refused = await refusal(relay.ws(), Authorization="Bearer wrong")
        assert refused.response.status_code == 429
        assert 0 < int(refused.response.headers["Retry-After"]) <= 31
        async with aiohttp.ClientSession() as http, http.get(relay.http("/healthz")) as answer:
            assert answer.status == 200, "only handshakes are counted"


@pytest.mark.parametrize(("limit", "code"), [("limits_max_idle_s", "idle"), ("limits_max_duration_s", "limit_reached")])
async def test_a_session_that_is_quiet_or_lasts_too_long_ends_with_4002(upstream, limit: str, code: str) -> None:
    async with running_relay(upstream.url, **{limit: 0.3}) as relay:
        client, session = await connected(relay, upstream)
        async with client:
            told = await client.expect("error")
            assert (told["code"], told["retryable"]) == (code, True)
            assert (await client.wait_closed())[0] == 4002
            async with asyncio.timeout(2):
                await session.closed.wait()


async def test_a_client_that_has_vanished_frees_its_upstream(upstream) -> None:
    async with running_relay(upstream.url, limits_ping_interval_s=0.3, limits_pong_timeout_s=0.3) as relay:
        client, session = await connected(relay, upstream)
        client.connection.transport.pause_reading()  # it is there for the kernel, and for nobody else
        async with asyncio.timeout(0.6 + 2):
            await session.closed.wait()
        async with asyncio.timeout(2):
            await relay.sessions.all_ended.wait()
        client.connection.transport.abort()
        await client.wait_closed()


async def test_a_client_that_answers_pings_may_be_quiet(upstream) -> None:
    async with running_relay(upstream.url, limits_ping_interval_s=0.2, limits_pong_timeout_s=0.2) as relay:
        client, session = await connected(relay, upstream)
        async with client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await session.closed.wait()


async def test_a_tool_of_the_clients_is_called_and_answers(upstream) -> None:
    async with running_relay(upstream.url) as relay:
        client = await DeviceClient.connect(relay.ws())
        async with client:
            door = {"name": "open_door", "description": "Open the door.", "timeoutMs": 5000}
            await client.send(type="hello", tools=[door])
            session = await upstream.accept()
            update = await session.configure()
            if not update["session"].get("tools"):  # the hello came after the first configuration
                update = await session.expect("session.update")
                await session.emit({"type": "session.updated", "session": update["session"]})
            [tool] = update["session"]["tools"]
            assert tool == {
                "type": "function",
                "name": "open_door",
                "description": "Open the door.",
                "parameters": {"type": "object", "properties": {}},
            }
            assert (await client.expect("ready"))["tools"] == ["open_door"]
            await session.call(("call_1", "open_door", {"wide": True}))
            call = await client.expect("toolCall")
            assert (call["name"], call["arguments"], call["timeoutMs"]) == ("open_door", {"wide": True}, 5000)
            await client.send(type="toolResult", callId=call["callId"], output={"open": True})
            item = (await session.expect("conversation.item.create"))["item"]
            assert (item["call_id"], json.loads(item["output"])) == ("call_1", {"open": True})
            await session.expect("response.create")


@pytest.mark.parametrize("ending", ["cut off", "no code", 1000, 1001, 1012, 4999])
async def test_however_the_model_hangs_up_the_client_is_told_and_closed_with_1011(upstream, ending) -> None:
    async with running_relay(upstream.url) as relay:
        client, session = await connected(relay, upstream)
        async with client:
            if ending == "cut off":
                session.connection.transport.abort()
            elif ending == "no code":
                session.connection.transport.write(Frame(Opcode.CLOSE, b"").serialize(mask=False))
            else:
                await session.close(ending, "sk-abcdefghijklmnopqrstuvwxyz " + "ä" * 40)
            told = await client.expect("error")
            assert (told["code"], told["retryable"]) == ("upstream_closed", True)
            assert "sk-abc" not in told["message"]
            code, reason = await client.wait_closed()
            assert code == 1011, "1005, 1006 and 1015 never reach a wire"
            assert 0 < len((reason or "").encode()) <= 123
