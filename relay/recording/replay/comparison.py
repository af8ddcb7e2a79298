"""Two runs of one conversation side by side: what was understood, said, called, and how long it took."""

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
    """A tool call; `arguments` is None where they are not shown to clients."""

    name: str
    arguments: Any = None


@dataclass(slots=True)
class ComparedTurn:
    """One turn of the user's and what came of it."""

    user: str = ""
    assistant: str = ""
    calls: list[ComparedCall] = field(default_factory=list)
    latency_ms: int | None = None


def recorded_turns(timeline: Timeline) -> list[ComparedTurn]:
    """The recorded conversation, turn by turn."""
    turns = sorted(timeline.speech, key=lambda one: one.start_ms)
    exchanges = [ComparedTurn(user=turn.text) for turn in turns] or [ComparedTurn()]

    starts_ms = [turn.start_ms for turn in turns]
    answers = {answer.response_id: answer for answer in timeline.answers}

    def at(ms: float) -> ComparedTurn:
        return exchanges[max(bisect_right(starts_ms, ms) - 1, 0)]

    for item in timeline.heard:
        answer = answers.get(item.response_id)
        exchange = at(item.start_ms if answer is None else answer.start_ms)
        exchange.assistant = f"{exchange.assistant} {item.text}".strip()
    for run in timeline.tools:
        at(run.start_ms).calls.append(ComparedCall(run.name, _parsed(run.arguments)))
    for latency in timeline.latencies:
        at(latency.at_ms).latency_ms = latency.total_ms
    return exchanges


def parse_equal_fields(text: str) -> tuple[str, ...]:
    """The aspects that must be equal. Raises RecordingError."""
    asked = tuple(part.strip() for part in text.split(",") if part.strip())
    for aspect in asked:
        if aspect not in COMPARED_FIELDS:
            raise RecordingError(f"--equal {aspect!r:.40} is none of {', '.join(COMPARED_FIELDS)}")
    return asked


@dataclass(slots=True)
class Comparison:
    """What was recorded and what happened now."""

    recorded: Sequence[ComparedTurn]
    live: Sequence[ComparedTurn]
    notes: list[str] = field(default_factory=list)

    def differences(self, fields: Iterable[str]) -> list[str]:
        """Which of the aspects differ, with the turn in which they first do."""
        found = []
        for aspect in fields:
            for number, (one, other) in enumerate(self._pairs(), 1):
                if _aspect(one, aspect) != _aspect(other, aspect):
                    found.append(f"{aspect} of turn {number}")
                    break
        return found

    def render(self) -> Iterator[str]:
        """The lines for the terminal: recorded on the left, now on the right."""
        yield f"{'':<12}{'recorded':<{_COLUMN}}  now"
        for number, (one, other) in enumerate(self._pairs(), 1):
            yield f"turn {number}"
            yield from _row("user", one.user, other.user, _aspect(one, "user") == _aspect(other, "user"))
            for then, now in zip_longest(one.calls, other.calls):
                yield from _row("tool", _call(then), _call(now), then == now)
            same = _aspect(one, "assistant") == _aspect(other, "assistant")
            yield from _row("assistant", one.assistant, other.assistant, same)
            yield from _row("latency", _ms(one.latency_ms), _ms(other.latency_ms), True)
        for name, side in (("recorded", self.recorded), ("now", self.live)):
            known = [turn.latency_ms for turn in side if turn.latency_ms is not None]
            if known:
                yield f"latency {name}: {p50_and_p95(known)}"
        yield from (f"note: {escape_controls(note)}" for note in self.notes)

    def to_json(self) -> bytes:
        """Both sides as JSON."""
        sides = {"recorded": [asdict(turn) for turn in self.recorded], "now": [asdict(turn) for turn in self.live]}
        raw = orjson.dumps(sides | {"notes": self.notes}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return escape_json(raw.decode()).encode()

    def _pairs(self) -> list[tuple[ComparedTurn, ComparedTurn]]:
        return [
            (one or ComparedTurn(), other or ComparedTurn()) for one, other in zip_longest(self.recorded, self.live)
        ]


def _aspect(exchange: ComparedTurn, aspect: str) -> Any:
    match aspect:
        case "user" | "assistant":
            return _plain(getattr(exchange, aspect))
        case "tools":
            return sorted(call.name for call in exchange.calls)
        case _:
            return sorted(
                (call.name, orjson.dumps(call.arguments, option=orjson.OPT_SORT_KEYS)) for call in exchange.calls
            )


def _plain(text: str) -> list[str]:
    """The words alone: models differ in capitals and full stops from one day to the next."""
    return "".join(char.lower() if char.isalnum() else " " for char in text).split()


def _row(label: str, then: str, now: str, same: bool) -> Iterator[str]:
    left, right = (textwrap.wrap(escape_controls(" ".join(text.split())), _COLUMN - 2) or ["–"] for text in (then, now))
    for index, (one, other) in enumerate(zip_longest(left, right)):
        sign = " " if same or index else "≠"
        yield f"  {label if not index else '':<10}{one or '':<{_COLUMN}}{sign} {other or ''}".rstrip()


def _call(call: ComparedCall | None) -> str:
    if call is None:
        return ""
    arguments = "(arguments not shown)" if call.arguments is None else orjson.dumps(call.arguments).decode()
    return f"{call.name} {arguments}"


def _ms(value: int | None) -> str:
    return "" if value is None else f"{value} ms"


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments
