"""What a session has ignored, for its last log line: a bounded table of counts."""

MAX_KINDS = 64
"""Further kinds are not counted: an upstream may invent a new one for every event."""


class IgnoredCounts(dict[str, int]):
    """Counts by kind, in the order in which they first came."""

    def count(self, kind: str) -> None:
        """One more of this kind."""
        if kind in self or len(self) < MAX_KINDS:
            self[kind] = self.get(kind, 0) + 1
