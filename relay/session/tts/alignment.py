"""One utterance of an external voice: its text, what the voice has been sent, and how much was heard (D9).

An `TtsUtterance` is all that one response says, in one context of the voice. It may span several items; their shares
are its `parts`, and its audio is played as that of the first item. `Voice` owns it while it waits or is spoken, and
`TtsSpeaker` keeps it afterwards, for as long as a barge-in can still cut it.

Text is split into sentences as it comes; `take` returns those that were not sent yet. `complete` says that all text has
come, `ended` that the voice knows it, `finished` that all audio has come. `restart` sends an unheard utterance again.

`AlignedText` maps a played position to text. Where the voice reports when each character is spoken, those times decide.
What it reports is compared with the text; the first difference ends what is known, and the rest is taken to be spoken
at an even pace. A text is cut between words.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from relay.session.common.model import Alignment
from relay.session.device.conversation import MAX_TEXT_CHARS, truncate_at_word
from relay.session.tts.sentences import SentenceSplitter

MAX_PARTS = 64
MS_PER_CHAR = 65
"""How fast a voice speaks that has neither told nor finished: some 15 characters a second."""


class AlignedText:
    """A text and when it is heard. Characters are counted without blanks, for voices differ in those that they tell."""

    __slots__ = ("_chars", "_ends_ms", "_is_aligned", "text")

    def __init__(self) -> None:
        self.text = ""
        self._chars = ""
        self._ends_ms = array("q")
        self._is_aligned = True

    @property
    def aligned_chars(self) -> int | None:
        """Of how many characters the voice has told the time; None if what it told does not fit, or it told nothing."""
        return len(self._ends_ms) if self._is_aligned and self._ends_ms else None

    @property
    def n_chars(self) -> int:
        """How many characters there are in all."""
        return len(self._chars)

    def add(self, text: str) -> None:
        """More text is going to be spoken."""
        self.text += text
        self._chars += "".join(text.split())

    def align(self, alignment: Alignment | None, from_ms: int) -> None:
        """The times of the sound that begins at `from_ms`. What does not fit the text ends what is known."""
        if alignment is None or not self._is_aligned:
            return
        known, letters = self._ends_ms, self._chars
        for char, start_ms, duration_ms in zip(
            alignment.chars, alignment.starts_ms, alignment.durations_ms, strict=False
        ):
            for letter in "".join(char.split()):
                if len(known) >= len(letters) or letters[len(known)] != letter:
                    self._is_aligned = False
                    return
                end_ms = from_ms + start_ms + duration_ms
                known.append(max(end_ms, known[-1] if known else 0))

    def heard_text(self, played_ms: int, received_ms: int, *, finished: bool) -> str:
        """The beginning of the text that `played_ms` of `received_ms` hold; `finished`: there is no more sound."""
        if played_ms <= 0:
            return ""
        if finished and played_ms >= received_ms:
            return self.text
        return truncate_at_word(self.text, self._position(self._chars_heard(played_ms, received_ms, finished)))

    def _chars_heard(self, played_ms: int, received_ms: int, finished: bool) -> int:
        known = self._ends_ms
        heard = bisect_right(known, played_ms)
        last_ms = known[-1] if known else 0
        rest = len(self._chars) - len(known)
        if heard < len(known) or rest == 0 or (known and self._is_aligned):
            return heard
        end_ms = received_ms if finished else max(received_ms, last_ms + rest * MS_PER_CHAR)
        return heard + rest * (played_ms - last_ms) // max(end_ms - last_ms, 1)

    def _position(self, n_letters: int) -> int:
        """Behind that many characters that are no blanks."""
        if n_letters >= len(self._chars):
            return len(self.text)
        for position, char in enumerate(self.text):
            if not char.isspace():
                if n_letters == 0:
                    return position
                n_letters -= 1
        return len(self.text)


@dataclass(slots=True)
class UtterancePart:
    """One item's share of a text: from `start` on, as far as the next one's."""

    item_id: str
    content_index: int
    start: int


class TtsUtterance:
    """What one response says, in one context of the voice. Its clip is that of its first item."""

    def __init__(self, response_id: str, item_id: str, content_index: int) -> None:
        self.response_id = response_id
        self.key = (item_id, content_index)
        self.context_id = ""
        """Set while the voice has it."""
        self.parts = [UtterancePart(item_id, content_index, 0)]
        self.aligned_text = AlignedText()
        self.is_text_complete = False
        """All of its text has come."""
        self.is_end_sent = False
        """The voice knows that."""
        self.is_audio_complete = False
        """All of its sound has come."""
        self.audio_bytes = 0
        self.unsent_sentences: list[str] = []
        """Sentences that the voice has not been sent."""
        self.sent_chars = 0
        self.is_announced = False
        self.attempts = 0
        self._splitter = SentenceSplitter()

    @property
    def text(self) -> str:
        """All of the text so far that is to be spoken."""
        return self.aligned_text.text

    def add(self, item_id: str, content_index: int, text: str) -> None:
        """More text. What is over `MAX_TEXT_CHARS`, or in more than `MAX_PARTS` items, stays unspoken."""
        text = text[: MAX_TEXT_CHARS - len(self.text)]
        last = self.parts[-1]
        if (last.item_id, last.content_index) != (item_id, content_index):
            if not text or len(self.parts) >= MAX_PARTS:
                return
            self.part_done()
            self.aligned_text.add("\n")
            self.parts.append(UtterancePart(item_id, content_index, len(self.text)))
        self.aligned_text.add(text)
        self.unsent_sentences += self._splitter.feed(text)

    def part_done(self) -> None:
        """All of an item's text has come: its last sentence needs no next one to be known as such."""
        rest = self._splitter.flush()
        if rest.strip():
            self.unsent_sentences.append(rest)

    def end_text(self) -> None:
        """All of the text has come."""
        self.part_done()
        self.is_text_complete = True

    def take_sentences(self) -> list[str]:
        """The sentences to be sent now, each with one blank behind it."""
        sentences = [" ".join(sentence.split()) + " " for sentence in self.unsent_sentences]
        self.unsent_sentences.clear()
        self.sent_chars += sum(len(sentence.replace(" ", "")) for sentence in sentences)
        return sentences

    def reset_for_retry(self) -> None:
        """Nothing of it was heard, and the voice has lost it: it is sent once more."""
        self._splitter = SentenceSplitter()
        self.unsent_sentences = self._splitter.feed(self.text)
        if self.is_text_complete:
            self.part_done()
        self.context_id, self.is_end_sent, self.sent_chars = "", False, 0
        self.attempts += 1

    def heard_by_item(self, heard: str) -> list[tuple[str, str, str]]:
        """What of each item was heard: (item_id, all of its text, what was heard of it)."""
        found: dict[str, tuple[str, str]] = {}
        ends = [part.start for part in self.parts[1:]] + [len(self.text)]
        for part, end in zip(self.parts, ends, strict=True):
            whole, before = found.get(part.item_id, ("", ""))
            found[part.item_id] = (whole + self.text[part.start : end], before + heard[part.start : end])
        return [(item_id, whole.strip(), told.strip()) for item_id, (whole, told) in found.items()]
