"""Half duplex: when a device that hears its own speaker may be listened to again."""

import asyncio
from collections.abc import Callable

ECHO_TAIL_MS = 200
"""How long after its last audio a device is taken to hear itself: its buffer, and the room."""


class PlayedOutWait:
    """Waits until a client has played all that it was sent, and the echo of the room is over.

    `unplayed_ms` is what the client has still to play; None while more audio is to be sent: then nothing is reported,
    and the wait begins anew with the end of that audio.
    """

    __slots__ = ("_on_played_out", "_timer", "_unplayed_ms")

    def __init__(self, unplayed_ms: Callable[[], float | None], on_played_out: Callable[[], None]) -> None:
        self._unplayed_ms = unplayed_ms
        self._on_played_out = on_played_out
        self._timer: asyncio.TimerHandle | None = None

    def start(self, unplayed_ms: float) -> None:
        """All audio of a part was sent, and the client has so much still to play; an earlier wait is over."""
        self.stop()
        wait_s = (unplayed_ms + ECHO_TAIL_MS) / 1000
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._check)

    def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        unplayed_ms = self._unplayed_ms()
        if unplayed_ms is None:
            return
        if unplayed_ms > 0:  # the client is slower than its audio
            self.start(unplayed_ms)
        else:
            self._on_played_out()
