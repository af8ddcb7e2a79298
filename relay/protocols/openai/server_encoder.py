"""Encodes a session's events as OpenAI Realtime server events (GA), to serve a recorded model again.

The inverse of the decoder in `relay.protocols.openai.server_events`. Tests compare the shapes with
`openai.types.realtime`.
"""

from collections.abc import Iterator
from typing import Any

import pybase64

from relay.json_types import JsonObject
from relay.protocols.openai.server_events import REQUEST_METADATA_KEY
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, Usage
from relay.session.device import events as ev


class ServerEventEncoder:
    """One connection's encoder; it numbers the events, and tracks the output index of each item."""

    def __init__(self, session: JsonObject) -> None:
        self.session = {"type": "realtime", "object": "realtime.session", "id": "sess_recorded", **session}
        self._n_events = 0
        self._positions: dict[str, tuple[str, int]] = {}
        """Response and output index of each item, by its id."""
        self._output_counts: dict[str, int] = {}

    def encode(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None = None) -> list[JsonObject]:
        """Encode an event as server events; `metadata` is that of the client's `response.create`.

        Returns an empty list for events without a message: a connection opened or lost, or an unknown message.
        """
        server_events = [server_event for server_event in self._encode(event, metadata) if server_event]
        for server_event in server_events:
            self._n_events += 1
            server_event["event_id"] = f"event_recorded_{self._n_events}"
        return server_events

    def _encode(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None) -> list[JsonObject]:
        match event:
            case ev.SessionCreated(model, engine, expires_at):
                members = {"model": model, "engine": engine, "expires_at": expires_at}
                self.session |= {name: value for name, value in members.items() if value is not None}
                return [{"type": "session.created", "session": dict(self.session)}]
            case ev.SessionUpdated():
                return [{"type": "session.updated", "session": dict(self.session)}]
            case ev.SpeechStarted(item_id, ms):
                return [_input_buffer_event("speech_started", item_id=item_id, audio_start_ms=ms)]
            case ev.SpeechStopped(item_id, ms):
                return [_input_buffer_event("speech_stopped", item_id=item_id, audio_end_ms=ms)]
            case ev.InputCommitted(item_id, previous):
                return [_input_buffer_event("committed", item_id=item_id, previous_item_id=previous)]
            case ev.InputCleared():
                return [_input_buffer_event("cleared")]
            case ev.UserTranscript() | ev.UserTranscriptFailed():
                return [_encode_transcription(event)]
            case ev.ItemAdded(item, previous):
                return [_item_event("added", item=encode_item(item), previous_item_id=previous)]
            case ev.ItemDeleted(item_id):
                return [_item_event("deleted", item_id=item_id)]
            case ev.ItemTruncated(item_id, ms):
                return [_item_event("truncated", item_id=item_id, audio_end_ms=ms, content_index=0)]
            case ev.UpstreamErrorEvent(code, message, error_type, param, event_id):
                members = {"type": error_type or "server_error", "code": code, "message": message, "param": param}
                return [{"type": "error", "error": members | {"event_id": event_id}}]
            case _:
                return self._encode_response(event, metadata)

    def _encode_response(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None) -> list[JsonObject]:
        match event:
            case ev.ResponseCreated(response_id, request_id):
                return [{"type": "response.created", "response": _new_response(response_id, request_id, metadata)}]
            case ev.OutputItemAdded(response_id, item):
                index = self._output_index(response_id, item.id)
                return [_response_event("output_item.added", response_id, output_index=index, item=encode_item(item))]
            case ev.TextDelta(response_id, item_id, part, text, spoken):
                return [
                    self._content_event(f"{_text_event_prefix(spoken)}.delta", response_id, item_id, part, delta=text)
                ]
            case ev.TextDone(response_id, item_id, part, text, spoken):
                key = "transcript" if spoken else "text"
                return [
                    self._content_event(f"{_text_event_prefix(spoken)}.done", response_id, item_id, part, **{key: text})
                ]
            case AudioDelta(response_id, item_id, part, audio):
                delta = bytes(audio).decode("ascii", "replace")
                return [self._content_event("output_audio.delta", response_id, item_id, part, delta=delta)]
            case ev.OutputAudioDone(response_id, item_id, part):
                return [self._content_event("output_audio.done", response_id, item_id, part)]
            case ev.ResponseDone():
                return self._encode_response_done(event, metadata)
            case _:
                return []

    def _encode_response_done(self, event: ev.ResponseDone, metadata: JsonObject | None) -> list[JsonObject]:
        output = [encode_item(item) for item in event.output]
        # Clients expect complete items and arguments here; the recorded events have nothing else.
        server_events = [done for item in output for done in self._encode_item_done(event.response_id, item)]
        response = _new_response(event.response_id, event.request_id, metadata) | {
            "status": event.status,
            "output": output,
            "usage": _encode_usage(event.usage),
        }
        if event.status != "completed":
            details: JsonObject = {"type": event.status, "reason": event.reason}
            if event.status == "failed":
                details["error"] = {"code": event.error_code, "message": event.error_message}
            response["status_details"] = details
        self._output_counts.pop(event.response_id, None)
        positions = self._positions.items()
        self._positions = {item_id: position for item_id, position in positions if position[0] != event.response_id}
        return [*server_events, {"type": "response.done", "response": response}]

    def _encode_item_done(self, response_id: str, item: JsonObject) -> Iterator[JsonObject]:
        index = self._output_index(response_id, item["id"])
        if item["type"] == "function_call":
            call = {name: item[name] for name in ("call_id", "name", "arguments")}
            fields = {"item_id": item["id"], "output_index": index, **call}
            yield _response_event("function_call_arguments.done", response_id, **fields)
        yield _response_event("output_item.done", response_id, output_index=index, item=item)

    def _content_event(
        self, suffix: str, response_id: str, item_id: str, content_index: int, **fields: Any
    ) -> JsonObject:
        index = self._output_index(response_id, item_id)
        return _response_event(
            suffix, response_id, item_id=item_id, output_index=index, content_index=content_index, **fields
        )

    def _output_index(self, response_id: str, item_id: str) -> int:
        position = self._positions.get(item_id)
        if position is None or position[0] != response_id:
            index = self._output_counts.get(response_id, 0)
            self._output_counts[response_id] = index + 1
            position = self._positions[item_id] = (response_id, index)
        return position[1]


