"""The outbox: audio in line and paced, everything else at once, and a true account of what was handed over."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMU, AudioFormat
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.playback import JITTER_BUFFER_MS, MAX_CLIPS
from relay.core.values import ClipHanded, DeviceOptions
from relay.peers import outbox as outbox_module
from relay.peers.outbox import ECHO_TAIL_MS, MAX_UNSENT_BYTES, PIECE_MS, STUCK_S, Outbox
from relay.wire.device import DeviceCodec
from relay.wire.device_in import MIN_AHEAD_MS
from tests.support.virtual_time import in_virtual_time, pass_time

RAMP = bytes(range(251))


class FakeSocket:
    """Keeps what it is given, with the time; `is_writable` is the test's to change."""

    def __init__(self) -> None:
        self.is_writable = True
        self.unsent_bytes = 0
        self.on_writable: Callable[[bool], None] = lambda is_writable: None
        self.sent: list[tuple[float, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send_text(self, message: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), json.loads(message)))

    def send_binary(self, message: bytes | memoryview) -> None:
        self.sent.append((asyncio.get_running_loop().time(), bytes(message)))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def becomes(self, *, writable: bool) -> None:
        self.is_writable = writable
        self.on_writable(writable)


class Desk:
    """An outbox with a socket that keeps everything and a session that keeps every event."""

    def __init__(
        self, output: AudioFormat = PCM16_24K, max_ahead_ms: int | None = 1000, *, half_duplex: bool = False
    ) -> None:
        self.socket = FakeSocket()
        self.events: list[ev.Event] = []
        self.loop = asyncio.get_running_loop()
        self.options = DeviceOptions(output, output, max_ahead_ms, half_duplex)
        self.outbox = Outbox(
            self.socket,  # type: ignore[arg-type]
            DeviceCodec(self.options),
            self.options,
            self.events.append,
            self.loop.time,
        )
        self._next = 0

    def start(self, item_id: str, part: int = 0) -> None:
        self.outbox.start(cmd.PlayStart(item_id, part))

    def play(self, item_id: str, ms: int, part: int = 0) -> bytes:
        """One delta of `ms`, whose samples tell its place; returns its audio."""
        n_bytes = ms * self.options.upstream_output.bytes_per_ms
        pcm = (RAMP * (n_bytes // len(RAMP) + 2))[self._next : self._next + n_bytes]
        self._next = (self._next + n_bytes) % len(RAMP)
        raw = base64.b64encode(pcm)
        self.outbox.play(ev.Forwarded("output_audio", item_id, n_bytes, raw, "resp_1", part), self.loop.time())
        return pcm

    def end(self, item_id: str, ms: int = 0, part: int = 0) -> None:
        self.outbox.end(cmd.PlayEnd(item_id, part, ms))

    def clip(self, item_id: str, ms: int) -> bytes:
        """A whole item in deltas of 200 ms."""
        self.start(item_id)
        pcm = b"".join(self.play(item_id, min(200, ms - at)) for at in range(0, ms, 200))
        self.end(item_id, ms)
        return pcm

    def drop(self) -> tuple[ClipHanded, ...]:
        self.outbox.drop()
        [dropped] = [event for event in self.events if isinstance(event, ev.AudioDropped)][-1:]
        return dropped.clips

    @property
    def audio(self) -> bytes:
        return b"".join(message for _, message in self.socket.sent if isinstance(message, bytes))

    def handed_ms(self, before_s: float = float("inf")) -> float:
        sent = [message for at, message in self.socket.sent if isinstance(message, bytes) and at <= before_s]
        return sum(map(len, sent)) / self.options.output.bytes_per_ms

    def line(self) -> list[str]:
        """What was sent, in order, binary frames of one run as one."""
        names = [
            "audio" if isinstance(message, bytes) else f"{message['type']} {message.get('itemId', '')}".strip()
            for _, message in self.socket.sent
        ]
        return [
            name for index, name in enumerate(names) if index == 0 or name != "audio" or names[index - 1] != "audio"
        ]


# -- pacing -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_without_a_bound_everything_goes_out_at_once() -> None:
    desk = Desk(max_ahead_ms=None)
    pcm = desk.clip("item_1", 20_000)
    assert desk.audio == pcm
    assert desk.line() == ["audioStart item_1", "audio", "audioEnd item_1"]


@in_virtual_time
async def test_with_a_bound_only_so_much_is_ahead_and_the_client_never_runs_dry() -> None:
    desk = Desk(max_ahead_ms=1000)
    pcm = desk.clip("item_1", 5000)
    assert desk.handed_ms() == 1000
    assert desk.line() == ["audioStart item_1", "audio"]
    while desk.handed_ms() < 5000:
        await pass_time(0.01)
        played_ms = desk.loop.time() * 1000 - JITTER_BUFFER_MS
        assert played_ms < desk.handed_ms() <= max(played_ms, 0) + 1000 + 1e-6
    assert desk.audio == pcm
    assert desk.line()[-1] == "audioEnd item_1"
    assert 4.0 < desk.loop.time() < 4.2


@in_virtual_time
async def test_paced_audio_goes_out_in_pieces_one_wake_up_each() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 3000)
    sent_before = len(desk.socket.sent)
    await pass_time(2.0)
    pieces = [message for _, message in desk.socket.sent[sent_before:] if isinstance(message, bytes)]
    assert len(pieces) <= 2000 / PIECE_MS
    assert {len(piece) % 2 for piece in pieces} == {0}


@pytest.mark.parametrize("max_ahead_ms", [0, MIN_AHEAD_MS, 150, 250])
@in_virtual_time
async def test_with_the_smallest_bounds_the_client_still_hears_all_without_a_gap(max_ahead_ms: int) -> None:
    desk = Desk(max_ahead_ms=max_ahead_ms)
    pcm = desk.clip("item_1", 2000)
    limit_ms = max(max_ahead_ms, outbox_module.LEAST_AHEAD_MS)
    while desk.loop.time() < 2.2 and desk.handed_ms() < 2000:
        await pass_time(0.001)
        played_ms = desk.loop.time() * 1000 - JITTER_BUFFER_MS
        assert played_ms < desk.handed_ms() <= max(played_ms, 0) + limit_ms + 1e-6
    assert desk.audio == pcm


@in_virtual_time
async def test_a_client_that_has_run_dry_fills_its_buffer_anew() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 500)
    await pass_time(10.0)
    desk.clip("item_2", 2000)
    assert desk.handed_ms() == 1500
    await pass_time(JITTER_BUFFER_MS / 1000)
    assert desk.handed_ms() == 1500
    await pass_time(0.202)
    assert desk.handed_ms() == pytest.approx(1700, abs=2)


