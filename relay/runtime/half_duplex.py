"""Half duplex: when a device that hears its own speaker may be listened to again."""

from collections.abc import Callable

from relay.runtime.alarm import Alarm

ECHO_TAIL_MS = 200
"""How long after its last audio a device is taken to hear itself: its buffer, and the room."""


class PlayedOutWait:
    """Waits until a client has played all that it was sent, and the echo of the room is over.

    `unplayed_ms` is what the client has still to play; None while more audio is to be sent: then nothing is reported,
    and the wait begins anew with the end of that audio.
    """

    __slots__ = ("_alarm", "_on_played_out", "_unplayed_ms")

    def __init__(self, unplayed_ms: Callable[[], float | None], on_played_out: Callable[[], None]) -> None:
        self._unplayed_ms = unplayed_ms
        self._on_played_out = on_played_out
        self._alarm = Alarm(self._check)

    def start(self, unplayed_ms: float) -> None:
        """All audio of a part was sent, and the client has so much still to play; an earlier wait is over."""
        self.stop()
        self._alarm.set_in((unplayed_ms + ECHO_TAIL_MS) / 1000)

    def stop(self) -> None:
        """Wait no more."""
        self._alarm.stop()

    def _check(self) -> None:
        unplayed_ms = self._unplayed_ms()
        if unplayed_ms is None:
            return
        if unplayed_ms > 0:  # the client is slower than its audio
            self.start(unplayed_ms)
        else:
            self._on_played_out()
