"""What one turn has come to, judged from the relay's messages alone, with the time as an argument."""

from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]

# After a file this much silence is sent in any case: its last words may not have been noticed yet.
TAIL_S = 1.0
# A file without any speech: the relay would have noticed it long before the last of this silence.
NO_SPEECH_S = 5.0
# Text overtakes paced audio, so the words of an item can be here before its sound is announced. If no sound comes
# for this long, the item has none.
SETTLE_S = 1.0
# The user's transcript and the latencies may come after the answer.
LINGER_S = 1.5
# Items that one turn keeps in mind; of further ones the end is not awaited.
MAX_ITEMS = 1024
MAX_ID_CHARS = 256


def item_id_of(message: Message) -> str:
    """The message's `itemId`; empty when it has none that can be used."""
    item_id = message.get("itemId")
    return item_id if isinstance(item_id, str) and len(item_id) <= MAX_ID_CHARS else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the turn stands; while it is "wait", `until` says when time alone could change that (None: never)."""

    state: Literal["wait", "over", "no_speech", "timeout"]
    until: float | None = None


class Turn:
    """One turn, spoken or typed; `input_ends_at` is when the last of it has been sent, in seconds.

    A turn is over when a response ended that owes no follow-up, and all audio that was announced has come.
    """

    def __init__(self, *, spoken: bool, input_ends_at: float, timeout_s: float) -> None:
        self._spoken = spoken
        self._input_ends_at = input_ends_at
        self._timeout_s = timeout_s
        self._news_at = input_ends_at
        self._over_at: float | None = None
        self._owed = not spoken  # a response that has not begun
        self._ended = False  # a response without follow-up has ended
        self._user_speaking = False
        self._playing: set[str] = set()
        self._expected: set[str] = set()
        self._heard: set[str] = set()
        self._wordy = False
        self._owes_transcript = False
        self._owes_latency = False
        self.began = False
        self.speech_found = False
        self.user_text = ""
        self.status = ""

    def audio(self, now: float) -> None:
        """A binary frame came."""
        self._news_at = now

    def take(self, message: Message, now: float) -> None:
        """A message came."""
        self._news_at = now
        item_id = item_id_of(message)
        match message.get("type"):
            case "event":
                self._event(message)
            case "audioStart":
                self._owes_latency = self._owes_latency or not self._heard
                if item_id and len(self._heard) < MAX_ITEMS:
                    self._playing.add(item_id)
                    self._heard.add(item_id)
            case "audioEnd" | "interrupted":
                self._playing.discard(item_id)
                if len(self._heard) < MAX_ITEMS:
                    self._heard.add(item_id)
            case "transcript":
                self._transcript(message, item_id)
            case "latency":
                self._owes_latency = False

    def _event(self, message: Message) -> None:
        match message.get("name"):
            case "AISpeechDetected":
                self.speech_found = self._user_speaking = self._owed = True
            case "AISpeechEnded":
                self._user_speaking = False
                self._owes_transcript = True
            case "AIResponseStart":
                # One that begins while the user speaks answers what was said before.
                self._owed = self._user_speaking
                self.began = True
                self._ended = False
            case "AIResponseEnd":
                self.status = str(message.get("status", "completed"))
                self._ended = message.get("more") is not True
                self._wordy = bool(message.get("finalText"))

    def _transcript(self, message: Message, item_id: str) -> None:
        text, final = str(message.get("text", "")), message.get("final") is True
        if message.get("role") == "user":
            self.user_text = text if final else (self.user_text + text)[:1000]
            self._owes_transcript = self._owes_transcript and not final
        elif final and text and item_id and len(self._expected) < MAX_ITEMS:
            self._expected.add(item_id)

    def verdict(self, now: float) -> Verdict:
        """Where the turn stands at `now`."""
        if self._ended and not self._owed and not self._user_speaking and not self._playing:
            return self._closing(now)
        self._over_at = None
        if now < self._input_ends_at:
            return Verdict("wait", self._input_ends_at)
        if self._spoken and not self.speech_found and not self.began:
            until = self._input_ends_at + min(NO_SPEECH_S, self._timeout_s)
            return Verdict("no_speech" if now >= until else "wait", until)
        until = max(self._news_at, self._input_ends_at) + self._timeout_s
        return Verdict("timeout" if now >= until else "wait", until)

    def _closing(self, now: float) -> Verdict:
        """All that was announced has come: what else could still come, and how long is that waited for?"""
        until = self._input_ends_at + (TAIL_S if self._spoken else 0)
        if self._expected - self._heard or (self._wordy and not self._heard):
            until = max(until, self._news_at + SETTLE_S)
        if now < until:
            return Verdict("wait", until)
        if self._over_at is None:
            self._over_at = now
        linger = self._owes_transcript or self._owes_latency
        if linger and now < self._over_at + LINGER_S:
            return Verdict("wait", self._over_at + LINGER_S)
        return Verdict("over")