@in_virtual_time
async def test_an_acknowledgement_moves_the_pacing() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 5000)
    await pass_time(1.1)
    desk.outbox.sync("item_1", 300)  # the estimate says 1000: this client plays late
    before_ms = desk.handed_ms()
    await pass_time(0.6)
    assert desk.handed_ms() == before_ms
    desk.outbox.sync("item_1", 1900)  # and now it has gained
    assert desk.handed_ms() == 2900


@in_virtual_time
async def test_pacing_goes_on_in_time_after_an_acknowledgement_from_far_behind() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 9000)
    await pass_time(4.1)
    desk.outbox.sync("item_1", 0)
    await pass_time(0.3)
    desk.outbox.sync("item_1", 4300)
    for _ in range(20):
        await pass_time(0.1)
        assert desk.handed_ms() > (desk.loop.time() - 4.4) * 1000 + 4300 + 850


@in_virtual_time
async def test_acknowledgements_of_other_items_change_nothing() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 3000)
    desk.outbox.sync("item_x", 2000)
    assert desk.handed_ms() == 1000


@in_virtual_time
async def test_positions_count_within_their_item() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 600)
    desk.clip("item_2", 3000)
    assert desk.handed_ms() == 1000
    desk.outbox.sync("item_2", 300)
    assert desk.handed_ms() == 600 + 300 + 1000


