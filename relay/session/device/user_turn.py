"""The user's side of a device session: its audio, and its turns, which are spoken, committed by hand, or typed.

The uplink moves the audio; here is only its gate. Audio is held until the session is ready, and again while another
configuration is under way. Then it goes on, or as silence while a half-duplex device plays an item: voice detection
only moves with input. Events that came while audio was held keep their place in it. `heard_bytes` is the position that
commits and the end of speech are measured by: for an early event it is where the event came, not where the audio is.

Spoken turns are bounded by the upstream's voice detection. A client that commits by hand ends its turn itself, and
must have sent `MIN_COMMIT_MS` of audio since the last commit; the upstream's refusal comes as an error with the
commit's id. Typed turns wait in a queue until nothing else is to be answered, and go one at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator

from relay.session.common.input_control import InputControl
from relay.session.common.life import SessionState
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import Item, TurnDetection
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import events as ev
from relay.session.device.commands import ClearInput, Command, CommitInput, CreateItem, SendError
from relay.session.device.negotiation import Negotiation

MIN_COMMIT_MS = 100
MAX_COMMITS = 16
"""Commits whose answer is awaited; the oldest are forgotten."""
MAX_TYPED_TURNS = 16
MAX_SPEECH_LAG_MS = 5000
"""How far back a start or an end of speech that the upstream reports may be."""
PREFIX_PADDING_MS = 300
"""Audio before the speech that server VAD counts in by default. What semantic VAD counts in is not documented."""

EarlyEvent = ev.UserText | ev.Commit | ev.Clear | ev.Interrupt
"""What a client may send before the session is ready, and has to wait for it."""


class UserTurn:
    """What one user says and types; commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        life: SessionState,
        negotiation: Negotiation,
        ledger: MediaLedger,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.timers = TurnTimers()
        self.typed_turns: deque[str] = deque()
        """Typed turns that wait."""
        self._life = life
        self._negotiation = negotiation
        self._ledger = ledger
        self._emit = emit
        self._next_id = next_id
        self._control: InputControl[EarlyEvent] = InputControl(emit)
        self._position_before_hold_bytes = 0  # what is held comes after it
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
        """How much of the audio the upstream has heard, by the time that the event at hand was sent."""
        ledger, position_bytes = self._ledger, self._control.position_bytes
        if position_bytes is not None:
            return max(position_bytes - ledger.dropped_input_bytes, 0)
        return ledger.accepted_input_bytes if self._life.is_ready else self._position_before_hold_bytes

    def _heard_since_ms(self, audio_ms: int) -> int:
        return max(self.input_position_bytes // self._bytes_per_ms - audio_ms, 0)

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

    def hold_audio(self) -> None:
        """The session is about to be configured: what comes from here on is heard after that."""
        self._position_before_hold_bytes = self.input_position_bytes

    def hold_event(self, event: EarlyEvent) -> bool:
        """Keep an event for `release`. Returns False if too many wait already."""
        return self._control.hold(event, self._ledger.input_bytes)

    def release(self) -> Iterator[EarlyEvent]:
        """The session is ready: the audio goes on, and the events that waited come in their places."""
        dropped_bytes = self._ledger.dropped_input_bytes - self._reported_drop_bytes
        if dropped_bytes:
            self._reported_drop_bytes += dropped_bytes
            lost_ms = dropped_bytes // self._bytes_per_ms
            message = f"The model was not ready in time: the oldest {lost_ms} ms of audio were left out."
            self._emit(SendError("audio_backlog", message))
        if self._is_muted:  # what was held is released as silence, whatever was said in between
            self.set_gate()
        yield from self._control.release()
        self.set_gate()

    # -- its turns ----------------------------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether the user speaks, or has typed what was not sent yet."""
        return self.timers.is_user_speaking or bool(self.typed_turns)

    def set_silence_duration(self, silence_ms: int) -> None:
        """The upstream detects the end of speech after so much silence."""
        self._silence_ms = silence_ms

    def speech_started_at(self, audio_start_ms: int, turn: TurnDetection, now: float) -> float | None:
        """When the user began to speak, by what the upstream reports; None if that is too long ago to be believed."""
        padding_ms = PREFIX_PADDING_MS if turn.prefix_padding_ms is None else turn.prefix_padding_ms
        lag_ms = self._heard_since_ms(audio_start_ms + (padding_ms if turn.kind == "server_vad" else 0))
        return now - lag_ms / 1000 if lag_ms <= MAX_SPEECH_LAG_MS else None

    def speech_ended_at(self, audio_end_ms: int, now: float) -> float:
        """When the user's speech ended, by what the upstream reports, less the silence that it waited for."""
        lag_ms = self._heard_since_ms(audio_end_ms) + self._silence_ms
        return now - min(lag_ms, MAX_SPEECH_LAG_MS) / 1000

    def commit(self) -> None:
        """The client ends its turn."""
        heard_bytes = self.input_position_bytes
        if heard_bytes - self._committed_bytes < MIN_COMMIT_MS * self._bytes_per_ms:
            self._emit(SendError("commit_too_short", f"Send at least {MIN_COMMIT_MS} ms of audio before commit."))
            return
        event_id = self._next_id()
        self._commits.append(event_id)
        self._committed_bytes = heard_bytes
        self._emit(CommitInput(event_id))

    def clear(self) -> None:
        """The client takes back the audio since the last commit."""
        self._committed_bytes = self.input_position_bytes
        self._emit(ClearInput(self._next_id()))

    def input_committed(self) -> None:
        """The upstream has made an item of all audio so far."""
        self._committed_bytes = self.input_position_bytes
        self._commits.clear()

    def commit_refused(self, event_id: str | None, message: str) -> bool:
        """The upstream refuses an event of ours. Returns whether it was a commit, which the client is sent then."""
        if event_id is None or event_id not in self._commits:
            return False
        self._commits.remove(event_id)
        self._emit(SendError("commit_too_short", message))
        return True

    def add_typed_turn(self, text: str) -> bool:
        """A typed turn joins the queue. Returns False if there is no room, which the client is sent."""
        if len(self.typed_turns) < MAX_TYPED_TURNS:
            self.typed_turns.append(text)
            return True
        message = f"{MAX_TYPED_TURNS} typed turns are waiting already; wait for one to end."
        self._emit(SendError("too_many_turns", message, retryable=True))
        return False

    def send_typed_turn(self) -> None:
        """Send the oldest typed turn upstream."""
        item = Item(id="", kind="message", role="user", text=self.typed_turns.popleft())
        self._emit(CreateItem(item, self._next_id()))
