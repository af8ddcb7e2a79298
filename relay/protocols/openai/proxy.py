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

from audio.framing import Chunk
from relay.protocols.client_protocol import Dialect
from relay.protocols.json_limits import (
    MAX_CLIENT_MEMBERS,
    MAX_ESCAPES,
    MAX_UPSTREAM_MEMBERS,
    count_members,
    has_too_many_members,
    is_writable,
    redact_event,
)
from relay.protocols.openai.audio_events import decoded_length
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.limits import MAX_EVENT_ID_CHARS, RELAY_EVENT_ID_PREFIX
from relay.session.common.media_types import PASSTHROUGH_EVENTS, RawDelta
from relay.session.device.events import MalformedUpstreamMessage
from relay.session.realtime.events import ClientBabbled, ClientSaid, UpstreamSaid

MAX_KIND_CHARS = 200
_SPACE = rb"[ \t\r\n]*"  # JSON's own; \s would let others pass


def _pattern(text: str) -> bytes:
    """A regular expression in which each blank stands for any white space of JSON."""
    return text.encode().replace(b" ", _SPACE)


_ID = f'"event_id" : "(?!{RELAY_EVENT_ID_PREFIX})[A-Za-z0-9_.:-]{{0,{MAX_EVENT_ID_CHARS}}}" , '
_APPEND = r'"type" : "input_audio_buffer\.append" , '
_APPEND_HEAD = re.compile(_pattern(rf'{{ (?:{_ID}{_APPEND}|{_APPEND}(?:{_ID})?)"audio" : "'))
_TAIL = re.compile(_pattern('" } '))
_KIND = re.compile(_pattern(r'{ (?:"event_id" : "[^"\\]*" , )?"type" : "([^"\\]*)"'))
_UNTOUCHED = frozenset(kind.encode() for kind in PASSTHROUGH_EVENTS)
USUAL_DELTAS = tuple(b'{"type":' + space + b'"' + kind + b'"' for kind in _UNTOUCHED for space in (b"", b" "))
"""How nearly all events begin that nobody looks into: found several times as fast as by the pattern, which stays the
measure."""
_USUAL_APPENDS = (
    (b'{"type":"input_audio_buffer.append","audio":"', b'"}'),
    (b'{"type": "input_audio_buffer.append", "audio": "', b'"}'),
    (b'{"audio":"', b'","type":"input_audio_buffer.append"}'),
)
"""How nearly all appended audio is written: by JavaScript, by Python's `json`, and by pydantic from the API's types."""
AUDIO_DELTA = "response.output_audio.delta"
_USUAL_AUDIO = tuple(head for head in USUAL_DELTAS if AUDIO_DELTA.encode() in head)
_AUDIO_KEY, _SPACED_AUDIO_KEY = b',"delta":"', b', "delta": "'  # with the comma: else it may be the end of another key
_EMPTY_DELTA = b',"delta":""}'
_BLANK_AT = len(b'{"type":')
_DELTA_HEAD_BYTES = 512
_PAD = ord("=")
_TAIL_BYTES = 64
_decode = pybase64.b64decode


def canonical_append(raw: bytes) -> int:
    """How many bytes of audio are in a frame that is an `input_audio_buffer.append` and nothing else; -1 if it is not.

    Its type, perhaps an event id, and the audio in base64: what is found here can go on unread.
    """
    audio = None
    for head, tail in _USUAL_APPENDS:
        if raw.startswith(head) and raw.endswith(tail):
            audio = raw[len(head) : -len(tail)]
            break
    try:
        # Nothing but base64 may stand there: a quote would begin another field.
        return len(_decode(audio or _audio_of(raw), None, True))
    except ValueError:
        return -1