# -- order ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_words_overtake_audio_and_audio_stays_in_line() -> None:
    desk = Desk(max_ahead_ms=400)
    first, second = desk.clip("item_1", 1000), desk.clip("item_2", 1000)
    desk.outbox.tell(cmd.TellText("hello"))
    assert desk.line() == ["audioStart item_1", "audio", "textDelta"]
    await pass_time(3.0)
    assert desk.line() == [
        "audioStart item_1",
        "audio",
        "textDelta",
        "audio",
        "audioEnd item_1",
        "audioStart item_2",
        "audio",
        "audioEnd item_2",
    ]
    assert desk.audio == first + second


@in_virtual_time
async def test_an_end_may_come_after_the_next_ones_beginning() -> None:
    desk = Desk(PCM16_16K, max_ahead_ms=None)
    desk.start("item_1")
    desk.play("item_1", 100)
    desk.start("item_2")
    desk.play("item_2", 100)
    assert sent_bytes(desk)["item_1"] > 100 * 32, "its tail came before the next one's beginning"
    desk.end("item_1", 100)
    desk.end("item_2", 100)
    assert desk.line() == [
        "audioStart item_1", "audio", "audioStart item_2", "audio",
        "audioEnd item_1", "audio", "audioEnd item_2",
    ]  # fmt: skip


@in_virtual_time
async def test_the_first_byte_of_each_item_is_told_once() -> None:
    desk = Desk(max_ahead_ms=400)
    desk.clip("item_1", 600)
    desk.clip("item_2", 600)
    assert desk.events == [ev.AudioHanded("item_1")]
    await pass_time(2.0)
    assert desk.events == [ev.AudioHanded("item_1"), ev.AudioHanded("item_2")]


@in_virtual_time
async def test_audio_that_is_no_base64_is_reported_and_the_rest_goes_on() -> None:
    desk = Desk(max_ahead_ms=None)
    desk.start("item_1")
    desk.outbox.play(ev.Forwarded("output_audio", "item_1", 3, b"n*pe", "resp_1"), desk.loop.time())
    pcm = desk.play("item_1", 100)
    assert desk.events == [ev.MalformedUpstream("audio that is not base64"), ev.AudioHanded("item_1")]
    assert desk.audio == pcm


# -- dropping ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_dropped_is_accounted_for_clip_by_clip() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 500)
    desk.clip("item_2", 2000)
    desk.clip("item_3", 700)
    await pass_time(0.6)
    clips = desk.drop()
    handed_ms = int(desk.handed_ms())
    assert [clip.item_id for clip in clips] == ["item_2", "item_3"], "item_1 was played to its end"
    assert clips[0].handed_ms == handed_ms - 500
    assert clips[0].estimated_ms == pytest.approx(600 - JITTER_BUFFER_MS - 500, abs=1)
    assert clips[1] == ClipHanded("item_3", 0, 0, 0)


@in_virtual_time
async def test_nothing_goes_out_after_a_drop() -> None:
    desk = Desk(max_ahead_ms=400)
    desk.clip("item_1", 5000)
    desk.drop()
    sent = list(desk.socket.sent)
    await pass_time(10.0)
    desk.socket.becomes(writable=True)
    assert desk.socket.sent == sent
    assert desk.drop() == ()


@in_virtual_time
async def test_what_comes_after_a_drop_starts_at_once() -> None:
    desk = Desk(max_ahead_ms=400)
    desk.clip("item_1", 5000)
    await pass_time(0.3)
    desk.drop()
    before_ms = desk.handed_ms()
    desk.clip("item_2", 300)
    assert desk.handed_ms() == before_ms + 300
    assert desk.line()[-3:] == ["audioStart item_2", "audio", "audioEnd item_2"]
    await pass_time(0.25)
    [clip] = desk.drop()
    assert (clip.item_id, clip.handed_ms) == ("item_2", 300)
    assert clip.estimated_ms == pytest.approx(250 - JITTER_BUFFER_MS, abs=1)


