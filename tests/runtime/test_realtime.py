"""A Realtime session at run time, with fake transports: both paths, their order, backpressure."""

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.runtime.timers import MAX_STALL_S
from relay.session.common.input_control import MAX_HELD_MS
from relay.session.common.media_types import RawDelta
from relay.session.device import events as ev
from relay.transport.read_limiter import BURST_MESSAGES
from relay.transport.websocket import LONG_MESSAGE_BYTES
from tests.support.realtime_session_harness import CLOCK, call_item, response_created, response_done
from tests.support.runtime_harness import RealtimeRuntimeHarness, running_realtime
from tests.support.virtual_time import VirtualTimeLoop, advance_time, in_virtual_time

Obj = dict[str, Any]
AUDIO_KIND = "response.output_audio.delta"
TEXT_KINDS = [
    "response.output_audio_transcript.delta",
    "response.output_text.delta",
    "conversation.item.input_audio_transcription.delta",
]
SEPARATORS = {"compact": (",", ":"), "spaced": (", ", ": ")}
COMMIT = {"type": "input_audio_buffer.commit"}


def append(pcm: bytes, shape: str = "compact") -> bytes:
    """An append of audio as different clients serialize it."""
    audio = base64.b64encode(pcm).decode()
    event = {"type": "input_audio_buffer.append"} | ({"event_id": "evt_1"} if shape == "with an id" else {})
    return json.dumps(event | {"audio": audio}, separators=SEPARATORS.get(shape)).encode()


def delta(response: int, output: int, text: str, kind: str = AUDIO_KIND) -> Obj:
    return {
        "type": kind, "event_id": "event_x", "response_id": f"resp_{response}", "item_id": f"item_{output}",
        "output_index": output, "content_index": 0, "delta": text,
    }  # fmt: skip


def audio_delta(response: int, output: int, pcm: bytes) -> Obj:
    return delta(response, output, base64.b64encode(pcm).decode())


def frame(event: Obj, shape: str = "compact") -> bytes:
    if shape == "type last":
        event = {key: event[key] for key in event if key != "type"} | {"type": event["type"]}
    return json.dumps(event, separators=SEPARATORS.get(shape)).encode()


def server_call(response: int, output: int) -> Obj:
    """Start a response with an output that the client does not see."""
    item = call_item(f"call_{response}_{output}", "clock", "in_progress")
    about = {"response_id": f"resp_{response}", "output_index": output}
    return {"type": "response.output_item.added", **about, "item": item}


# -- random sessions against a simple model ---------------------------------------------------------------------------

_small = st.integers(1, 2)
_pcm = st.one_of(st.binary(min_size=1, max_size=64), st.sampled_from([b"\1\2" * 100, bytes(960), bytes(161)]))
_shape = st.sampled_from(["compact", "spaced", "with an id"])
_text = st.text(max_size=5) | st.just('","delta":"')
_delta = st.builds(audio_delta, _small, _small, _pcm | st.just(b"")) | st.builds(
    delta, _small, _small, _text, st.sampled_from(TEXT_KINDS)
)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.tuples(_pcm, _shape)),
        st.tuples(st.just("append"), st.tuples(_pcm, _shape)),
        st.tuples(st.just("client"), st.sampled_from([COMMIT, {"type": "input_audio_buffer.clear", "event_id": "a"}])),
        st.tuples(st.just("ready"), st.none()),
        st.tuples(st.just("delta"), st.tuples(_delta, st.sampled_from(["compact", "spaced", "type last"]))),
        st.tuples(st.just("delta"), st.tuples(_delta, st.just("compact"))),
        st.tuples(st.just("hide"), st.tuples(_small, st.integers(0, 2))),
        st.tuples(st.just("end"), _small),
        st.tuples(st.just("upstream"), st.sampled_from([{"type": "rate_limits.updated"}, {"type": "new", "x": [1]}])),
        st.tuples(st.just("client reads"), st.booleans()),
        st.tuples(st.just("upstream reads"), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0, 0.2)),
    ),
    max_size=40,
)


