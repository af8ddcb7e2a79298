"""A clock that tests advance by hand."""

import asyncio


class FakeClock:
    """A clock that moves only when the test calls `advance`; `sleep` ends once it has moved far enough."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Advance the clock and wake the sleepers that are due."""
        self.now += seconds
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self.now]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self.now]
        for _, sleeper in sorted(due, key=lambda entry: entry[0]):
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has advanced by `seconds`."""
        if seconds > 0:
            wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers.append((self.now + seconds, wake))
            await wake