@in_virtual_time
async def test_a_client_that_has_just_begun_has_heard_nothing_yet() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.start("item_1")
    desk.play("item_1", 800)
    await pass_time(JITTER_BUFFER_MS / 2000)
    assert desk.drop() == (ClipHanded("item_1", 0, 800, 0),)


@in_virtual_time
async def test_an_unfinished_clip_is_listed_even_if_all_that_came_of_it_was_played() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.start("item_1")
    desk.play("item_1", 200)
    await pass_time(5.0)
    assert desk.drop() == (ClipHanded("item_1", 0, 200, 200),)


@in_virtual_time
async def test_the_parts_of_an_item_are_told_apart() -> None:
    desk = Desk(max_ahead_ms=300)
    for part in (0, 1):
        desk.start("item_1", part)
        desk.play("item_1", 200, part)
        desk.end("item_1", 200, part)
    assert desk.drop() == (ClipHanded("item_1", 0, 200, 0), ClipHanded("item_1", 1, 100, 0))


@in_virtual_time
async def test_an_acknowledgement_counts_for_the_estimate() -> None:
    desk = Desk(max_ahead_ms=1000)
    desk.clip("item_1", 3000)
    await pass_time(0.5)
    desk.outbox.sync("item_1", 250)
    await pass_time(0.1)
    [clip] = desk.drop()
    assert clip.estimated_ms == pytest.approx(350, abs=1)


# -- slow clients -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_audio_waits_while_the_socket_is_full_and_goes_on_afterwards() -> None:
    desk = Desk(max_ahead_ms=None)
    desk.start("item_1")
    first = desk.play("item_1", 100)
    desk.socket.becomes(writable=False)
    second = desk.play("item_1", 100)
    desk.end("item_1", 200)
    assert desk.audio == first
    await pass_time(STUCK_S - 1)
    desk.socket.becomes(writable=True)
    assert desk.audio == first + second
    assert desk.line() == ["audioStart item_1", "audio", "audioEnd item_1"]
    await pass_time(2 * STUCK_S)
    assert desk.events == [ev.AudioHanded("item_1")]


@in_virtual_time
async def test_a_client_that_does_not_read_for_long_is_stuck() -> None:
    desk = Desk()
    desk.socket.unsent_bytes = 70_000
    desk.socket.becomes(writable=False)
    desk.socket.becomes(writable=False)
    await pass_time(STUCK_S - 0.1)
    assert desk.events == []
    await pass_time(0.2)
    assert desk.events == [ev.ClientStuck(70_000)]


@in_virtual_time
async def test_a_client_that_lets_messages_pile_up_is_stuck_at_once() -> None:
    desk = Desk()
    desk.socket.becomes(writable=False)
    desk.outbox.tell(cmd.TellText("one"))
    desk.socket.unsent_bytes = MAX_UNSENT_BYTES + 1
    desk.outbox.tell(cmd.TellText("two"))
    assert desk.events == [ev.ClientStuck(MAX_UNSENT_BYTES + 1)]