class Model:
    """What must come of the steps: all goes on as it came and in order, and only what a hidden output moves is new.

    No append is empty: an early one has no place in the audio, and may change places with an event beside it.
    """

    def __init__(self, harness: RealtimeRuntimeHarness) -> None:
        self.harness = harness
        self.is_ready = False
        self.up: list[bytes | Obj] = []
        self.down: list[bytes | Obj] = []
        self.appends: list[tuple[bytes, float]] = []
        self.deltas: list[tuple[bytes, bytes, float]] = []
        self.hidden: dict[int, set[int]] = {1: set(), 2: set()}
        self.input_bytes = self.output_bytes = 0
        self.output_at = self.plays_until = 0.0

    async def step(self, kind: str, what: Any) -> None:
        harness, now = self.harness, asyncio.get_running_loop().time()
        match kind:
            case "append":
                self._append(*what, now)
            case "client":
                harness.send_from_client(what)
                self.up.append(what)
            case "delta":
                self._delta(*what, now)
            case "client reads":
                (harness.client.resume_writing if what else harness.client.pause_writing)()
                assert harness.upstream_transport.is_paused is not what
            case "upstream reads":
                (harness.upstream.resume_writing if what else harness.upstream.pause_writing)()
                assert harness.client_transport.is_paused is not what
            case "wait":
                await advance_time(what)
            case "ready" if not self.is_ready:
                harness.ready()
                self.is_ready = True
            case _ if self.is_ready:
                self._upstream(kind, what)

    def _append(self, pcm: bytes, shape: str, now: float) -> None:
        raw = append(pcm, shape)
        self.harness.send_from_client(raw)
        self.up.append(raw)
        self.appends.append((raw, now))
        self.input_bytes += len(pcm)

    def _delta(self, event: Obj, shape: str, now: float) -> None:
        raw, is_audio = frame(event, shape), event["type"] == AUDIO_KIND
        self.harness.send_from_upstream(raw)
        n_before = sum(index < event["output_index"] for index in self.hidden[int(event["response_id"][-1])])
        self.down.append(event | {"output_index": event["output_index"] - n_before} if n_before else raw)
        pcm = base64.b64decode(event["delta"]) if is_audio else b""
        self.deltas.append((raw, pcm, now))
        self.output_bytes += len(pcm)
        self.output_at, self.plays_until = now, max(self.plays_until, now) + len(pcm) / 48_000

    def _upstream(self, kind: str, what: Any) -> None:
        match kind:
            case "hide":
                self.harness.send_from_upstream(server_call(*what))
                self.hidden[what[0]].add(what[1])
            case "end":
                self.harness.send_from_upstream(response_done(f"resp_{what}"))
                self.down.append(frame(response_done(f"resp_{what}")))
                self.hidden[what].clear()
            case "upstream":
                self.harness.send_from_upstream(what)
                self.down.append(frame(what))

    def check(self) -> None:
        harness, ledger = self.harness, self.harness.core.ledger
        check_sent(harness.texts("upstream"), self.up)
        check_sent(harness.texts("client"), self.down)
        assert (ledger.input_bytes, ledger.dropped_input_bytes) == (self.input_bytes, 0)
        assert (ledger.output_bytes, ledger.last_output_at) == (self.output_bytes, self.output_at)
        assert ledger.playback_ends_at == pytest.approx(self.plays_until)
        assert [entry[1:] for entry in harness.recorder.all("input")] == self.appends
        recorded = harness.recorder.all("frame")
        assert [(delta.raw, delta.n_bytes, now) for _, delta, now in recorded] == [
            (raw, len(pcm), now) for raw, pcm, now in self.deltas
        ]
        for (_, delta, _), (raw, pcm, _) in zip(recorded, self.deltas, strict=True):
            assert delta.audio_offset < 0 or raw[delta.audio_offset :].startswith(base64.b64encode(pcm) + b'"')


