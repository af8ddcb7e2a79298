"""One session at run time, with sockets that only remember: the short way and the long way, ticks, failures, tools."""

import asyncio
import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picows import WSMsgType
from picows.picows import _make_test_ws_frame  # type: ignore[attr-defined]  # not in the stubs

from audio.formats import AudioFormat
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.turns import STALL_S
from relay.core.values import DeviceOptions, SessionConfig
from relay.live_session import LiveSession
from relay.peers.frames import MessageListener
from relay.peers.passage import DeviceClientSocket, DeviceUpstreamSocket
from relay.peers.upstream import UpstreamSocket
from relay.testing import FakeClock
from relay.wire.device_out import encode_text
from relay.wire.realtime import RealtimeCodec


class Line:
    """A transport that keeps what it should send."""

    is_close_frame_sent = is_disconnected = False

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self.log = log
        self.name = name
        self.underlying_transport = self

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def send(self, kind: WSMsgType, message: Any) -> None:
        self.log.append((f"{self.name} {kind.name.lower()}", bytes(message)))


class Remembering(MessageListener):
    """Connected at once; what happens to the connection besides is remembered."""

    has_left = property(lambda self: False)  # type: ignore[assignment]
    aborted = False

    def hear(self, message: bytes, kind: WSMsgType = WSMsgType.BINARY) -> None:
        """A message of the peer's."""
        assert self.transport is not None
        self.on_ws_frame(self.transport, _make_test_ws_frame(kind, message, True, False))

    def close(self, code: int, reason: str = "") -> None:
        self.send_text(f"close {code}".encode())

    def abort(self) -> None:
        self.aborted = True


class Client(Remembering, DeviceClientSocket):
    pass


class Upstream(Remembering, DeviceUpstreamSocket):
    pass


class NoTools:
    async def run(self, command: cmd.RunTool, progress: Any) -> ev.ToolReturned:
        return ev.ToolReturned(command.call_id, "done", '"ok"', 1)


async def connect(socket: UpstreamSocket) -> None:
    return None


class LongWay(DeviceSession):
    """Never lets audio or text take the short way."""

    streaming_in = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]
    streaming_out = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]


