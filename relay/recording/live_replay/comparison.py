"""Compare a recorded conversation with a live run: transcripts, tool calls and latencies."""

import textwrap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

import orjson

from relay.escaping import escape_controls, escape_json
from relay.recording.derive.percentiles import p50_and_p95
from relay.recording.derive.timeline import Timeline
from relay.recording.store.layout import RecordingError

COMPARED_FIELDS = ("user", "assistant", "tools", "arguments")
_COLUMN = 52


@dataclass(slots=True)
class ComparedCall:
    """A tool call; `arguments` is None if the client is not shown them."""

    name: str
    arguments: Any = None


@dataclass(slots=True)
class ComparedTurn:
    """One turn of the user with its response."""

    user: str = ""
    assistant: str = ""
    calls: list[ComparedCall] = field(default_factory=list)
    latency_ms: int | None = None


def recorded_turns(timeline: Timeline) -> list[ComparedTurn]:
    """Return the turns of the recorded conversation."""
    speech = sorted(timeline.speech, key=lambda turn: turn.start_ms)
    turns = [ComparedTurn(user=turn.text) for turn in speech] or [ComparedTurn()]

    starts_ms = [turn.start_ms for turn in speech]
    responses = {response.response_id: response for response in timeline.answers}

    def at(ms: float) -> ComparedTurn:
        return turns[max(bisect_right(starts_ms, ms) - 1, 0)]

    for item in timeline.heard:
        response = responses.get(item.response_id)
        turn = at(item.start_ms if response is None else response.start_ms)
        turn.assistant = f"{turn.assistant} {item.text}".strip()
    for run in timeline.tools:
        at(run.start_ms).calls.append(ComparedCall(run.name, _parse_arguments(run.arguments)))
    for latency in timeline.latencies:
        at(latency.at_ms).latency_ms = latency.total_ms
    return turns


def parse_equal_fields(text: str) -> tuple[str, ...]:
    """Parse `--equal`, the fields that must be equal. Raises RecordingError."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if name not in COMPARED_FIELDS:
            raise RecordingError(f"--equal {name!r:.40} is not one of {', '.join(COMPARED_FIELDS)}")
    return names


@dataclass(slots=True)
class Comparison:
    """The turns of both conversations."""

    recorded: Sequence[ComparedTurn]
    live: Sequence[ComparedTurn]
    notes: list[str] = field(default_factory=list)

    def differences(self, fields: Iterable[str]) -> list[str]:
        """Return the fields that differ, each with the first turn in which it does."""
        differences = []
        for name in fields:
            for number, (recorded, live) in enumerate(self._pairs(), 1):
                if _get_field(recorded, name) != _get_field(live, name):
                    differences.append(f"{name} of turn {number}")
                    break
        return differences

    def render(self) -> Iterator[str]:
        """Render the lines for the terminal: recorded on the left, live on the right."""
        yield f"{'':<12}{'recorded':<{_COLUMN}}  now"
        for number, (recorded, live) in enumerate(self._pairs(), 1):
            yield f"turn {number}"
            yield from _format_row(
                "user", recorded.user, live.user, _get_field(recorded, "user") == _get_field(live, "user")
            )
            for recorded_call, live_call in zip_longest(recorded.calls, live.calls):
                yield from _format_row(
                    "tool", _format_call(recorded_call), _format_call(live_call), recorded_call == live_call
                )
            is_same = _get_field(recorded, "assistant") == _get_field(live, "assistant")
            yield from _format_row("assistant", recorded.assistant, live.assistant, is_same)
            yield from _format_row("latency", _format_ms(recorded.latency_ms), _format_ms(live.latency_ms), True)
        for name, turns in (("recorded", self.recorded), ("now", self.live)):
            latencies = [turn.latency_ms for turn in turns if turn.latency_ms is not None]
            if latencies:
                yield f"latency {name}: {p50_and_p95(latencies)}"
        yield from (f"note: {escape_controls(note)}" for note in self.notes)

    def to_json(self) -> bytes:
        """Encode both conversations."""
        conversations = {
            "recorded": [asdict(turn) for turn in self.recorded],
            "now": [asdict(turn) for turn in self.live],
        }
        raw = orjson.dumps(
            conversations | {"notes": self.notes}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        return escape_json(raw.decode()).encode()

    def _pairs(self) -> list[tuple[ComparedTurn, ComparedTurn]]:
        return [
            (recorded or ComparedTurn(), live or ComparedTurn())
            for recorded, live in zip_longest(self.recorded, self.live)
        ]


def _get_field(turn: ComparedTurn, name: str) -> Any:
    match name:
        case "user" | "assistant":
            return _normalize_words(getattr(turn, name))
        case "tools":
            return sorted(call.name for call in turn.calls)
        case _:
            return sorted((call.name, orjson.dumps(call.arguments, option=orjson.OPT_SORT_KEYS)) for call in turn.calls)


def _normalize_words(text: str) -> list[str]:
    """Return the words alone: capitals and punctuation differ between two runs of the same model."""
    return "".join(char.lower() if char.isalnum() else " " for char in text).split()


def _format_row(label: str, recorded: str, live: str, is_same: bool) -> Iterator[str]:
    left, right = (
        textwrap.wrap(escape_controls(" ".join(text.split())), _COLUMN - 2) or ["–"] for text in (recorded, live)
    )
    for index, (left_line, right_line) in enumerate(zip_longest(left, right)):
        sign = " " if is_same or index else "≠"
        yield f"  {label if not index else '':<10}{left_line or '':<{_COLUMN}}{sign} {right_line or ''}".rstrip()


def _format_call(call: ComparedCall | None) -> str:
    if call is None:
        return ""
    arguments = "(arguments not shown)" if call.arguments is None else orjson.dumps(call.arguments).decode()
    return f"{call.name} {arguments}"


def _format_ms(value: int | None) -> str:
    return "" if value is None else f"{value} ms"


def _parse_arguments(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments
