"""Splits the text of a model, as it comes, into sentences that can be spoken one after the other.

No library fits: those that exist need the whole text, but here a sentence must be sent before the next one is written.
In doubt two sentences stay together, which costs a short delay. A sentence that is split in two would be audible.

The cost grows with the length of the text only, however many chunks it comes in. No character is searched twice, and no
pattern backtracks over a run of marks or spaces.
"""

import re

MAX_SENTENCE_CHARS = 300
"""A longer sentence is split at a comma or a space."""

_MARK_WINDOW = 2 * MAX_SENTENCE_CHARS
_LOOKAHEAD = _MARK_WINDOW + 50
"""With so many characters, more text cannot change where the first sentence ends."""

_MARKS = ".!?…‽؟۔।॥։።"
_CLOSING = "\"'”’»)]}*_」』）】〉》"
_CLOSERS = re.escape(_CLOSING)
_MARK = re.compile(
    r"(?P<line>(?<!\s)(?:[^\S\n]*+\n)++)"
    rf"|(?P<wide>[。！？｡]++[{_CLOSERS}]*+)"
    rf"|(?<![{_MARKS}])(?P<mark>[{_MARKS}]++)(?P<close>[{_CLOSERS}]*+)(?P<gap>\s++)"
)
_DECIDING = re.compile(r"[\s。！？｡]")
"""Characters that end a sentence, or that show that the mark before them does."""
_OPENERS = frozenset("([{\"'“‘«„")
_CLAUSE = re.compile(r".*[,;:–—](?=\s)|.*[，、；：]", re.DOTALL)
_WORD = re.compile(r"\S{1,40}(?=\s)|\S{41}")
"""The next word, up to the length of the longest ordinal word."""
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")

_LEADING_WORDS = (
    "mr mrs ms dr prof st sr mt ft fig no nr vs approx ca cf dept est gen gov hon rev sen rep sgt capt col lt "
    "hr fr frl bzw evtl ggf inkl exkl sog vgl zzgl abs art bd tel str mind max min ung "
    "m mme mlle mgr av bd boul env "
    "sra srta dra ud uds pág núm avda tfno "
    "sig dott ing avv on egr spett "
    "dhr mevr drs mw tzv bijv "
    "tj např resp т д г ул стр"
)
"""Abbreviations before a name, a number or an explanation: a sentence never ends with them."""
_TRAILING_WORDS = "a.m p.m etc inc ltd co corp usw uvm etw jr bv ltda"
"""Abbreviations that may end a sentence: then the next word begins with a capital letter."""
_ORDINAL_WORDS = (
    "januar jänner februar märz april mai juni juli august september oktober november dezember "
    "marts maj december jahrhundert century etage stock klasse kapitel"
)
LEADING, TRAILING, ORDINALS = (frozenset(words.split()) for words in (_LEADING_WORDS, _TRAILING_WORDS, _ORDINAL_WORDS))


class SentenceSplitter:
    """Splits text that comes in chunks of any size. The sentences joined are exactly the text, including blanks."""

    __slots__ = ("_is_undecided", "_searched_to", "_text")

    def __init__(self) -> None:
        self._text = ""
        self._searched_to = 0  # no mark before this position can end a sentence
        self._is_undecided = False  # the next text decides whether the mark there ends one

    def feed(self, text: str) -> list[str]:
        """Add text. Returns the sentences that are complete now."""
        sentences = []
        look = False
        for start in range(0, len(text), _LOOKAHEAD):
            chunk = text[start : start + _LOOKAHEAD]
            look = look or self._may_end_sentence(chunk)
            self._text += chunk
            is_last = start + _LOOKAHEAD >= len(text)
            while (is_last or len(self._text) >= _LOOKAHEAD) and (
                end := self._find_end(may_have_mark=look)
            ) is not None:
                sentences.append(self._text[:end])
                self._text, self._searched_to, self._is_undecided = self._text[end:], 0, False
                look = _DECIDING.search(self._text) is not None
        return sentences

    def flush(self) -> str:
        """Return the rest of the text."""
        rest = self._text
        self._text, self._searched_to, self._is_undecided = "", 0, False
        return rest

    def _may_end_sentence(self, chunk: str) -> bool:
        """Return whether a chunk may complete a sentence; most chunks do not, and need no search."""
        if chunk.isspace() and "\n" not in chunk and self._text[-1:].isspace():
            return False
        return self._is_undecided or _DECIDING.search(chunk) is not None

    def _find_end(self, *, may_have_mark: bool) -> int | None:
        """Return where the first sentence ends, None if that is not known yet; `may_have_mark`: with a new mark."""
        end = self._find_mark() if may_have_mark else None
        if end is not None and end <= MAX_SENTENCE_CHARS:
            return end
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        return _cut_position(self._text[:MAX_SENTENCE_CHARS])

    def _find_mark(self) -> int | None:
        text, self._is_undecided = self._text, False
        words_begin = len(text) - len(text.lstrip())
        for mark in _MARK.finditer(text, max(self._searched_to, words_begin), _MARK_WINDOW):
            end = mark.end()
            is_end = mark.start() > words_begin and _ends_sentence(text, mark)
            if is_end:
                return end
            if is_end is None or end == len(text):
                self._searched_to, self._is_undecided = mark.start(), is_end is None
                return None
            self._searched_to = end
        self._searched_to = max(self._searched_to, _open_tail(text))
        return None


def _open_tail(text: str) -> int:
    """Return where the final marks, closing quotes and spaces begin: more text may end a sentence there."""
    words_end = len(text.rstrip())
    closers_begin = len(text[:words_end].rstrip(_CLOSING))
    marks_begin = len(text[:closers_begin].rstrip(_MARKS))
    return marks_begin if marks_begin < closers_begin else words_end


def _ends_sentence(text: str, mark: re.Match[str]) -> bool | None:
    """Return whether a mark ends its sentence; None if that depends on the next text."""
    end = mark.end()
    if mark["line"] is not None or "\n" in (mark["gap"] or ""):
        return True
    if end == len(text):
        return None  # a closing quote may follow, or a deciding word
    if mark["wide"] is not None:
        return True
    if text[end].islower():
        return False
    if mark["mark"] != "." or mark["close"]:
        return True
    word = _word_before(text, mark.start())
    if word.isdigit() and len(word) <= 2:
        return _ends_after_number(text, mark.start() - len(word), end)
    if word.lower() in TRAILING or word == "I":
        return True
    return not (word.lower() in LEADING or _INITIALS.fullmatch(word))


def _word_before(text: str, end: int) -> str:
    start = end
    while start > 0 and not text[start - 1].isspace() and text[start - 1] not in _OPENERS:
        start -= 1
    return text[start:end]


def _ends_after_number(text: str, start: int, end: int) -> bool | None:
    """Return whether a sentence ends after a number: "It is 12. Then" does; "1. First" and "on the 3. Mai" do not."""
    if not text[:start].strip():
        return False
    following = _WORD.match(text, end)
    if following is None:
        return None
    return following[0].strip(".,;:!?").lower() not in ORDINALS


def _cut_position(text: str) -> int:
    """Return where to split a text without an end: after the last clause, else after the last word, else anywhere."""
    clause = _CLAUSE.match(text)
    if clause is not None and clause.end() >= len(text) // 3:
        return clause.end()
    space = max(text.rfind(" "), text.rfind("\t"))
    return space + 1 if space > 0 else len(text)
