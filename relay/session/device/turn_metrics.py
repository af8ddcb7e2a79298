"""The figures of a turn, in ms: each is written once, as a field of `TurnMetrics`, and all that shows them reads it.

Theory of operation: the rules call `TurnTimer` at the moments of a turn, and the timer keeps each moment as a mark with
a name. A figure is the time between two marks. Its field names them, with a label and a sentence for the
documentation. The field's own name is the one in recordings and, in camel case, on the wire. The device message, its
JSON Schema, the journal, the timeline, the terminal and the web pages are all derived from these fields;
`scripts/regenerate` writes those parts that are files. So a new figure is a field here, a mark that the rules set, and
nothing else.

A turn begins when the user's speech ends, or a typed turn is sent. Its figures are reported once: when the client
acknowledges playback, or `ACK_WAIT_S` after the first audio went to the client. A turn without audio is not reported.

This module imports nothing of ours, so that a client of the device protocol can use it too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

ACK_WAIT_S = 0.7
"""How long the first acknowledgement of playback is awaited before the turn is reported without it."""

TurnMark = Literal[
    "speech_start", "silenced", "speech_end", "speech_stopped",
    "first_text", "first_delta", "first_byte", "first_played",
]  # fmt: skip
"""A moment of a turn. `silenced`: `interrupted` was sent to the client; `speech_stopped`: the upstream reported the end
of the speech; `first_delta`: audio came."""
MetricPresence = Literal["always", "null", "left_out"]
"""What a message has where the figure did not happen: it always does, null, or no such member."""


def camel_case(name: str) -> str:
    """A field's name as it is in messages."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


class TurnMetric(NamedTuple):
    """All that is known of one figure."""

    marks: tuple[TurnMark, ...]
    """Measured from the first of these that there is, to the last of them."""
    label: str
    """For people, in few words."""
    description: str
    """For the documentation, a sentence."""
    part_of: str = ""
    """The name of the figure that this one is a part of, and in whose place it is shown."""
    party: str = ""
    """Who took that time, where it is one party."""
    sign: str = "+"
    """Before the time, where people are shown it: none if it does not add up with the others."""
    is_optional_in_recordings: bool = False
    """Whether there are recordings of today's format that do not know it: a replay of those does not compare it."""
    client_label: str = ""
    """For people who are at the client, where that is another one."""
    name: str = ""
    """In recordings, where it never changes: this and the next are filled in from the field of `TurnMetrics`."""
    presence: MetricPresence = "always"

    @property
    def wire_name(self) -> str:
        """The name in messages of the device protocol."""
        return camel_case(self.name)

    def measure(self, marks: Mapping[TurnMark, float]) -> int | None:
        """The figure in ms; None where one of its marks is missing."""
        *starts, end = self.marks
        start = next((marks[mark] for mark in starts if mark in marks), None)
        return None if start is None or end not in marks else max(0, round((marks[end] - start) * 1000))


def _figure(marks: tuple[TurnMark, ...], label: str, meaning: str, *, default: Any = MISSING, **more: Any) -> Any:
    return field(default=default, metadata={"figure": TurnMetric(marks, label, meaning, **more)})


@dataclass(frozen=True, slots=True)
class TurnMetrics:
    """`latency` of one turn, in ms; None where a step did not happen or was not reported.

    A field whose default is None is left out of messages where it is None; one without a default is null.
    """

    item_id: str
    speech_stopped_ms: int | None = _figure(
        ("speech_end", "speech_stopped"),
        "speech end noticed",
        "From the end of the user's speech until the upstream reported it.",
    )
    first_delta_ms: int = _figure(
        ("speech_stopped", "speech_end", "first_delta"),
        "first sound from the model",
        "From that report, or the end of a turn without speech, until the first audio of the answer came.",
        party="the model",
    )
    first_byte_ms: int = _figure(
        ("first_delta", "first_byte"),
        "to the client",
        "From that audio until it went to the client's socket.",
        client_label="first sound here",
    )
    first_played_ms: int | None = _figure(
        ("first_byte", "first_played"),
        "played",
        "From the socket until it left the speaker, by the client's `playback`.",
        client_label="first played",
    )
    total_ms: int = _figure(
        ("speech_end", "first_byte"),
        "total",
        "From the end of the user's speech until the first audio went to the client's socket.",
    )
    first_text_ms: int | None = _figure(
        ("speech_stopped", "speech_end", "first_text"),
        "first word from the model",
        "With an external voice: the model's part of `firstDeltaMs`, to its first text.",
        part_of="first_delta_ms",
        party="the model",
        default=None,
    )
    voice_ms: int | None = _figure(
        ("first_text", "first_delta"),
        "first sound from the voice",
        "With an external voice: its part of `firstDeltaMs`, from the first text to the first audio.",
        part_of="first_delta_ms",
        party="the voice",
        default=None,
    )
    barge_in_ms: int | None = _figure(
        ("speech_start", "silenced"),
        "barge-in to silence",
        "From the start of speech that interrupted the assistant until `interrupted` was sent.",
        sign="",
        is_optional_in_recordings=True,
        default=None,
    )

    def to_wire(self) -> dict[str, int | None]:
        """The figures by their names on the wire."""
        figures = {figure: getattr(self, figure.name) for figure in METRICS}
        return {one.wire_name: ms for one, ms in figures.items() if ms is not None or one.presence != "left_out"}