def _audio_of(raw: bytes) -> bytes:
    """What stands in the place of the audio. Raises ValueError if there is no such place."""
    head = _APPEND_HEAD.match(raw)
    if head is not None:
        end = raw.rfind(b'"', max(head.end(), len(raw) - _TAIL_BYTES))
        if end >= 0 and _TAIL.fullmatch(raw, end) is not None:
            return raw[head.end() : end]
    raise ValueError("no append")


def audio_at(raw: bytes) -> int:
    """Where the base64 text begins in an audio delta of the usual shape; -1 if it is none."""
    key = _SPACED_AUDIO_KEY if raw.startswith(b" ", _BLANK_AT) else _AUDIO_KEY
    key_at = raw.find(key, 0, _DELTA_HEAD_BYTES)
    starts_at = key_at + len(key)
    # After another brace it may be the delta of another object.
    return starts_at if key_at > 0 and raw.find(b"{", 1, starts_at) < 0 else -1


def delta_bytes(raw: bytes) -> int:
    """How much audio is in an event of the upstream's that is a delta of the usual shape, 0 in one of text; else -1."""
    if not raw.startswith(_USUAL_AUDIO):
        return 0 if raw.startswith(USUAL_DELTAS) else -1
    starts_at = audio_at(raw)
    ends_at = raw.find(b'"', starts_at) if starts_at > 0 else -1
    n_chars = ends_at - starts_at
    if ends_at < 0 or n_chars < 4 or raw.find(b"\\", starts_at, ends_at) > 0:  # an escape is no base64 yet
        return -1
    return n_chars // 4 * 3 - (raw[ends_at - 1] == _PAD) - (raw[ends_at - 2] == _PAD)


def _no_delta(raw: bytes) -> int:
    """What another dialect calls a delta has to be read."""
    return -1


def _delta_or_event(raw: bytes, body: Mapping[str, Any]) -> RawDelta | UpstreamSaid:
    delta, kind = body.get("delta"), body.get("type")
    if not isinstance(delta, str) or not isinstance(kind, str) or kind not in PASSTHROUGH_EVENTS:
        return UpstreamSaid(raw, body)
    is_audio, n_bytes = kind == AUDIO_DELTA, delta_bytes(raw)
    if n_bytes >= 0:
        return RawDelta(raw, n_bytes, audio_at(raw) if is_audio else -1)
    return RawDelta(raw, decoded_length(delta.encode()) if is_audio else 0, -1)


def counted_bytes(raw: bytes) -> int:
    """How much audio is counted for a delta of the upstream's of any shape; 0 in all other events."""
    n_bytes = delta_bytes(raw)
    if n_bytes >= 0:
        return n_bytes
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return 0
    delta = _delta_or_event(raw, body) if isinstance(body, dict) else None
    return delta.n_bytes if type(delta) is RawDelta else 0


