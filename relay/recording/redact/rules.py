"""What is taken out of a recording before it goes to somebody else: fields, patterns, and whole stretches of time."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.recording.derive.timeline import Timeline
from relay.recording.store.layout import RecordingError

PLACEHOLDER = "[…]"
CONTENT_FIELDS = frozenset(
    {"text", "final_text", "heard_text", "arguments", "output", "message", "reason", "instructions", "description",
     "examples", "what", "progress"}
)  # fmt: skip
"""Members of events, commands and settings that hold what people, tools or models said; ids and numbers are not."""


@dataclass(frozen=True, slots=True)
class PatternMatcher:
    """What to take out: the matches of a regular expression, or of them those that have the group `required_group`."""

    expression: "re.Pattern[str]"
    required_group: str | None = None

    def find_spans(self, text: str) -> list[tuple[int, int]]:
        """Where something is found, from the first to the last; nothing that is empty."""
        found = self.expression.finditer(text)
        return [
            one.span()
            for one in found
            if one.end() > one.start() and (self.required_group is None or one[self.required_group])
        ]


# The name is read at once, with or without a host behind it: no letter of it is the start of a search of its own.
_E_MAIL = re.compile(r"[\w.+-]++(?P<host>@[\w-]+(?:\.[\w-]+)+)?")
_LONG_NUMBER = re.compile(r"\+?\d(?:[ ./()-]?\d){6,}")
DEFAULT_PATTERNS = {"e-mail addresses": PatternMatcher(_E_MAIL, "host"), "long numbers": PatternMatcher(_LONG_NUMBER)}
"""What goes in any case."""


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A stretch of the conversation, in seconds from its start, of which nothing is to be heard or read."""

    start_s: float
    end_s: float

    def overlaps(self, start_ms: float, end_ms: float) -> bool:
        """Whether something lies in it, even in part."""
        return start_ms <= self.end_s * 1000 and end_ms >= self.start_s * 1000


def parse_span(text: str) -> TimeSpan:
    """`12.5-14`. Raises RecordingError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text.strip())
    if found is None or float(found[1]) >= float(found[2]):
        raise RecordingError(f"--silence {text!r:.40}: give a span in seconds such as 12.5-14")
    return TimeSpan(float(found[1]), float(found[2]))


@dataclass(slots=True)
class Redaction:
    """What is to go; `removed_counts` counts what went."""

    fields: Sequence[str] = ()
    patterns: dict[str, PatternMatcher] = field(default_factory=dict)
    spans: Sequence[TimeSpan] = ()
    removed_counts: Counter[str] = field(default_factory=Counter)
    silenced_item_ids: frozenset[str] = frozenset()

    def redact(
        self,
        value: Any,
        *,
        is_content: bool = False,
        is_silenced: bool = False,
        content_fields: frozenset[str] = CONTENT_FIELDS,
    ) -> Any:
        """A JSON value without what is to go; `is_content`: its texts are words, as are members named in
        `content_fields`.
        """
        if isinstance(value, str):
            return self._text(value, is_silenced) if is_content else value
        if isinstance(value, list | tuple):
            return [
                self.redact(member, is_content=is_content, is_silenced=is_silenced, content_fields=content_fields)
                for member in value
            ]
        if isinstance(value, dict):
            item_id = value.get("item_id") or value.get("id")
            is_silenced = is_silenced or (isinstance(item_id, str) and item_id in self.silenced_item_ids)
            return {
                name: self._member(name, member, is_content, is_silenced, content_fields)
                for name, member in value.items()
            }
        return value

    def _member(
        self, name: str, member: Any, is_content: bool, is_silenced: bool, content_fields: frozenset[str]
    ) -> Any:
        if name in self.fields and member not in (None, "", [], {}):
            self.removed_counts[f"field {name}"] += 1
            return PLACEHOLDER if isinstance(member, str) else self.redact(member, is_content=True, is_silenced=True)
        here = name in content_fields and (name != "output" or isinstance(member, str))  # a response's output is items
        return self.redact(
            member, is_content=is_content or here, is_silenced=is_silenced, content_fields=content_fields
        )

    def _text(self, text: str, is_silenced: bool) -> str:
        if is_silenced and text:
            self.removed_counts["texts of silenced spans"] += 1
            return PLACEHOLDER
        for name, pattern in self.patterns.items():
            found = pattern.find_spans(text)
            if found:
                self.removed_counts[name] += len(found)
                (text,) = _remove_spans([text], found)
        return text

    def redact_split_text(self, pieces: Sequence[str]) -> list[str]:
        """The pieces of one text without what matches a pattern, though it may begin in one and end in another."""
        whole = "".join(pieces)
        cuts: list[tuple[int, int]] = []
        for name, pattern in self.patterns.items():
            found = pattern.find_spans(whole)
            cuts += found
            self.removed_counts[name] += len(found)
        return _remove_spans(pieces, _merge_spans(cuts))


def _merge_spans(cuts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(cuts):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _remove_spans(pieces: Sequence[str], cuts: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of a text without the cuts, which are in order; each cut is marked where it begins."""
    left, start, number = [], 0, 0
    for piece in pieces:
        kept, at, end = [], start, start + len(piece)
        while number < len(cuts) and cuts[number][0] < end:
            cut_start, cut_end = cuts[number]
            if cut_start >= start:
                kept += [piece[at - start : cut_start - start], PLACEHOLDER]
            at = min(cut_end, end)
            if cut_end > end:
                break  # the next piece begins within it
            number += 1
        left.append("".join(kept) + piece[at - start :])
        start = end
    return left


def parse_redaction(fields: Iterable[str], patterns: Iterable[str], spans: Iterable[str]) -> Redaction:
    """What the command line asks for, with the patterns that always apply. Raises RecordingError."""
    finders = dict(DEFAULT_PATTERNS)
    for number, pattern in enumerate(patterns, 1):
        try:
            finders[f"pattern {number}"] = PatternMatcher(re.compile(pattern))
            # By its number: the report goes along, and the pattern may spell what it takes out.
        except re.error as error:
            raise RecordingError(f"--pattern {pattern!r:.60} is no regular expression: {error}") from None
    return Redaction(tuple(fields), finders, tuple(map(parse_span, spans)))


def items_in_spans(timeline: Timeline, spans: Sequence[TimeSpan]) -> frozenset[str]:
    """The items of which anything was spoken or heard in a span: they go as a whole, and their words with them."""
    said = [(one.item_id, one.start_ms, one.end_ms or one.start_ms) for one in timeline.speech]
    said += [(item_id, one.start_ms, one.end_ms) for one in timeline.heard for item_id in (one.item_id, *one.others)]
    return frozenset(item for item, start, end in said if any(span.overlaps(start, end) for span in spans))
