"""What the relay sends, typed: one class for each message of the device protocol, and one for audio.

A field that is missing in a message, or has another type there, has the default of its class. `raw` is the message
itself, also with fields that this version does not know.
"""

from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from audio.formats import PCM16_16K, AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.session.device.turn_metrics import METRICS, TOTAL_METRIC, camel_case

MAX_ID_CHARS = 256
"""A longer `itemId` counts as none: whoever keeps ids is bounded by this."""
_WIRE_FIELDS = {"input_format": "input", "output_format": "output"}
_EVENT_TYPES: dict[str, type["RelayEvent"]] = {}


@dataclass(frozen=True, kw_only=True)
class RelayEvent:
    """Base of all events; `wire` of a class is the `type` of its message, or the `name` where the type is `event`."""

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
    """The options of the session that are active, after a `hello`; `max_ahead_ms` is None where it is not limited."""

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
    """The model has finished a response, whose audio may still follow; `more`: another response comes by itself."""

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
    """A binary message: audio in the session's output format; `item_id` is empty where none was announced."""

    data: bytes = b""
    item_id: str = ""


@dataclass(frozen=True, kw_only=True)
class AudioEndEvent(RelayEvent, wire="audioEnd"):
    """All audio of an item has come."""

    item_id: str = ""
    total_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class InterruptedEvent(RelayEvent, wire="interrupted"):
    """Stop the speaker and drop what is queued; `estimated`: the position is the relay's estimate."""

    item_id: str = ""
    played_ms: int = 0
    heard_text: str = ""
    estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class TranscriptEvent(RelayEvent, wire="transcript"):
    """Text of the user or the assistant; with `final` the whole of it, else a piece to append."""

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
    """The model calls one of the client's tools; a tool with a callable is run by the client itself."""

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
    def figures(self) -> dict[str, int]:
        """In ms, by the names of `TurnMetrics`, such as `first_delta_ms`; a step that did not happen is left out."""
        return {
            figure.name: self.raw[figure.wire_name]
            for figure in METRICS
            if isinstance(self.raw.get(figure.wire_name), int)
        }

    @property
    def total_ms(self) -> int | None:
        """From the end of the user's speech until the first audio was sent to the client."""
        return self.figures.get(TOTAL_METRIC.name)


@dataclass(frozen=True, kw_only=True)
class ErrorEvent(RelayEvent, wire="error"):
    """An error; the session continues unless the connection closes after it."""

    code: str = ""
    message: str = ""
    field: str | None = None
    retryable: bool = False


@dataclass(frozen=True, kw_only=True)
class GoodbyeEvent(RelayEvent, wire="goodbye"):
    """The relay shuts down; it closes the connection next."""

    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(RelayEvent):
    """A message that this version does not know; `raw` is empty where it was no JSON object."""


def parse_event(text: str) -> RelayEvent:
    """The event of a text message. Raises ValueError for an audio format that does not exist."""
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
