"""A device session at run time, with fake transports: both audio paths, timers, failures, tools."""

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audio.formats import AudioFormat
from audio.framing import BytesLike
from audio.transcode import Transcoder
from relay.runtime.uplink import MAX_UNSENT_BYTES
from relay.session.common.limits import STALL_TIMEOUT_S
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import TtsOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.tts.stream import STALL_TIMEOUT_S as VOICE_STALL_S
from relay.transport.read_limiter import BURST_MESSAGES
from tests.support.runtime_harness import DeviceRuntimeHarness, ListRecorder, running_device
from tests.support.virtual_time import VirtualTimeLoop, advance_time, in_virtual_time

SPEECH_STARTED = {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0}


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


def appended(harness: DeviceRuntimeHarness) -> bytes:
    """The audio that the upstream was sent."""
    return b"".join(base64.b64decode(event["audio"]) for event in harness.upstream_requests() if "audio" in event)


# -- random sessions against a simple model ---------------------------------------------------------------------------

_small = st.integers(1, 2)
_pcm = st.one_of(st.binary(max_size=64), st.sampled_from([b"\1\2" * 100, bytes(4800), bytes(161)]))
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("microphone"), st.binary(max_size=9)),
        st.tuples(st.just("microphone"), st.sampled_from([bytes(960), bytes(961), b"\1\2" * 480, b"\3" * 12_000])),
        st.tuples(st.just("audio"), st.tuples(_small, _small, _pcm)),
        st.tuples(st.just("audio"), st.tuples(_small, _small, _pcm)),
        st.tuples(st.just("upstream"), st.builds(words, _small, _small, st.text(max_size=5))),
        st.tuples(
            st.just("upstream"),
            st.sampled_from(
                [
                    SPEECH_STARTED,
                    {"type": "response.created", "response": {"id": "resp_1"}},
                    {"type": "response.created", "response": {"id": "resp_2"}},
                    {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": []}},
                    {"type": "response.output_audio.done", "response_id": "resp_1", "item_id": "item_1"},
                ]
            ),
        ),
        st.tuples(st.just("client"), st.sampled_from(['{"type":"interrupt"}', '{"type":"commit"}', "{"])),
        st.tuples(st.just("wait"), st.floats(0, 0.3)),
    ),
    max_size=40,
)


class Model:
    """The expected result of the steps: every whole sample is forwarded, in order, unless it is discarded."""

    def __init__(self, harness: DeviceRuntimeHarness, rate_hz: int) -> None:
        self._harness = harness
        self._up = Transcoder(AudioFormat("pcm16", rate_hz), AudioFormat("pcm16", 24_000))  # type: ignore[arg-type]
        self._said = b""
        self.accepted = self.discarded = b""
        self.received: dict[tuple[str, int], int] = {}

    def microphone(self, samples: bytes) -> None:
        self._said += samples

    def audio(self, response: int, item: int, pcm: bytes) -> None:
        """To be called after the delta came: whether it was given up is the rules' decision."""
        if f"resp_{response}" in self._harness.core.discarded_responses:
            self.discarded += pcm
        elif pcm:
            self.accepted += pcm

    def check(self) -> None:
        harness = self._harness
        recorder, ledger = harness.recorder, harness.core.ledger
        waiting_bytes = len(self._said) - ledger.input_bytes
        assert 0 <= waiting_bytes < 480 * 2, "less than 10 ms of short frames are buffered"
        taken = self._said[: ledger.input_bytes]
        assert b"".join(entry[1] for entry in recorder.all("input")) == taken
        assert appended(harness) == bytes(self._up.feed(taken))
        outputs = recorder.all("output")
        assert b"".join(pcm for _, pcm, is_discarded, _ in outputs if not is_discarded) == self.accepted
        assert b"".join(pcm for _, pcm, is_discarded, _ in outputs if is_discarded) == self.discarded
        assert ledger.output_bytes == len(self.accepted)
        assert b"".join(entry[1] for entry in recorder.all("sent")) == harness.sent_audio()


@given(_steps, st.sampled_from([24_000, 16_000]))
@example([("microphone", bytes(8)), ("microphone", b""), ("microphone", b"abc"), ("microphone", bytes(4))], 24_000)
@settings(max_examples=150, deadline=None)
def test_random_sessions_agree_with_the_model(steps: list[tuple[str, Any]], rate_hz: int) -> None:
    async def play() -> None:
        async with running_device(rate_hz) as harness:
            harness.ready()
            model = Model(harness, rate_hz)
            for kind, what in steps:
                match kind:
                    case "microphone":
                        harness.send_audio(what)
                        model.microphone(what)
                    case "audio":
                        harness.send_from_upstream(delta(*what))
                        model.audio(*what)
                    case "upstream":
                        harness.send_from_upstream(what)
                    case "client":
                        harness.send_from_client(what)
                    case _:
                        await advance_time(what)
            model.check()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())


