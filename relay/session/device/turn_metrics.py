"""The latency metrics of a turn, in ms: each is declared once, as a field of `TurnMetrics`, and used everywhere.

Theory of operation: the rules call `TurnTimer` at the moments of a turn, and the timer keeps each moment as a named
mark. A metric is the time between two marks. Its field names the marks, with a label and a description for the
documentation. The field's name is used in recordings and, in camel case, on the wire. The device message, its JSON
Schema, the journal, the timeline, the terminal and the web pages are derived from these fields. `scripts/regenerate`
writes those that are files. To add a metric, add a field here and set its marks in the rules.

A turn begins when the user's speech ends, or a typed turn is sent. Its metrics are reported once: when the client
acknowledges playback, or `ACK_WAIT_S` after the first audio was sent to the client. A turn without audio is not
reported.

This module imports nothing else of the relay, so that a client of the device protocol can use it too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

ACK_WAIT_S = 0.7
"""How long to wait for the first acknowledgement of playback before the turn is reported without it."""

TurnMark = Literal[
    "speech_start", "silenced", "speech_end", "speech_stopped",
    "first_text", "first_delta", "first_byte", "first_played",
]  # fmt: skip
"""A moment of a turn. `silenced`: `interrupted` was sent to the client; `speech_stopped`: the upstream reported the end
of the speech; `first_delta`: the first audio came."""
MetricPresence = Literal["always", "null", "left_out"]
"""What a message contains if the metric has no value: it always has one, null, or no such member."""


def camel_case(name: str) -> str:
    """Return the name of a field in messages."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


class TurnMetric(NamedTuple):
    """The declaration of one metric."""

    marks: tuple[TurnMark, ...]
    """Names of marks. The metric is the time from the first mark that is set to the last one."""
    label: str
    """A short label for people."""
    description: str
    """A sentence for the documentation."""
    part_of: str = ""
    """The metric that contains this one; reports for people show the parts instead of the whole."""
    party: str = ""
    """The party that took the time, if there is only one."""
    sign: str = "+"
    """The sign before the time; empty if the metric does not add up with the others."""
    is_optional_in_recordings: bool = False
    """Whether recordings of the current format may lack it; then a replay does not compare it."""
    client_label: str = ""
    """The label for people at the client, if it differs."""
    name: str = ""
    """The name in recordings, which never changes. This and `presence` are set from the field of `TurnMetrics`."""
    presence: MetricPresence = "always"

    @property
    def wire_name(self) -> str:
        """The name in messages of the device protocol."""
        return camel_case(self.name)

    def measure(self, marks: Mapping[TurnMark, float]) -> int | None:
        """Return the metric in ms; None if one of its marks is missing."""
        *starts, end = self.marks
        start = next((marks[mark] for mark in starts if mark in marks), None)
        return None if start is None or end not in marks else max(0, round((marks[end] - start) * 1000))


def _declare_metric(
    marks: tuple[TurnMark, ...], label: str, description: str, *, default: Any = MISSING, **more: Any
) -> Any:
    return field(default=default, metadata={"metric": TurnMetric(marks, label, description, **more)})


@dataclass(frozen=True, slots=True)
class TurnMetrics:
    """`latency` of one turn, in ms; None where a step did not happen or was not reported.

    In messages, None is left out for a field with the default None, and is null for other fields.
    """

    item_id: str
    speech_stopped_ms: int | None = _declare_metric(
        ("speech_end", "speech_stopped"),
        "speech end noticed",
        "From the end of the user's speech until the upstream reported it.",
    )
    first_delta_ms: int = _declare_metric(
        ("speech_stopped", "speech_end", "first_delta"),
        "first audio from the model",
        "From the upstream's report, or the end of a turn without speech, until the first audio of the answer arrived.",
        party="the model",
    )
    first_byte_ms: int = _declare_metric(
        ("first_delta", "first_byte"),
        "to the client",
        "From the first audio of the answer until it was sent to the client's socket.",
        client_label="first audio here",
    )
    first_played_ms: int | None = _declare_metric(
        ("first_byte", "first_played"),
        "played",
        "From the client's socket until the speaker played it, as the client reports by `playback`.",
        client_label="first played",
    )
    total_ms: int = _declare_metric(
        ("speech_end", "first_byte"),
        "total",
        "From the end of the user's speech until the first audio was sent to the client's socket.",
    )
    first_text_ms: int | None = _declare_metric(
        ("speech_stopped", "speech_end", "first_text"),
        "first text from the model",
        "With an external voice: the model's part of `firstDeltaMs`, to its first text.",
        part_of="first_delta_ms",
        party="the model",
        default=None,
    )
    voice_ms: int | None = _declare_metric(
        ("first_text", "first_delta"),
        "first audio from the voice",
        "With an external voice: its part of `firstDeltaMs`, from the first text to the first audio.",
        part_of="first_delta_ms",
        party="the voice",
        default=None,
    )
    barge_in_ms: int | None = _declare_metric(
        ("speech_start", "silenced"),
        "barge-in to silence",
        "From the start of speech that interrupted the assistant until `interrupted` was sent.",
        sign="",
        is_optional_in_recordings=True,
        default=None,
    )

    def to_wire(self) -> dict[str, int | None]:
        """Return the metrics by their names on the wire."""
        values = {metric: getattr(self, metric.name) for metric in METRICS}
        return {
            metric.wire_name: ms for metric, ms in values.items() if ms is not None or metric.presence != "left_out"
        }


