"""What is taken out of a recording before it goes to somebody else: fields, patterns, and whole stretches of time."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.recording.folder import RecordingError
from relay.recording.timeline import Timeline

GONE = "[…]"
CONTENT = frozenset(
    {"text", "final_text", "heard_text", "arguments", "output", "message", "reason", "instructions", "description",
     "examples", "what", "progress"}
)  # fmt: skip
"""Members of events, commands and settings that hold what people, tools or models said; ids and numbers are not."""

PATTERNS = {
    "e-mail addresses": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "long numbers": r"\+?\d(?:[ ./()-]?\d){6,}",
}


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
    patterns: dict[str, "re.Pattern[str]"] = field(default_factory=dict)
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
            text, times = pattern.subn(GONE, text)
            if times:
                self.removed[name] += times
        return text

    def pieces(self, pieces: Sequence[str]) -> list[str]:
        """The pieces of one text without what matches a pattern, though it may begin in one and end in another."""
        whole = "".join(pieces)
        cuts: list[tuple[int, int]] = []
        for name, pattern in self.patterns.items():
            found = [match.span() for match in pattern.finditer(whole) if match.end() > match.start()]
            cuts += found
            self.removed[name] += len(found)
        kept, start, joined = [], 0, _joined(cuts)
        for piece in pieces:
            kept.append(_without(piece, start, joined))
            start += len(piece)
        return kept


def _joined(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(cuts):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(piece: str, start: int, cuts: Sequence[tuple[int, int]]) -> str:
    """A piece that begins at `start` of the whole; what is cut is marked where it begins."""
    kept, at = [], 0
    for cut_start, cut_end in cuts:
        first, last = max(cut_start - start, 0), min(cut_end - start, len(piece))
        if first >= last:
            continue
        kept.append(piece[at:first] + (GONE if cut_start >= start else ""))
        at = last
    return "".join(kept) + piece[at:]


def redaction(fields: Iterable[str], patterns: Iterable[str], spans: Iterable[str]) -> Redaction:
    """What the command line asks for, with the patterns that always apply. Raises RecordingError."""
    compiled = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
    for number, pattern in enumerate(patterns, 1):
        try:
            compiled[f"pattern {number}"] = re.compile(pattern)
            # By its number: the report goes along, and the pattern may spell what it takes out.
        except re.error as error:
            raise RecordingError(f"--pattern {pattern!r:.60} is no regular expression: {error}") from None
    return Redaction(tuple(fields), compiled, tuple(map(parse_span, spans)))


def silenced(timeline: Timeline, spans: Sequence[Span]) -> frozenset[str]:
    """The items of which anything was spoken or heard in a span: they go as a whole, and their words with them."""
    said = [(one.item_id, one.start_ms, one.end_ms or one.start_ms) for one in timeline.speech]
    said += [(item_id, one.start_ms, one.end_ms) for one in timeline.heard for item_id in (one.item_id, *one.others)]
    return frozenset(item for item, start, end in said if any(span.touches(start, end) for span in spans))
