"""A set of bounded size, for ids that must be recognized but not kept forever."""


class BoundedSet(dict[str, None]):
    """The last `limit` strings that were added. A dict, because every frame of audio tests the membership."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add(self, member: str) -> None:
        """Add `member`; if the set is full, remove the oldest one."""
        self.pop(member, None)
        self[member] = None
        if len(self) > self._limit:
            del self[next(iter(self))]