def _figures() -> Iterator[TurnMetric]:
    for one in fields(TurnMetrics):
        if one.metadata:
            presence: MetricPresence = "always" if one.type is int else "null" if one.default is MISSING else "left_out"
            figure: TurnMetric = one.metadata["figure"]
            here = figure.client_label or figure.label
            yield figure._replace(name=one.name, presence=presence, client_label=here)


METRICS: Final = tuple(_figures())
TOTAL_METRIC: Final = next(figure for figure in METRICS if figure.name == "total_ms")
EXAMPLE_TURNS: Final = (
    TurnMetrics("item_7", 512, 154, 0, 3, 669),
    TurnMetrics("item_9", 512, 441, 0, None, 953, first_text_ms=148, voice_ms=293, barge_in_ms=384),
)
"""Turns as they are shown in the documentation; each figure is in one of them."""


def latency_steps(latency: Mapping[str, Any]) -> list[tuple[TurnMetric, int]]:
    """The figures of a `latency` message as people are shown them: without the total, and parts in place of a whole."""
    known = {figure.name: figure for figure in METRICS if isinstance(latency.get(figure.wire_name), int)}
    hidden = {TOTAL_METRIC.name, *(figure.part_of for figure in known.values())}
    order = [figure.name for figure in METRICS]
    shown = [figure for name, figure in known.items() if name not in hidden]
    shown.sort(key=lambda figure: order.index(figure.part_of or figure.name))
    return [(figure, latency[figure.wire_name]) for figure in shown]


def format_latency(latency: Mapping[str, Any], *, at_client: bool = False) -> str:
    """The steps of a `latency` message in one line; `at_client`: for people who are there."""
    shown = (
        (figure.client_label if at_client else figure.label, figure.sign, ms) for figure, ms in latency_steps(latency)
    )
    return ", ".join(f"{label} {sign}{ms} ms" for label, sign, ms in shown)


class TurnTimer:
    """The moments of the turn that is being answered, in seconds of the session's clock."""

    __slots__ = ("_item_id", "_marks", "_next_marks")

    def __init__(self) -> None:
        self._marks: dict[TurnMark, float] = {}
        """Empty while no turn is measured."""
        self._next_marks: dict[TurnMark, float] = {}
        """Those of the user's speech under way: the turn before it may still be measured."""
        self._item_id = ""

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        first_byte = self._marks.get("first_byte")
        return None if first_byte is None else first_byte + ACK_WAIT_S

    def tick(self, now: float) -> TurnMetrics | None:
        """The report, if it is due."""
        deadline = self.deadline
        return self.report() if deadline is not None and now >= deadline else None

    def speech_started(self, at: float | None) -> None:
        """The user speaks since `at`, None where that is not known."""
        self._next_marks = {} if at is None else {"speech_start": at}

    def interrupted_sent(self, now: float) -> None:
        """The client was sent that an item is interrupted."""
        if self._next_marks:
            self._next_marks.setdefault("silenced", now)

    def turn_ended(self, speech_end: float, speech_stopped: float | None = None) -> None:
        """The user's turn is over: a new turn is measured. `speech_stopped` is when the upstream reported it."""
        self._marks = {"speech_end": speech_end}
        self._item_id = ""
        if speech_stopped is not None:  # else no speech began it
            self._marks |= {"speech_stopped": speech_stopped, **self._next_marks}
        self._next_marks = {}

    def text_received(self, now: float) -> None:
        """Text came that an external voice is to speak."""
        self._mark("first_text", now)

    def audio_received(self, item_id: str, now: float) -> None:
        """Audio of an item came, from the model or an external voice."""
        if "first_delta" not in self._marks:
            self._item_id = item_id
        self._mark("first_delta", now)

    def audio_sent(self, item_id: str, now: float) -> None:
        """The first audio of an item went to the client."""
        if item_id == self._item_id:
            self._mark("first_byte", now)

    def playback_acknowledged(self, item_id: str, played_ms: int, now: float) -> TurnMetrics | None:
        """The client has played so much of an item; the report, if this turn's was awaited."""
        if not self._marks or item_id != self._item_id or played_ms <= 0:
            return None
        self._mark("first_played", max(now - played_ms / 1000, self._marks.get("first_byte", now)))
        return self.report()

    def report(self) -> TurnMetrics | None:
        """The figures, and the end of measuring; None before any audio of the turn went to the client."""
        marks, self._marks = self._marks, {}
        figures: dict[str, Any] = {figure.name: figure.measure(marks) for figure in METRICS}
        if any(figures[one.name] is None for one in METRICS if one.presence == "always"):
            return None
        return TurnMetrics(self._item_id, **figures)

    def _mark(self, mark: TurnMark, at: float) -> None:
        """Keep the first such moment of the turn, if one is measured."""
        if self._marks:
            self._marks.setdefault(mark, at)
