"""A set that remembers only the newest of its members, for ids that must be recognised but not kept for ever."""


class BoundedSet(dict[str, None]):
    """The last `limit` strings that were added. A dict, because membership is asked for with every frame of audio."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add(self, member: str) -> None:
        """Remember `member`; the oldest one goes when the set is full."""
        self.pop(member, None)
        self[member] = None
        if len(self) > self._limit:
            del self[next(iter(self))]
