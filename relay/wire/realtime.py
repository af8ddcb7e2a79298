"""OpenAI's Realtime protocol, GA dialect, seen from its client: server events in, commands out.

Event types: https://platform.openai.com/docs/api-reference/realtime-server-events; the shapes are held against
`openai.types.realtime` by the tests. What arrives is never trusted to have the shape it should: a frame that is no
event becomes `MalformedUpstream`, a type that is of no use here `UnknownUpstream`.
"""

from collections.abc import Callable
from typing import Any, assert_never

import orjson

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.redact import redact
from relay.core.values import Item, SessionConfig, TurnDetection, Usage
from relay.session.common.media_types import AudioDelta
from relay.wire.append import (
    MAX_ID_CHARS,
    MAX_INT,
    TRANSCRIPT_HEAD,
    AudioDeltas,
    TranscriptDeltas,
    text_delta,
)
from relay.wire.beta import BetaUpstream, client_event_to_beta
from relay.wire.redaction import redact_event
from relay.wire.weight import MAX_UPSTREAM_MEMBERS, has_too_many_members, is_writable

MAX_SILENCE_MS = 60_000
MAX_TEXT_CHARS = 65_536
"""Words beyond this in one event or item are left out."""
MAX_OUTPUT_ITEMS = 256
"""Items of one response beyond this are left out; an answer has a handful."""
REQUEST_KEY = "relay_request"
"""The metadata key by which our own responses are known again."""

Obj = dict[str, Any]


