"""The rate at which one client may send: a token bucket of bytes and one of messages, each lent out in slices.

The reader of a message lowers `ReadAllowance.remaining`, which needs no call and no clock. Once that is below zero, it
calls `wait_s`: the bucket fills and lends the next slice. A wait means that the client is too fast in the long run. A
slice that was used up much faster than its rate is a burst (`renew_slice`). The client may send it, but other clients
are read in between, and its next slice is short. A client that sends at the speed of speech gets long slices, so that
the relay reads the clock for it about once a second.

`relay.transport.read_limiter` pauses reading; the rules only report that the client is too fast (`ClientRateLimited`).
"""

from audio.formats import AudioFormat
from relay.session.common.rate_limit import TokenBucket

AUDIO_RATE = 1.2
"""Seconds of audio per second: a client's clock may run slightly fast."""
AUDIO_CREDIT_S = 10.0
"""The initial credit: a client that connects late sends the audio that it has recorded meanwhile."""
MAX_AUDIO_CREDIT_S = 60.0
"""The maximum credit: after a network outage, all the delayed audio comes at once."""
MIN_FRAME_MS = 2
"""The minimum charge for a frame or a fragment of one: 600 a second are read at once. A browser client that sends every
block of its audio graph separately (128 samples) sends 375."""
AUDIO_SLICE_S = 0.12
LONG_AUDIO_SLICE_S = 1.2
"""At 24 kHz this is less than one read may return."""
MESSAGES_PER_S = 50.0
MESSAGE_CREDIT = 300.0
MESSAGE_SLICE = 10.0
BURST_S = 0.05
"""A short slice that is used up faster than this is a burst; for a longer slice the time is longer in proportion."""

REALTIME_BYTES_PER_S = 2_000_000
REALTIME_CREDIT_BYTES = 16_000_000
"""The most that a Realtime client may send at once: the longest event that the API accepts."""
MIN_APPEND_BYTES = 3_333
"""The minimum charge for an event: 600 appends a second are read. Usual clients send 10 to 50 a second."""
REALTIME_SLICE_BYTES = 256 * 1024
LONG_REALTIME_SLICE_BYTES = 1024 * 1024
REALTIME_EVENTS_PER_S = 50.0
REALTIME_EVENT_CREDIT = 2000.0
"""A client that restores a conversation creates its items one by one."""
REALTIME_EVENT_SLICE = 50.0
MEMBERS_PER_MESSAGE = 25
"""A message with more members counts as several: the rules take up to 2 µs for each, and 50 µs for a small message."""


class ReadAllowance:
    """A slice of `bucket`: `short_slice` after a burst, else `long_slice`.

    The reader may lower `remaining` without reading the clock as long as it stays above zero.
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
        """Fill the bucket and lend a slice. Returns the seconds until tokens remain again; 0 if some do."""
        self._bucket.tokens += self.remaining
        self._bucket.fill(now)
        wait_s = self._bucket.wait_s(0, now)
        self.remaining = 0.0
        self._lend(self._slice)
        return wait_s

    def renew_slice(self, now: float) -> bool:
        """Lend the next slice. Returns whether the last one was used up in a burst."""
        is_burst = now - self._lent_at < BURST_S * self._slice / self._short_slice
        self._lent_at = now
        self._lend(self._short_slice if is_burst else self._long_slice)
        return is_burst

    def use_short_slices(self) -> None:
        """Lend short slices until the client has used one at a normal rate."""
        if self._slice != self._short_slice:
            self._lend(self._short_slice)

    def _lend(self, slice_: float) -> None:
        self._bucket.tokens += self.remaining
        self._slice = slice_
        self.remaining = min(self._bucket.tokens, slice_)
        self._bucket.tokens -= self.remaining


def device_allowance(microphone: AudioFormat, now: float) -> tuple[ReadAllowance, int]:
    """Return the allowance for a device's audio in bytes, and the minimum charge for a message."""
    per_s = microphone.bytes_per_ms * 1000
    bucket = TokenBucket(AUDIO_RATE * per_s, MAX_AUDIO_CREDIT_S * per_s, now, AUDIO_CREDIT_S * per_s)
    allowance = ReadAllowance(bucket, now, AUDIO_SLICE_S * per_s, LONG_AUDIO_SLICE_S * per_s)
    return allowance, MIN_FRAME_MS * microphone.bytes_per_ms


def realtime_bytes_allowance(now: float) -> ReadAllowance:
    """Return the allowance for a Realtime client's events in bytes; each is charged at least `MIN_APPEND_BYTES`."""
    bucket = TokenBucket(REALTIME_BYTES_PER_S, REALTIME_CREDIT_BYTES, now)
    return ReadAllowance(bucket, now, REALTIME_SLICE_BYTES, LONG_REALTIME_SLICE_BYTES)


def realtime_event_allowance(now: float) -> ReadAllowance:
    """Return the allowance for a Realtime client's events other than audio, and for control frames."""
    return ReadAllowance(TokenBucket(REALTIME_EVENTS_PER_S, REALTIME_EVENT_CREDIT, now), now, REALTIME_EVENT_SLICE)


def message_cost(n_members: int) -> float:
    """Return the cost of a message with `n_members`, in messages."""
    return max(1.0, n_members / MEMBERS_PER_MESSAGE)


def message_allowance(now: float) -> ReadAllowance:
    """Return the allowance for a device's messages and control frames."""
    return ReadAllowance(TokenBucket(MESSAGES_PER_S, MESSAGE_CREDIT, now), now, MESSAGE_SLICE)
