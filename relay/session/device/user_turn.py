"""The user's side of a device session: its audio, and its turns, which are spoken, committed or typed.

The uplink moves the audio; here is only its gate. Audio is held until the session is ready, and again while another
configuration is pending. Then it is forwarded. While a half-duplex device plays an item, silence is sent instead,
because voice detection advances only with input. Events that came while audio was held keep their position in it.
`input_position_bytes` is the position that commits and the end of speech refer to. For a held event it is the position
of the event, not of the latest audio.

The upstream's voice detection finds start and end of spoken turns. A client in manual mode ends its turn by a commit,
and must have sent `MIN_COMMIT_MS` of audio since the last one. The upstream's refusal is an error with the commit's id.
Typed turns are queued until nothing else is to be answered, and are sent one at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator

from relay.session.common.input_control import InputControl
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import Item, TurnDetection
from relay.session.common.session_state import SessionState
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import events as ev
from relay.session.device.commands import ClearInput, Command, CommitInput, CreateItem, SendError
from relay.session.device.negotiation import Negotiation

MIN_COMMIT_MS = 100
MAX_COMMITS = 16
"""Commits that await an answer; beyond it the oldest are forgotten."""
MAX_TYPED_TURNS = 16
MAX_SPEECH_LAG_MS = 5000
"""The maximum age of a start or end of speech that the upstream reports."""
PREFIX_PADDING_MS = 300
"""Server VAD's default padding before speech. The padding of semantic VAD is not documented."""

EarlyEvent = ev.UserText | ev.Commit | ev.Clear | ev.Interrupt
"""Events that are held until the session is ready."""


class UserTurn:
    """The speech and text of one user. Commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        state: SessionState,
        negotiation: Negotiation,
        ledger: MediaLedger,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.timers = TurnTimers()
        self.typed_turns: deque[str] = deque()
        """The queue of typed turns."""
        self._state = state
        self._negotiation = negotiation
        self._ledger = ledger
        self._emit = emit
        self._next_id = next_id
        self._control: InputControl[EarlyEvent] = InputControl(emit)
        self._position_before_hold_bytes = 0
        self._reported_drop_bytes = 0
        self._is_muted = False
        self._silence_ms = 0
        self._commits: deque[str] = deque(maxlen=MAX_COMMITS)
        self._committed_bytes = 0

    # -- its audio ----------------------------------------------------------------------------------------------------

    @property
    def _bytes_per_ms(self) -> int:
        return self._negotiation.options.input.bytes_per_ms

    @property
    def input_position_bytes(self) -> int:
        """The position in the forwarded audio at which the current event was sent."""
        ledger, position_bytes = self._ledger, self._control.position_bytes
        if position_bytes is not None:
            return max(position_bytes - ledger.dropped_input_bytes, 0)
        return ledger.accepted_input_bytes if self._state.is_ready else self._position_before_hold_bytes

    def _heard_since_ms(self, audio_ms: int) -> int:
        return max(self.input_position_bytes // self._bytes_per_ms - audio_ms, 0)

    def set_gate(self) -> None:
        """Set the uplink's gate for the current state of the session."""
        if self._state.has_ended:
            self._control.set_gate("closed")
        elif not self._state.is_ready:
            self._control.set_gate("held")
        else:
            self._control.set_gate("muted" if self._is_muted else "open")

    def mute(self) -> None:
        """Mute a half-duplex device, which hears its own speaker: an item starts to play."""
        self._is_muted = self._negotiation.options.half_duplex

    def unmute(self) -> None:
        """Unmute the device: playback has ended."""
        self._is_muted = False

    def hold_audio(self) -> None:
        """Hold the audio from here on: the session is going to be configured."""
        self._position_before_hold_bytes = self.input_position_bytes

    def hold_event(self, event: EarlyEvent) -> bool:
        """Hold an event for `release`. Returns False if too many are held already."""
        return self._control.hold(event, self._ledger.input_bytes)

    def release(self) -> Iterator[EarlyEvent]:
        """Release the held audio, and yield the held events at their positions in it."""
        dropped_bytes = self._ledger.dropped_input_bytes - self._reported_drop_bytes
        if dropped_bytes:
            self._reported_drop_bytes += dropped_bytes
            lost_ms = dropped_bytes // self._bytes_per_ms
            message = f"The model was not ready in time: the oldest {lost_ms} ms of audio were dropped."
            self._emit(SendError("audio_backlog", message))
        if self._is_muted:  # the held audio is released as silence
            self.set_gate()
        yield from self._control.release()
        self.set_gate()

    # -- its turns ----------------------------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether the user speaks, or a typed turn is queued."""
        return self.timers.is_user_speaking or bool(self.typed_turns)

    def set_silence_duration(self, silence_ms: int) -> None:
        """Set the duration of silence after which the upstream detects the end of speech."""
        self._silence_ms = silence_ms

    def speech_started_at(self, audio_start_ms: int, turn: TurnDetection, now: float) -> float | None:
        """Return when the user began to speak, as the upstream reports; None if the reported time is implausible."""
        padding_ms = PREFIX_PADDING_MS if turn.prefix_padding_ms is None else turn.prefix_padding_ms
        lag_ms = self._heard_since_ms(audio_start_ms + (padding_ms if turn.kind == "server_vad" else 0))
        return now - lag_ms / 1000 if lag_ms <= MAX_SPEECH_LAG_MS else None

    def speech_ended_at(self, audio_end_ms: int, now: float) -> float:
        """Return when the user's speech ended, as the upstream reports, less the silence that it waited for."""
        lag_ms = self._heard_since_ms(audio_end_ms) + self._silence_ms
        return now - min(lag_ms, MAX_SPEECH_LAG_MS) / 1000

    def commit(self) -> None:
        """Commit the client's audio: it ends its turn."""
        heard_bytes = self.input_position_bytes
        if heard_bytes - self._committed_bytes < MIN_COMMIT_MS * self._bytes_per_ms:
            self._emit(SendError("commit_too_short", f"Send at least {MIN_COMMIT_MS} ms of audio before commit."))
            return
        event_id = self._next_id()
        self._commits.append(event_id)
        self._committed_bytes = heard_bytes
        self._emit(CommitInput(event_id))

    def clear(self) -> None:
        """Discard the client's audio since the last commit."""
        self._committed_bytes = self.input_position_bytes
        self._emit(ClearInput(self._next_id()))

    def on_input_committed(self) -> None:
        """Record that the upstream has created an item of all audio so far."""
        self._committed_bytes = self.input_position_bytes
        self._commits.clear()

    def on_event_refused(self, event_id: str | None, message: str) -> bool:
        """Handle an event that the upstream refused. Returns whether it was a commit; then the client gets an error."""
        if event_id is None or event_id not in self._commits:
            return False
        self._commits.remove(event_id)
        self._emit(SendError("commit_too_short", message))
        return True

    def add_typed_turn(self, text: str) -> bool:
        """Queue a typed turn. If the queue is full, return False and send the client an error."""
        if len(self.typed_turns) < MAX_TYPED_TURNS:
            self.typed_turns.append(text)
            return True
        message = f"{MAX_TYPED_TURNS} typed turns are queued already; wait for one to be answered."
        self._emit(SendError("too_many_turns", message, retryable=True))
        return False

    def send_typed_turn(self) -> None:
        """Send the oldest typed turn upstream."""
        item = Item(id="", kind="message", role="user", text=self.typed_turns.popleft())
        self._emit(CreateItem(item, self._next_id()))
