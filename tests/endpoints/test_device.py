"""The device protocol over real sockets, against an upstream that does what the test says."""

import asyncio
import json
import re

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.utils import accept_key

from relay.runtime.uplink import MAX_UNSENT_BYTES
from relay.testing import ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry, tool
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
async def relay(upstream):
    async with running_relay(upstream.url, session_voice="marin", limits_max_sessions=3) as running:
        yield running


async def connected(relay: RunningRelay, upstream: ScriptedUpstream, path: str = "/?rate=24000"):
    client = await DeviceClient.connect(relay.ws(path))
    session = await upstream.accept()
    update = await session.configure()
    await client.expect("AIConnected")
    return client, session, update


async def test_a_turn_passes_through_in_order(relay, upstream) -> None:
    client, session, update = await connected(relay, upstream)
    async with client:
        assert update["session"]["audio"]["output"]["voice"] == "marin"
        await client.speak(b"\x01\x02" * 480)
        assert await session.expect_audio(960) == b"\x01\x02" * 480
        await session.emit(
            {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
            {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 20},
            {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
        )
        await session.respond("Hello there.", ms=300)
        end = await client.expect("AIResponseEnd")
        assert end == {
            "type": "event", "name": "AIResponseEnd", "finalText": "Hello there.", "status": "completed", "more": False
        }  # fmt: skip
        assert len(await client.expect_audio(300 * 48)) == 300 * 48
        in_line = [kind for kind in client.order if kind in ("audioStart", "binary", "audioEnd")]
        assert in_line == ["audioStart", "binary", "binary", "binary", "audioEnd"]
        started = [kind for kind in client.order if kind.startswith("AI")]
        assert started == ["AIConnected", "AISpeechDetected", "AISpeechEnded", "AIResponseStart", "AIResponseEnd"]


async def test_sixteen_khz_is_the_default_and_is_resampled_both_ways(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream, path="/ws")
    async with client:
        for _ in range(10):
            await client.speak(bytes(640))
        assert abs(len(await session.expect_audio(190 * 48)) - 200 * 48) <= 2 * 48
        await session.respond(ms=300)
        await client.expect("audioEnd")
        assert abs(len(client.audio) - 300 * 32) <= 2 * 32


async def test_an_odd_byte_is_carried_over(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        pcm = bytes(range(200)) * 2
        for start, end in ((0, 3), (3, 4), (4, 101), (101, 400)):
            await client.speak(pcm[start:end])
        assert await session.expect_audio(400) == pcm


async def test_audio_is_paced_and_text_overtakes_it(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        await client.send(type="hello", v=1, maxAheadMs=500)
        await client.expect("ready")
        await session.respond("A long answer.", ms=1500)
        await client.expect("AIResponseEnd")
        assert len(client.audio) <= 700 * 48, "no more than 500 ms ahead of playback"
        assert (await client.expect("audioEnd"))["totalMs"] == 1500
        assert len(client.audio) == 1500 * 48


async def test_a_barge_in_silences_truncates_and_drops(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        await session.respond("one two three four five six", ms=3000, finish=False)
        await client.expect("audioStart")
        await client.expect_audio(900 * 48)
        await client.send(type="playback", itemId="item_1", playedMs=700)
        await client.send(type="text", text="marker")  # its arrival shows that the acknowledgement was taken
        await session.emit({"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 9000})
        told = await client.expect("interrupted")
        heard_bytes = len(client.audio)
        truncate = await session.expect("conversation.item.truncate")
        assert 690 <= truncate["audio_end_ms"] <= 900
        assert (told["itemId"], told["playedMs"], told["estimated"]) == ("item_1", truncate["audio_end_ms"], False)
        await session.respond("late", ms=500, finish=False)  # the same response goes on: stale
        await session.done("resp_1", [], status="cancelled")
        assert (await client.expect("AIResponseEnd"))["status"] == "cancelled"
        assert len(client.audio) == heard_bytes


async def test_a_tool_is_run_and_its_answer_asked_for(upstream) -> None:
    @tool(expose={"model", "client"})
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with running_relay(upstream.url, ToolRegistry([Tool.from_function(add)])) as relay:
        client, session, update = await connected(relay, upstream)
        async with client:
            assert [one["name"] for one in update["session"]["tools"]] == ["add"]
            await session.call(("call_1", "add", {"a": 2, "b": 3}), ("call_2", "add", {"a": "x"}))
            outputs = [(await session.expect("conversation.item.create"))["item"] for _ in range(2)]
            create = await session.expect("response.create")
            by_id = {one["call_id"]: json.loads(one["output"]) for one in outputs}
            assert by_id["call_1"] == 5
            assert by_id["call_2"]["ok"] is False
            ended = {
                one["callId"]: one for one in client.messages if one["type"] == "tool" and one["status"] != "started"
            }
            assert ended["call_1"]["status"] == "done"
            assert (ended["call_1"]["arguments"], ended["call_1"]["output"]) == ({"a": 2, "b": 3}, 5)
            await session.respond("Five.", response_id="resp_2", metadata=create["response"]["metadata"])
            assert (await client.expect("AIResponseEnd"))["more"] is False
            assert session.types().count("response.create") == 1


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ("{", "bad_json", None),
        ("[1]", "bad_message", "type"),
        ('{"type":"dance"}', "unknown_type", "type"),
        ('{"type":"playback","itemId":"x"}', "bad_message", "playedMs"),
        ('{"type":"playback","itemId":"x","playedMs":-1}', "bad_message", "playedMs"),
        ('{"type":"text","text":5}', "bad_message", "text"),
        ('{"type":"hello","input":{"format":"mp3"}}', "bad_message", "input"),
        ('{"type":"hello","turn":"never"}', "bad_message", "turn"),
    ],
)
async def test_bad_input_is_one_error_and_the_session_goes_on(relay, upstream, message, code, field) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        await client.connection.send(message)
        error = await client.expect("error")
        assert (error["code"], error.get("field")) == (code, field)
        await session.respond("Still here.")
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Still here."


async def test_rubbish_from_the_upstream_is_passed_over(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        await session.emit_raw("{")
        await session.emit_raw('{"type": 5}')
        await session.emit({"type": "response.brand_new", "x": 1}, {"type": "response.output_audio.delta"})
        await session.emit(
            {
                "type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "output_index": 0,
                "content_index": 0, "delta": "!!!!",
            }
        )  # fmt: skip
        await session.respond("Still here.")
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Still here."


async def test_a_refused_dial_is_an_error_and_a_close() -> None:
    async def refuse(connection, request) -> Response:
        return connection.respond(401, '{"error":{"message":"Incorrect API key provided: sk-abcdef123456"}}')

    async with (
        ScriptedUpstream(refuse) as upstream,
        running_relay(upstream.url, upstream_key="sk-abcdef123456") as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        error = await client.expect("error")
        assert (error["code"], error["retryable"]) == ("upstream_refused", False)
        code, reason = await client.wait_closed()
        assert code == 1011
        assert "sk-abc" not in json.dumps(client.messages) + str(reason)


async def test_an_upstream_that_is_not_there_is_an_error_and_a_close() -> None:
    async with running_relay("ws://127.0.0.1:9/v1/realtime") as relay, await DeviceClient.connect(relay.ws()) as client:
        assert (await client.expect("error"))["code"] == "upstream_unreachable"
        assert (await client.wait_closed())[0] == 1011


async def test_the_upstream_hanging_up_is_told_and_closes_with_1011(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    async with client:
        await session.close(1001, "Your session hit the maximum duration of 60 minutes.")
        assert (await client.expect("error"))["code"] == "upstream_closed"
        assert (await client.wait_closed())[0] == 1011


async def test_a_client_that_leaves_frees_its_upstream(relay, upstream) -> None:
    client, session, _ = await connected(relay, upstream)
    client.connection.transport.abort()
    async with asyncio.timeout(2):
        await session.closed.wait()
        await relay.sessions.all_ended.wait()
    await client.wait_closed()


async def test_a_message_over_the_limit_closes_with_1009(relay, upstream) -> None:
    client, _, _ = await connected(relay, upstream)
    async with client:
        await client.speak(bytes(70_000))
        assert (await client.wait_closed())[0] == 1009


async def test_bye_is_a_normal_end(relay, upstream) -> None:
    client, _, _ = await connected(relay, upstream)
    async with client:
        await client.send(type="bye")
        assert (await client.wait_closed())[0] == 1000


@pytest.mark.parametrize(
    ("query", "field"),
    [("rate=abc", "rate"), ("rate=11025", "rate"), ("format=mp3", "rate"), (f"voice={'x' * 200}", "voice")],
)
async def test_a_query_that_makes_no_sense_is_a_400_that_names_the_field(relay, query, field) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(relay.ws(f"/?{query}"))
    response = refused.value.response
    assert (response.status_code, json.loads(response.body)["field"]) == (400, field)


async def test_more_sessions_than_allowed_are_refused(relay, upstream) -> None:
    clients = [await DeviceClient.connect(relay.ws()) for _ in range(3)]
    with pytest.raises(InvalidStatus) as refused:
        await connect(relay.ws())
    assert refused.value.response.status_code == 503
    for client in clients:
        await client.connection.close()
        await client.wait_closed()


async def test_a_shutdown_says_goodbye_and_closes_with_1001(upstream) -> None:
    async with running_relay(upstream.url) as relay:
        client, _, _ = await connected(relay, upstream)
    async with client:
        assert (await client.expect("goodbye"))["reason"]
        assert (await client.wait_closed())[0] == 1001


async def test_a_failure_of_ours_ends_one_session_and_no_other(relay, upstream, monkeypatch, caplog) -> None:
    broken, _, _ = await connected(relay, upstream)
    other, other_session, _ = await connected(relay, upstream)
    async with broken, other:
        live = next(iter(relay.sessions.active.values()))
        handle = live.core.handle

        def fail(event, now):
            if type(event).__name__ == "UserText":
                raise RuntimeError("a bug")
            return handle(event, now)

        monkeypatch.setattr(live.core, "handle", fail)
        await broken.send(type="text", text="hello")
        assert (await broken.expect("error"))["code"] == "internal_error"
        assert (await broken.wait_closed())[0] == 1011
        await other_session.respond("Still here.")
        assert (await other.expect("AIResponseEnd"))["finalText"] == "Still here."
        assert "a bug" in caplog.text


async def test_an_upstream_that_does_not_read_costs_audio_and_then_the_session_but_no_memory(monkeypatch) -> None:
    monkeypatch.setattr("relay.session.common.read_allowance.AUDIO_CREDIT_S", 10_000.0)  # as fast as it goes
    monkeypatch.setattr("relay.session.common.read_allowance.MAX_AUDIO_CREDIT_S", 10_000.0)
    monkeypatch.setattr("relay.runtime.timers.MAX_STALL_S", 2.0)
    gone = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        assert key is not None
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept_key(key[1].decode()).encode() + b"\r\n\r\n")
        for event in (b'{"type":"session.created","session":{}}', b'{"type":"session.updated","session":{}}'):
            writer.write(bytes([0x81, len(event)]) + event)
            await reader.read(1)  # the relay answers the first; the second confirms what it asked for
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
    try:
        async with running_relay(url) as relay, await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
            await client.expect("AIConnected")
            live = next(iter(relay.sessions.active.values()))
            while not (told := [one["code"] for one in client.messages if one["type"] == "error"]):
                for _ in range(10):
                    await client.speak(bytes(32_000))
                assert live.upstream.unsent_bytes < 3 * MAX_UNSENT_BYTES
            assert told == ["audio_backlog"]
            assert (await client.expect("error"))["code"] == "audio_backlog"
            assert (await client.expect("error"))["code"] == "upstream_stalled"
            assert (await client.wait_closed())[0] == 1011
    finally:
        gone.set()
        server.close()
        await server.wait_closed()