def check_sent(sent: list[bytes], expected: list[bytes | Obj]) -> None:
    """Expected bytes were sent byte for byte; an expected event was sent in any form."""
    assert len(sent) == len(expected)
    for raw, what in zip(sent, expected, strict=True):
        assert (raw if isinstance(what, bytes) else json.loads(raw)) == what


@given(_steps)
@settings(max_examples=150, deadline=None)
def test_random_sessions_agree_with_the_model(steps: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        async with running_realtime(CLOCK) as harness:
            model = Model(harness)
            for kind, what in [*steps, ("ready", None)]:
                await model.step(kind, what)
            model.check()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())


# -- the uplink -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_plain_appends_are_forwarded_byte_for_byte_counted_and_recorded() -> None:
    async with running_realtime() as harness:
        harness.ready()
        appends = [append(b"\1\2" * 480), append(b"\3\4" * 10, "spaced"), append(b""), append(b"\5", "with an id")]
        harness.send_from_client(*appends)
        assert harness.texts("upstream") == appends
        assert [entry[1] for entry in harness.recorder.all("input")] == appends
        assert harness.core.ledger.input_bytes == 960 + 20 + 1


@in_virtual_time
async def test_an_append_of_another_shape_is_an_event_and_keeps_its_place() -> None:
    async with running_realtime() as harness:
        harness.ready()
        other = {"audio": "AAAA", "type": "input_audio_buffer.append", "event_id": "e"}
        harness.send_from_client(append(b"\1\1"), other, append(b"\2\2"))
        assert harness.upstream_requests() == [json.loads(append(b"\1\1")), other, json.loads(append(b"\2\2"))]
        assert harness.core.ledger.input_bytes == 4, "what is an event is counted by nobody"
        assert [entry[:2] for entry in harness.recorder.entries[-3:]] == [
            ("input", append(b"\1\1")), ("event", "RealtimeClientEvent"), ("input", append(b"\2\2")),
        ]  # fmt: skip


@pytest.mark.parametrize("tools", [(), (CLOCK,)], ids=["nothing to configure", "configured first"])
@in_virtual_time
async def test_early_appends_and_events_keep_their_order(tools: Any) -> None:
    async with running_realtime(*tools) as harness:
        messages = [append(b"\1\1"), append(b"\2\2"), frame(COMMIT), append(b"\3\3"), frame(COMMIT), frame(COMMIT)]
        messages.append(append(b"\4\4"))
        harness.send_from_client(*messages)
        assert harness.texts("upstream") == []
        assert len(harness.recorder.all("input")) == 4, "recorded when it comes"
        harness.ready()
        harness.send_from_client(append(b"\5\5"))
        assert harness.texts("upstream") == [*messages, append(b"\5\5")]


@pytest.mark.parametrize("is_early", [True, False])
@in_virtual_time
async def test_an_append_of_more_than_64_kib_goes_whole_and_by_a_buffer_of_its_own(is_early: bool) -> None:
    async with running_realtime() as harness:
        if not is_early:
            harness.ready()
        raw = append(bytes(range(256)) * 300)
        assert len(raw) > LONG_MESSAGE_BYTES
        harness.send_from_client(raw, append(b"\1\1"))
        if is_early:
            harness.ready()
        assert harness.texts("upstream") == [raw, append(b"\1\1")]
        assert harness.upstream_transport.long_bytes == len(raw)
        assert harness.core.ledger.input_bytes == 256 * 300 + 2


