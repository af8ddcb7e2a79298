"""Decodes OpenAI's Realtime server events (GA): JSON objects to events of the rules.

One function per event type reads the members that a rule needs. Beta events have been translated before
(`relay.protocols.openai.beta`). Audio deltas of the usual shape are matched by `relay.protocols.openai.audio_events`
and do not come here.

Event types: https://platform.openai.com/docs/api-reference/realtime-server-events. Tests compare the shapes with
`openai.types.realtime`. No shape is taken for granted. An invalid event becomes `MalformedUpstreamMessage`, an event
type without a use here `IgnoredUpstreamEvent`.
"""

from collections.abc import Callable
from typing import Any

from relay.json_types import JsonObject
from relay.protocols.openai.audio_events import MAX_ID_CHARS, MAX_INT, new_text_delta
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, Usage
from relay.session.common.redact import redact
from relay.session.device import events as ev

MAX_SILENCE_DURATION_MS = 60_000
MAX_TEXT_CHARS = 65_536
"""Text beyond this in one event or item is dropped."""
MAX_OUTPUT_ITEMS = 256
"""Output items beyond this are dropped; a response has a handful."""
REQUEST_METADATA_KEY = "relay_request"
"""The metadata key that identifies the relay's own responses."""


def decode_event(event: JsonObject) -> ev.UpstreamEvent | AudioDelta:
    """Decode an upstream event; an invalid one becomes `MalformedUpstreamMessage`."""
    try:
        event_type = event["type"]
        decoder = DECODERS.get(event_type)
        if decoder is None:
            return ev.IgnoredUpstreamEvent(str(event_type)[:80], event_type in UNUSED_EVENT_TYPES)
        return decoder(event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return ev.MalformedUpstreamMessage(f"{type(error).__name__}: {error}"[:200])


def _get_string(obj: JsonObject, key: str) -> str:
    value = obj[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not a string")
    return value


def _get_optional_string(obj: JsonObject, key: str) -> str | None:
    value = obj.get(key)
    return value if isinstance(value, str) else None


def _get_id(obj: JsonObject, key: str) -> str:
    value = _get_string(obj, key)
    if len(value) > MAX_ID_CHARS:
        raise ValueError(f"{key} is longer than {MAX_ID_CHARS} characters")
    return value


def _get_optional_id(obj: JsonObject, key: str) -> str | None:
    """Return an id or a short name; None for anything else, so that nothing long is remembered."""
    value = obj.get(key)
    return value if isinstance(value, str) and len(value) <= MAX_ID_CHARS else None


def _get_truncated_text(obj: JsonObject, key: str) -> str:
    return _get_string(obj, key)[:MAX_TEXT_CHARS]


def _get_int(obj: JsonObject, key: str) -> int:
    """Return a count, an index or a time in ms; 0 for anything else. Bounded, so that sums stay exact in JSON."""
    value = obj.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), MAX_INT))


def _request_id(response: JsonObject) -> str | None:
    metadata = response.get("metadata")
    return _get_optional_id(metadata, REQUEST_METADATA_KEY) if isinstance(metadata, dict) else None


def _decode_item(obj: JsonObject) -> Item:
    parts = obj.get("content") or ()
    texts = [part.get("text") or part.get("transcript") or "" for part in parts if isinstance(part, dict)]
    texts.append(obj.get("output") or "")  # function_call_output
    return Item(
        id=_get_optional_id(obj, "id") or "",
        kind=_get_id(obj, "type"),
        role=_get_optional_id(obj, "role"),
        status=_get_optional_string(obj, "status"),
        call_id=_get_optional_id(obj, "call_id"),
        name=_get_optional_id(obj, "name"),
        arguments=_get_optional_string(obj, "arguments"),
        text="".join(text for text in texts if isinstance(text, str))[:MAX_TEXT_CHARS],
    )


