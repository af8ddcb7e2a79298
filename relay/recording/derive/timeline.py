"""The timeline of a conversation. Times are in ms from the start. The field names are those of `timeline.json`."""

from dataclasses import dataclass, field

from relay.session.common.model import Usage
from relay.session.device.turn_metrics import TurnMetrics


@dataclass(slots=True)
class UserSpeech:
    """A turn of the user; a `typed` one has no duration."""

    item_id: str
    start_ms: float
    end_ms: float | None = None
    text: str = ""
    typed: bool = False


@dataclass(slots=True)
class TimelineResponse:
    """A response of the model."""

    response_id: str
    start_ms: float
    end_ms: float | None = None
    status: str = ""


@dataclass(slots=True)
class PlayedItem:
    """An item of the assistant as it was played; if it was interrupted, only `cut_ms` of it.

    `voice`: the external TTS voice, empty for the model's own. Its audio contains the text of `others` too, if a
    response has several items.
    """

    item_id: str
    response_id: str
    start_ms: float
    end_ms: float
    text: str = ""
    heard_text: str | None = None
    cut_ms: int | None = None
    voice: str = ""
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class ToolRun:
    """A tool call, from the command to its result."""

    call_id: str
    name: str
    arguments: str
    start_ms: float
    end_ms: float | None = None
    status: str = "running"
    output: str = ""


@dataclass(slots=True)
class BargeIn:
    """An interruption of the assistant by the user or the client."""

    at_ms: float
    item_id: str
    played_ms: int
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLatency(TurnMetrics):
    """The metrics of one turn, and when they were reported."""

    at_ms: float


@dataclass(slots=True)
class TimelineNote:
    """An error, a gap or an internal failure."""

    at_ms: float
    kind: str
    text: str


@dataclass(slots=True)
class Timeline:
    """The whole conversation."""

    name: str
    session_id: str
    started: str
    identity: str
    upstream: str
    model: str
    duration_ms: float = 0.0
    end: str = ""
    input: str = ""
    output: str = ""
    speech: list[UserSpeech] = field(default_factory=list)
    answers: list[TimelineResponse] = field(default_factory=list)
    heard: list[PlayedItem] = field(default_factory=list)
    tools: list[ToolRun] = field(default_factory=list)
    barge_ins: list[BargeIn] = field(default_factory=list)
    latencies: list[TurnLatency] = field(default_factory=list)
    marks: list[TimelineNote] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
