"""The audio of a device client: what becomes of it, and how much of it the upstream has heard.

The uplink moves the audio; here is only its gate. Audio is held until the session is ready, and again while another
configuration is under way. Then it goes on, or as silence while a half-duplex device plays an item: voice detection
only moves with input. Events that came while audio was held keep their place in it. `heard_bytes` is the position that
commits and the end of speech are measured by: for an early event it is where the event came, not where the audio is.
"""

from collections.abc import Callable, Iterator

from relay.core import events as ev
from relay.core.commands import Command, TellError
from relay.session.common.input_control import InputControl
from relay.session.common.life import SessionLife
from relay.session.common.media_ledger import MediaLedger
from relay.session.device.negotiation import Negotiation

EarlyEvent = ev.UserText | ev.Commit | ev.Clear | ev.Interrupt
"""What a client may send before the session is ready, and has to wait for it."""


class ClientAudio:
    """Gate and position of one client's audio; commands go to `emit`."""

    def __init__(
        self, life: SessionLife, negotiation: Negotiation, ledger: MediaLedger, emit: Callable[[Command], None]
    ) -> None:
        self._life = life
        self._negotiation = negotiation
        self._ledger = ledger
        self._emit = emit
        self._control: InputControl[EarlyEvent] = InputControl(emit)
        self._heard_before_bytes = 0  # what is held comes after it
        self._reported_drop_bytes = 0
        self._is_muted = False

    @property
    def bytes_per_ms(self) -> int:
        """The rate of the client's format."""
        return self._negotiation.options.input.bytes_per_ms

    @property
    def heard_bytes(self) -> int:
        """How much of the audio the upstream has heard, by the time that the event at hand was sent."""
        ledger, position_bytes = self._ledger, self._control.position_bytes
        if position_bytes is not None:
            return max(position_bytes - ledger.dropped_input_bytes, 0)
        return ledger.heard_input_bytes if self._life.is_ready else self._heard_before_bytes

    def heard_since_ms(self, audio_ms: int) -> int:
        """How much of the audio the upstream has heard after its first `audio_ms`."""
        return max(self.heard_bytes // self.bytes_per_ms - audio_ms, 0)

    def set_gate(self) -> None:
        """Have the uplink do something else with the audio, if that has changed."""
        if self._life.has_ended:
            self._control.set_gate("closed")
        elif not self._life.is_ready:
            self._control.set_gate("held")
        else:
            self._control.set_gate("muted" if self._is_muted else "open")

    def mute(self) -> None:
        """An item begins to play: a half-duplex device hears its own speaker."""
        self._is_muted = self._negotiation.options.half_duplex

    def unmute(self) -> None:
        """Nothing plays any more."""
        self._is_muted = False

    def hold(self) -> None:
        """The session is about to be configured: what comes from here on is heard after that."""
        self._heard_before_bytes = self.heard_bytes

    def hold_event(self, event: EarlyEvent) -> bool:
        """Keep an event for `release`. Returns False if too many wait already."""
        return self._control.hold(event, self._ledger.input_bytes)

    def release(self) -> Iterator[EarlyEvent]:
        """The session is ready: the audio goes on, and the events that waited come in their places."""
        dropped_bytes = self._ledger.dropped_input_bytes - self._reported_drop_bytes
        if dropped_bytes:
            self._reported_drop_bytes += dropped_bytes
            lost_ms = dropped_bytes // self.bytes_per_ms
            message = f"The model was not ready in time: the oldest {lost_ms} ms of audio were left out."
            self._emit(TellError("audio_backlog", message))
        if self._is_muted:  # what was held is released as silence, whatever was said in between
            self.set_gate()
        yield from self._control.release()
        self.set_gate()
