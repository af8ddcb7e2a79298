"""Invariants of playout: whatever is played, cleared and acknowledged, audio is bounded, in order and accounted for."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCMU, AudioFormat
from relay.session.device import events as ev
from tests.support.playout_harness import PlayoutHarness, sent_bytes
from tests.support.virtual_time import advance_time, in_virtual_time

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["play", "play", "play", "next", "end", "time", "sync", "full", "clear"]), st.integers(0, 9)
    ),
    min_size=15,  # hypothesis makes short lists otherwise, and little happens in them
    max_size=60,
)

# -- in every format --------------------------------------------------------------------------------------------------


@given(
    steps=STEPS, max_ahead_ms=st.sampled_from([None, 100, 400, 1000]), output=st.sampled_from([PCM16_24K, PCM16_16K])
)
@settings(max_examples=50, deadline=None)
def test_a_clear_reports_exactly_what_was_sent(
    steps: list[tuple[str, int]], max_ahead_ms: int | None, output: AudioFormat
) -> None:
    _play_steps(steps, max_ahead_ms, output)


@in_virtual_time
async def _play_steps(steps: list[tuple[str, int]], max_ahead_ms: int | None, output: AudioFormat) -> None:
    harness = PlayoutHarness(output, max_ahead_ms)
    number, begun, ended = 0, False, False
    for what, value in steps:
        item = f"item_{number}"
        if what == "next" or (what in ("play", "end") and ended):
            number, begun, ended = number + 1, False, False
        elif what == "play":
            if not begun:
                harness.start(item)
                begun = True
            harness.play(item, 37 * value)
        elif what == "end" and begun:
            harness.end(item)
            ended = True
        elif what == "time":
            await advance_time(value * 0.15)
        elif what == "sync":
            harness.playout.sync(item, value * 200)
        elif what == "full":
            harness.socket.set_writable(writable=value % 3 != 0)
        elif what == "clear":
            sent = sent_bytes(harness)
            for clip in harness.clear():
                assert clip.sent_ms == sent.get(clip.item_id, 0) // output.bytes_per_ms
                assert 0 <= clip.estimated_played_ms <= clip.sent_ms
            number, begun, ended = number + 1, False, False
    before = dict(sent_bytes(harness))
    harness.clear()
    await advance_time(60)
    assert sent_bytes(harness) == before


# -- ms by ms ---------------------------------------------------------------------------------------------------------


class NumberedAudio:
    """Audio whose every ms holds its own number, and the invariants of what the client was sent."""

    def __init__(self, max_ahead_ms: int, max_queued_ms: int) -> None:
        self.harness = PlayoutHarness(PCMU, max_ahead_ms, max_queued_ms=max_queued_ms)
        self.max_ahead_ms, self.max_queued_ms = max_ahead_ms, max_queued_ms
        self.item, self.is_begun, self.is_ended = 0, False, False
        self.items: list[int] = []
        """The item of each ms that was played."""
        self.ended: set[int] = set()
        self.cleared: list[tuple[int, int]] = []
        """How many ms had been sent by each clear, and how many had been played."""
        self.synced: list[int] = []
        """How many ms had been sent by each acknowledgement or clear."""

    def next_item(self) -> None:
        self.item, self.is_begun, self.is_ended = self.item + 1, False, False

    def play(self, ms: int) -> None:
        if self.is_ended:
            self.next_item()
        if not self.is_begun:
            self.harness.start(f"item_{self.item}")
            self.is_begun = True
        first = len(self.items)
        self.items += [self.item] * ms
        samples = b"".join(number.to_bytes(8, "big") for number in range(first, first + ms))
        had_overflowed = self.overflowed
        self.harness.playout.play((f"item_{self.item}", 0), samples, self.harness.loop.time())
        if self.overflowed and not had_overflowed:
            n_sent, n_played = self.cleared[-1] if self.cleared else (0, 0)
            unsent_ms = (len(self.items) - n_played) - (len(self.sent()) - n_sent)
            assert unsent_ms > self.max_queued_ms

    def end(self) -> None:
        if self.is_begun and not self.is_ended:
            self.harness.end(f"item_{self.item}")
            self.is_ended = True
            self.ended.add(self.item)

    def sync(self, played_ms: int) -> None:
        self.synced.append(len(self.sent()))
        self.harness.playout.sync(f"item_{self.item}", played_ms)

    def clear(self) -> None:
        sent = self.sent()[self.cleared[-1][0] if self.cleared else 0 :]
        played = self.items[self.cleared[-1][1] if self.cleared else 0 :]
        account = {int(clip.item_id.removeprefix("item_")): clip for clip in self.harness.clear()}
        for item in set(played):
            n_sent = sum(1 for _, number in sent if self.items[number] == item)
            if item in account:
                assert account[item].sent_ms == n_sent
                assert 0 <= account[item].estimated_played_ms <= n_sent
            else:
                assert item in self.ended or item < max(played), "it may go on: it must be accounted for"
                assert n_sent == played.count(item) or self.overflowed, "it waits: it must be accounted for"
        self.cleared.append((len(self.sent()), len(self.items)))
        self.synced.append(len(self.sent()))
        self.next_item()

    @property
    def overflowed(self) -> bool:
        return any(isinstance(event, ev.PlayoutOverflow) for event in self.harness.events)

    def sent(self) -> list[tuple[float, int]]:
        """When each ms was sent, and its number."""
        return [
            (at, int.from_bytes(message[start : start + 8], "big"))
            for at, message in self.harness.socket.sent
            if isinstance(message, bytes)
            for start in range(0, len(message), 8)
        ]

    def check_order(self) -> None:
        """Nothing was sent twice, out of order, or outside of its item."""
        assert all(number < next_number for (_, number), (_, next_number) in pairwise(self.sent()))
        item = ""
        for _, message in self.harness.socket.sent:
            if isinstance(message, bytes):
                assert item == f"item_{self.items[int.from_bytes(message[:8], 'big')]}"
            else:
                item = message["itemId"] if message["type"] == "audioStart" else ""

    def check_headroom(self) -> None:
        """A client that plays in real time and told nothing in between holds at most `max_ahead_ms`."""
        times = [at for at, _ in self.sent()]
        for begin, end in pairwise([0, *self.synced, len(times)]):
            # Of a run of sends at one time only the first can begin a window, and only the last can end it.
            begins = [i for i in range(begin, end) if i == begin or times[i] != times[i - 1]]
            ends = [i for i in range(begin, end) if i == end - 1 or times[i] != times[i + 1]]
            for first in begins:
                for last in ends:
                    if last >= first:
                        elapsed_ms = (times[last] - times[first]) * 1000
                        assert last - first + 1 <= self.max_ahead_ms + elapsed_ms + 1e-6

    def check_nothing_lost(self) -> None:
        """What was played since the last clear was sent, but for what overflowed: then the newest of it."""
        begin_sent, begin_played = self.cleared[-1] if self.cleared else (0, 0)
        sent = [number for _, number in self.sent()[begin_sent:]]
        played = list(range(begin_played, len(self.items)))
        if self.overflowed:
            kept_ms = self.max_queued_ms - 400  # a whole delta goes at a time, and the longest has 400 ms
            assert sent[-kept_ms:] == played[-kept_ms:]
        else:
            assert sent == played


@given(
    steps=STEPS, max_ahead_ms=st.sampled_from([20, 100, 150, 400, 1000]), max_queued_ms=st.sampled_from([700, 300_000])
)
@settings(max_examples=100, deadline=None)
def test_audio_is_bounded_in_order_and_not_lost(
    steps: list[tuple[str, int]], max_ahead_ms: int, max_queued_ms: int
) -> None:
    _play_numbered(steps, max_ahead_ms, max_queued_ms)


@in_virtual_time
async def _play_numbered(steps: list[tuple[str, int]], max_ahead_ms: int, max_queued_ms: int) -> None:
    audio = NumberedAudio(max_ahead_ms, max_queued_ms)
    for what, value in steps:
        match what:
            case "next":
                audio.next_item()
            case "play":
                audio.play(40 * value + 1)
            case "end":
                audio.end()
            case "time":
                await advance_time(value * 0.15)
            case "sync":
                audio.sync(value * 200)
            case "full":
                audio.harness.socket.set_writable(writable=value % 3 != 0)
            case "clear":
                audio.clear()
    audio.harness.socket.set_writable(writable=True)
    await advance_time(60)
    audio.check_order()
    audio.check_headroom()
    audio.check_nothing_lost()