def _rewritten(raw: bytes, view: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Chunk:
    """A delta as `view` shows it; audio that is its last member is not parsed.

    What is no JSON stays as it is, and so does what could not be written anew.
    """
    starts_at = audio_at(raw) if delta_bytes(raw) > 0 and raw.endswith(b'"}') else -1
    is_apart = starts_at > 0 and raw.find(b'"', starts_at) == len(raw) - 2
    around = raw[:starts_at] + b'"}' if is_apart else raw
    if has_too_many_members(around, MAX_UPSTREAM_MEMBERS):
        return raw
    try:
        body = orjson.loads(around)
    except orjson.JSONDecodeError:
        return raw
    shown = view(body)
    if shown is body or not is_writable(around, body):
        return raw
    written = orjson.dumps(shown)
    if not is_apart:
        return written
    # A delta that is named twice is written where it was first named.
    return written[:-2] + raw[starts_at:] if written.endswith(_EMPTY_DELTA) else raw


class FrontCodec:
    """One session's codec for both of its ends."""

    def __init__(
        self, client: Dialect | None = None, upstream: Dialect | None = None, secrets: KnownSecrets = NO_SECRETS
    ) -> None:
        """`secrets` are taken out of all events of the upstream's but deltas."""
        self._client = client
        self._upstream = upstream
        self._secrets = secrets
        self.delta_bytes = delta_bytes if upstream is None else _no_delta
        self.passes_deltas = client is None
        """Whether deltas of the upstream's are the client's as they are."""

    # -- from the client ----------------------------------------------------------------------------------------------

    def decode_client(self, raw: bytes) -> ClientSaid | ClientBabbled:
        """One text message of the client's, which is no canonical append, as an event."""
        n_members = count_members(raw, MAX_CLIENT_MEMBERS)
        if n_members is None:
            text = (
                f"An event may have at most {MAX_CLIENT_MEMBERS} members and list elements, and {MAX_ESCAPES} escapes "
                "in its texts; this one was not taken."
            )
            return ClientBabbled(text, "too_many_members")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return ClientBabbled(f"The message is not valid JSON: {error.msg[:120]}.", "invalid_json")
        if not isinstance(body, dict):
            return ClientBabbled("An event is a JSON object with a 'type'.", "invalid_type")
        kind, event_id = body.get("type"), body.get("event_id")
        known_id = event_id[:MAX_EVENT_ID_CHARS] if isinstance(event_id, str) else None
        if not isinstance(kind, str) or not kind or len(kind) > MAX_KIND_CHARS:
            text = "Missing required parameter: 'type'."
            return ClientBabbled(text, "missing_required_parameter", "type", known_id)
        if not is_writable(raw, body):
            return ClientBabbled("The message is nested too deeply.", "invalid_json", None, known_id)
        if self._client is not None:
            [body] = self._client.up(body)
        return ClientSaid(body, n_members)

    def binary(self) -> ClientBabbled:
        """A binary message: the protocol has none."""
        return ClientBabbled("Binary messages are not part of the protocol; send audio in base64.", "invalid_type")

    # -- from the upstream --------------------------------------------------------------------------------------------

    def decode_upstream(self, raw: bytes) -> Sequence[RawDelta | UpstreamSaid | MalformedUpstreamMessage]:
        """One text message of the upstream's that `delta_bytes` does not know, as events, or as an unusual delta."""
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
        if not is_writable(raw, body):
            return (MalformedUpstreamMessage("nested too deeply"),)
        if self._upstream is None:
            return (_delta_or_event(raw, body),)
        return [_delta_or_event(orjson.dumps(event), event) for event in self._upstream.down(body)]

    def delta_event(self, raw: bytes) -> UpstreamSaid:
        """A delta that was decoded before, as an event: for a session that is not ready, or has ended."""
        return UpstreamSaid(raw, orjson.loads(raw))

    # -- to both ------------------------------------------------------------------------------------------------------

    def to_client(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the client gets for it."""
        events = [body] if self._client is None else self._client.down(body)
        return [orjson.dumps(event) for event in events]

    def delta_to_client(self, raw: bytes, view: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None) -> list[Chunk]:
        """A delta as the messages that the client gets for it; `view` rewrites what is around it."""
        return self.pass_down(raw if view is None else _rewritten(raw, view))

    def pass_down(self, raw: Chunk) -> list[Chunk]:
        """An event of the upstream's that nothing was changed in, as the messages that the client gets for it."""
        if self._client is None:
            return [raw]
        kind = _KIND.match(raw)
        name = self._client.renamed_down.get(kind[1].decode("ascii", "replace")) if kind is not None else None
        if kind is not None and name is not None:
            whole = bytes(raw)
            return [whole[: kind.start(1)] + name.encode() + whole[kind.end(1) :]]
        if kind is not None and kind[1] in _UNTOUCHED:
            return [raw]  # by this name in both dialects, and never read: it may be anything behind its type
        return [*self.to_client(orjson.loads(raw))]

    def to_upstream(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the upstream gets for it."""
        events = [body] if self._upstream is None else self._upstream.up(body)
        return [orjson.dumps(event) for event in events]