@in_virtual_time
async def test_over_the_bound_the_oldest_audio_is_left_out_and_said_so_once_an_item() -> None:
    desk = Desk(PCMU, max_ahead_ms=1000)
    desk.start("item_1")
    chunks = [desk.play("item_1", 10_000) for _ in range(outbox_module.MAX_QUEUED_MS // 10_000 + 3)]
    overflows = [event for event in desk.events if isinstance(event, ev.AudioOverflow)]
    assert [event.item_id for event in overflows] == ["item_1"]
    assert overflows[0].dropped_ms > 0
    desk.end("item_1")
    await pass_time(600)
    assert len(desk.audio) <= outbox_module.MAX_QUEUED_MS * 8 + 1000 * 8
    assert desk.audio.endswith(b"".join(chunks[-20:])), "the newest is kept"
    assert desk.line()[-1] == "audioEnd item_1"


@in_virtual_time
async def test_items_without_end_fill_no_memory_and_each_is_told_to_begin_and_to_end() -> None:
    desk = Desk(max_ahead_ms=20)
    n_items = outbox_module.MAX_QUEUED // 3 + 500
    for number in range(n_items):
        desk.start(f"item_{number}")
        desk.play(f"item_{number}", 1)
        desk.end(f"item_{number}")
        assert len(desk.outbox._queue) <= outbox_module.MAX_QUEUED
    overflows = [event for event in desk.events if isinstance(event, ev.AudioOverflow)]
    assert overflows
    await pass_time(60)
    told = [line for line in desk.line() if line != "audio"]
    assert told == [f"{kind} item_{number}" for number in range(n_items) for kind in ("audioStart", "audioEnd")]


@in_virtual_time
async def test_what_is_known_of_items_that_a_client_plays_without_end_is_bounded() -> None:
    desk = Desk(max_ahead_ms=None)
    for number in range(1000):
        desk.clip(f"item_{number}", 1000)
    assert [clip.item_id for clip in desk.drop()] == [f"item_{number}" for number in range(1000 - MAX_CLIPS, 1000)]


@pytest.mark.parametrize("output", [PCM16_24K, PCM16_48K, PCM16_8K], ids=str)
@in_virtual_time
async def test_a_delta_of_minutes_goes_out_in_pieces_and_nothing_is_lost(output: AudioFormat) -> None:
    desk = Desk(output, max_ahead_ms=None)
    desk.start("item_1")
    pcm = desk.play("item_1", 120_000)
    desk.end("item_1", 120_000)
    sent = [message for _, message in desk.socket.sent if isinstance(message, bytes)]
    assert max(map(len, sent)) <= outbox_module.MAX_DELTA_CHARS * 2
    assert 0 <= sum(map(len, sent)) - 120_000 * output.bytes_per_ms <= 2 * output.bytes_per_ms, "a filter's tail"
    if output == PCM16_24K:
        assert desk.audio == pcm


@in_virtual_time
async def test_audio_that_went_out_does_not_count_for_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_QUEUED_MS", 3000)
    desk = Desk(max_ahead_ms=500)
    desk.start("item_1")
    pcm = desk.play("item_1", 2000)
    for _ in range(20):
        await pass_time(1.0)
        pcm += desk.play("item_1", 1000)
    await pass_time(10)
    assert desk.audio == pcm
    assert desk.events == [ev.AudioHanded("item_1")]


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [PCM16_8K, PCM16_16K, PCM16_48K], ids=str)
@in_virtual_time
async def test_resampled_audio_is_as_long_as_it_was_and_its_tail_comes_before_its_end(output: AudioFormat) -> None:
    desk = Desk(output, max_ahead_ms=500)
    desk.clip("item_1", 1230)
    await pass_time(5.0)
    assert desk.handed_ms() == pytest.approx(1230, abs=2)
    assert desk.line() == ["audioStart item_1", "audio", "audioEnd item_1"]
    assert desk.socket.sent[-1][1] == {"type": "audioEnd", "itemId": "item_1", "totalMs": 1230}


@in_virtual_time
async def test_nothing_of_a_dropped_item_sounds_in_the_next() -> None:
    once, twice = Desk(PCM16_16K, None), Desk(PCM16_16K, None)
    twice.start("item_1")
    twice.play("item_1", 100)
    twice.drop()
    heard_before = len(twice.audio)
    for desk in (once, twice):
        desk._next = 0
        desk.clip("item_2", 100)
    assert twice.audio[heard_before:] == once.audio


@in_virtual_time
async def test_new_options_are_in_force_from_there_on() -> None:
    desk = Desk(PCM16_24K, max_ahead_ms=1000)
    desk.options = DeviceOptions(PCM16_24K, PCMU, None)
    desk.outbox.use(desk.options)
    pcm = desk.clip("item_1", 5000)
    assert desk.audio == pcm
    assert len(pcm) == 5000 * 8


# -- the end ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_closing_stops_everything_and_closes_the_socket() -> None:
    desk = Desk(max_ahead_ms=400)
    desk.clip("item_1", 5000)
    desk.socket.is_writable = False
    desk.socket.on_writable(False)
    desk.outbox.close(1001, "restarting")
    sent = list(desk.socket.sent)
    await pass_time(20.0)
    assert desk.socket.closed == (1001, "restarting")
    assert desk.socket.sent == sent
    assert desk.events == [ev.AudioHanded("item_1")]


# -- whatever happens -------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["play", "play", "play", "next", "end", "time", "sync", "full", "drop"]), st.integers(0, 9)
    ),
    max_size=40,
)