@given(st.lists(st.tuples(_small, _pcm), max_size=20), st.sampled_from([24_000, 16_000]))
@settings(max_examples=60, deadline=None)
def test_a_client_hears_every_part_whole_and_converted_as_one_stream(
    deltas: list[tuple[int, bytes]], rate_hz: int
) -> None:
    async def play() -> None:
        async with running_device(rate_hz) as harness:
            harness.ready()
            parts: dict[int, bytes] = {1: b"", 2: b""}
            for item, pcm in sorted(deltas, key=lambda one: one[0]):
                pcm = pcm[: len(pcm) // 2 * 2]
                harness.send_from_upstream(delta(1, item, pcm))
                parts[item] += pcm
            expected = b""
            for item, pcm in parts.items():
                if pcm:
                    done = {"response_id": "resp_1", "item_id": f"item_{item}", "content_index": 0}
                    harness.send_from_upstream({"type": "response.output_audio.done", **done})
                down = Transcoder(AudioFormat("pcm16", 24_000), AudioFormat("pcm16", rate_hz))  # type: ignore[arg-type]
                expected += bytes(down.feed(pcm)) + down.flush() if pcm else b""
            await advance_time(60)
            if len([pcm for pcm in parts.values() if pcm]) == 1 or rate_hz == 24_000:
                assert harness.sent_audio() == expected

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())


