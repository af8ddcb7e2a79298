"""How much audio came and went, and when: written by the audio lines, read by the rules.

Audio is no event. `Uplink` and the downlinks count every frame here, and a replay counts what was recorded; the rules
look at the sums when an event gives them reason to.
"""

from relay.session.common.media_types import PartKey

MAX_PARTS = 128
"""Content parts whose audio is counted; the oldest are forgotten. Twice as many as can be playing."""


class MediaLedger:
    """The audio of one session in bytes and seconds of the session's clock."""

    __slots__ = ("_parts", "dropped_input_bytes", "input_bytes", "last_output_at", "output_bytes", "playback_ends_at")

    def __init__(self, started_at: float = 0.0) -> None:
        self.input_bytes = 0
        """The client's audio, in its own format, since the session began; the uplink adds each frame."""
        self.dropped_input_bytes = 0
        """How much of it was dropped: the oldest of what was held too long."""
        self.output_bytes = 0
        """The upstream's audio that was accepted, in the upstream's format."""
        self.last_output_at = started_at
        """When the last of it came."""
        self.playback_ends_at = started_at
        """When a client that plays at once has played it; counted by `add_unpaced_output` alone."""
        self._parts: dict[PartKey, int] = {}

    @property
    def accepted_input_bytes(self) -> int:
        """The client's audio without what was dropped: what the upstream has heard, or will."""
        return self.input_bytes - self.dropped_input_bytes

    def received_bytes(self, key: PartKey) -> int:
        """How much audio of a content part was accepted since it was last started."""
        return self._parts.get(key, 0)

    def drop_input(self, n_bytes: int) -> None:
        """The oldest held audio was dropped."""
        self.dropped_input_bytes += n_bytes

    def start_part(self, key: PartKey) -> None:
        """The audio of a content part begins, or begins anew."""
        parts = self._parts
        parts.pop(key, None)
        parts[key] = 0
        if len(parts) > MAX_PARTS:
            del parts[next(iter(parts))]

    def add_output(self, key: PartKey, n_bytes: int, now: float) -> None:
        """The upstream sent audio of a part, which was accepted."""
        self.output_bytes += n_bytes
        self.last_output_at = now
        self._parts[key] = self._parts.get(key, 0) + n_bytes

    def add_unpaced_output(self, n_bytes: int, now: float, bytes_per_ms: int) -> None:
        """The upstream sent audio to a client that plays it at once, after what it has."""
        self.output_bytes += n_bytes
        self.last_output_at = now
        self.playback_ends_at = max(self.playback_ends_at, now) + n_bytes / bytes_per_ms / 1000

    def add_tts_output(self, key: PartKey, n_bytes: int) -> None:
        """An external voice sent audio of a part, which was accepted."""
        self._parts[key] = self._parts.get(key, 0) + n_bytes
