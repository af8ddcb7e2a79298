"""The Realtime protocol between two ends that both speak it: frames to events, as little of them parsed as can be.

What no rule looks into is found by the beginning of its frame and goes on byte for byte. A client's audio does so only
if the whole frame has the one shape that leaves no room for anything else; all other frames of a client are parsed, and
written anew from what was understood. A dialect (`relay.protocols.openai.beta`) may stand before either end.
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
_SPACE = rb"[ \t\r\n]*"  # JSON's own; \s would let others pass


def _pattern(text: str) -> bytes:
    """A regular expression in which each blank stands for any white space of JSON."""
    return text.encode().replace(b" ", _SPACE)


_ID = f'"event_id" : "(?!{RELAY_EVENT_ID_PREFIX})[A-Za-z0-9_.:-]{{0,{MAX_EVENT_ID_CHARS}}}" , '
_APPEND = r'"type" : "input_audio_buffer\.append" , '
_APPEND_HEAD = re.compile(_pattern(rf'{{ (?:{_ID}{_APPEND}|{_APPEND}(?:{_ID})?)"audio" : "'))
_TAIL = re.compile(_pattern('" } '))
_TYPE_PATTERN = re.compile(_pattern(r'{ (?:"event_id" : "[^"\\]*" , )?"type" : "([^"\\]*)"'))
_PASSTHROUGH_TYPES = frozenset(kind.encode() for kind in PASSTHROUGH_EVENTS)
DELTA_PREFIXES = tuple(b'{"type":' + space + b'"' + kind + b'"' for kind in _PASSTHROUGH_TYPES for space in (b"", b" "))
"""How nearly all events begin that nobody looks into: found several times as fast as by the pattern, which stays the
measure."""
_APPEND_SHAPES = (
    (b'{"type":"input_audio_buffer.append","audio":"', b'"}'),
    (b'{"type": "input_audio_buffer.append", "audio": "', b'"}'),
    (b'{"audio":"', b'","type":"input_audio_buffer.append"}'),
)
"""How nearly all appended audio is written: by JavaScript, by Python's `json`, and by pydantic from the API's types."""
AUDIO_DELTA_TYPE = "response.output_audio.delta"
_AUDIO_DELTA_PREFIXES = tuple(head for head in DELTA_PREFIXES if AUDIO_DELTA_TYPE.encode() in head)
_AUDIO_KEY, _SPACED_AUDIO_KEY = b',"delta":"', b', "delta": "'  # with the comma: else it may be the end of another key
_EMPTY_DELTA = b',"delta":""}'
_SPACE_OFFSET = len(b'{"type":')
_DELTA_HEAD_BYTES = 512
_PAD = ord("=")
_TAIL_BYTES = 64
_decode = pybase64.b64decode


def append_audio_bytes(raw: bytes) -> int:
    """How many bytes of audio are in a frame that is an `input_audio_buffer.append` and nothing else; -1 if it is not.

    Its type, perhaps an event id, and the audio in base64: what is found here can go on unread.
    """
    audio = None
    for head, tail in _APPEND_SHAPES:
        if raw.startswith(head) and raw.endswith(tail):
            audio = raw[len(head) : -len(tail)]
            break
    try:
        # Nothing but base64 may stand there: a quote would begin another field.
        return len(_decode(audio or _append_payload(raw), None, True))
    except ValueError:
        return -1


def _append_payload(raw: bytes) -> bytes:
    """What stands in the place of the audio. Raises ValueError if there is no such place."""
    head = _APPEND_HEAD.match(raw)
    if head is not None:
        end = raw.rfind(b'"', max(head.end(), len(raw) - _TAIL_BYTES))
        if end >= 0 and _TAIL.fullmatch(raw, end) is not None:
            return raw[head.end() : end]
    raise ValueError("no append")


def audio_offset(raw: bytes) -> int:
    """Where the base64 text begins in an audio delta of the usual shape; -1 if it is none."""
    key = _SPACED_AUDIO_KEY if raw.startswith(b" ", _SPACE_OFFSET) else _AUDIO_KEY
    key_at = raw.find(key, 0, _DELTA_HEAD_BYTES)
    starts_at = key_at + len(key)
    # After another brace it may be the delta of another object.
    return starts_at if key_at > 0 and raw.find(b"{", 1, starts_at) < 0 else -1


def delta_audio_bytes(raw: bytes) -> int:
    """How much audio is in an event of the upstream's that is a delta of the usual shape, 0 in one of text; else -1."""
    if not raw.startswith(_AUDIO_DELTA_PREFIXES):
        return 0 if raw.startswith(DELTA_PREFIXES) else -1
    starts_at = audio_offset(raw)
    ends_at = raw.find(b'"', starts_at) if starts_at > 0 else -1
    n_chars = ends_at - starts_at
    if ends_at < 0 or n_chars < 4 or raw.find(b"\\", starts_at, ends_at) > 0:  # an escape is no base64 yet
        return -1
    return n_chars // 4 * 3 - (raw[ends_at - 1] == _PAD) - (raw[ends_at - 2] == _PAD)


