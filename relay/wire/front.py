"""The Realtime protocol between two ends that both speak it: frames to events, as little of them parsed as can be.

What no rule looks into is found by the beginning of its frame and goes on byte for byte. A client's audio does so only
if the whole frame has the one shape that leaves no room for anything else; all other frames of a client are parsed, and
written anew from what was understood. A dialect (`relay.wire.beta`) may stand before either end.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
import pybase64

from relay.core.events import Forwarded, MalformedUpstream
from relay.core.realtime_events import ClientBabbled, ClientSaid, UpstreamSaid
from relay.core.realtime_session import MAX_EVENT_ID_CHARS, OWN_IDS, UNTOUCHED
from relay.wire.beta import BETA_NAMES

MAX_KIND_CHARS = 200
_ID = rf'"event_id"\s*:\s*"(?!{OWN_IDS})[\w.:\-]{{0,{MAX_EVENT_ID_CHARS}}}"\s*,\s*'.encode()
_APPEND = rb'"type"\s*:\s*"input_audio_buffer\.append"\s*,\s*'
_APPEND_HEAD = re.compile(rb"\{\s*(?:" + _ID + _APPEND + rb"|" + _APPEND + rb"(?:" + _ID + rb')?)"audio"\s*:\s*"', re.A)
_TAIL = re.compile(rb'"\s*\}\s*')
_KIND = re.compile(rb'\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([^"\\]*)"')
_UNTOUCHED = frozenset(kind.encode() for kind in UNTOUCHED)
_TAIL_BYTES = 64
_NO_BODY: Mapping[str, Any] = {}


class Dialect(Protocol):
    """Another way of speaking the protocol, on one side of the relay."""

    def up(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """An event on its way up."""

    def down(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """An event on its way down."""


def canonical_append(raw: bytes) -> int:
    """How many bytes of audio are in a frame that is an `input_audio_buffer.append` and nothing else; -1 if it is not.

    Type first, perhaps an event id, then the audio in base64 and the end: what is found here can go on unread.
    """
    head = _APPEND_HEAD.match(raw)
    if head is None:
        return -1
    end = raw.rfind(b'"', max(head.end(), len(raw) - _TAIL_BYTES))
    if end < 0 or _TAIL.fullmatch(raw, end) is None:
        return -1
    try:
        return len(pybase64.b64decode(memoryview(raw)[head.end() : end], validate=True))
    except ValueError:
        return -1


def is_untouched(frame: memoryview) -> bool:
    """Whether an event of the upstream's is of a type that no rule looks into."""
    kind = _KIND.match(frame)
    return kind is not None and kind[1] in _UNTOUCHED


class FrontCodec:
    """One session's codec for both of its ends."""

    def __init__(self, client: Dialect | None = None, upstream: Dialect | None = None) -> None:
        self._client = client
        self._upstream = upstream
        self.passes_down = client is None and upstream is None
        """Whether untouched frames of the upstream's can go to the client as they are."""

    # -- from the client ----------------------------------------------------------------------------------------------

    def decode_client(self, frame: memoryview) -> Forwarded | ClientSaid | ClientBabbled:
        """One text message of the client's as an event."""
        raw = bytes(frame)
        n_bytes = canonical_append(raw)
        if n_bytes >= 0:
            return Forwarded("input_audio", "", n_bytes, raw)
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
        if not _is_writable(body):
            return ClientBabbled("The message is nested too deeply.", "invalid_json", None, known_id)
        if self._client is not None:
            [body] = self._client.up(body)
        return ClientSaid(body)

    def binary(self) -> ClientBabbled:
        """A binary message: the protocol has none."""
        return ClientBabbled("Binary messages are not part of the protocol; send audio in base64.", "invalid_type")

    # -- from the upstream --------------------------------------------------------------------------------------------

    def decode_upstream(self, frame: memoryview, *, read_all: bool) -> list[UpstreamSaid | MalformedUpstream]:
        """One text message of the upstream's as events; `read_all` parses also what no rule usually looks into."""
        raw = bytes(frame)
        if not read_all and self._upstream is None and is_untouched(frame):
            return [UpstreamSaid(raw, _NO_BODY)]
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return [MalformedUpstream("not JSON")]
        if not isinstance(body, dict):
            return [MalformedUpstream("not an object")]
        if self._upstream is None:
            return [UpstreamSaid(raw, body)]
        return [UpstreamSaid(orjson.dumps(event), event) for event in self._upstream.down(body)]

    # -- to both ------------------------------------------------------------------------------------------------------

    def to_client(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the client gets for it."""
        events = [body] if self._client is None else self._client.down(body)
        return [orjson.dumps(event) for event in events]

    def pass_down(self, raw: bytes | bytearray | memoryview) -> list[bytes | bytearray | memoryview]:
        """An event of the upstream's that nothing was changed in, as the messages that the client gets for it."""
        if self._client is None:
            return [raw]
        kind = _KIND.match(raw)
        name = BETA_NAMES.get(kind[1].decode("ascii", "replace")) if kind is not None else None
        if kind is not None and name is not None:
            whole = bytes(raw)
            return [whole[: kind.start(1)] + name.encode() + whole[kind.end(1) :]]
        return [*self.to_client(orjson.loads(raw))]

    def to_upstream(self, body: Mapping[str, Any]) -> list[bytes]:
        """An event as the messages that the upstream gets for it."""
        events = [body] if self._upstream is None else self._upstream.up(body)
        return [orjson.dumps(event) for event in events]


def _is_writable(body: Mapping[str, Any]) -> bool:
    """Whether what was read can be written: the limit on nesting is lower there."""
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError:
        return False
    return True