@in_virtual_time
async def test_early_audio_beyond_ten_seconds_is_dropped_oldest_first_and_counted() -> None:
    async with running_realtime() as harness:
        second_bytes = 48_000
        seconds = [append(bytes([number]) * second_bytes) for number in range(13)]
        assert MAX_HELD_MS == 10_000
        for raw in seconds[:11]:
            harness.send_from_client(raw)
            await advance_time(1)
        harness.send_from_client(COMMIT, *seconds[11:])
        harness.ready()
        assert harness.texts("upstream") == [*seconds[3:11], frame(COMMIT), *seconds[11:]]
        assert harness.core.ignored == {"(early audio, bytes)": 3 * second_bytes}
        assert f"(early audio, bytes) ×{3 * second_bytes}" in harness.runtime.close_summary
        ledger = harness.core.ledger
        assert (ledger.input_bytes, ledger.accepted_input_bytes) == (13 * second_bytes, 10 * second_bytes)


# -- the downlink -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["compact", "spaced", "type last"])
@in_virtual_time
async def test_deltas_pass_byte_for_byte_while_nothing_is_hidden_and_are_recorded(shape: str) -> None:
    async with running_realtime(CLOCK) as harness:
        harness.ready()
        deltas = [audio_delta(1, 2, bytes(4800)), *(delta(1, 2, "hé", kind) for kind in TEXT_KINDS)]
        raws = [frame(event, shape) for event in deltas]
        harness.send_from_upstream(*raws)
        assert harness.texts("client") == raws
        recorded = [entry[1] for entry in harness.recorder.all("frame")]
        assert [(forwarded.raw, forwarded.n_bytes) for forwarded in recorded] == [
            (raw, 0 if n else 4800) for n, raw in enumerate(raws)
        ]
        ledger = harness.core.ledger
        assert (ledger.output_bytes, ledger.playback_ends_at - ledger.last_output_at) == (4800, pytest.approx(0.1))
        events = [entry[1] for entry in harness.recorder.all("event")]
        assert events == ["UpstreamOpened", "RealtimeServerEvent", "RealtimeServerEvent"], "a delta is no event"


@in_virtual_time
async def test_deltas_before_the_configuration_are_held_with_the_other_events() -> None:
    async with running_realtime(CLOCK) as harness:
        raws = [frame(audio_delta(1, 0, bytes(960))), frame(delta(1, 0, "words", TEXT_KINDS[0]), "type last")]
        harness.send_from_upstream(
            {"type": "session.created", "session": {}}, response_created("resp_1"), *raws, response_done("resp_1")
        )
        assert harness.messages() == []
        harness.send_from_upstream({"type": "session.updated", "session": {}})
        assert harness.messages()[0]["type"] == "session.created"
        assert harness.texts("client")[1:] == [frame(response_created("resp_1")), *raws, frame(response_done("resp_1"))]


@in_virtual_time
async def test_held_deltas_are_dropped_when_the_session_ends() -> None:
    async with running_realtime(CLOCK) as harness:
        harness.ready()
        raws = [frame(audio_delta(1, 0, bytes([number]))) for number in range(BURST_MESSAGES + 10)]
        harness.send_from_upstream(*raws)
        harness.runtime.dispatch(ev.KeyRevoked())
        await advance_time(1)
        assert [entry[1].raw for entry in harness.recorder.all("frame")] == harness.texts("client")[:-1]
        assert harness.texts("client")[:-1] == raws[: len(harness.texts("client")) - 1]
        assert len(harness.texts("client")) <= BURST_MESSAGES + 1


@in_virtual_time
async def test_deltas_are_renumbered_by_position_while_an_output_before_them_is_hidden() -> None:
    async with running_realtime(CLOCK) as harness:
        harness.ready()
        raw, words = frame(audio_delta(1, 1, b"\1\2" * 480)), frame(delta(1, 1, "words", TEXT_KINDS[0]))
        harness.send_from_upstream(response_created("resp_1"), server_call(1, 0), raw, words)
        moved = [message.replace(b'"output_index":1', b'"output_index":0') for message in (raw, words)]
        assert harness.texts("client") == [frame(response_created("resp_1")), *moved]
        assert [entry[1] for entry in harness.recorder.all("frame")] == [
            RawDelta(raw, 960, raw.index(b'"delta":"') + len(b'"delta":"')), RawDelta(words, 0, -1),
        ]  # fmt: skip
        harness.sent.clear()
        others = [frame(audio_delta(2, 1, bytes(10))), frame(audio_delta(1, 0, bytes(10)))]
        harness.send_from_upstream(*others, response_done("resp_1"), raw)
        assert harness.texts("client") == [*others, frame(response_done("resp_1")), raw], (
            "nothing is hidden before them"
        )