def _never_a_delta(raw: bytes) -> int:
    """What another dialect calls a delta has to be read."""
    return -1


def _delta_or_event(raw: bytes, body: Mapping[str, Any]) -> RawDelta | RealtimeServerEvent:
    delta, kind = body.get("delta"), body.get("type")
    if not isinstance(delta, str) or not isinstance(kind, str) or kind not in PASSTHROUGH_EVENTS:
        return RealtimeServerEvent(raw, body)
    is_audio, n_bytes = kind == AUDIO_DELTA_TYPE, delta_audio_bytes(raw)
    if n_bytes >= 0:
        return RawDelta(raw, n_bytes, audio_offset(raw) if is_audio else -1)
    return RawDelta(raw, decoded_length(delta.encode()) if is_audio else 0, -1)


def counted_audio_bytes(raw: bytes) -> int:
    """How much audio is counted for a delta of the upstream's of any shape; 0 in all other events."""
    n_bytes = delta_audio_bytes(raw)
    if n_bytes >= 0:
        return n_bytes
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return 0
    delta = _delta_or_event(raw, body) if isinstance(body, dict) else None
    return delta.n_bytes if type(delta) is RawDelta else 0


def _rewrite_delta(raw: bytes, rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> BytesLike:
    """A delta as `rewrite` shows it; audio that is its last member is not parsed.

    What is no JSON stays as it is, and so does what could not be written anew.
    """
    starts_at = audio_offset(raw) if delta_audio_bytes(raw) > 0 and raw.endswith(b'"}') else -1
    is_apart = starts_at > 0 and raw.find(b'"', starts_at) == len(raw) - 2
    around = raw[:starts_at] + b'"}' if is_apart else raw
    if has_too_many_members(around, MAX_UPSTREAM_MEMBERS):
        return raw
    try:
        body = orjson.loads(around)
    except orjson.JSONDecodeError:
        return raw
    shown = rewrite(body)
    if shown is body or not can_reencode(around, body):
        return raw
    written = orjson.dumps(shown)
    if not is_apart:
        return written
    # A delta that is named twice is written where it was first named.
    return written[:-2] + raw[starts_at:] if written.endswith(_EMPTY_DELTA) else raw


class ProxyCodec:
    """One session's codec for both of its ends."""

    def __init__(
        self,
        client: RealtimeDialect | None = None,
        upstream: RealtimeDialect | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`secrets` are taken out of all events of the upstream's but deltas."""
        self._client_dialect = client
        self._upstream_dialect = upstream
        self._secrets = secrets
        self.delta_audio_bytes = delta_audio_bytes if upstream is None else _never_a_delta
        self.forwards_deltas = client is None
        """Whether deltas of the upstream's are the client's as they are."""

    # -- from the client ----------------------------------------------------------------------------------------------

    def decode_client(self, raw: bytes) -> RealtimeClientEvent | InvalidClientMessage:
        """One text message of the client's, which is no canonical append, as an event."""
        n_members = count_members(raw, MAX_CLIENT_MEMBERS)
        if n_members is None:
            text = (
                f"An event may have at most {MAX_CLIENT_MEMBERS} members and list elements, and {MAX_ESCAPES} escapes "
                "in its texts; this one was not taken."
            )
            return InvalidClientMessage(text, "too_many_members")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return InvalidClientMessage(f"The message is not valid JSON: {error.msg[:120]}.", "invalid_json")
        if not isinstance(body, dict):
            return InvalidClientMessage("An event is a JSON object with a 'type'.", "invalid_type")
        kind, event_id = body.get("type"), body.get("event_id")
        known_id = event_id[:MAX_EVENT_ID_CHARS] if isinstance(event_id, str) else None
        if not isinstance(kind, str) or not kind or len(kind) > MAX_TYPE_CHARS:
            text = "Missing required parameter: 'type'."
            return InvalidClientMessage(text, "missing_required_parameter", "type", known_id)
        if not can_reencode(raw, body):
            return InvalidClientMessage("The message is nested too deeply.", "invalid_json", None, known_id)
        if self._client_dialect is not None:
            [body] = self._client_dialect.to_upstream(body)
        return RealtimeClientEvent(body, n_members)

    def reject_binary(self) -> InvalidClientMessage:
        """A binary message: the protocol has none."""
        return InvalidClientMessage(
            "Binary messages are not part of the protocol; send audio in base64.", "invalid_type"
        )

    # -- from the upstream --------------------------------------------------------------------------------------------

    def decode_upstream(self, raw: bytes) -> Sequence[RawDelta | RealtimeServerEvent | MalformedUpstreamMessage]:
        """One text message of the upstream's that `delta_audio_bytes` does not know, as events, or as an unusual
        delta.
        """
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
            return (_delta_or_event(raw, body),)
        return [_delta_or_event(orjson.dumps(event), event) for event in self._upstream_dialect.to_client(body)]

    def decode_delta(self, raw: bytes) -> RealtimeServerEvent:
        """A delta that was decoded before, as an event: for a session that is not ready, or has ended."""
        return RealtimeServerEvent(raw, orjson.loads(raw))

    # -- to both ------------------------------------------------------------------------------------------------------

    def encode_for_client(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the client gets for it."""
        events = [body] if self._client_dialect is None else self._client_dialect.to_client(body)
        return [orjson.dumps(event) for event in events]

    def encode_delta(
        self, raw: bytes, rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    ) -> list[BytesLike]:
        """A delta as the messages that the client gets for it; `rewrite` rewrites what is around it."""
        return self.forward(raw if rewrite is None else _rewrite_delta(raw, rewrite))

    def forward(self, raw: BytesLike) -> list[BytesLike]:
        """An event of the upstream's that nothing was changed in, as the messages that the client gets for it."""
        if self._client_dialect is None:
            return [raw]
        kind = _TYPE_PATTERN.match(raw)
        name = (
            self._client_dialect.renamed_server_events.get(kind[1].decode("ascii", "replace"))
            if kind is not None
            else None
        )
        if kind is not None and name is not None:
            whole = bytes(raw)
            return [whole[: kind.start(1)] + name.encode() + whole[kind.end(1) :]]
        if kind is not None and kind[1] in _PASSTHROUGH_TYPES:
            return [raw]  # by this name in both dialects, and never read: it may be anything behind its type
        return [*self.encode_for_client(orjson.loads(raw))]

    def encode_for_upstream(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the upstream gets for it."""
        events = [body] if self._upstream_dialect is None else self._upstream_dialect.to_upstream(body)
        return [orjson.dumps(event) for event in events]
