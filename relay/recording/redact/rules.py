"""What is taken out of a recording before it goes to somebody else: fields, patterns, and whole stretches of time."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.recording.derive.timeline import Timeline
from relay.recording.store.layout import RecordingError

GONE = "[…]"
CONTENT = frozenset(
    {"text", "final_text", "heard_text", "arguments", "output", "message", "reason", "instructions", "description",
     "examples", "what", "progress"}
)  # fmt: skip
"""Members of events, commands and settings that hold what people, tools or models said; ids and numbers are not."""


@dataclass(frozen=True, slots=True)
class Finder:
    """What to take out: the matches of a regular expression, or of them those that have the group `needed`."""

    expression: "re.Pattern[str]"
    needed: str | None = None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where something is found, from the first to the last; nothing that is empty."""
        found = self.expression.finditer(text)
        return [one.span() for one in found if one.end() > one.start() and (self.needed is None or one[self.needed])]


# The name is read at once, with or without a host behind it: no letter of it is the start of a search of its own.
_E_MAIL = re.compile(r"[\w.+-]++(?P<host>@[\w-]+(?:\.[\w-]+)+)?")
_LONG_NUMBER = re.compile(r"\+?\d(?:[ ./()-]?\d){6,}")
ALWAYS = {"e-mail addresses": Finder(_E_MAIL, "host"), "long numbers": Finder(_LONG_NUMBER)}
"""What goes in any case."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the conversation, in seconds from its start, of which nothing is to be heard or read."""

    start_s: float
    end_s: float

    def touches(self, start_ms: float, end_ms: float) -> bool:
        """Whether something lies in it, even in part."""
        return start_ms <= self.end_s * 1000 and end_ms >= self.start_s * 1000


def parse_span(text: str) -> Span:
    """`12.5-14`. Raises RecordingError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text.strip())
    if found is None or float(found[1]) >= float(found[2]):
        raise RecordingError(f"--silence {text!r:.40}: give a span in seconds such as 12.5-14")
    return Span(float(found[1]), float(found[2]))


@dataclass(slots=True)
class Redaction:
    """What is to go; `removed` counts what went."""

    fields: Sequence[str] = ()
    patterns: dict[str, Finder] = field(default_factory=dict)
    spans: Sequence[Span] = ()
    removed: Counter[str] = field(default_factory=Counter)
    silenced_items: frozenset[str] = frozenset()

    def tidy(self, value: Any, *, content: bool = False, gone: bool = False, said: frozenset[str] = CONTENT) -> Any:
        """A JSON value without what is to go; `content`: its texts are words, as are members named in `said`."""
        if isinstance(value, str):
            return self._text(value, gone) if content else value
        if isinstance(value, list | tuple):
            return [self.tidy(member, content=content, gone=gone, said=said) for member in value]
        if isinstance(value, dict):
            item_id = value.get("item_id") or value.get("id")
            gone = gone or (isinstance(item_id, str) and item_id in self.silenced_items)
            return {name: self._member(name, member, content, gone, said) for name, member in value.items()}
        return value

    def _member(self, name: str, member: Any, content: bool, gone: bool, said: frozenset[str]) -> Any:
        if name in self.fields and member not in (None, "", [], {}):
            self.removed[f"field {name}"] += 1
            return GONE if isinstance(member, str) else self.tidy(member, content=True, gone=True)
        here = name in said and (name != "output" or isinstance(member, str))  # a response's output is items
        return self.tidy(member, content=content or here, gone=gone, said=said)

    def _text(self, text: str, gone: bool) -> str:
        if gone and text:
            self.removed["texts of silenced spans"] += 1
            return GONE
        for name, pattern in self.patterns.items():
            found = pattern.spans(text)
            if found:
                self.removed[name] += len(found)
                (text,) = _without([text], found)
        return text

    def pieces(self, pieces: Sequence[str]) -> list[str]:
        """The pieces of one text without what matches a pattern, though it may begin in one and end in another."""
        whole = "".join(pieces)
        cuts: list[tuple[int, int]] = []
        for name, pattern in self.patterns.items():
            found = pattern.spans(whole)
            cuts += found
            self.removed[name] += len(found)
        return _without(pieces, _joined(cuts))


def _joined(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(cuts):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(pieces: Sequence[str], cuts: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of a text without the cuts, which are in order; each cut is marked where it begins."""
    left, start, number = [], 0, 0
    for piece in pieces:
        kept, at, end = [], start, start + len(piece)
        while number < len(cuts) and cuts[number][0] < end:
            cut_start, cut_end = cuts[number]
            if cut_start >= start:
                kept += [piece[at - start : cut_start - start], GONE]
            at = min(cut_end, end)
            if cut_end > end:
                break  # the next piece begins within it
            number += 1
        left.append("".join(kept) + piece[at - start :])
        start = end
    return left


def redaction(fields: Iterable[str], patterns: Iterable[str], spans: Iterable[str]) -> Redaction:
    """What the command line asks for, with the patterns that always apply. Raises RecordingError."""
    finders = dict(ALWAYS)
    for number, pattern in enumerate(patterns, 1):
        try:
            finders[f"pattern {number}"] = Finder(re.compile(pattern))
            # By its number: the report goes along, and the pattern may spell what it takes out.
        except re.error as error:
            raise RecordingError(f"--pattern {pattern!r:.60} is no regular expression: {error}") from None
    return Redaction(tuple(fields), finders, tuple(map(parse_span, spans)))


def silenced(timeline: Timeline, spans: Sequence[Span]) -> frozenset[str]:
    """The items of which anything was spoken or heard in a span: they go as a whole, and their words with them."""
    said = [(one.item_id, one.start_ms, one.end_ms or one.start_ms) for one in timeline.speech]
    said += [(item_id, one.start_ms, one.end_ms) for one in timeline.heard for item_id in (one.item_id, *one.others)]
    return frozenset(item for item, start, end in said if any(span.touches(start, end) for span in spans))