@in_virtual_time
async def test_a_delta_of_more_than_64_kib_goes_whole_and_by_a_buffer_of_its_own() -> None:
    async with running_realtime(CLOCK) as harness:
        harness.ready()
        raw = frame(audio_delta(1, 1, bytes(range(256)) * 300))
        harness.send_from_upstream(raw, server_call(1, 0), raw)
        moved = raw.replace(b'"output_index":1', b'"output_index":0')
        assert harness.texts("client") == [raw, moved]
        assert harness.client_transport.long_bytes == len(raw) + len(moved)


@in_virtual_time
async def test_an_invalid_delta_is_forwarded_unchanged_even_with_hidden_outputs() -> None:
    async with running_realtime(CLOCK) as harness:
        harness.ready()
        raws = [frame(delta(1, 1, "words", TEXT_KINDS[0]))[:-1], frame(audio_delta(1, 1, bytes(10)))[:-1] + b",}"]
        harness.send_from_upstream(server_call(1, 0), *raws)
        assert harness.texts("client") == raws
        assert harness.core.ignored == {}


# -- ends that do not read --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_client_that_does_not_read_holds_the_upstream_back() -> None:
    async with running_realtime() as harness:
        harness.ready()
        harness.client.pause_writing()
        assert (harness.upstream_transport.is_paused, harness.client_transport.is_paused) == (True, False)
        raw = frame(audio_delta(1, 0, bytes(100)))
        harness.send_from_upstream(raw)
        assert harness.texts("client") == [raw], "what had been read already is not lost"
        await advance_time(MAX_STALL_S - 0.1)
        harness.client.resume_writing()
        assert not harness.upstream_transport.is_paused
        await advance_time(MAX_STALL_S)
        assert harness.client.is_open


@in_virtual_time
async def test_an_upstream_that_does_not_read_holds_the_client_back() -> None:
    async with running_realtime() as harness:
        harness.ready()
        harness.upstream.pause_writing()
        assert (harness.upstream_transport.is_paused, harness.client_transport.is_paused) == (False, True)
        harness.send_from_client(append(b"\1\1"))
        assert harness.texts("upstream") == [append(b"\1\1")], "what had been read already is not lost"
        await advance_time(MAX_STALL_S - 0.1)
        harness.upstream.resume_writing()
        assert not harness.client_transport.is_paused
        await advance_time(MAX_STALL_S)
        assert harness.messages() == []


@in_virtual_time
async def test_a_client_that_reads_nothing_for_ten_seconds_is_cut_off() -> None:
    async with running_realtime() as harness:
        harness.ready()
        harness.client.pause_writing()
        await advance_time(MAX_STALL_S - 0.1)
        assert harness.sent == []
        await advance_time(0.2)
        assert harness.sent == [("client close", b"4003"), ("upstream close", b"1000"), ("client cut", b"")]
        assert harness.recorder.all("event")[-1][1] == "ClientBackpressure"


@in_virtual_time
async def test_an_upstream_that_reads_nothing_for_ten_seconds_ends_the_session() -> None:
    async with running_realtime() as harness:
        harness.ready()
        harness.upstream.pause_writing()
        await advance_time(MAX_STALL_S + 0.1)
        assert [message["error"]["code"] for message in harness.messages()] == ["upstream_stalled"]
        assert harness.sent[1:] == [("client close", b"1011"), ("upstream close", b"1000")]
        harness.send_from_client(append(b"\1\1"))
        assert harness.texts("upstream") == [], "nobody takes it any more"
