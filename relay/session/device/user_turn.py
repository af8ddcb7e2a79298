"""The user's turn: spoken, committed by hand, or typed.

Spoken turns are bounded by the upstream's voice detection. A client that commits by hand ends its turn itself, and
must have sent `MIN_COMMIT_MS` of audio since the last commit; the upstream's refusal comes as an error with the
commit's id. Typed turns wait in a queue until nothing else is to be answered, and go one at a time.
"""

from collections import deque
from collections.abc import Callable

from relay.core.commands import ClearInput, Command, CommitInput, CreateItem, TellError
from relay.core.values import Item, TurnDetection
from relay.session.common.turn_timers import TurnTimers
from relay.session.device.client_audio import ClientAudio

MIN_COMMIT_MS = 100
MAX_COMMITS = 16
"""Commits whose answer is awaited; the oldest are forgotten."""
MAX_TYPED_TURNS = 16
MAX_SPEECH_LAG_MS = 5000
"""How far back a start or an end of speech that the upstream reports may be."""
PREFIX_PADDING_MS = 300
"""Audio before the speech that server VAD counts in by default. What semantic VAD counts in is not documented."""


class UserTurn:
    """What the user says and types; commands go to `emit`, ids come from `next_id`."""

    def __init__(self, audio: ClientAudio, emit: Callable[[Command], None], next_id: Callable[[], str]) -> None:
        self.timers = TurnTimers()
        self.typed: deque[str] = deque()
        """Typed turns that wait."""
        self._audio = audio
        self._emit = emit
        self._next_id = next_id
        self._silence_ms = 0
        self._commits: deque[str] = deque(maxlen=MAX_COMMITS)
        self._committed_bytes = 0

    @property
    def is_pending(self) -> bool:
        """Whether the user speaks, or has typed what was not sent yet."""
        return self.timers.is_user_speaking or bool(self.typed)

    def use_silence(self, silence_ms: int) -> None:
        """The upstream detects the end of speech after so much silence."""
        self._silence_ms = silence_ms

    def speech_start(self, audio_start_ms: int, turn: TurnDetection, now: float) -> float | None:
        """When the user began to speak, by what the upstream reports; None if that is too long ago to be believed."""
        padding_ms = PREFIX_PADDING_MS if turn.prefix_padding_ms is None else turn.prefix_padding_ms
        lag_ms = self._audio.heard_since_ms(audio_start_ms + (padding_ms if turn.kind == "server_vad" else 0))
        return now - lag_ms / 1000 if lag_ms <= MAX_SPEECH_LAG_MS else None

    def speech_end(self, audio_end_ms: int, now: float) -> float:
        """When the user's speech ended, by what the upstream reports, less the silence that it waited for."""
        lag_ms = self._audio.heard_since_ms(audio_end_ms) + self._silence_ms
        return now - min(lag_ms, MAX_SPEECH_LAG_MS) / 1000

    def commit(self) -> None:
        """The client ends its turn."""
        heard_bytes = self._audio.heard_bytes
        if heard_bytes - self._committed_bytes < MIN_COMMIT_MS * self._audio.bytes_per_ms:
            self._emit(TellError("commit_too_short", f"Send at least {MIN_COMMIT_MS} ms of audio before commit."))
            return
        event_id = self._next_id()
        self._commits.append(event_id)
        self._committed_bytes = heard_bytes
        self._emit(CommitInput(event_id))

    def clear(self) -> None:
        """The client takes back the audio since the last commit."""
        self._committed_bytes = self._audio.heard_bytes
        self._emit(ClearInput(self._next_id()))

    def committed(self) -> None:
        """The upstream has made an item of all audio so far."""
        self._committed_bytes = self._audio.heard_bytes
        self._commits.clear()

    def commit_refused(self, event_id: str | None, message: str) -> bool:
        """The upstream refuses an event of ours. Returns whether it was a commit, which the client is sent then."""
        if event_id is None or event_id not in self._commits:
            return False
        self._commits.remove(event_id)
        self._emit(TellError("commit_too_short", message))
        return True

    def type(self, text: str) -> bool:
        """A typed turn joins the queue. Returns False if there is no room, which the client is sent."""
        if len(self.typed) < MAX_TYPED_TURNS:
            self.typed.append(text)
            return True
        message = f"{MAX_TYPED_TURNS} typed turns are waiting already; wait for one to end."
        self._emit(TellError("too_many_turns", message, retryable=True))
        return False

    def send_typed(self) -> None:
        """Send the oldest typed turn upstream."""
        item = Item(id="", kind="message", role="user", text=self.typed.popleft())
        self._emit(CreateItem(item, self._next_id()))
