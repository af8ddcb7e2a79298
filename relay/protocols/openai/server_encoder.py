"""OpenAI's Realtime protocol, GA dialect, seen from its server: the events of a session as server events.

The way back of `relay.protocols.openai.upstream_codec`'s decoder, for a recorded model that is served again; the
shapes are held against `openai.types.realtime` by the tests.
"""

from typing import Any

import pybase64

from relay.json_types import JsonObject
from relay.protocols.openai.server_events import REQUEST_METADATA_KEY
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, Usage
from relay.session.device import events as ev


class ServerEventEncoder:
    """One connection's encoder; it counts event ids, and remembers where in its response an item stands."""

    def __init__(self, session: JsonObject) -> None:
        self.session = {"type": "realtime", "object": "realtime.session", "id": "sess_recorded", **session}
        self._n_events = 0
        self._output_indexes: dict[str, tuple[str, int]] = {}
        self._output_counts: dict[str, int] = {}

    def encode(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None = None) -> list[JsonObject]:
        """The server events that say it; `metadata` is what the client gave its `response.create`.

        Empty for what is no message: that the connection stands, broke, or carried something unknown.
        """
        found = [obj for obj in self._encode(event, metadata) if obj]
        for obj in found:
            self._n_events += 1
            obj["event_id"] = f"event_recorded_{self._n_events}"
        return found

    def _encode(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None) -> list[JsonObject]:
        match event:
            case ev.SessionCreated(model, engine, expires_at):
                told = {"model": model, "engine": engine, "expires_at": expires_at}
                self.session |= {name: value for name, value in told.items() if value is not None}
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
            case ev.UpstreamErrorEvent(code, message, kind, param, event_id):
                told = {"type": kind or "server_error", "code": code, "message": message, "param": param}
                return [{"type": "error", "error": told | {"event_id": event_id}}]
            case _:
                return self._response(event, metadata)

    def _response(self, event: ev.UpstreamEvent | AudioDelta, metadata: JsonObject | None) -> list[JsonObject]:
        match event:
            case ev.ResponseCreated(response_id, request_id):
                return [{"type": "response.created", "response": _new_response(response_id, request_id, metadata)}]
            case ev.OutputItemAdded(response_id, item):
                index = self._output_index(response_id, item.id)
                return [_response_event("output_item.added", response_id, output_index=index, item=encode_item(item))]
            case ev.TextDelta(response_id, item_id, part, text, spoken):
                return [self._content_event(_text_event_name(spoken, "delta"), response_id, item_id, part, delta=text)]
            case ev.TextDone(response_id, item_id, part, text, spoken):
                key = "transcript" if spoken else "text"
                return [
                    self._content_event(_text_event_name(spoken, "done"), response_id, item_id, part, **{key: text})
                ]
            case AudioDelta(response_id, item_id, part, audio):
                delta = bytes(audio).decode("ascii", "replace")
                return [self._content_event("output_audio.delta", response_id, item_id, part, delta=delta)]
            case ev.OutputAudioDone(response_id, item_id, part):
                return [self._content_event("output_audio.done", response_id, item_id, part)]
            case ev.ResponseDone():
                return self._done(event, metadata)
            case _:
                return []

    def _done(self, event: ev.ResponseDone, metadata: JsonObject | None) -> list[JsonObject]:
        output = [encode_item(item) for item in event.output]
        # Clients of the protocol look for whole items and arguments here; the events that told them held no more.
        found: list[JsonObject] = []
        for item in output:
            index = self._output_index(event.response_id, item["id"])
            if item["type"] == "function_call":
                found.append(
                    _response_event(
                        "function_call_arguments.done",
                        event.response_id,
                        output_index=index,
                        item_id=item["id"],
                        call_id=item["call_id"],
                        name=item["name"],
                        arguments=item["arguments"],
                    )
                )
            found.append(_response_event("output_item.done", event.response_id, output_index=index, item=item))
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
        self._output_indexes = {
            item: place for item, place in self._output_indexes.items() if place[0] != event.response_id
        }
        return [*found, {"type": "response.done", "response": response}]

    def _content_event(self, kind: str, response_id: str, item_id: str, part: int, **more: Any) -> JsonObject:
        index = self._output_index(response_id, item_id)
        return _response_event(kind, response_id, item_id=item_id, output_index=index, content_index=part, **more)

    def _output_index(self, response_id: str, item_id: str) -> int:
        place = self._output_indexes.get(item_id)
        if place is None or place[0] != response_id:
            index = self._output_counts.get(response_id, 0)
            self._output_counts[response_id] = index + 1
            place = self._output_indexes[item_id] = (response_id, index)
        return place[1]


def decode_append(message: JsonObject) -> bytes | None:
    """The audio of a client's `input_audio_buffer.append`; None if it is another message, or holds no base64."""
    audio = message.get("audio")
    if message.get("type") != "input_audio_buffer.append" or not isinstance(audio, str):
        return None
    try:
        return pybase64.b64decode(audio, validate=True)
    except ValueError:
        return None


def encode_item(item: Item) -> JsonObject:
    """A conversation item as the server shows it."""
    given: JsonObject = {
        "id": item.id,
        "object": "realtime.item",
        "type": item.kind,
        "status": item.status or "completed",
    }
    match item.kind:
        case "function_call":
            return given | {"call_id": item.call_id, "name": item.name or "", "arguments": item.arguments or ""}
        case "function_call_output":
            return given | {"call_id": item.call_id, "output": item.text}
        case _:
            kind = "output_audio" if item.role == "assistant" else "input_text"
            key = "transcript" if item.role == "assistant" else "text"
            content = [{"type": kind, key: item.text}] if item.text else []
            return given | {"role": item.role or "user", "content": content}


def _input_buffer_event(kind: str, **fields: Any) -> JsonObject:
    return {"type": f"input_audio_buffer.{kind}", **fields}


def _item_event(kind: str, **fields: Any) -> JsonObject:
    return {"type": f"conversation.item.{kind}", **fields}


def _response_event(kind: str, response_id: str, **fields: Any) -> JsonObject:
    return {"type": f"response.{kind}", "response_id": response_id, **fields}


def _text_event_name(spoken: bool, kind: str) -> str:
    return f"output_audio_transcript.{kind}" if spoken else f"output_text.{kind}"


def _encode_transcription(event: ev.UserTranscript | ev.UserTranscriptFailed) -> JsonObject:
    given: JsonObject = {"item_id": event.item_id, "content_index": 0}
    if isinstance(event, ev.UserTranscriptFailed):
        error = {"type": "transcription_error", "message": event.message}
        return _item_event("input_audio_transcription.failed", **given, error=error)
    if not event.final:
        return _item_event("input_audio_transcription.delta", **given, delta=event.text)
    usage = {"type": "duration", "seconds": 0}
    return _item_event("input_audio_transcription.completed", **given, transcript=event.text, usage=usage)


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