@given(
    steps=STEPS, max_ahead_ms=st.sampled_from([None, 100, 400, 1000]), output=st.sampled_from([PCM16_24K, PCM16_16K])
)
@settings(max_examples=50, deadline=None)
def test_the_account_of_a_drop_is_what_the_socket_was_given(
    steps: list[tuple[str, int]], max_ahead_ms: int | None, output: AudioFormat
) -> None:
    _play_steps(steps, max_ahead_ms, output)


@in_virtual_time
async def _play_steps(steps: list[tuple[str, int]], max_ahead_ms: int | None, output: AudioFormat) -> None:
    desk = Desk(output, max_ahead_ms)
    number, begun, ended = 0, False, False
    for what, value in steps:
        item = f"item_{number}"
        if what == "next" or (what in ("play", "end") and ended):
            number, begun, ended = number + 1, False, False
        elif what == "play":
            if not begun:
                desk.start(item)
                begun = True
            desk.play(item, 37 * value)
        elif what == "end" and begun:
            desk.end(item)
            ended = True
        elif what == "time":
            await pass_time(value * 0.15)
        elif what == "sync":
            desk.outbox.sync(item, value * 200)
        elif what == "full":
            desk.socket.becomes(writable=value % 3 != 0)
        elif what == "drop":
            sent = sent_bytes(desk)
            for clip in desk.drop():
                assert clip.handed_ms == sent.get(clip.item_id, 0) // output.bytes_per_ms
                assert 0 <= clip.estimated_ms <= clip.handed_ms
            number, begun, ended = number + 1, False, False
    before = dict(sent_bytes(desk))
    desk.drop()
    await pass_time(60)
    assert sent_bytes(desk) == before


def sent_bytes(desk: Desk) -> dict[str, int]:
    """How much audio was sent between the start of each item and what came next."""
    sent: dict[str, int] = {}
    item = ""
    for _, message in desk.socket.sent:
        if isinstance(message, bytes):
            sent[item] = sent.get(item, 0) + len(message)
        elif message["type"] == "audioStart":
            item = message["itemId"]
    return sent


# -- half duplex ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_half_duplex_device_is_told_to_be_silent_until_the_room_is() -> None:
    desk = Desk(max_ahead_ms=400, half_duplex=True)
    desk.clip("item_1", 1000)
    await pass_time((1000 + JITTER_BUFFER_MS + ECHO_TAIL_MS) / 1000 - 0.05)
    assert ev.PlayedOut() not in desk.events
    await pass_time(0.1)
    assert desk.events[-1] == ev.PlayedOut()


@in_virtual_time
async def test_between_two_clips_nothing_has_been_played_out() -> None:
    desk = Desk(half_duplex=True)
    desk.clip("item_1", 200)
    await pass_time(0.3)
    desk.start("item_2")
    desk.play("item_2", 600)
    await pass_time(5.0)
    assert ev.PlayedOut() not in desk.events, "the model has not ended it"
    desk.end("item_2", 600)
    await pass_time(0.3)
    assert desk.events[-1] == ev.PlayedOut()


@in_virtual_time
async def test_a_device_that_plays_late_is_waited_for() -> None:
    desk = Desk(half_duplex=True)
    desk.clip("item_1", 600)
    await pass_time(0.7)
    desk.outbox.sync("item_1", 100)
    await pass_time(0.3)
    assert ev.PlayedOut() not in desk.events
    await pass_time(0.5)
    assert desk.events[-1] == ev.PlayedOut()


@in_virtual_time
async def test_nobody_is_told_where_both_may_speak_at_once() -> None:
    desk = Desk()
    desk.clip("item_1", 200)
    await pass_time(2.0)
    assert desk.events == [ev.AudioHanded("item_1")]