def _decode_usage(obj: Any) -> Usage:
    if not isinstance(obj, dict):
        return Usage()
    inputs = obj.get("input_token_details") or {}
    outputs = obj.get("output_token_details") or {}
    return Usage(
        input_tokens=_get_int(obj, "input_tokens"),
        output_tokens=_get_int(obj, "output_tokens"),
        total_tokens=_get_int(obj, "total_tokens"),
        input_audio_tokens=_get_int(inputs, "audio_tokens"),
        input_text_tokens=_get_int(inputs, "text_tokens"),
        cached_tokens=_get_int(inputs, "cached_tokens"),
        output_audio_tokens=_get_int(outputs, "audio_tokens"),
        output_text_tokens=_get_int(outputs, "text_tokens"),
    )


def _decode_response_done(obj: JsonObject) -> ev.ResponseDone:
    response = obj["response"]
    status = response.get("status")
    details = response.get("status_details") or {}
    error = details.get("error") or {}
    return ev.ResponseDone(
        response_id=_get_id(response, "id"),
        status=status if status in ("completed", "cancelled", "incomplete") else "failed",
        reason=_get_optional_string(details, "reason"),
        error_code=redact(_get_optional_string(error, "code") or _get_optional_string(error, "type") or "", 80) or None,
        error_message=redact(_get_optional_string(error, "message") or "") or None,
        output=tuple(_decode_item(item) for item in (response.get("output") or ())[:MAX_OUTPUT_ITEMS]),
        usage=_decode_usage(response.get("usage")),
        request_id=_request_id(response),
    )


def _decode_error(obj: JsonObject) -> ev.UpstreamErrorEvent:
    error = obj["error"]
    return ev.UpstreamErrorEvent(
        code=_get_optional_id(error, "code"),
        message=redact(_get_optional_string(error, "message") or "the upstream reported an error without a message"),
        type=_get_optional_id(error, "type"),
        param=redact(_get_optional_string(error, "param") or "", 80) or None,
        event_id=_get_optional_id(error, "event_id"),
    )


def _decode_session_created(obj: JsonObject) -> ev.SessionCreated:
    session = obj.get("session") or {}
    expires_at = session.get("expires_at")
    return ev.SessionCreated(
        model=_get_optional_string(session, "model"),
        engine=_get_optional_string(session, "engine"),
        expires_at=expires_at if isinstance(expires_at, int) else None,
    )


