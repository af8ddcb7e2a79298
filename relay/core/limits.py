"""How fast one client may send."""

from audio.formats import AudioFormat

AUDIO_RATE = 1.2
"""Audio seconds a wall second: a client's clock may run a little fast."""
AUDIO_CREDIT_S = 10.0
"""What may come on top, at the start: a client that connects late sends what it has recorded meanwhile."""
MAX_AUDIO_CREDIT_S = 60.0
"""What may be saved up: the pause of a bad network comes all at once afterwards."""
LEAST_FRAME_MS = 2
"""A frame, or a part of one, is charged at least this: 600 a second are read, more are read later. A page that sends
every block of its audio graph by itself (128 samples) sends 375."""
AUDIO_BURST_S = 0.12
"""What is taken in one go from who sends in haste; after it others have their turn."""
CALM_AUDIO_BURST_S = 1.2
"""What is taken without looking at the clock from who does not: at 24 kHz less than one read may bring."""
MESSAGE_RATE = 50.0
MESSAGE_CREDIT = 300.0
MESSAGE_BURST = 10.0
HASTE_S = 0.05
"""A burst that is used up sooner than this came at once; for a longer burst this is longer in proportion."""
TELL_AGAIN_S = 10.0

REALTIME_BYTES_PER_S = 2_000_000
REALTIME_CREDIT_BYTES = 16_000_000
"""What a Realtime client may send at once: the longest event that the API takes."""
LEAST_APPEND_BYTES = 3_333
"""An event is charged at least this, so that 600 appends a second are read; usual ones come 10 to 50 times a second."""
REALTIME_BURST_BYTES = 256 * 1024
CALM_REALTIME_BURST_BYTES = 1024 * 1024
REALTIME_EVENT_RATE = 50.0
REALTIME_EVENT_CREDIT = 2000.0
"""A client that restores a conversation creates its items one by one."""
REALTIME_EVENT_BURST = 50.0
MEMBERS_PER_MESSAGE = 25
"""A message of more members counts as several: the rules take up to 2 µs for each, and 50 µs for a small message."""


class Allowance:
    """A bucket that fills at `per_s` up to `most`; who takes more than there is must wait.

    `left` may be lowered without looking at the clock as long as it stays above zero. It is at most a `burst`, or a
    `calm_burst` for who took his time with the last one.
    """

    __slots__ = (
        "_at", "_burst", "_burst_at", "_calm_burst", "_hasty_burst", "_most", "_per_s", "_stored", "_told_at", "left",
    )  # fmt: skip

    def __init__(
        self,
        start: float,
        per_s: float,
        most: float,
        now: float,
        burst: float | None = None,
        calm_burst: float | None = None,
    ) -> None:
        self._burst = self._hasty_burst = most if burst is None else burst
        self._calm_burst = self._burst if calm_burst is None else calm_burst
        self.left = min(start, self._burst)
        self._stored = start - self.left
        self._per_s = per_s
        self._most = most
        self._at = self._burst_at = now
        self._told_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Fill up to `now`; how long to wait until something is left again, 0 if something is."""
        self._share(min(self._stored + self.left + (now - self._at) * self._per_s, self._most))
        self._at = now
        return -self.left / self._per_s if self.left < 0 else 0.0

    def is_hasty(self, now: float) -> bool:
        """Whether the burst that has just been used up was used up at once; the next one begins."""
        hasty = now - self._burst_at < HASTE_S * self._burst / self._hasty_burst
        self._burst_at = now
        self._burst = self._hasty_burst if hasty else self._calm_burst
        self._share(self._stored + self.left)
        return hasty

    def hurry(self) -> None:
        """Take this one for somebody in haste, until a burst has taken its time."""
        if self._burst != self._hasty_burst:
            self._burst = self._hasty_burst
            self._share(self._stored + self.left)

    def _share(self, amount: float) -> None:
        self.left = min(amount, self._burst)
        self._stored = amount - self.left

    def tell(self, now: float) -> bool:
        """Whether the one who waits is to be told, which is not more often than every `TELL_AGAIN_S`."""
        if now - self._told_at < TELL_AGAIN_S:
            return False
        self._told_at = now
        return True


def device_allowance(microphone: AudioFormat, now: float) -> tuple[Allowance, int]:
    """How many bytes of audio a device may send, and what a message is charged at least."""
    per_s = microphone.bytes_per_ms * 1000
    start, most = AUDIO_CREDIT_S * per_s, MAX_AUDIO_CREDIT_S * per_s
    allowance = Allowance(start, AUDIO_RATE * per_s, most, now, AUDIO_BURST_S * per_s, CALM_AUDIO_BURST_S * per_s)
    return allowance, LEAST_FRAME_MS * microphone.bytes_per_ms


def realtime_bytes_allowance(now: float) -> Allowance:
    """In bytes of a Realtime client's events, each at least `LEAST_APPEND_BYTES`."""
    return Allowance(
        REALTIME_CREDIT_BYTES,
        REALTIME_BYTES_PER_S,
        REALTIME_CREDIT_BYTES,
        now,
        REALTIME_BURST_BYTES,
        CALM_REALTIME_BURST_BYTES,
    )


def realtime_event_allowance(now: float) -> Allowance:
    """In events of a Realtime client that are no audio, and control frames."""
    return Allowance(REALTIME_EVENT_CREDIT, REALTIME_EVENT_RATE, REALTIME_EVENT_CREDIT, now, REALTIME_EVENT_BURST)


def message_cost(n_members: int) -> float:
    """As how many messages one of so many members counts."""
    return max(1.0, n_members / MEMBERS_PER_MESSAGE)


def message_allowance(now: float) -> Allowance:
    """In messages and control frames."""
    return Allowance(MESSAGE_CREDIT, MESSAGE_RATE, MESSAGE_CREDIT, now, MESSAGE_BURST)
