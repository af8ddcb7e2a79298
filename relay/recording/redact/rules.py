"""The redaction rules for a recording: fields, patterns, and spans of time."""

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
"""Members that contain text of users, tools or models, as opposed to ids and numbers."""


@dataclass(frozen=True, slots=True)
class PatternMatcher:
    """A regular expression to redact; with `required_group`, only the matches in which that group took part."""

    expression: "re.Pattern[str]"
    required_group: str | None = None

    def find_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of all non-empty matches, in order."""
        group = self.required_group
        matches = self.expression.finditer(text)
        return [match.span() for match in matches if match[0] and (group is None or match[group])]


# Possessive, with an optional host: the search never restarts inside a long name.
_E_MAIL = re.compile(r"[\w.+-]++(?P<host>@[\w-]+(?:\.[\w-]+)+)?")
_LONG_NUMBER = re.compile(r"\+?\d(?:[ ./()-]?\d){6,}")
DEFAULT_PATTERNS = {"e-mail addresses": PatternMatcher(_E_MAIL, "host"), "long numbers": PatternMatcher(_LONG_NUMBER)}
"""The patterns that are always redacted."""


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A span of the conversation to silence, in seconds from its start."""

    start_s: float
    end_s: float

    def overlaps(self, start_ms: float, end_ms: float) -> bool:
        """Return whether an interval lies at least partly in the span."""
        return start_ms <= self.end_s * 1000 and end_ms >= self.start_s * 1000


def parse_span(text: str) -> TimeSpan:
    """Parse a span such as `12.5-14`. Raises RecordingError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text.strip())
    if match is None or float(match[1]) >= float(match[2]):
        raise RecordingError(f"--silence {text!r:.40}: give a span in seconds such as 12.5-14")
    return TimeSpan(float(match[1]), float(match[2]))


@dataclass(slots=True)
class Redaction:
    """The fields, patterns and spans to redact; `removed_counts` counts the redactions."""

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
        """Redact a JSON value. Strings are redacted if `is_content`, or in a member named in `content_fields`."""
        if isinstance(value, str):
            return self._redact_text(value, is_silenced) if is_content else value
        if isinstance(value, list | tuple):
            return [
                self.redact(member, is_content=is_content, is_silenced=is_silenced, content_fields=content_fields)
                for member in value
            ]
        if isinstance(value, dict):
            item_id = value.get("item_id") or value.get("id")
            is_silenced = is_silenced or (isinstance(item_id, str) and item_id in self.silenced_item_ids)
            return {
                name: self._redact_member(name, member, is_content, is_silenced, content_fields)
                for name, member in value.items()
            }
        return value

    def _redact_member(
        self, name: str, member: Any, is_content: bool, is_silenced: bool, content_fields: frozenset[str]
    ) -> Any:
        if name in self.fields and member not in (None, "", [], {}):
            self.removed_counts[f"field {name}"] += 1
            return PLACEHOLDER if isinstance(member, str) else self.redact(member, is_content=True, is_silenced=True)
        # The output of a tool is a string, that of a response is a list of items.
        is_content = is_content or (name in content_fields and (name != "output" or isinstance(member, str)))
        return self.redact(member, is_content=is_content, is_silenced=is_silenced, content_fields=content_fields)

    def _redact_text(self, text: str, is_silenced: bool) -> str:
        if is_silenced and text:
            self.removed_counts["texts of silenced spans"] += 1
            return PLACEHOLDER
        for name, pattern in self.patterns.items():
            spans = pattern.find_spans(text)
            if spans:
                self.removed_counts[name] += len(spans)
                (text,) = _remove_spans([text], spans)
        return text

    def redact_split_text(self, deltas: Sequence[str]) -> list[str]:
        """Redact the deltas of one text; a match may begin in one and end in another."""
        text = "".join(deltas)
        spans: list[tuple[int, int]] = []
        for name, pattern in self.patterns.items():
            matches = pattern.find_spans(text)
            spans += matches
            self.removed_counts[name] += len(matches)
        return _remove_spans(deltas, _merge_spans(spans))


def _merge_spans(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort spans, and merge those that overlap."""
    merged_spans: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged_spans and start < merged_spans[-1][1]:
            merged_spans[-1] = merged_spans[-1][0], max(end, merged_spans[-1][1])
        else:
            merged_spans.append((start, end))
    return merged_spans


def _remove_spans(deltas: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the deltas of a text without the spans, which are sorted; a placeholder marks the start of each."""
    redacted, start, number = [], 0, 0
    for delta in deltas:
        parts, at, end = [], start, start + len(delta)
        while number < len(spans) and spans[number][0] < end:
            span_start, span_end = spans[number]
            if span_start >= start:
                parts += [delta[at - start : span_start - start], PLACEHOLDER]
            at = min(span_end, end)
            if span_end > end:
                break  # the next delta begins within it
            number += 1
        redacted.append("".join(parts) + delta[at - start :])
        start = end
    return redacted


def parse_redaction(fields: Iterable[str], patterns: Iterable[str], spans: Iterable[str]) -> Redaction:
    """Parse the options of the command line; the default patterns are included. Raises RecordingError."""
    matchers = dict(DEFAULT_PATTERNS)
    for number, pattern in enumerate(patterns, 1):
        try:
            matchers[f"pattern {number}"] = PatternMatcher(re.compile(pattern))
            # Named by its number: the report is in the bundle, and the pattern may contain the secret.
        except re.error as error:
            raise RecordingError(f"--pattern {pattern!r:.60} is not a valid regular expression: {error}") from None
    return Redaction(tuple(fields), matchers, tuple(map(parse_span, spans)))


def items_in_spans(timeline: Timeline, spans: Sequence[TimeSpan]) -> frozenset[str]:
    """Return the items of which any part was spoken or played in a span: they are redacted completely."""
    items = [(turn.item_id, turn.start_ms, turn.end_ms or turn.start_ms) for turn in timeline.speech]
    for played_item in timeline.heard:
        items += [
            (item_id, played_item.start_ms, played_item.end_ms)
            for item_id in (played_item.item_id, *played_item.others)
        ]
    return frozenset(item_id for item_id, start, end in items if any(span.overlaps(start, end) for span in spans))
