"""Text as it comes from a model, cut into sentences that can be spoken one after the other.

No library serves: those that exist want the whole text, and here a sentence must leave before the next one is written.
When in doubt two sentences stay together, which costs a moment; a sentence cut in two would be heard.

The work grows with the length of the text alone, however many pieces it comes in. What was looked at is not looked at
again, and no pattern goes back over a run of marks or spaces.
"""

import re

MAX_SENTENCE_CHARS = 300
"""What has no end for so long is cut at a comma or a space."""

_MARK_WINDOW = 2 * MAX_SENTENCE_CHARS
_LOOKAHEAD = _MARK_WINDOW + 50
"""With so many characters more text cannot change where the first sentence ends."""

_MARKS = ".!?…‽؟۔।॥։።"
_CLOSING = "\"'”’»)]}*_」』）】〉》"
_CLOSERS = re.escape(_CLOSING)
_MARK = re.compile(
    r"(?P<line>(?<!\s)(?:[^\S\n]*+\n)++)"
    rf"|(?P<wide>[。！？｡]++[{_CLOSERS}]*+)"
    rf"|(?<![{_MARKS}])(?P<mark>[{_MARKS}]++)(?P<close>[{_CLOSERS}]*+)(?P<gap>\s++)"
)
_DECIDING = re.compile(r"[\s。！？｡]")
"""What makes an end of a mark before it, or is one."""
_OPENERS = frozenset("([{\"'“‘«„")
_CLAUSE = re.compile(r".*[,;:–—](?=\s)|.*[，、；：]", re.DOTALL)
_WORD = re.compile(r"\S{1,40}(?=\s)|\S{41}")
"""The next word, as far as it must be known: no month's name is longer."""
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
"""Before a name, a number or an explanation: a sentence never ends with them."""
_TRAILING_WORDS = "a.m p.m etc inc ltd co corp usw uvm etw jr bv ltda"
"""They end a sentence too: then the next word begins with a capital."""
_ORDINAL_WORDS = (
    "januar jänner februar märz april mai juni juli august september oktober november dezember "
    "marts maj december jahrhundert century etage stock klasse kapitel"
)
LEADING, TRAILING, ORDINALS = (frozenset(words.split()) for words in (_LEADING_WORDS, _TRAILING_WORDS, _ORDINAL_WORDS))


class SentenceSplitter:
    """Takes text in pieces of any size; gives sentences. All of them together are the text, to the last blank."""

    __slots__ = ("_is_undecided", "_looked_at", "_text")

    def __init__(self) -> None:
        self._text = ""
        self._looked_at = 0  # no mark before it can end a sentence any more
        self._is_undecided = False  # the mark there ends one, or not, by what comes next

    def feed(self, text: str) -> list[str]:
        """More text; returns the sentences that are complete by it."""
        sentences = []
        look = False
        for start in range(0, len(text), _LOOKAHEAD):
            piece = text[start : start + _LOOKAHEAD]
            look = look or self._decides(piece)
            self._text += piece
            is_last = start + _LOOKAHEAD >= len(text)
            while (is_last or len(self._text) >= _LOOKAHEAD) and (end := self._end(look=look)) is not None:
                sentences.append(self._text[:end])
                self._text, self._looked_at, self._is_undecided = self._text[end:], 0, False
                look = _DECIDING.search(self._text) is not None
        return sentences

    def flush(self) -> str:
        """What is left: the text is over."""
        rest = self._text
        self._text, self._looked_at, self._is_undecided = "", 0, False
        return rest

    def _decides(self, piece: str) -> bool:
        """Whether a piece of text can make an end where there was none: most cannot, and cost no search."""
        if piece.isspace() and "\n" not in piece and self._text[-1:].isspace():
            return False
        return self._is_undecided or _DECIDING.search(piece) is not None

    def _end(self, *, look: bool) -> int | None:
        """Where the first sentence ends, None while that cannot be known; `look`: there may be a new mark."""
        end = self._first_mark() if look else None
        if end is not None and end <= MAX_SENTENCE_CHARS:
            return end
        if len(self._text) <= MAX_SENTENCE_CHARS:
            return None
        return _cut_position(self._text[:MAX_SENTENCE_CHARS])

    def _first_mark(self) -> int | None:
        text, self._is_undecided = self._text, False
        words_begin = len(text) - len(text.lstrip())
        for found in _MARK.finditer(text, max(self._looked_at, words_begin), _MARK_WINDOW):
            end = found.end()
            verdict = found.start() > words_begin and _ends_sentence(text, found)
            if verdict:
                return end
            if verdict is None or end == len(text):
                self._looked_at, self._is_undecided = found.start(), verdict is None
                return None
            self._looked_at = end
        self._looked_at = max(self._looked_at, _open_tail(text))
        return None


def _open_tail(text: str) -> int:
    """Where the marks, closing quotes and spaces begin that end a text: more text may make an end of them."""
    words_end = len(text.rstrip())
    closers_begin = len(text[:words_end].rstrip(_CLOSING))
    marks_begin = len(text[:closers_begin].rstrip(_MARKS))
    return marks_begin if marks_begin < closers_begin else words_end


def _ends_sentence(text: str, found: re.Match[str]) -> bool | None:
    """Whether a mark ends its sentence; None while what comes next may tell."""
    end = found.end()
    if found["line"] is not None or "\n" in (found["gap"] or ""):
        return True
    if end == len(text):
        return None  # a closing quote may follow, or a word that tells
    if found["wide"] is not None:
        return True
    if text[end].islower():
        return False
    if found["mark"] != "." or found["close"]:
        return True
    word = _word_before(text, found.start())
    if word.isdigit() and len(word) <= 2:
        return _ends_after_number(text, found.start() - len(word), end)
    if word.lower() in TRAILING or word == "I":
        return True
    return not (word.lower() in LEADING or _INITIALS.fullmatch(word))


def _word_before(text: str, end: int) -> str:
    start = end
    while start > 0 and not text[start - 1].isspace() and text[start - 1] not in _OPENERS:
        start -= 1
    return text[start:end]


def _ends_after_number(text: str, start: int, end: int) -> bool | None:
    """ "1. First" and "on the 3. Mai" go on; "It is 12. Then" does not."""
    if not text[:start].strip():
        return False
    following = _WORD.match(text, end)
    if following is None:
        return None
    return following[0].strip(".,;:!?").lower() not in ORDINALS


def _cut_position(text: str) -> int:
    """Where a text without an end is cut: behind the last clause, else the last word, else anywhere."""
    clause = _CLAUSE.match(text)
    if clause is not None and clause.end() >= len(text) // 3:
        return clause.end()
    space = max(text.rfind(" "), text.rfind("\t"))
    return space + 1 if space > 0 else len(text)
