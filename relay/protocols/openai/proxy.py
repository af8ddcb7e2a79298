"""Codec of a Realtime session whose client and upstream both speak the protocol. It parses as little as possible.

Events that no rule reads are recognized by the beginning of the message, and forwarded byte for byte. A client's audio
is forwarded so only if the whole message has one shape that leaves no room for anything else. All other client events
are parsed and serialized again. A dialect (`relay.protocols.openai.beta`) may translate on either side.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pybase64

from audio.framing import BytesLike
from relay.protocols.client_protocol import RealtimeDialect
from relay.protocols.json_limits import (
    MAX_CLIENT_MEMBERS,
    MAX_ESCAPES,
    MAX_UPSTREAM_MEMBERS,
    can_reencode,
    count_members,
    has_too_many_members,
    redact_event,
)
from relay.protocols.openai.audio_events import decoded_length
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.limits import MAX_EVENT_ID_CHARS, RELAY_EVENT_ID_PREFIX
from relay.session.common.media_types import PASSTHROUGH_EVENTS, RawDelta
from relay.session.device.events import MalformedUpstreamMessage
from relay.session.realtime.events import InvalidClientMessage, RealtimeClientEvent, RealtimeServerEvent

MAX_TYPE_CHARS = 200
_SPACE = rb"[ \t\r\n]*"  # JSON white space; \s would match more


def _compile_pattern(text: str) -> bytes:
    """Return a regular expression in which each space stands for any JSON white space."""
    return text.encode().replace(b" ", _SPACE)


_ID = f'"event_id" : "(?!{RELAY_EVENT_ID_PREFIX})[A-Za-z0-9_.:-]{{0,{MAX_EVENT_ID_CHARS}}}" , '
_APPEND = r'"type" : "input_audio_buffer\.append" , '
_APPEND_HEAD = re.compile(_compile_pattern(rf'{{ (?:{_ID}{_APPEND}|{_APPEND}(?:{_ID})?)"audio" : "'))
_TAIL = re.compile(_compile_pattern('" } '))
_TYPE_PATTERN = re.compile(_compile_pattern(r'{ (?:"event_id" : "[^"\\]*" , )?"type" : "([^"\\]*)"'))
_PASSTHROUGH_TYPES = frozenset(event_type.encode() for event_type in PASSTHROUGH_EVENTS)
DELTA_PREFIXES = tuple(b'{"type":' + space + b'"' + name + b'"' for name in _PASSTHROUGH_TYPES for space in (b"", b" "))
"""How nearly all passthrough events begin. A prefix is matched several times as fast as the pattern, which decides."""
_APPEND_SHAPES = (
    (b'{"type":"input_audio_buffer.append","audio":"', b'"}'),
    (b'{"type": "input_audio_buffer.append", "audio": "', b'"}'),
    (b'{"audio":"', b'","type":"input_audio_buffer.append"}'),
)
"""How nearly all appends are written: by JavaScript, by Python's `json`, and by pydantic from the API's types."""
AUDIO_DELTA_TYPE = "response.output_audio.delta"
_AUDIO_DELTA_PREFIXES = tuple(head for head in DELTA_PREFIXES if AUDIO_DELTA_TYPE.encode() in head)
# With the comma: without it, this may be the end of another key.
_AUDIO_KEY, _SPACED_AUDIO_KEY = b',"delta":"', b', "delta": "'
_EMPTY_DELTA = b',"delta":""}'
_SPACE_OFFSET = len(b'{"type":')
_DELTA_HEAD_BYTES = 512
_PAD = ord("=")
_TAIL_BYTES = 64
_decode = pybase64.b64decode


def append_audio_bytes(raw: bytes) -> int:
    """Return the bytes of audio in a message that is only an `input_audio_buffer.append`; -1 if it is anything else.

    Such a message has a type, perhaps an event id, and base64 audio. It can be forwarded without parsing.
    """
    audio = None
    for head, tail in _APPEND_SHAPES:
        if raw.startswith(head) and raw.endswith(tail):
            audio = raw[len(head) : -len(tail)]
            break
    try:
        # Nothing but base64 is allowed here: a quote would begin another field.
        return len(_decode(audio or _append_payload(raw), None, True))
    except ValueError:
        return -1


def _append_payload(raw: bytes) -> bytes:
    """Return the text in place of the audio. Raises ValueError if there is none."""
    head = _APPEND_HEAD.match(raw)
    if head is not None:
        end = raw.rfind(b'"', max(head.end(), len(raw) - _TAIL_BYTES))
        if end >= 0 and _TAIL.fullmatch(raw, end) is not None:
            return raw[head.end() : end]
    raise ValueError("not an input_audio_buffer.append event")


def audio_offset(raw: bytes) -> int:
    """Return where the base64 text begins in an audio delta of the usual shape; else -1."""
    key = _SPACED_AUDIO_KEY if raw.startswith(b" ", _SPACE_OFFSET) else _AUDIO_KEY
    key_start = raw.find(key, 0, _DELTA_HEAD_BYTES)
    start = key_start + len(key)
    # After another brace, this may be the delta of a nested object.
    return start if key_start > 0 and raw.find(b"{", 1, start) < 0 else -1


def delta_audio_bytes(raw: bytes) -> int:
    """Return the bytes of audio in a delta of the usual shape: 0 for text deltas, -1 for any other event."""
    if not raw.startswith(_AUDIO_DELTA_PREFIXES):
        return 0 if raw.startswith(DELTA_PREFIXES) else -1
    start = audio_offset(raw)
    end = raw.find(b'"', start) if start > 0 else -1
    n_chars = end - start
    if end < 0 or n_chars < 4 or raw.find(b"\\", start, end) > 0:  # an escape must be decoded first
        return -1
    return n_chars // 4 * 3 - (raw[end - 1] == _PAD) - (raw[end - 2] == _PAD)


def _parse_every_delta(raw: bytes) -> int:
    """Return -1: replaces `delta_audio_bytes` for an upstream dialect, whose deltas must all be parsed."""
    return -1


def _to_delta_or_event(raw: bytes, body: Mapping[str, Any]) -> RawDelta | RealtimeServerEvent:
    delta, event_type = body.get("delta"), body.get("type")
    if not isinstance(delta, str) or not isinstance(event_type, str) or event_type not in PASSTHROUGH_EVENTS:
        return RealtimeServerEvent(raw, body)
    is_audio, n_bytes = event_type == AUDIO_DELTA_TYPE, delta_audio_bytes(raw)
    if n_bytes >= 0:
        return RawDelta(raw, n_bytes, audio_offset(raw) if is_audio else -1)
    return RawDelta(raw, decoded_length(delta.encode()) if is_audio else 0, -1)


def counted_audio_bytes(raw: bytes) -> int:
    """Return the bytes of audio that count for an upstream delta of any shape; 0 for all other events."""
    n_bytes = delta_audio_bytes(raw)
    if n_bytes >= 0:
        return n_bytes
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return 0
    delta = _to_delta_or_event(raw, body) if isinstance(body, dict) else None
    return delta.n_bytes if type(delta) is RawDelta else 0


def _rewrite_delta(raw: bytes, rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> BytesLike:
    """Apply `rewrite` to a delta; audio that is its last member is not parsed.

    A message that is not JSON, or that orjson cannot serialize again, is returned unchanged.
    """
    start = audio_offset(raw) if delta_audio_bytes(raw) > 0 and raw.endswith(b'"}') else -1
    is_audio_split = start > 0 and raw.find(b'"', start) == len(raw) - 2
    envelope = raw[:start] + b'"}' if is_audio_split else raw
    if has_too_many_members(envelope, MAX_UPSTREAM_MEMBERS):
        return raw
    try:
        body = orjson.loads(envelope)
    except orjson.JSONDecodeError:
        return raw
    rewritten = rewrite(body)
    if rewritten is body or not can_reencode(envelope, body):
        return raw
    encoded_event = orjson.dumps(rewritten)
    if not is_audio_split:
        return encoded_event
    # A duplicate "delta" key is serialized at its first position.
    return encoded_event[:-2] + raw[start:] if encoded_event.endswith(_EMPTY_DELTA) else raw


class ProxyCodec:
    """One session's codec for its client and its upstream."""

    def __init__(
        self,
        client: RealtimeDialect | None = None,
        upstream: RealtimeDialect | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`secrets` are redacted in all upstream events but deltas."""
        self._client_dialect = client
        self._upstream_dialect = upstream
        self._secrets = secrets
        self.delta_audio_bytes = delta_audio_bytes if upstream is None else _parse_every_delta
        self.forwards_deltas = client is None
        """Whether the client gets upstream deltas unchanged."""

    # -- client events ------------------------------------------------------------------------------------------------

    def decode_client(self, raw: bytes) -> RealtimeClientEvent | InvalidClientMessage:
        """Decode a client's text message that is not a plain append."""
        n_members = count_members(raw, MAX_CLIENT_MEMBERS)
        if n_members is None:
            problem = (
                f"An event must have at most {MAX_CLIENT_MEMBERS} members and list elements, and at most {MAX_ESCAPES} "
                "escapes in its strings; this one was rejected."
            )
            return InvalidClientMessage(problem, "too_many_members")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return InvalidClientMessage(f"The message is not valid JSON: {error.msg[:120]}.", "invalid_json")
        if not isinstance(body, dict):
            return InvalidClientMessage("An event must be a JSON object with a 'type'.", "invalid_type")
        event_type, event_id = body.get("type"), body.get("event_id")
        known_id = event_id[:MAX_EVENT_ID_CHARS] if isinstance(event_id, str) else None
        if not isinstance(event_type, str) or not event_type or len(event_type) > MAX_TYPE_CHARS:
            problem = "Missing required parameter: 'type'."
            return InvalidClientMessage(problem, "missing_required_parameter", "type", known_id)
        if not can_reencode(raw, body):
            return InvalidClientMessage("The message is nested too deeply.", "invalid_json", None, known_id)
        if self._client_dialect is not None:
            [body] = self._client_dialect.to_upstream(body)
        return RealtimeClientEvent(body, n_members)

    def reject_binary(self) -> InvalidClientMessage:
        """Return the error for a binary message, which the protocol does not have."""
        problem = "Binary messages are not part of the protocol; send audio as base64."
        return InvalidClientMessage(problem, "invalid_type")

    # -- upstream events ----------------------------------------------------------------------------------------------

    def decode_upstream(self, raw: bytes) -> Sequence[RawDelta | RealtimeServerEvent | MalformedUpstreamMessage]:
        """Decode an upstream text message that `delta_audio_bytes` did not recognize."""
        if has_too_many_members(raw, MAX_UPSTREAM_MEMBERS):
            return (MalformedUpstreamMessage("too many members"),)
        try:
            body = orjson.loads(raw)
            if isinstance(body, dict):
                raw, body = redact_event(raw, body, self._secrets)
        except orjson.JSONDecodeError:
            return (MalformedUpstreamMessage("not JSON"),)
        if not isinstance(body, dict):
            return (MalformedUpstreamMessage("not an object"),)
        if not can_reencode(raw, body):
            return (MalformedUpstreamMessage("nested too deeply"),)
        if self._upstream_dialect is None:
            return (_to_delta_or_event(raw, body),)
        return [_to_delta_or_event(orjson.dumps(event), event) for event in self._upstream_dialect.to_client(body)]

    def decode_delta(self, raw: bytes) -> RealtimeServerEvent:
        """Decode a delta as an event, for a session that is not ready or has ended."""
        return RealtimeServerEvent(raw, orjson.loads(raw))

    # -- encoding -----------------------------------------------------------------------------------------------------

    def encode_for_client(self, body: Mapping[str, Any]) -> list[bytes]:
        """Encode an event as messages to the client."""
        events = [body] if self._client_dialect is None else self._client_dialect.to_client(body)
        return [orjson.dumps(event) for event in events]

    def encode_delta(
        self, raw: bytes, rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    ) -> list[BytesLike]:
        """Encode a delta as messages to the client; `rewrite` changes the members around its text."""
        return self.forward(raw if rewrite is None else _rewrite_delta(raw, rewrite))

    def forward(self, raw: BytesLike) -> list[BytesLike]:
        """Return the messages that forward an unchanged upstream event to the client."""
        if self._client_dialect is None:
            return [raw]
        match = _TYPE_PATTERN.match(raw)
        if match is not None:
            new_type = self._client_dialect.renamed_server_events.get(match[1].decode("ascii", "replace"))
            if new_type is not None:
                message = bytes(raw)
                return [message[: match.start(1)] + new_type.encode() + message[match.end(1) :]]
            if match[1] in _PASSTHROUGH_TYPES:
                return [raw]  # the same type in both dialects, and never parsed: anything may follow it
        return [*self.encode_for_client(orjson.loads(raw))]

    def encode_for_upstream(self, body: Mapping[str, Any]) -> list[bytes]:
        """Encode an event as messages to the upstream."""
        events = [body] if self._upstream_dialect is None else self._upstream_dialect.to_upstream(body)
        return [orjson.dumps(event) for event in events]
