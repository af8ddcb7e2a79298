"""Counts how much audio was received and sent, and when: written by uplink and downlink, read by the rules.

Audio is not an event. `Uplink` and the downlinks count every frame here, and a replay counts the recorded frames. The
rules read the sums when they handle an event.
"""

from relay.session.common.media_types import PartKey

MAX_PARTS = 128
"""Content parts whose audio is counted; beyond it the oldest are forgotten. Twice as many as can be playing."""


class MediaLedger:
    """The audio of one session in bytes and seconds of the session's clock."""

    __slots__ = ("_parts", "dropped_input_bytes", "input_bytes", "last_output_at", "output_bytes", "playback_ends_at")

    def __init__(self, started_at: float = 0.0) -> None:
        self.input_bytes = 0
        """The client's audio since the start of the session, in its own format; the uplink adds each frame."""
        self.dropped_input_bytes = 0
        """The bytes of `input_bytes` that were dropped because too much was held."""
        self.output_bytes = 0
        """The upstream's audio that was accepted, in the upstream's format."""
        self.last_output_at = started_at
        """When the upstream last sent audio."""
        self.playback_ends_at = started_at
        """When a client that plays at once has played all audio; only `add_unpaced_output` counts it."""
        self._parts: dict[PartKey, int] = {}

    @property
    def accepted_input_bytes(self) -> int:
        """The client's audio that was forwarded to the upstream, or will be."""
        return self.input_bytes - self.dropped_input_bytes

    def received_bytes(self, key: PartKey) -> int:
        """Return the accepted bytes of a content part since it was last started."""
        return self._parts.get(key, 0)

    def drop_input(self, n_bytes: int) -> None:
        """Count held audio that was dropped."""
        self.dropped_input_bytes += n_bytes

    def start_part(self, key: PartKey) -> None:
        """Start or restart the count of a content part."""
        parts = self._parts
        parts.pop(key, None)
        parts[key] = 0
        if len(parts) > MAX_PARTS:
            del parts[next(iter(parts))]

    def add_output(self, key: PartKey, n_bytes: int, now: float) -> None:
        """Count audio of the upstream that was accepted for a part."""
        self.output_bytes += n_bytes
        self.last_output_at = now
        self._parts[key] = self._parts.get(key, 0) + n_bytes

    def add_unpaced_output(self, n_bytes: int, now: float, bytes_per_ms: int) -> None:
        """Count audio of the upstream for a client that plays it at once, after the audio before."""
        self.output_bytes += n_bytes
        self.last_output_at = now
        self.playback_ends_at = max(self.playback_ends_at, now) + n_bytes / bytes_per_ms / 1000

    def add_tts_output(self, key: PartKey, n_bytes: int) -> None:
        """Count audio of an external voice that was accepted for a part."""
        self._parts[key] = self._parts.get(key, 0) + n_bytes
