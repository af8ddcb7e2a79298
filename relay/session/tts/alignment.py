"""One utterance of an external voice: its text, what the voice was sent, and the text that was heard (D9).

A `TtsUtterance` is the text of one response, in one context of the voice. It may span several items, whose shares are
its `parts`; its audio is played as the first item's. `TtsStream` owns it while it is queued or spoken. Afterwards
`TtsSpeaker` keeps it for as long as a barge-in can interrupt it.

Text is split into sentences as it comes, and `take_sentences` returns those that were not sent yet. `is_text_complete`
means that all text came, `is_end_sent` that the voice was sent its end, and `is_audio_complete` that all audio came.
`reset_for_retry` sends an unheard utterance again.

`AlignedText` maps a played position to text, based on the times that the voice reports for each character. Reported
characters are compared with the text. After the first difference, the rest of the text is assumed to be spoken at an
even pace. A text is truncated between words.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from relay.session.common.model import Alignment
from relay.session.device.conversation import MAX_TEXT_CHARS, truncate_at_word
from relay.session.tts.sentences import SentenceSplitter

MAX_PARTS = 64
MS_PER_CHAR = 65
"""The assumed pace of a voice that reports no times and has not finished: some 15 characters a second."""


class AlignedText:
    """A text and the times of its characters. Blanks do not count, as not all voices report them."""

    __slots__ = ("_chars", "_ends_ms", "_is_aligned", "text")

    def __init__(self) -> None:
        self.text = ""
        self._chars = ""
        self._ends_ms = array("q")
        self._is_aligned = True

    @property
    def aligned_chars(self) -> int | None:
        """The number of characters with a time; None if the voice reported none, or if they differ from the text."""
        return len(self._ends_ms) if self._is_aligned and self._ends_ms else None

    @property
    def n_chars(self) -> int:
        """The number of characters, without blanks."""
        return len(self._chars)

    def add(self, text: str) -> None:
        """Append text that is going to be spoken."""
        self.text += text
        self._chars += "".join(text.split())

    def align(self, alignment: Alignment | None, from_ms: int) -> None:
        """Add the times of audio that begins at `from_ms`; stop aligning if its characters differ from the text."""
        if alignment is None or not self._is_aligned:
            return
        ends_ms, chars = self._ends_ms, self._chars
        for reported_chars, start_ms, duration_ms in zip(
            alignment.chars, alignment.starts_ms, alignment.durations_ms, strict=False
        ):
            for char in "".join(reported_chars.split()):
                if len(ends_ms) >= len(chars) or chars[len(ends_ms)] != char:
                    self._is_aligned = False
                    return
                end_ms = from_ms + start_ms + duration_ms
                ends_ms.append(max(end_ms, ends_ms[-1] if ends_ms else 0))

    def heard_text(self, played_ms: int, received_ms: int, *, is_audio_complete: bool) -> str:
        """Return the text within `played_ms` of `received_ms` of audio; `is_audio_complete`: all audio was received."""
        if played_ms <= 0:
            return ""
        if is_audio_complete and played_ms >= received_ms:
            return self.text
        return truncate_at_word(
            self.text, self._position_of(self._n_heard_chars(played_ms, received_ms, is_audio_complete))
        )

    def _n_heard_chars(self, played_ms: int, received_ms: int, finished: bool) -> int:
        ends_ms = self._ends_ms
        n_heard = bisect_right(ends_ms, played_ms)
        last_ms = ends_ms[-1] if ends_ms else 0
        n_unaligned = len(self._chars) - len(ends_ms)
        if n_heard < len(ends_ms) or n_unaligned == 0 or (ends_ms and self._is_aligned):
            return n_heard
        end_ms = received_ms if finished else max(received_ms, last_ms + n_unaligned * MS_PER_CHAR)
        return n_heard + n_unaligned * (played_ms - last_ms) // max(end_ms - last_ms, 1)

    def _position_of(self, n_chars: int) -> int:
        """Return the position in the text after `n_chars` characters that are not blank."""
        if n_chars >= len(self._chars):
            return len(self.text)
        for position, char in enumerate(self.text):
            if not char.isspace():
                if n_chars == 0:
                    return position
                n_chars -= 1
        return len(self.text)


@dataclass(slots=True)
class UtterancePart:
    """The share of one item in the text: from `start` to the start of the next part."""

    item_id: str
    content_index: int
    start: int


class TtsUtterance:
    """The text of one response in one context of the voice; its audio is played as its first item's."""

    def __init__(self, response_id: str, item_id: str, content_index: int) -> None:
        self.response_id = response_id
        self.key = (item_id, content_index)
        self.context_id = ""
        """Empty until the voice is sent the first text."""
        self.parts = [UtterancePart(item_id, content_index, 0)]
        self.aligned_text = AlignedText()
        self.is_text_complete = False
        self.is_end_sent = False
        self.is_audio_complete = False
        self.audio_bytes = 0
        self.unsent_sentences: list[str] = []
        self.sent_chars = 0
        self.is_announced = False
        self.attempts = 0
        self._splitter = SentenceSplitter()

    @property
    def text(self) -> str:
        """The text so far."""
        return self.aligned_text.text

    def add(self, item_id: str, content_index: int, text: str) -> None:
        """Append text. Text beyond `MAX_TEXT_CHARS`, or of more than `MAX_PARTS` items, is not spoken."""
        text = text[: MAX_TEXT_CHARS - len(self.text)]
        last = self.parts[-1]
        if (last.item_id, last.content_index) != (item_id, content_index):
            if not text or len(self.parts) >= MAX_PARTS:
                return
            self.end_part()
            self.aligned_text.add("\n")
            self.parts.append(UtterancePart(item_id, content_index, len(self.text)))
        self.aligned_text.add(text)
        self.unsent_sentences += self._splitter.feed(text)

    def end_part(self) -> None:
        """Complete the last sentence: all text of an item came."""
        rest = self._splitter.flush()
        if rest.strip():
            self.unsent_sentences.append(rest)

    def end_text(self) -> None:
        """Complete the text."""
        self.end_part()
        self.is_text_complete = True

    def take_sentences(self) -> list[str]:
        """Remove and return the unsent sentences, each followed by one blank."""
        sentences = [" ".join(sentence.split()) + " " for sentence in self.unsent_sentences]
        self.unsent_sentences.clear()
        self.sent_chars += sum(len(sentence.replace(" ", "")) for sentence in sentences)
        return sentences

    def reset_for_retry(self) -> None:
        """Prepare to send all text once more, after the voice failed before any audio."""
        self._splitter = SentenceSplitter()
        self.unsent_sentences = self._splitter.feed(self.text)
        if self.is_text_complete:
            self.end_part()
        self.context_id, self.is_end_sent, self.sent_chars = "", False, 0
        self.attempts += 1

    def heard_by_item(self, heard_text: str) -> list[tuple[str, str, str]]:
        """Split `heard_text` by item. Returns for each (item_id, its whole text, its heard text)."""
        texts: dict[str, tuple[str, str]] = {}
        ends = [part.start for part in self.parts[1:]] + [len(self.text)]
        for part, end in zip(self.parts, ends, strict=True):
            whole, heard_part = texts.get(part.item_id, ("", ""))
            texts[part.item_id] = (whole + self.text[part.start : end], heard_part + heard_text[part.start : end])
        return [(item_id, whole.strip(), heard_part.strip()) for item_id, (whole, heard_part) in texts.items()]
