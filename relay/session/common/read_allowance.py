"""How fast one client may send: a token bucket of bytes and one of messages, each lent out in slices.

Whoever reads a message lowers `ReadAllowance.remaining`, which takes no call and no look at the clock. Once it is
below zero the reader asks `wait_s`: the bucket fills, and lends the next slice. A wait means that the client is too
fast in the long run. A slice that was used up much faster than its rate (`is_burst`) means a burst: the client may
send it, but others have their turn in between, and its next slice is a short one. A client that sends at the speed of
speech gets long slices, so that the relay reads the clock for it about once a second.

`relay.transport.read_limiter` stops reading; the rules only report that the client is too fast (`ClientRateLimited`).
"""

from audio.formats import AudioFormat
from relay.session.common.rate_limit import TokenBucket

AUDIO_RATE = 1.2
"""Audio seconds a wall second: a client's clock may run a little fast."""
AUDIO_CREDIT_S = 10.0
"""What may come on top, at the start: a client that connects late sends what it has recorded meanwhile."""
MAX_AUDIO_CREDIT_S = 60.0
"""What may be saved up: the pause of a bad network comes all at once afterwards."""
MIN_FRAME_MS = 2
"""A frame, or a part of one, is charged at least this: 600 a second are read, more are read later. A page that sends
every block of its audio graph by itself (128 samples) sends 375."""
AUDIO_SLICE_S = 0.12
LONG_AUDIO_SLICE_S = 1.2
"""At 24 kHz less than one read may bring."""
MESSAGES_PER_S = 50.0
MESSAGE_CREDIT = 300.0
MESSAGE_SLICE = 10.0
BURST_S = 0.05
"""A slice that is used up sooner than this came at once; for a longer slice this is longer in proportion."""

REALTIME_BYTES_PER_S = 2_000_000
REALTIME_CREDIT_BYTES = 16_000_000
"""What a Realtime client may send at once: the longest event that the API takes."""
MIN_APPEND_BYTES = 3_333
"""An event is charged at least this, so that 600 appends a second are read; usual ones come 10 to 50 times a second."""
REALTIME_SLICE_BYTES = 256 * 1024
LONG_REALTIME_SLICE_BYTES = 1024 * 1024
REALTIME_EVENTS_PER_S = 50.0
REALTIME_EVENT_CREDIT = 2000.0
"""A client that restores a conversation creates its items one by one."""
REALTIME_EVENT_SLICE = 50.0
MEMBERS_PER_MESSAGE = 25
"""A message of more members counts as several: the rules take up to 2 µs for each, and 50 µs for a small message."""


class ReadAllowance:
    """A slice of `bucket`: `short_slice`, or `calm_slice` for a client that took its time with the last one.

    `remaining` may be lowered without looking at the clock as long as it stays above zero.
    """

    __slots__ = ("_bucket", "_lent_at", "_long_slice", "_short_slice", "_slice", "remaining")

    def __init__(self, bucket: TokenBucket, now: float, short_slice: float, long_slice: float | None = None) -> None:
        self._bucket = bucket
        self._slice = self._short_slice = short_slice
        self._long_slice = short_slice if long_slice is None else long_slice
        self._lent_at = now
        self.remaining = 0.0
        self._lend(short_slice)

    def wait_s(self, now: float) -> float:
        """Fill the bucket and lend a slice; how long to wait until something is left again, 0 if something is."""
        self._bucket.tokens += self.remaining
        self._bucket.fill(now)
        wait_s = self._bucket.wait_s(0, now)
        self.remaining = 0.0
        self._lend(self._slice)
        return wait_s

    def take_burst(self, now: float) -> bool:
        """Whether the slice that has just been used up was used up at once; the next one begins."""
        hasty = now - self._lent_at < BURST_S * self._slice / self._short_slice
        self._lent_at = now
        self._lend(self._short_slice if hasty else self._long_slice)
        return hasty

    def use_short_slices(self) -> None:
        """Treat this client as hasty until it has taken its time with a slice."""
        if self._slice != self._short_slice:
            self._lend(self._short_slice)

    def _lend(self, slice_: float) -> None:
        self._bucket.tokens += self.remaining
        self._slice = slice_
        self.remaining = min(self._bucket.tokens, slice_)
        self._bucket.tokens -= self.remaining


def device_allowance(microphone: AudioFormat, now: float) -> tuple[ReadAllowance, int]:
    """How many bytes of audio a device may send, and what a message is charged at least."""
    per_s = microphone.bytes_per_ms * 1000
    bucket = TokenBucket(AUDIO_RATE * per_s, MAX_AUDIO_CREDIT_S * per_s, now, AUDIO_CREDIT_S * per_s)
    allowance = ReadAllowance(bucket, now, AUDIO_SLICE_S * per_s, LONG_AUDIO_SLICE_S * per_s)
    return allowance, MIN_FRAME_MS * microphone.bytes_per_ms


def realtime_bytes_allowance(now: float) -> ReadAllowance:
    """In bytes of a Realtime client's events, each at least `MIN_APPEND_BYTES`."""
    bucket = TokenBucket(REALTIME_BYTES_PER_S, REALTIME_CREDIT_BYTES, now)
    return ReadAllowance(bucket, now, REALTIME_SLICE_BYTES, LONG_REALTIME_SLICE_BYTES)


def realtime_event_allowance(now: float) -> ReadAllowance:
    """In events of a Realtime client that are no audio, and control frames."""
    return ReadAllowance(TokenBucket(REALTIME_EVENTS_PER_S, REALTIME_EVENT_CREDIT, now), now, REALTIME_EVENT_SLICE)


def message_cost(n_members: int) -> float:
    """As how many messages one of so many members counts."""
    return max(1.0, n_members / MEMBERS_PER_MESSAGE)


def message_allowance(now: float) -> ReadAllowance:
    """In messages and control frames."""
    return ReadAllowance(TokenBucket(MESSAGES_PER_S, MESSAGE_CREDIT, now), now, MESSAGE_SLICE)