class RealtimeCodec:
    """One connection's codec; the relay is the client of the upstream."""

    def __init__(self, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are taken out of all events but deltas."""
        self._secrets = secrets
        self._audio = AudioDeltas()
        self._words = TranscriptDeltas()

    def decode(self, frame: Chunk) -> ev.UpstreamEvent | AudioDelta:
        """One text message of the upstream as an event, or as audio."""
        raw = bytes(frame)
        is_transcript = raw.startswith(TRANSCRIPT_HEAD)
        found = self._words.find(raw) if is_transcript else self._audio.find(raw)
        if found is not None:
            return found
        if has_too_many_members(raw, MAX_UPSTREAM_MEMBERS):
            return ev.MalformedUpstream("too many members")
        try:
            _, obj = redact_event(raw, orjson.loads(raw), self._secrets)
            kind = obj["type"]
            reader = _READERS.get(kind)
            event = reader(obj) if reader else ev.UnknownUpstream(str(kind)[:80], kind in _UNUSED)
            if is_transcript and type(event) is ev.TextDelta:
                self._words.learn(raw, event)
            return event
        except orjson.JSONDecodeError:
            return ev.MalformedUpstream("not JSON")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return ev.MalformedUpstream(f"{type(error).__name__}: {error}"[:200])

    def encode(self, command: cmd.UpstreamCommand) -> bytes:
        """A command as one text message."""
        return orjson.dumps(_encode(command))


class BetaRealtimeCodec(RealtimeCodec):
    """The same for an upstream that speaks the protocol's beta dialect."""

    def __init__(self, secrets: KnownSecrets = NO_SECRETS) -> None:
        super().__init__(secrets)
        self._beta = BetaUpstream()

    def decode(self, frame: Chunk) -> ev.UpstreamEvent | AudioDelta:
        """One text message of the upstream as an event, or as audio; what GA says twice counts once."""
        raw = bytes(frame)
        if has_too_many_members(raw, MAX_UPSTREAM_MEMBERS):
            return ev.MalformedUpstream("too many members")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return ev.MalformedUpstream("not JSON")
        if not isinstance(body, dict):
            return ev.MalformedUpstream("not an object")
        if not is_writable(raw, body):
            return ev.MalformedUpstream("nested too deeply")
        events = self._beta.down(body)
        return super().decode(orjson.dumps(events[0]))

    def encode(self, command: cmd.UpstreamCommand) -> bytes:
        """A command as one text message."""
        return orjson.dumps(client_event_to_beta(_encode(command)))


# -- decoding ---------------------------------------------------------------------------------------------------------


def _text(obj: Obj, key: str) -> str:
    value = obj[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not a string")
    return value


def _maybe(obj: Obj, key: str) -> str | None:
    value = obj.get(key)
    return value if isinstance(value, str) else None


def _id(obj: Obj, key: str) -> str:
    value = _text(obj, key)
    if len(value) > MAX_ID_CHARS:
        raise ValueError(f"{key} is longer than {MAX_ID_CHARS} characters")
    return value


def _maybe_id(obj: Obj, key: str) -> str | None:
    """An id, or a name as short as one; None for anything else, so that nothing long is ever remembered."""
    value = obj.get(key)
    return value if isinstance(value, str) and len(value) <= MAX_ID_CHARS else None


def _words(obj: Obj, key: str) -> str:
    return _text(obj, key)[:MAX_TEXT_CHARS]


def _int(obj: Obj, key: str) -> int:
    """A count, an index or a time in ms; 0 for anything else. Bounded, so that sums and JSON can always hold it."""
    value = obj.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(max(value, 0), MAX_INT))


def _request_id(response: Obj) -> str | None:
    metadata = response.get("metadata")
    return _maybe_id(metadata, REQUEST_KEY) if isinstance(metadata, dict) else None


def _item(obj: Obj) -> Item:
    parts = obj.get("content") or ()
    texts = [part.get("text") or part.get("transcript") or "" for part in parts if isinstance(part, dict)]
    texts.append(obj.get("output") or "")  # of a function_call_output
    return Item(
        id=_maybe_id(obj, "id") or "",
        kind=_id(obj, "type"),
        role=_maybe_id(obj, "role"),
        status=_maybe(obj, "status"),
        call_id=_maybe_id(obj, "call_id"),
        name=_maybe_id(obj, "name"),
        arguments=_maybe(obj, "arguments"),
        text="".join(text for text in texts if isinstance(text, str))[:MAX_TEXT_CHARS],
    )


def _usage(obj: Any) -> Usage:
    if not isinstance(obj, dict):
        return Usage()
    inputs = obj.get("input_token_details") or {}
    outputs = obj.get("output_token_details") or {}
    return Usage(
        input_tokens=_int(obj, "input_tokens"),
        output_tokens=_int(obj, "output_tokens"),
        total_tokens=_int(obj, "total_tokens"),
        input_audio_tokens=_int(inputs, "audio_tokens"),
        input_text_tokens=_int(inputs, "text_tokens"),
        cached_tokens=_int(inputs, "cached_tokens"),
        output_audio_tokens=_int(outputs, "audio_tokens"),
        output_text_tokens=_int(outputs, "text_tokens"),
    )


def _response_done(obj: Obj) -> ev.ResponseDone:
    response = obj["response"]
    status = response.get("status")
    details = response.get("status_details") or {}
    error = details.get("error") or {}
    return ev.ResponseDone(
        response_id=_id(response, "id"),
        status=status if status in ("completed", "cancelled", "incomplete") else "failed",
        reason=_maybe(details, "reason"),
        error_code=redact(_maybe(error, "code") or _maybe(error, "type") or "", 80) or None,
        error_message=redact(_maybe(error, "message") or "") or None,
        output=tuple(_item(item) for item in (response.get("output") or ())[:MAX_OUTPUT_ITEMS]),
        usage=_usage(response.get("usage")),
        request_id=_request_id(response),
    )


def _error(obj: Obj) -> ev.UpstreamError:
    error = obj["error"]
    return ev.UpstreamError(
        code=_maybe_id(error, "code"),
        message=redact(_maybe(error, "message") or "the upstream reported an error without a text"),
        type=_maybe_id(error, "type"),
        param=redact(_maybe(error, "param") or "", 80) or None,
        event_id=_maybe_id(error, "event_id"),
    )


def _session_created(obj: Obj) -> ev.SessionCreated:
    session = obj.get("session") or {}
    expires_at = session.get("expires_at")
    return ev.SessionCreated(
        model=_maybe(session, "model"),
        engine=_maybe(session, "engine"),
        expires_at=expires_at if isinstance(expires_at, int) else None,
    )


def _silence_ms(obj: Obj) -> int | None:
    """What `audio_end_ms` holds beyond the speech itself: only server VAD counts its silence in."""
    found: Any = obj
    for key in ("session", "audio", "input", "turn_detection", "silence_duration_ms"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if type(found) is int and 0 <= found <= MAX_SILENCE_MS else None


def _audio_delta(obj: Obj) -> AudioDelta:
    audio = _text(obj, "delta").encode()
    return AudioDelta(_id(obj, "response_id"), _id(obj, "item_id"), _int(obj, "content_index"), audio)


def _text_delta(spoken: bool) -> Callable[[Obj], ev.TextDelta]:
    def read(obj: Obj) -> ev.TextDelta:
        response_id, item_id, delta, part = obj["response_id"], obj["item_id"], obj["delta"], obj.get("content_index")
        if not (type(response_id) is str and type(item_id) is str and type(delta) is str):
            raise TypeError("response_id, item_id or delta is not a string")
        if len(response_id) > MAX_ID_CHARS or len(item_id) > MAX_ID_CHARS:
            raise ValueError(f"an id is longer than {MAX_ID_CHARS} characters")
        index = part if type(part) is int and 0 <= part <= MAX_INT else 0
        return text_delta((response_id, item_id, index, delta[:MAX_TEXT_CHARS], spoken))

    return read


def _text_done(key: str, spoken: bool) -> Callable[[Obj], ev.TextDone]:
    return lambda obj: ev.TextDone(
        _id(obj, "response_id"), _id(obj, "item_id"), _int(obj, "content_index"), _words(obj, key), spoken
    )


_READERS: dict[str, Callable[[Obj], ev.UpstreamEvent | AudioDelta]] = {
    "session.created": _session_created,
    "session.updated": lambda obj: ev.SessionUpdated(_silence_ms(obj)),
    "input_audio_buffer.speech_started": lambda obj: ev.SpeechStarted(
        _maybe_id(obj, "item_id") or "", _int(obj, "audio_start_ms")
    ),
    "input_audio_buffer.speech_stopped": lambda obj: ev.SpeechStopped(
        _maybe_id(obj, "item_id") or "", _int(obj, "audio_end_ms")
    ),
    "input_audio_buffer.committed": lambda obj: ev.InputCommitted(
        _id(obj, "item_id"), _maybe_id(obj, "previous_item_id")
    ),
    "input_audio_buffer.cleared": lambda obj: ev.InputCleared(),
    "conversation.item.input_audio_transcription.delta": lambda obj: ev.UserTranscript(
        _id(obj, "item_id"), (_maybe(obj, "delta") or "")[:MAX_TEXT_CHARS], final=False
    ),
    "conversation.item.input_audio_transcription.completed": lambda obj: ev.UserTranscript(
        _id(obj, "item_id"), _words(obj, "transcript"), final=True
    ),
    "conversation.item.input_audio_transcription.failed": lambda obj: ev.UserTranscriptFailed(
        _id(obj, "item_id"), redact(_maybe(obj.get("error") or {}, "message") or "")
    ),
    "conversation.item.added": lambda obj: ev.ItemAdded(_item(obj["item"]), _maybe_id(obj, "previous_item_id")),
    "conversation.item.deleted": lambda obj: ev.ItemDeleted(_id(obj, "item_id")),
    "conversation.item.truncated": lambda obj: ev.ItemTruncated(_id(obj, "item_id"), _int(obj, "audio_end_ms")),
    "response.created": lambda obj: ev.ResponseCreated(_id(obj["response"], "id"), _request_id(obj["response"])),
    "response.output_item.added": lambda obj: ev.OutputItemAdded(_id(obj, "response_id"), _item(obj["item"])),
    "response.output_audio.delta": _audio_delta,
    "response.output_audio_transcript.delta": _text_delta(spoken=True),
    "response.output_audio_transcript.done": _text_done("transcript", spoken=True),
    "response.output_text.delta": _text_delta(spoken=False),
    "response.output_text.done": _text_done("text", spoken=False),
    "response.output_audio.done": lambda obj: ev.AudioDone(
        _id(obj, "response_id"), _id(obj, "item_id"), _int(obj, "content_index")
    ),
    "response.done": _response_done,
    "error": _error,
}


_UNUSED = frozenset(
    {
        "conversation.created",
        "conversation.item.created",
        "conversation.item.done",
        "conversation.item.retrieved",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.dtmf_event_received",
        "input_audio_buffer.timeout_triggered",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
        "mcp_list_tools.in_progress",
        "output_audio_buffer.cleared",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "rate_limits.updated",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.output_item.done",
    }
)
"""Events of the protocol that a device client's session has no use for: everything it needs comes by other ones."""


# -- encoding ---------------------------------------------------------------------------------------------------------


def _encode(command: cmd.UpstreamCommand) -> Obj:
    match command:
        case cmd.ConfigureSession(config, event_id, teach):
            return {"type": "session.update", "event_id": event_id, "session": session_object(config, teach)}
        case cmd.CommitInput(event_id):
            return {"type": "input_audio_buffer.commit", "event_id": event_id}
        case cmd.ClearInput(event_id):
            return {"type": "input_audio_buffer.clear", "event_id": event_id}
        case cmd.CreateItem(item, event_id, after):
            created = {"type": "conversation.item.create", "event_id": event_id, "item": _item_object(item)}
            return created | ({"previous_item_id": after} if after is not None else {})
        case cmd.DeleteItem(item_id, event_id):
            return {"type": "conversation.item.delete", "event_id": event_id, "item_id": item_id}
        case cmd.TruncateItem(item_id, content_index, audio_end_ms, event_id):
            return {
                "type": "conversation.item.truncate",
                "event_id": event_id,
                "item_id": item_id,
                "content_index": content_index,
                "audio_end_ms": audio_end_ms,
            }
        case cmd.CreateResponse(event_id, allow_tools):
            response: Obj = {"metadata": {REQUEST_KEY: event_id}}
            if not allow_tools:
                response["tool_choice"] = "none"
            return {"type": "response.create", "event_id": event_id, "response": response}
        case cmd.CancelResponse(response_id, event_id):
            return {"type": "response.cancel", "event_id": event_id, "response_id": response_id}
        case _:
            assert_never(command)


def session_object(config: SessionConfig, teach: bool) -> Obj:
    """The `session` of a `session.update`: only what is set, for an empty value would clear a default (D5)."""
    audio_in: Obj = {"format": _format(config.input_format), "turn_detection": _turn(config.upstream_turn)}
    if config.transcription_model:
        audio_in["transcription"] = {"model": config.transcription_model}
    if config.noise_reduction:
        audio_in["noise_reduction"] = {"type": config.noise_reduction}
    audio: Obj = {"input": audio_in}
    if config.external_voice is None:
        audio["output"] = {"format": _format(config.output_format)}
        if config.voice:
            audio["output"]["voice"] = config.voice
    session: Obj = {
        "type": "realtime",
        "output_modalities": ["audio"] if config.external_voice is None else ["text"],
        "audio": audio,
    }
    if config.full_instructions:
        session["instructions"] = config.full_instructions
    if config.tools:
        session["tools"] = [tool.definition(with_examples=teach) for tool in config.tools]
        session["tool_choice"] = "auto"
    if config.max_output_tokens is not None:
        session["max_output_tokens"] = config.max_output_tokens
    if config.effort is not None:
        session["reasoning"] = {"effort": config.effort}
    return session


def _format(audio_format: Any) -> Obj:
    if audio_format.encoding == "pcm16":
        return {"type": "audio/pcm", "rate": audio_format.rate_hz}
    return {"type": f"audio/{audio_format.encoding}"}


def _turn(turn: TurnDetection) -> Obj | None:
    if turn.kind == "manual":
        return None
    given: Obj = {
        "type": turn.kind,
        "create_response": turn.create_response,
        "interrupt_response": turn.interrupt_response,
    }
    if turn.kind == "semantic_vad":
        numbers: Obj = {"eagerness": turn.eagerness}
    else:
        numbers = {
            "threshold": turn.threshold,
            "prefix_padding_ms": turn.prefix_padding_ms,
            "silence_duration_ms": turn.silence_duration_ms,
        }
    return given | {key: value for key, value in numbers.items() if value is not None}


def _item_object(item: Item) -> Obj:
    if item.kind == "function_call_output":
        return {"type": "function_call_output", "call_id": item.call_id, "output": item.text}
    content_type = "output_text" if item.role == "assistant" else "input_text"
    given: Obj = {
        "type": "message",
        "role": item.role or "user",
        "content": [{"type": content_type, "text": item.text}],
    }
    return given | ({"id": item.id} if item.id else {})
