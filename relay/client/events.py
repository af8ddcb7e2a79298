"""The events of the device protocol: a class for each message of the relay, and one for audio.

A field that is missing in a message, or has another type there, has its default. `raw` is the message itself, unknown
fields included.
"""

from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from audio.formats import PCM16_16K, AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.session.device.turn_metrics import METRICS, TOTAL_METRIC, camel_case

MAX_ID_CHARS = 256
"""The limit of an `itemId`, because clients store ids; a longer one is read as empty."""
_WIRE_FIELDS = {"input_format": "input", "output_format": "output"}
_EVENT_TYPES: dict[str, type["RelayEvent"]] = {}


@dataclass(frozen=True, kw_only=True)
class RelayEvent:
    """Base class of all events; `wire` is the `type` of the message, or its `name` if the type is `event`."""

    raw: JsonObject = field(default_factory=dict, repr=False)

    def __init_subclass__(cls, wire: str = "") -> None:
        if wire:
            _EVENT_TYPES[wire] = cls


@dataclass(frozen=True, kw_only=True)
class ConnectedEvent(RelayEvent, wire="AIConnected"):
    """The session is ready."""

    session_id: str = ""
    input_format: AudioFormat = PCM16_16K
    output_format: AudioFormat = PCM16_16K


@dataclass(frozen=True, kw_only=True)
class ReadyEvent(RelayEvent, wire="ready"):
    """The active options of the session, after a `hello`; `max_ahead_ms` is None without a limit."""

    input_format: AudioFormat = PCM16_16K
    output_format: AudioFormat = PCM16_16K
    voice: str | None = None
    turn: str = ""
    max_ahead_ms: int | None = None
    duplex: str = ""
    language: str | None = None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SpeechStartedEvent(RelayEvent, wire="AISpeechDetected"):
    """The user started to speak."""


@dataclass(frozen=True, kw_only=True)
class SpeechEndedEvent(RelayEvent, wire="AISpeechEnded"):
    """The user stopped speaking."""


@dataclass(frozen=True, kw_only=True)
class ResponseStartedEvent(RelayEvent, wire="AIResponseStart"):
    """The assistant begins a response."""


@dataclass(frozen=True, kw_only=True)
class ResponseEndedEvent(RelayEvent, wire="AIResponseEnd"):
    """The model has finished a response. Its audio may still follow; with `more`, another response does."""

    final_text: str = ""
    status: str = "completed"
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class TextDeltaEvent(RelayEvent, wire="textDelta"):
    """The next piece of the assistant's text."""

    text: str = ""


@dataclass(frozen=True, kw_only=True)
class AudioStartEvent(RelayEvent, wire="audioStart"):
    """Audio of an item follows."""

    item_id: str = ""


@dataclass(frozen=True, kw_only=True)
class AudioEvent(RelayEvent):
    """A binary message: audio in the session's output format; `item_id` is empty if no item was announced."""

    data: bytes = b""
    item_id: str = ""


@dataclass(frozen=True, kw_only=True)
class AudioEndEvent(RelayEvent, wire="audioEnd"):
    """All audio of an item has been sent."""

    item_id: str = ""
    total_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class InterruptedEvent(RelayEvent, wire="interrupted"):
    """The answer was interrupted: drop all queued audio. `estimated`: `played_ms` is the relay's estimate."""

    item_id: str = ""
    played_ms: int = 0
    heard_text: str = ""
    estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class TranscriptEvent(RelayEvent, wire="transcript"):
    """Text of the user or the assistant: the whole text if `final`, else a piece to append."""

    role: str = ""
    item_id: str = ""
    order: int = 0
    text: str = ""
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolEvent(RelayEvent, wire="tool"):
    """The state of a tool call: started, progress, done, failed, timeout or cancelled."""

    call_id: str = ""
    name: str = ""
    status: str = ""
    ms: int = 0
    arguments: Any = None
    output: Any = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolCallEvent(RelayEvent, wire="toolCall"):
    """The model calls one of the client's tools; `RelayClient` runs those that have a function."""

    call_id: str = ""
    name: str = ""
    arguments: JsonObject = field(default_factory=dict)
    timeout_ms: int = 15_000


@dataclass(frozen=True, kw_only=True)
class UsageEvent(RelayEvent, wire="usage"):
    """Tokens of one response; `cached_tokens` are part of `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_audio_tokens: int = 0
    input_text_tokens: int = 0
    cached_tokens: int = 0
    output_audio_tokens: int = 0
    output_text_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class LatencyEvent(RelayEvent, wire="latency"):
    """The latency of one turn."""

    item_id: str = ""

    @property
    def metrics(self) -> dict[str, int]:
        """The measured times in ms, by the names of the fields of `TurnMetrics`."""
        return {
            metric.name: self.raw[metric.wire_name]
            for metric in METRICS
            if isinstance(self.raw.get(metric.wire_name), int)
        }

    @property
    def total_ms(self) -> int | None:
        """The time from the end of the user's speech until the first audio was sent to the client."""
        return self.metrics.get(TOTAL_METRIC.name)


@dataclass(frozen=True, kw_only=True)
class ErrorEvent(RelayEvent, wire="error"):
    """An error; the session continues unless the connection closes after it."""

    code: str = ""
    message: str = ""
    field: str | None = None
    retryable: bool = False


@dataclass(frozen=True, kw_only=True)
class GoodbyeEvent(RelayEvent, wire="goodbye"):
    """The relay is shutting down, and closes the connection next."""

    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(RelayEvent):
    """An unknown message; `raw` is empty if it was not a JSON object."""


def parse_event(text: str) -> RelayEvent:
    """Parse a text message. Raises ValueError for an unknown audio format."""
    message = parse_json_object(text)
    if message is None:
        return UnknownEvent()
    wire = message.get("name" if message.get("type") == "event" else "type")
    event_type = _EVENT_TYPES.get(wire, UnknownEvent) if isinstance(wire, str) else UnknownEvent
    values: dict[str, Any] = {}
    for event_field in fields(event_type):
        name = event_field.name
        member = _WIRE_FIELDS.get(name) or camel_case(name)
        if member in message and name != "raw" and _has_type(message[member], event_field.type):
            values[name] = _parse_value(name, message[member], event_field.type)
    return event_type(raw=message, **values)


def _has_type(value: Any, kind: Any) -> bool:
    if kind is AudioFormat:
        return isinstance(value, dict)
    if get_origin(kind) is tuple:
        return isinstance(value, list)
    return kind is Any or isinstance(value, dict if kind is JsonObject else kind)


def _parse_value(name: str, value: Any, kind: Any) -> Any:
    if kind is AudioFormat:
        return AudioFormat(value.get("format", "pcm16"), value.get("rate", 16_000))
    if isinstance(value, list) and kind is not Any:
        return tuple(part for part in value if isinstance(part, str))
    return "" if name == "item_id" and len(value) > MAX_ID_CHARS else value
