"""The upstream codec for OpenAI's Realtime protocol, client side: decodes its events, encodes commands.

Most messages are deltas of audio and transcripts. They are matched by the bytes around their text and not parsed
(`relay.protocols.openai.audio_events`). All others are parsed, redacted and decoded by
`relay.protocols.openai.server_events`. With a dialect every message is parsed and translated to GA first; commands are
translated the other way.
"""

from typing import Any, assert_never

import orjson

from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.protocols.client_protocol import RealtimeDialect
from relay.protocols.json_limits import MAX_UPSTREAM_MEMBERS, has_too_many_members, redact_event
from relay.protocols.openai.audio_events import (
    APPEND_TEMPLATE,
    TRANSCRIPT_DELTA_PREFIX,
    AudioDeltaMatcher,
    TranscriptDeltaMatcher,
)
from relay.protocols.openai.server_events import REQUEST_METADATA_KEY, decode_event
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, SessionConfig, TurnDetection
from relay.session.device import commands as cmd
from relay.session.device import events as ev


class OpenAIUpstreamCodec:
    """One connection's codec; the relay is the upstream's client."""

    append_template = APPEND_TEMPLATE
    opened = ev.UpstreamOpened()

    def __init__(self, secrets: KnownSecrets = NO_SECRETS, dialect: RealtimeDialect | None = None) -> None:
        """`secrets` are redacted in all events but deltas. `dialect`: spoken by the upstream instead of GA."""
        self._secrets = secrets
        self._dialect = dialect
        self._audio_matcher = AudioDeltaMatcher()
        self._transcript_matcher = TranscriptDeltaMatcher()

    def decode(self, frame: BytesLike) -> ev.UpstreamEvent | AudioDelta:
        """Decode one text message to an event or audio. Of two GA events with the same meaning, one is decoded."""
        raw = bytes(frame)
        is_transcript = self._dialect is None and raw.startswith(TRANSCRIPT_DELTA_PREFIX)
        if self._dialect is None:
            delta = self._transcript_matcher.match(raw) if is_transcript else self._audio_matcher.match(raw)
            if delta is not None:
                return delta
        if has_too_many_members(raw, MAX_UPSTREAM_MEMBERS):
            return ev.MalformedUpstreamMessage("too many members")
        try:
            obj = orjson.loads(raw)
            if not isinstance(obj, dict):
                return ev.MalformedUpstreamMessage("not an object")
            _, obj = redact_event(raw, obj, self._secrets)
        except orjson.JSONDecodeError:
            return ev.MalformedUpstreamMessage("not JSON")
        event = decode_event(obj if self._dialect is None else dict(self._dialect.to_client(obj)[0]))
        if is_transcript and type(event) is ev.TextDelta:
            self._transcript_matcher.remember(raw, event)
        return event

    def encode(self, command: cmd.UpstreamCommand) -> bytes:
        """Encode a command as a text message."""
        event = _encode(command)
        return orjson.dumps(event if self._dialect is None else self._dialect.to_upstream(event)[0])


def _encode(command: cmd.UpstreamCommand) -> JsonObject:
    match command:
        case cmd.ConfigureSession(config, event_id, include_examples):
            return {"type": "session.update", "event_id": event_id, "session": encode_session(config, include_examples)}
        case cmd.CommitInput(event_id):
            return {"type": "input_audio_buffer.commit", "event_id": event_id}
        case cmd.ClearInput(event_id):
            return {"type": "input_audio_buffer.clear", "event_id": event_id}
        case cmd.CreateItem(item, event_id, after):
            created = {"type": "conversation.item.create", "event_id": event_id, "item": _encode_item(item)}
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
            response: JsonObject = {"metadata": {REQUEST_METADATA_KEY: event_id}}
            if not allow_tools:
                response["tool_choice"] = "none"
            return {"type": "response.create", "event_id": event_id, "response": response}
        case cmd.CancelResponse(response_id, event_id):
            return {"type": "response.cancel", "event_id": event_id, "response_id": response_id}
        case _:
            assert_never(command)


def encode_session(config: SessionConfig, include_examples: bool) -> JsonObject:
    """Encode the `session` of a `session.update`, without unset fields: an empty value would clear a default (D5)."""
    audio_in: JsonObject = {
        "format": _encode_format(config.input_format),
        "turn_detection": _encode_turn_detection(config.upstream_turn),
    }
    if config.transcription_model:
        audio_in["transcription"] = {"model": config.transcription_model}
    if config.noise_reduction:
        audio_in["noise_reduction"] = {"type": config.noise_reduction}
    audio: JsonObject = {"input": audio_in}
    if config.external_voice is None:
        audio["output"] = {"format": _encode_format(config.output_format)}
        if config.voice:
            audio["output"]["voice"] = config.voice
    session: JsonObject = {
        "type": "realtime",
        "output_modalities": ["audio"] if config.external_voice is None else ["text"],
        "audio": audio,
    }
    if config.full_instructions:
        session["instructions"] = config.full_instructions
    if config.tools:
        session["tools"] = [tool.definition(with_examples=include_examples) for tool in config.tools]
        session["tool_choice"] = "auto"
    if config.max_output_tokens is not None:
        session["max_output_tokens"] = config.max_output_tokens
    if config.effort is not None:
        session["reasoning"] = {"effort": config.effort}
    return session


def _encode_format(audio_format: Any) -> JsonObject:
    if audio_format.encoding == "pcm16":
        return {"type": "audio/pcm", "rate": audio_format.rate_hz}
    return {"type": f"audio/{audio_format.encoding}"}


def _encode_turn_detection(turn: TurnDetection) -> JsonObject | None:
    if turn.kind == "manual":
        return None
    fields: JsonObject = {
        "type": turn.kind,
        "create_response": turn.create_response,
        "interrupt_response": turn.interrupt_response,
    }
    if turn.kind == "semantic_vad":
        options: JsonObject = {"eagerness": turn.eagerness}
    else:
        options = {
            "threshold": turn.threshold,
            "prefix_padding_ms": turn.prefix_padding_ms,
            "silence_duration_ms": turn.silence_duration_ms,
        }
    return fields | {key: value for key, value in options.items() if value is not None}


def _encode_item(item: Item) -> JsonObject:
    if item.kind == "function_call_output":
        return {"type": "function_call_output", "call_id": item.call_id, "output": item.text}
    content_type = "output_text" if item.role == "assistant" else "input_text"
    fields: JsonObject = {
        "type": "message",
        "role": item.role or "user",
        "content": [{"type": content_type, "text": item.text}],
    }
    return fields | ({"id": item.id} if item.id else {})