def _declared_metrics() -> Iterator[TurnMetric]:
    for attribute in fields(TurnMetrics):
        if attribute.metadata:
            optional: MetricPresence = "null" if attribute.default is MISSING else "left_out"
            metric: TurnMetric = attribute.metadata["metric"]
            yield metric._replace(
                name=attribute.name,
                presence="always" if attribute.type is int else optional,
                client_label=metric.client_label or metric.label,
            )


METRICS: Final = tuple(_declared_metrics())
TOTAL_METRIC: Final = next(metric for metric in METRICS if metric.name == "total_ms")
EXAMPLE_TURNS: Final = (
    TurnMetrics("item_7", 512, 154, 0, 3, 669),
    TurnMetrics("item_9", 512, 441, 0, None, 953, first_text_ms=148, voice_ms=293, barge_in_ms=384),
)
"""Examples for the documentation; each metric is in one of them."""


def latency_steps(latency: Mapping[str, Any]) -> list[tuple[TurnMetric, int]]:
    """Return the metrics of a `latency` message for people: without the total, and the parts instead of a whole."""
    known = {metric.name: metric for metric in METRICS if isinstance(latency.get(metric.wire_name), int)}
    hidden = {TOTAL_METRIC.name, *(metric.part_of for metric in known.values())}
    order = [metric.name for metric in METRICS]
    visible = [metric for name, metric in known.items() if name not in hidden]
    visible.sort(key=lambda metric: order.index(metric.part_of or metric.name))
    return [(metric, latency[metric.wire_name]) for metric in visible]


def format_latency(latency: Mapping[str, Any], *, at_client: bool = False) -> str:
    """Format the steps of a `latency` message in one line; `at_client`: with the labels for people at the client."""
    return ", ".join(
        f"{metric.client_label if at_client else metric.label} {metric.sign}{ms} ms"
        for metric, ms in latency_steps(latency)
    )


class TurnTimer:
    """The marks of the current turn, in seconds of the session's clock."""

    __slots__ = ("_item_id", "_marks", "_next_marks")

    def __init__(self) -> None:
        self._marks: dict[TurnMark, float] = {}
        """Empty while no turn is measured."""
        self._next_marks: dict[TurnMark, float] = {}
        """The marks of the current speech, while the turn before may still be measured."""
        self._item_id = ""

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `tick`; None if no report is pending."""
        first_byte = self._marks.get("first_byte")
        return None if first_byte is None else first_byte + ACK_WAIT_S

    def tick(self, now: float) -> TurnMetrics | None:
        """Return the metrics if the report is due."""
        deadline = self.deadline
        return self.report() if deadline is not None and now >= deadline else None

    def on_speech_started(self, at: float | None) -> None:
        """Mark the start of the user's speech, None if it is not known."""
        self._next_marks = {} if at is None else {"speech_start": at}

    def on_interrupted_sent(self, now: float) -> None:
        """Mark that `interrupted` was sent to the client."""
        if self._next_marks:
            self._next_marks.setdefault("silenced", now)

    def on_turn_ended(self, speech_end: float, speech_stopped: float | None = None) -> None:
        """Measure a new turn: the user's turn ended. `speech_stopped` is when the upstream reported the end."""
        self._marks = {"speech_end": speech_end}
        self._item_id = ""
        if speech_stopped is not None:  # else the turn was not spoken
            self._marks |= {"speech_stopped": speech_stopped, **self._next_marks}
        self._next_marks = {}

    def on_text_received(self, now: float) -> None:
        """Mark the first text for an external voice."""
        self._mark("first_text", now)

    def on_audio_received(self, item_id: str, now: float) -> None:
        """Mark the first audio of an item, from the model or an external voice."""
        if "first_delta" not in self._marks:
            self._item_id = item_id
        self._mark("first_delta", now)

    def on_audio_sent(self, item_id: str, now: float) -> None:
        """Mark that the first audio of an item was sent to the client."""
        if item_id == self._item_id:
            self._mark("first_byte", now)

    def on_playback_acknowledged(self, item_id: str, played_ms: int, now: float) -> TurnMetrics | None:
        """Mark that the client has played `played_ms` of an item. Returns the metrics if the item is this turn's."""
        if not self._marks or item_id != self._item_id or played_ms <= 0:
            return None
        self._mark("first_played", max(now - played_ms / 1000, self._marks.get("first_byte", now)))
        return self.report()

    def report(self) -> TurnMetrics | None:
        """Return the metrics and stop measuring; None if no audio of the turn was sent to the client."""
        marks, self._marks = self._marks, {}
        values: dict[str, Any] = {metric.name: metric.measure(marks) for metric in METRICS}
        if any(values[metric.name] is None for metric in METRICS if metric.presence == "always"):
            return None
        return TurnMetrics(self._item_id, **values)

    def _mark(self, mark: TurnMark, at: float) -> None:
        """Set a mark of the current turn, unless it is set already."""
        if self._marks:
            self._marks.setdefault(mark, at)