def _silence_duration_ms(obj: JsonObject) -> int | None:
    """Return the silence that `audio_end_ms` includes after the speech itself; only server VAD includes it."""
    value: Any = obj
    for key in ("session", "audio", "input", "turn_detection", "silence_duration_ms"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_SILENCE_DURATION_MS else None


def _decode_audio_delta(obj: JsonObject) -> AudioDelta:
    audio = _get_string(obj, "delta").encode()
    return AudioDelta(_get_id(obj, "response_id"), _get_id(obj, "item_id"), _get_int(obj, "content_index"), audio)


def _text_delta_decoder(spoken: bool) -> Callable[[JsonObject], ev.TextDelta]:
    def decode(obj: JsonObject) -> ev.TextDelta:
        response_id, item_id, delta = obj["response_id"], obj["item_id"], obj["delta"]
        if not (type(response_id) is str and type(item_id) is str and type(delta) is str):
            raise TypeError("response_id, item_id or delta is not a string")
        if len(response_id) > MAX_ID_CHARS or len(item_id) > MAX_ID_CHARS:
            raise ValueError(f"an id is longer than {MAX_ID_CHARS} characters")
        content_index = obj.get("content_index")
        index = content_index if type(content_index) is int and 0 <= content_index <= MAX_INT else 0
        return new_text_delta((response_id, item_id, index, delta[:MAX_TEXT_CHARS], spoken))

    return decode


def _text_done_decoder(key: str, spoken: bool) -> Callable[[JsonObject], ev.TextDone]:
    return lambda obj: ev.TextDone(
        _get_id(obj, "response_id"),
        _get_id(obj, "item_id"),
        _get_int(obj, "content_index"),
        _get_truncated_text(obj, key),
        spoken,
    )


DECODERS: dict[str, Callable[[JsonObject], ev.UpstreamEvent | AudioDelta]] = {
    "session.created": _decode_session_created,
    "session.updated": lambda obj: ev.SessionUpdated(_silence_duration_ms(obj)),
    "input_audio_buffer.speech_started": lambda obj: ev.SpeechStarted(
        _get_optional_id(obj, "item_id") or "", _get_int(obj, "audio_start_ms")
    ),
    "input_audio_buffer.speech_stopped": lambda obj: ev.SpeechStopped(
        _get_optional_id(obj, "item_id") or "", _get_int(obj, "audio_end_ms")
    ),
    "input_audio_buffer.committed": lambda obj: ev.InputCommitted(
        _get_id(obj, "item_id"), _get_optional_id(obj, "previous_item_id")
    ),
    "input_audio_buffer.cleared": lambda obj: ev.InputCleared(),
    "conversation.item.input_audio_transcription.delta": lambda obj: ev.UserTranscript(
        _get_id(obj, "item_id"), (_get_optional_string(obj, "delta") or "")[:MAX_TEXT_CHARS], final=False
    ),
    "conversation.item.input_audio_transcription.completed": lambda obj: ev.UserTranscript(
        _get_id(obj, "item_id"), _get_truncated_text(obj, "transcript"), final=True
    ),
    "conversation.item.input_audio_transcription.failed": lambda obj: ev.UserTranscriptFailed(
        _get_id(obj, "item_id"), redact(_get_optional_string(obj.get("error") or {}, "message") or "")
    ),
    "conversation.item.added": lambda obj: ev.ItemAdded(
        _decode_item(obj["item"]), _get_optional_id(obj, "previous_item_id")
    ),
    "conversation.item.deleted": lambda obj: ev.ItemDeleted(_get_id(obj, "item_id")),
    "conversation.item.truncated": lambda obj: ev.ItemTruncated(_get_id(obj, "item_id"), _get_int(obj, "audio_end_ms")),
    "response.created": lambda obj: ev.ResponseCreated(_get_id(obj["response"], "id"), _request_id(obj["response"])),
    "response.output_item.added": lambda obj: ev.OutputItemAdded(
        _get_id(obj, "response_id"), _decode_item(obj["item"])
    ),
    "response.output_audio.delta": _decode_audio_delta,
    "response.output_audio_transcript.delta": _text_delta_decoder(spoken=True),
    "response.output_audio_transcript.done": _text_done_decoder("transcript", spoken=True),
    "response.output_text.delta": _text_delta_decoder(spoken=False),
    "response.output_text.done": _text_done_decoder("text", spoken=False),
    "response.output_audio.done": lambda obj: ev.OutputAudioDone(
        _get_id(obj, "response_id"), _get_id(obj, "item_id"), _get_int(obj, "content_index")
    ),
    "response.done": _decode_response_done,
    "error": _decode_error,
}

UNUSED_EVENT_TYPES = frozenset(
    {
        "conversation.created", "conversation.item.created", "conversation.item.done", "conversation.item.retrieved",
        "conversation.item.input_audio_transcription.segment", "input_audio_buffer.dtmf_event_received",
        "input_audio_buffer.timeout_triggered", "mcp_list_tools.completed", "mcp_list_tools.failed",
        "mcp_list_tools.in_progress", "output_audio_buffer.cleared", "output_audio_buffer.started",
        "output_audio_buffer.stopped", "rate_limits.updated", "response.content_part.added",
        "response.content_part.done", "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.mcp_call.completed", "response.mcp_call.failed", "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta", "response.mcp_call_arguments.done", "response.output_item.done",
    }
)  # fmt: skip
"""Events of the protocol without a use in a device session: other events carry all that it needs."""