def decode_append(message: JsonObject) -> bytes | None:
    """Return the audio of a client's `input_audio_buffer.append`; None for other messages and invalid base64."""
    audio = message.get("audio")
    if message.get("type") != "input_audio_buffer.append" or not isinstance(audio, str):
        return None
    try:
        return pybase64.b64decode(audio, validate=True)
    except ValueError:
        return None


def encode_item(item: Item) -> JsonObject:
    """Encode a conversation item as the server sends it."""
    fields: JsonObject = {
        "id": item.id,
        "object": "realtime.item",
        "type": item.kind,
        "status": item.status or "completed",
    }
    match item.kind:
        case "function_call":
            return fields | {"call_id": item.call_id, "name": item.name or "", "arguments": item.arguments or ""}
        case "function_call_output":
            return fields | {"call_id": item.call_id, "output": item.text}
        case _:
            content_type = "output_audio" if item.role == "assistant" else "input_text"
            key = "transcript" if item.role == "assistant" else "text"
            content = [{"type": content_type, key: item.text}] if item.text else []
            return fields | {"role": item.role or "user", "content": content}


def _input_buffer_event(suffix: str, **fields: Any) -> JsonObject:
    return {"type": f"input_audio_buffer.{suffix}", **fields}


def _item_event(suffix: str, **fields: Any) -> JsonObject:
    return {"type": f"conversation.item.{suffix}", **fields}


def _response_event(suffix: str, response_id: str, **fields: Any) -> JsonObject:
    return {"type": f"response.{suffix}", "response_id": response_id, **fields}


def _text_event_prefix(spoken: bool) -> str:
    return "output_audio_transcript" if spoken else "output_text"


def _encode_transcription(event: ev.UserTranscript | ev.UserTranscriptFailed) -> JsonObject:
    fields: JsonObject = {"item_id": event.item_id, "content_index": 0}
    if isinstance(event, ev.UserTranscriptFailed):
        error = {"type": "transcription_error", "message": event.message}
        return _item_event("input_audio_transcription.failed", **fields, error=error)
    if not event.final:
        return _item_event("input_audio_transcription.delta", **fields, delta=event.text)
    usage = {"type": "duration", "seconds": 0}
    return _item_event("input_audio_transcription.completed", **fields, transcript=event.text, usage=usage)


def _new_response(response_id: str, request_id: str | None, metadata: JsonObject | None) -> JsonObject:
    if metadata is None and request_id is not None:
        metadata = {REQUEST_METADATA_KEY: request_id}
    return {
        "id": response_id,
        "object": "realtime.response",
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "metadata": metadata,
        "output_modalities": ["audio"],
    }


def _encode_usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "input_token_details": {
            "audio_tokens": usage.input_audio_tokens,
            "text_tokens": usage.input_text_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {
            "audio_tokens": usage.output_audio_tokens,
            "text_tokens": usage.output_text_tokens,
        },
    }