class Stage:
    """A live session in a loop, its sockets replaced by lists."""

    def __init__(
        self,
        *,
        tap: Any = None,
        listeners: Any = None,
        tools: Any = None,
        rate_hz: int = 24_000,
        kind: type[DeviceSession] = DeviceSession,
    ) -> None:
        pcm = AudioFormat("pcm16", rate_hz)  # type: ignore[arg-type]
        numbers = itertools.count(1)
        self.clock = FakeClock(1000.0)
        core = kind(
            "rs_test", SessionConfig(), DeviceOptions(pcm, pcm), lambda: f"relay_{next(numbers)}", started_at=1000.0
        )
        self.sent: list[tuple[str, bytes]] = []
        self.client = Client(1 << 20, clock=self.clock)
        self.client.on_ws_connected(Line(self.sent, "client"))  # type: ignore[arg-type]
        self.live = LiveSession(
            core,
            self.client,
            RealtimeCodec(),
            connect,
            tools or NoTools(),
            clock=self.clock,
            tap=tap,
            listeners=listeners,
        )
        self.upstream = Upstream(self.clock, self.live._upstream_codec.more_words, encode_text)
        self.upstream.renew = self.live._passing._renew_speech
        self.live._upstream = self.live._passing._speech = self.upstream
        self.upstream.on_text = self.live._upstream_text
        self.upstream.on_ws_connected(Line(self.sent, "upstream"))  # type: ignore[arg-type]

    def ready(self) -> "Stage":
        self.hear({"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}})
        self.sent.clear()
        return self

    def hear(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.upstream.hear(json.dumps(event, separators=(",", ":")).encode(), WSMsgType.TEXT)

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for kind, raw in self.sent if kind == "client text" and raw.startswith(b"{")]


def lasting(told: Any) -> Any:
    """What a tap was told, with copies of the audio."""
    if isinstance(told, ev.Forwarded):
        return told._replace(raw=bytes(told.raw))
    return tuple(map(lasting, told)) if type(told) in (tuple, list) else told


def delta(response: int, item: int, pcm: bytes) -> dict[str, Any]:
    return {
        "type": "response.output_audio.delta", "event_id": "event_x", "response_id": f"resp_{response}",
        "item_id": f"item_{item}", "output_index": 0, "content_index": 0, "delta": base64.b64encode(pcm).decode(),
    }  # fmt: skip


def words(response: int, item: int, text: str) -> dict[str, Any]:
    return {
        "type": "response.output_audio_transcript.delta", "event_id": "event_x", "response_id": f"resp_{response}",
        "item_id": f"item_{item}", "output_index": 0, "content_index": 0, "delta": text,
    }  # fmt: skip


_small = st.integers(1, 2)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("microphone"), st.binary(max_size=9)),
        st.tuples(st.just("microphone"), st.sampled_from([bytes(960), bytes(961), b"\1\2" * 480, b"\3" * 12_000])),
        st.tuples(st.just("upstream"), st.builds(delta, _small, _small, st.binary(max_size=64))),
        st.tuples(
            st.just("upstream"),
            st.builds(delta, _small, _small, st.sampled_from([b"\1\2" * 100, bytes(4800), bytes(161)])),
        ),
        st.tuples(st.just("upstream"), st.builds(words, _small, _small, st.text(max_size=5))),
        st.tuples(
            st.just("upstream"),
            st.sampled_from(
                [
                    {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
                    {"type": "response.created", "response": {"id": "resp_1"}},
                    {"type": "response.created", "response": {"id": "resp_2"}},
                    {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": []}},
                    {"type": "response.output_audio.done", "response_id": "resp_1", "item_id": "item_1"},
                ]
            ),
        ),
        st.tuples(st.just("client"), st.sampled_from(['{"type":"interrupt"}', '{"type":"bye"}', "{"])),
        st.tuples(st.just("wait"), st.floats(0, 0.3)),
    ),
    max_size=40,
)


@given(_steps, st.sampled_from([24_000, 16_000]))
@example([("microphone", bytes(8)), ("microphone", b""), ("microphone", b"abc"), ("microphone", bytes(4))], 24_000)
@settings(max_examples=150, deadline=None)
def test_the_short_way_does_what_the_long_way_does(steps: list[tuple[str, Any]], rate_hz: int) -> None:
    async def play(kind: type[DeviceSession], tap: Any) -> tuple[Any, ...]:
        stage = Stage(tap=tap, rate_hz=rate_hz, kind=kind).ready()
        for kind, what in steps:
            if kind == "microphone":
                stage.client.hear(what)
            elif kind == "upstream":
                stage.hear(what)
            elif kind == "client":
                stage.live._client_text(memoryview(what.encode()))
            else:
                stage.clock.advance(what)
        stage.live._passing.close()  # what went the short way is noted before anybody looks
        turns, outbox = stage.live.core.turns, stage.live._outbox
        clips = [(key, clip.received_bytes) for key, clip in turns.playback.clips.items()]
        position = [(one.key, one.handed_ms) for one in outbox._segments], outbox._playhead.ahead_ms(stage.clock())
        state = (stage.sent, turns.input_bytes, turns.last_upstream_at, clips, position)
        stage.live._outbox.stop()
        return state

    async def both() -> None:
        seen: list[list[Any]] = [[], []]
        taps = [lambda *told, into=into: into.append(lasting(told)) for into in seen]
        short = await play(DeviceSession, None)
        assert short == await play(DeviceSession, taps[0])
        assert short == await play(LongWay, taps[1])
        assert seen[0] == seen[1], "the tap sees the same on both ways"

    asyncio.run(both())


async def test_what_comes_as_usual_is_seen_by_nobody_and_counted_before_anybody_looks() -> None:
    stage = Stage().ready()
    seen: list[str] = []
    stage.live.core.handle = lambda event, now: seen.append(type(event).__name__) or ()  # type: ignore[method-assign]
    stage.client.hear(bytes(960))
    assert seen == ["Forwarded"], "the first goes the long way"

    stage = Stage().ready()
    for _ in range(3):
        stage.client.hear(bytes(960))
        stage.hear(delta(1, 1, bytes(4800)), words(1, 1, "word "))
    assert stage.live.core.turns.input_bytes == 2 * 960, "the last one was not seen"
    assert stage.live.core.turns.playback.clips["item_1", 0].received_bytes == 9600, "the first two were"
    assert [kind for kind, _ in stage.sent].count("upstream text") == 3
    assert [kind for kind, _ in stage.sent].count("client binary") == 3
    assert [one.get("text") for one in stage.messages() if one["type"] == "textDelta"] == ["word "] * 3
    assert stage.live.core.turns.items.entry("item_1").text == "word ", "the first one was"
    stage.live.feed(ev.Tick())
    assert stage.live.core.turns.input_bytes == 3 * 960
    assert stage.live.core.turns.playback.clips["item_1", 0].received_bytes == 3 * 4800
    assert stage.live.core.turns.items.entry("item_1").text == "word " * 3


async def test_frames_too_short_for_a_message_of_their_own_are_gathered_in_order() -> None:
    stage = Stage().ready()
    said = bytes(range(256)) * 20

    def says(*frames: int | str) -> list[bytes | str]:
        """What the model is sent for frames of these lengths, and for messages."""
        nonlocal said
        stage.sent.clear()
        for frame in frames:
            if isinstance(frame, str):
                stage.client.hear(json.dumps({"type": frame}).encode(), WSMsgType.TEXT)
            else:
                stage.client.hear(said[:frame])
                said = said[frame:]
        told = [json.loads(raw) for kind, raw in stage.sent if kind == "upstream text"]
        return [base64.b64decode(one["audio"]) if "audio" in one else one["type"] for one in told]

    whole = said
    assert says(*[3] * 159) == [], "477 bytes: not yet 10 ms"
    assert says(3) == [whole[:480]]
    assert says(2, 0, 960) == [whole[480:1442]], "what is long enough does not overtake it"
    assert says(960) == [whole[1442:2402]]
    assert says(2, 1, 960) == [whole[2402:3364]], "half a sample more waits for its other half"
    assert says(2, "interrupt", 3) == [whole[3364:3366]], "one byte of it was that half; another is left"
    assert says("clear", 2) == [whole[3366:3370], "input_audio_buffer.clear"], "said before it was cleared"


async def test_a_frame_that_is_too_short_holds_up_none_of_the_models() -> None:
    stage = Stage().ready()
    for _ in range(2):
        stage.client.hear(bytes(960))
        stage.hear(delta(1, 1, bytes(4800)))
    assert (stage.client.pass_to is not None, stage.upstream.pass_to is not None) == (True, True)
    stage.client.hear(b"abcd")
    assert (stage.client.pass_to is not None, stage.upstream.pass_to is not None) == (False, True)


@pytest.mark.parametrize("lengths", [(961, 960), (960, 40, 40, 41), (960, *[94] * 5)])
async def test_a_hello_that_is_refused_while_the_user_speaks_loses_nothing(lengths: tuple[int, ...]) -> None:
    stage, said = Stage().ready(), bytes(range(256)) * 20
    stage.client.hear(b'{"type":"hello","v":1,"instructions":"Be brief."}', WSMsgType.TEXT)
    update = json.loads(stage.sent[-1][1])
    assert update["type"] == "session.update"
    sent_bytes = 0
    for n_bytes in (*lengths, 0, 960, 960):
        if not n_bytes:
            stage.hear({"type": "error", "error": {"message": "no", "event_id": update["event_id"]}})
        stage.client.hear(said[sent_bytes : sent_bytes + n_bytes])
        sent_bytes += n_bytes
    told = [json.loads(raw) for kind, raw in stage.sent if kind == "upstream text"]
    heard = b"".join(base64.b64decode(one["audio"]) for one in told if "audio" in one)
    assert heard == said[: sent_bytes // 2 * 2]


async def test_the_tap_sees_every_event_with_its_time_and_its_commands() -> None:
    seen: list[tuple[str, float, int]] = []
    stage = Stage(tap=lambda event, now, commands: seen.append((type(event).__name__, now, len(commands))))
    stage.ready()
    stage.clock.advance(1.5)
    stage.client.hear(bytes(960))
    stage.live.catch_up()
    assert seen == [("SessionCreated", 1000.0, 1), ("SessionUpdated", 1000.0, 1), ("Forwarded", 1001.5, 1)]


async def test_what_happens_during_an_event_waits_for_its_end() -> None:
    order: list[str] = []
    stage = Stage(tap=lambda event, now, commands: order.append(type(event).__name__))
    stage.ready()
    stage.hear(delta(1, 1, bytes(4800)))
    stage.hear({"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0})
    assert order[2:] == ["Forwarded", "AudioHanded", "SpeechStarted", "AudioDropped"]
    assert [one["type"] for one in stage.messages()][-2:] == ["event", "interrupted"]


async def test_a_deadline_brings_a_tick() -> None:
    stage = Stage().ready()
    stage.live.feed(ev.UserText("hello"))
    timer = stage.live._timer
    assert timer is not None
    stage.clock.advance(STALL_S)
    stage.live._tick()
    assert stage.messages()[0]["code"] == "upstream_stalled"
    stage.live._timer and stage.live._timer.cancel()


async def test_a_failure_of_ours_is_told_once_and_a_second_one_cuts_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage().ready()

    def fail(event: ev.Event, now: float) -> list[cmd.Command]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stage.live.core, "handle", fail)
    stage.live.feed(ev.Interrupt())
    assert stage.client.aborted
    assert caplog.text.count("a bug") >= 2


async def test_a_tool_runs_beside_the_audio_and_comes_back_as_an_event() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    class Slow:
        async def run(self, command: cmd.RunTool, progress: Any) -> ev.ToolReturned:
            started.set()
            progress(ev.ToolProgressed(command.call_id, "half way", 1))
            await release.wait()
            return ev.ToolReturned(command.call_id, "done", '"ready"', 1)

    stage = Stage(tools=Slow()).ready()
    call = {
        "id": "i",
        "type": "function_call",
        "call_id": "c",
        "name": "slow",
        "arguments": "{}",
        "status": "completed",
    }
    stage.hear(
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": [call]}},
    )
    await started.wait()
    stage.client.hear(bytes(960))
    assert stage.sent[-1][0] == "upstream text", "the microphone does not wait for the tool"
    release.set()
    while stage.live._tasks:
        await asyncio.wait(stage.live._tasks)
    told = [one["status"] for one in stage.messages() if one["type"] == "tool"]
    assert told == ["started", "progress", "done"]
    stage.live._timer and stage.live._timer.cancel()