# -- the uplink -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_audio_before_the_session_is_ready_is_held_and_keeps_its_place() -> None:
    async with running_device() as harness:
        harness.send_audio(b"\1\1" * 480)
        harness.send_from_client({"type": "text", "text": "typed in between"})
        harness.send_audio(b"\2\2" * 480)
        assert appended(harness) == b""
        harness.send_from_upstream(
            {"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}}
        )
        kinds = [event["type"] for event in harness.upstream_requests()]
        assert appended(harness) == b"\1\1" * 480 + b"\2\2" * 480
        assert [kind for kind in kinds if kind != "session.update"] == [
            "input_audio_buffer.append", "conversation.item.create", "response.create", "input_audio_buffer.append",
        ]  # fmt: skip


@in_virtual_time
async def test_short_frames_are_combined_in_order() -> None:
    async with running_device() as harness:
        harness.ready()
        audio = bytes(range(256)) * 20

        def says(*frames: int | str) -> list[bytes | str]:
            """What the upstream is sent for frames of these lengths, and for messages."""
            nonlocal audio
            harness.sent.clear()
            for frame in frames:
                if isinstance(frame, str):
                    harness.send_from_client({"type": frame})
                else:
                    harness.send_audio(audio[:frame])
                    audio = audio[frame:]
            return [
                base64.b64decode(event["audio"]) if "audio" in event else event["type"]
                for event in harness.upstream_requests()
            ]

        whole = audio
        assert says(*[3] * 159) == [], "477 bytes: not yet 10 ms"
        assert says(3) == [whole[:480]]
        assert says(2, 0, 960) == [whole[480:1442]], "a long frame does not overtake it"
        assert says(960) == [whole[1442:2402]]
        assert says(2, 1, 960) == [whole[2402:3364]], "half a sample more is buffered"
        assert says(2, "interrupt", 3) == [whole[3364:3366]], "one byte completes that sample; another is left"
        assert says("clear", 2) == [whole[3366:3370], "input_audio_buffer.clear"], "sent before the clear"


@pytest.mark.parametrize("lengths", [(961, 960), (960, 40, 40, 41), (960, *[94] * 5)])
@in_virtual_time
async def test_a_rejected_hello_during_speech_loses_no_audio(lengths: tuple[int, ...]) -> None:
    async with running_device() as harness:
        harness.ready()
        audio = bytes(range(256)) * 20
        harness.send_from_client('{"type":"hello","v":1,"instructions":"Be brief."}')
        update = harness.upstream_requests()[-1]
        assert update["type"] == "session.update"
        sent_bytes = 0
        for n_bytes in (*lengths, 0, 960, 960):
            if not n_bytes:
                harness.send_from_upstream(
                    {"type": "error", "error": {"message": "no", "event_id": update["event_id"]}}
                )
            harness.send_audio(audio[sent_bytes : sent_bytes + n_bytes])
            sent_bytes += n_bytes
        assert appended(harness) == audio[: sent_bytes // 2 * 2]


@in_virtual_time
async def test_audio_that_an_upstream_does_not_read_is_dropped_and_reported_once() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.upstream_transport.unsent_bytes = MAX_UNSENT_BYTES + 1
        harness.upstream.pause_writing()
        for _ in range(3):
            harness.send_audio(bytes(960))
        assert appended(harness) == b""
        assert [message["code"] for message in harness.messages()] == ["audio_backlog"]
        harness.upstream_transport.unsent_bytes = 0
        harness.upstream.resume_writing()
        harness.send_audio(bytes(960))
        assert appended(harness) == bytes(960)
        harness.upstream_transport.unsent_bytes = MAX_UNSENT_BYTES + 1
        harness.upstream.pause_writing()
        harness.send_audio(bytes(960))
        assert [message["code"] for message in harness.messages()] == ["audio_backlog"] * 2, (
            "reported again the next time"
        )


# -- the downlink -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_part_is_announced_before_its_first_audio_and_recorded_after_its_edge() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream(delta(1, 1, bytes(4800)), delta(1, 1, bytes(4800)))
        kinds = [
            message["type"] if kind == "client text" else kind for kind, raw in harness.sent for message in [_json(raw)]
        ]
        assert kinds == ["event", "audioStart", "client binary", "client binary"]
        assert [entry[:2] for entry in harness.recorder.entries if entry[0] != "sent"] == [
            ("event", "OutputAudioStarted"),
            ("output", bytes(4800)),
            ("event", "FirstAudioSent"),
            ("output", bytes(4800)),
        ]
        assert harness.core.ledger.received_bytes(("item_1", 0)) == 9600


@in_virtual_time
async def test_audio_of_an_abandoned_response_is_recorded_and_dropped() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream({"type": "response.created", "response": {"id": "resp_1"}}, delta(1, 1, bytes(4800)))
        harness.send_from_upstream(SPEECH_STARTED, delta(1, 1, b"\1\1" * 100))
        assert harness.sent_audio() == bytes(4800)
        assert harness.recorder.all("output")[-1][1:3] == (b"\1\1" * 100, True)
        assert harness.core.ledger.output_bytes == 4800


@in_virtual_time
async def test_audio_after_the_end_of_the_session_is_dropped() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream(delta(1, 1, bytes(480)))
        harness.send_from_client({"type": "bye"})
        harness.sent.clear()
        harness.runtime.dispatch(ev.DeadlineReached())
        harness.upstream_transport.is_close_frame_sent = False  # as for what was read before, and waits its turn
        harness.send_from_upstream(delta(1, 1, bytes(480)), delta(2, 2, bytes(480)))
        assert harness.sent_audio() == b""
        assert [entry[2] for entry in harness.recorder.all("output")] == [False, True, True]


@in_virtual_time
async def test_invalid_base64_is_counted_as_malformed_and_dropped() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream({**delta(1, 1, b""), "delta": "????"}, delta(1, 1, bytes(480)))
        assert harness.sent_audio() == bytes(480)
        assert harness.core.ignored == {"(malformed)": 1}


@in_virtual_time
async def test_a_very_long_delta_is_split() -> None:
    async with running_device() as harness:
        harness.ready()
        pcm = bytes(range(256)) * 1000
        harness.send_from_upstream(delta(1, 1, pcm))
        assert b"".join(entry[1] for entry in harness.recorder.all("output")) == pcm
        assert max(len(entry[1]) for entry in harness.recorder.all("output")) == 48 * 1024


def _json(raw: bytes) -> dict[str, Any]:
    return json.loads(raw) if raw.startswith(b"{") else {}


# -- events -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_observer_sees_every_event_with_its_time_and_its_commands() -> None:
    seen: list[tuple[str, float, int]] = []

    def observe(event: Any, now: float, commands: Any) -> None:
        seen.append((type(event).__name__, now, len(commands)))

    async with running_device(observer=observe) as harness:
        harness.ready()
        await advance_time(1.5)
        harness.send_from_client({"type": "interrupt"})
        harness.send_audio(bytes(960))
        assert seen == [
            ("UpstreamOpened", 0.0, 0), ("SessionCreated", 0.0, 1), ("SessionUpdated", 0.0, 2), ("Interrupt", 1.5, 0)
        ]  # fmt: skip


@in_virtual_time
async def test_events_during_an_event_are_queued() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream(delta(1, 1, bytes(4800)))
        harness.send_from_upstream(SPEECH_STARTED)
        events = [entry[1] for entry in harness.recorder.all("event")]
        assert events == ["OutputAudioStarted", "FirstAudioSent", "SpeechStarted", "PlayoutCleared"]
        assert [message["type"] for message in harness.messages()][-2:] == ["event", "interrupted"]


@in_virtual_time
async def test_a_deadline_dispatches_an_event() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_client({"type": "text", "text": "hello"})
        await advance_time(STALL_TIMEOUT_S - 1)
        assert not [message for message in harness.messages() if message["type"] == "error"]
        await advance_time(1.1)
        assert [message["code"] for message in harness.messages() if message["type"] == "error"] == ["upstream_stalled"]


@in_virtual_time
async def test_audio_alone_keeps_a_response_from_stalling() -> None:
    async with running_device() as harness:
        harness.ready()
        harness.send_from_upstream({"type": "response.created", "response": {"id": "resp_1"}})
        for _ in range(5):
            await advance_time(STALL_TIMEOUT_S - 1)
            harness.send_from_upstream(delta(1, 1, bytes(480)))
        assert not [message for message in harness.messages() if message["type"] == "error"]
        await advance_time(STALL_TIMEOUT_S + 0.1)
        assert [message["code"] for message in harness.messages() if message["type"] == "error"] == ["upstream_stalled"]


class SilentVoice:
    """Accepts all commands and reports nothing."""

    def execute(self, command: cmd.TtsCommand) -> None: ...

    async def stop(self) -> None: ...


@in_virtual_time
async def test_a_silent_tts_connection_is_abandoned_while_the_upstream_sends_text() -> None:
    async with running_device(speech=TtsOptions(), connect_tts=lambda _: SilentVoice()) as harness:
        harness.ready()
        harness.runtime.dispatch(ev.TtsConnected())
        text = words(1, 1, "Hello. And ") | {"type": "response.output_text.delta"}
        harness.send_from_upstream({"type": "response.created", "response": {"id": "resp_1"}}, text)
        await advance_time(VOICE_STALL_S + 0.1)
        assert [message["code"] for message in harness.messages() if message["type"] == "error"] == ["voice_failed"]


@in_virtual_time
async def test_an_internal_failure_is_reported_once_and_a_second_one_aborts_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_device() as harness:
        harness.ready()

        def fail(event: ev.Event, now: float) -> list[cmd.Command]:
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(harness.core, "handle", fail)
            harness.send_from_client({"type": "interrupt"})
        assert harness.sent[-1][0] == "client cut"
        assert caplog.text.count("a bug") >= 2


class Failing(ListRecorder):
    """An internal failure in the middle of an audio path."""

    def record_input(self, payload: BytesLike, now: float) -> None:
        raise RuntimeError("a bug in the uplink")

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        raise RuntimeError("a bug in the downlink")


@pytest.mark.parametrize("line", ["uplink", "downlink", "downlink after a burst"])
@in_virtual_time
async def test_an_internal_failure_at_audio_ends_the_session_with_an_error(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_device(recorder=Failing()) as harness:
        harness.ready()
        if line == "uplink":
            harness.send_audio(bytes(960))
        else:
            others = BURST_MESSAGES if line == "downlink after a burst" else 0
            harness.send_from_upstream(*[{"type": "rate_limits.updated"}] * others, delta(1, 1, bytes(960)))
            await advance_time(1)
        assert [message["code"] for message in harness.messages() if message["type"] == "error"] == ["internal_error"]
        assert ("client close", b"1011") in harness.sent
        assert f"a bug in the {line.split()[0]}" in caplog.text


@in_virtual_time
async def test_a_tool_runs_beside_the_audio_and_comes_back_as_an_event() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    class Slow:
        async def run(self, command: cmd.RunTool, progress: Any) -> ev.ToolCallFinished:
            started.set()
            progress(ev.ToolCallProgress(command.call_id, "half way", 1))
            await release.wait()
            return ev.ToolCallFinished(command.call_id, "done", '"ready"', 1)

    call = {
        "id": "i", "type": "function_call", "call_id": "c", "name": "slow", "arguments": "{}", "status": "completed",
    }  # fmt: skip
    async with running_device(tools=Slow()) as harness:
        harness.ready()
        harness.send_from_upstream(
            {"type": "response.created", "response": {"id": "resp_1"}},
            {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": [call]}},
        )
        await started.wait()
        harness.send_audio(bytes(960))
        assert harness.sent[-1][0] == "upstream text", "the microphone does not wait for the tool"
        release.set()
        await advance_time(0.1)
        statuses = [message["status"] for message in harness.messages() if message["type"] == "tool"]
        assert statuses == ["started", "progress", "done"]
