"""The sentence splitter in its plainest form: it reads its whole buffer again with each piece of text.

What it gives for a text and its pieces is what the real one must give.
"""

import re

from relay.session.tts.sentences import LEADING, MAX_SENTENCE_CHARS, ORDINALS, TRAILING

_CLOSERS = "\"'”’»)\\]}*_」』）】〉》"
_MARK = re.compile(
    r"(?P<line>\s*\n)"
    rf"|(?P<wide>[。！？｡][。！？｡]*[{_CLOSERS}]*)"
    rf"|(?P<mark>[.!?…‽؟۔।॥։።]+)(?P<close>[{_CLOSERS}]*)(?P<gap>\s+)"
)
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'“‘«„]*$")
_CLAUSE = re.compile(r".*[,;:–—](?=\s)|.*[，、；：]", re.DOTALL)
_WORD = re.compile(r"\S{1,40}(?=\s)|\S{41}")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")


class ReferenceSplitter:
    """Takes text in pieces of any size; gives sentences. All of them together are the text, to the last blank."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """More text; returns the sentences that are complete by it."""
        self._text += text
        sentences = []
        while (end := self._end()) is not None:
            sentences.append(self._text[:end])
            self._text = self._text[end:]
        return sentences

    def flush(self) -> str:
        """What is left: the text is over."""
        rest, self._text = self._text, ""
        return rest

    def _end(self) -> int | None:
        """Where the first sentence ends, None while that cannot be known."""
        end = self._first_mark()
        if end is not None and end <= MAX_SENTENCE_CHARS:
            return end
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        return _break_of(self._text[:MAX_SENTENCE_CHARS])

    def _first_mark(self) -> int | None:
        text = self._text
        for found in _MARK.finditer(text, 0, 2 * MAX_SENTENCE_CHARS):
            end = found.end()
            if not text[: found.start()].strip():
                continue
            if found["line"] is not None or "\n" in (found["gap"] or ""):
                return end
            if end == len(text):
                return None  # a closing quote may follow, or a word that tells
            if found["wide"] is not None:
                return end
            verdict = _ends(text, found)
            if verdict is None:
                return None
            if verdict:
                return end
        return None


def _ends(text: str, found: re.Match[str]) -> bool | None:
    """Whether a mark before a gap ends its sentence; None while the next word is not complete."""
    end = found.end()
    if text[end].islower():
        return False
    if found["mark"] != "." or found["close"]:
        return True
    before = _WORD_BEFORE.search(text, 0, found.start())
    word = before[0] if before else ""
    if word.isdigit() and len(word) <= 2:
        return _ends_after_number(text, found.start() - len(word), end)
    if word.lower() in TRAILING or word == "I":
        return True
    return not (word.lower() in LEADING or _INITIALS.fullmatch(word))


def _ends_after_number(text: str, start: int, end: int) -> bool | None:
    """ "1. First" and "on the 3. Mai" go on; "It is 12. Then" does not."""
    if not text[:start].strip():
        return False
    following = _WORD.match(text, end)
    if following is None:
        return None
    return following[0].strip(".,;:!?").lower() not in ORDINALS


def _break_of(text: str) -> int:
    """Where a text without an end is cut: behind the last clause, else the last word, else anywhere."""
    clause = _CLAUSE.match(text)
    if clause is not None and clause.end() >= len(text) // 3:
        return clause.end()
    space = max(text.rfind(" "), text.rfind("\t"))
    return space + 1 if space > 0 else len(text)
