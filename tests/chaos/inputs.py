"""Hostile inputs of clients and upstreams, as bytes: one row for each kind, for short and long tests."""

import base64
import functools
import itertools
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import orjson

from tests.support.raw_websocket import binary, continuation, masked, ping, text

HONEST_KEY, HOSTILE_KEY = "honest-" + "1" * 20, "hostile-" + "2" * 20
"""Two keys, so that the limits of one identity do not affect the honest sessions."""
READ_BYTES = 256 * 1024
"""What the event loop reads from a socket at once: the length of a burst of small frames."""
MESSAGE_BYTES = 16 * 1024 * 1024
"""The longest message at `/v1/realtime`."""
LARGE_BYTES = 2_000_000
COMPRESSED_BYTES = 180_000
SECRETS_PATH = "/v1/realtime/client_secrets"
TOOLS_PATH = "/navai/functions/execute"


class WayIn(Enum):
    """The way in which the bytes reach the relay."""

    DEVICE = "device"
    REALTIME = "Realtime"
    HTTP = "HTTP"
    UPSTREAM = "upstream"
    """From the upstream to the relay, in the session of one Realtime client."""
    UPSTREAM_VOICE = "upstream, external voice"
    """The same, in the session of a device client with an external voice."""


@dataclass(frozen=True)
class HostileInput:
    """One kind of input. `payload` returns WebSocket frames, a whole HTTP request, or upstream frames."""

    way_in: WayIn
    label: str
    payload: Callable[[], bytes]
    repeats: bytes = b""
    """Repeated after `payload` on the same connection, for an endless input."""
    once: bool = False
    """Whether each input needs a new connection."""
    connections: int = 1
    """Concurrent connections of one hostile client."""
    pause_s: float = 0.0
    """The pause between two connections."""

    @property
    def name(self) -> str:
        """The name of the row in reports."""
        return f"{self.way_in.value}: {self.label}"


def _burst(frame: bytes) -> bytes:
    return frame * max(1, READ_BYTES // len(frame))


def _event(kind: str, **fields: object) -> bytes:
    return orjson.dumps({"type": kind, **fields})


def _from_client(event: bytes) -> bytes:
    return masked(text(event))


def _from_upstream(event: bytes) -> bytes:
    return text(event).serialize(mask=False)


def _members(n_members: int) -> bytes:
    """An object with that many members, 11 bytes each: `"00002a":1,`."""
    rows = np.tile(np.frombuffer(b'"......":1,', np.uint8), (n_members, 1))
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    numbers = np.arange(n_members)
    for place in range(6):
        rows[:, 6 - place] = digits[numbers >> 4 * place & 15]
    return b"{" + rows.tobytes()[:-1] + b"}"


def _base64(n_bytes: int) -> str:
    return base64.b64encode(bytes(n_bytes)).decode()


def _request(path: str, body: bytes, method: str = "POST", **headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {HOSTILE_KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


# -- devices ----------------------------------------------------------------------------------------------------------


def _device(name: str, frame: Callable[[], bytes]) -> HostileInput:
    return HostileInput(WayIn.DEVICE, name, lambda: _burst(frame()))


def _fragments() -> bytes:
    return masked(binary(b"x", fin=False)) + masked(continuation(b"y", fin=False)) * 4000 + masked(continuation(b"z"))


_DEVICES = (
    _device("audio", lambda: masked(binary(bytes(60_000)))),
    _device("frames of one byte", lambda: masked(binary(b"x"))),
    _device("text messages", lambda: masked(text('{"type":"clear"}'))),
    _device("pings", lambda: masked(ping(bytes(8)))),
    _device("fragments of one byte", _fragments),
)

# -- Realtime clients -------------------------------------------------------------------------------------------------


def _realtime(name: str, event: Callable[[], bytes]) -> HostileInput:
    """Return an input of a single, large event."""
    return HostileInput(WayIn.REALTIME, name, lambda: _from_client(event()))


def _realtime_burst(name: str, frame: Callable[[], bytes]) -> HostileInput:
    return HostileInput(WayIn.REALTIME, name, lambda: _burst(frame()))


def _many_objects() -> bytes:
    return b'{"type":"response.create","response":{"input":[' + b",".join([b"{}"] * 190_000) + b"]}}"


def _many_members() -> bytes:
    return b'{"type":"conversation.item.create","item":' + _members(1_400_000) + b"}"


def _unfinished() -> bytes:
    """A message of 16 MiB without its last byte."""
    return masked(binary(bytes(MESSAGE_BYTES)))[:-1]


_REALTIME_CLIENTS = (
    _realtime_burst("small events", lambda: _from_client(_event("input_audio_buffer.clear"))),
    _realtime("response.create with 190,000 empty objects", _many_objects),
    _realtime("16 MB with 1.4 million members", _many_members),
    _realtime("appends of 2 MB", lambda: _event("input_audio_buffer.append", audio=_base64(LARGE_BYTES * 3 // 4))),
    HostileInput(WayIn.REALTIME, "unfinished messages of 16 MiB", _unfinished, once=True),
    _realtime_burst("small appends", lambda: _from_client(_event("input_audio_buffer.append", audio="AQAB"))),
    _realtime_burst("invalid JSON", lambda: masked(text("{"))),
    _realtime_burst("pings", lambda: masked(ping(bytes(8)))),
)

# -- HTTP -------------------------------------------------------------------------------------------------------------


def _compressed() -> bytes:
    """A body of 180 KB that inflates to 180 MB: the same compressed block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    plain = bytes(10_000_000)
    first = packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH)
    body = (first + block * (COMPRESSED_BYTES // len(block)))[:COMPRESSED_BYTES]
    return _request("/healthz", body, "GET", Content_Encoding="gzip")


def _endless_head() -> bytes:
    head = _request(SECRETS_PATH, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + _CHUNKS


def _nested() -> bytes:
    session = b'{"a":' * 300 + b"1" + b"}" * 300
    return _request(SECRETS_PATH, b'{"session":' + session + b"}")


def _named_arguments() -> bytes:
    names = itertools.islice(itertools.product(string.ascii_lowercase, repeat=3), 12_000)
    payload = dict.fromkeys(map("".join, names), 1)
    return _request(TOOLS_PATH, orjson.dumps({"function_name": "roll_dice", "payload": payload}))


def _listed_arguments() -> bytes:
    payload = {"args": [1] * 20_000}
    return _request(TOOLS_PATH, orjson.dumps({"function_name": "roll_dice", "payload": payload}))


def _mint() -> bytes:
    session = {"type": "realtime", "instructions": "x" * 60_000}
    return _request(SECRETS_PATH, orjson.dumps({"session": session}))


_CHUNKS = b"1\r\nx\r\n" * (READ_BYTES // 6)
_http = functools.partial(HostileInput, WayIn.HTTP, once=True)

COMPRESSED_BODY = _http("compressed bodies", _compressed, connections=2, pause_s=0.5)
_REQUESTS = (
    COMPRESSED_BODY,
    _http("malformed requests", lambda: b"GET / HTTP/9.x\r\nx\r\n\r\n"),
    _http("endless bodies", _endless_head, repeats=_CHUNKS),
    _http("client secrets", _mint),
    _http("connections without a request", lambda: b""),
    _http("client secrets, nested deeply", _nested),
    _http("12,000 unknown arguments to a tool", _named_arguments),
    _http("20,000 arguments to a tool in a list", _listed_arguments),
)

# -- upstreams --------------------------------------------------------------------------------------------------------


def _upstream(name: str, event: Callable[[], bytes]) -> HostileInput:
    return HostileInput(WayIn.UPSTREAM, name, lambda: _from_upstream(event()))


def _many_members_down() -> bytes:
    return b'{"type":"session.updated","event_id":"event_1","session":' + _members(1_000_000) + b"}"


def _small_event_down() -> bytes:
    return _from_upstream(_event("rate_limits.updated", event_id="event_1", rate_limits=[]))


def _punctuation() -> bytes:
    """A response whose text of 2 MB has hardly anything but ends of sentences."""
    part = {"response_id": "resp_h", "item_id": "item_h", "output_index": 0, "content_index": 0}
    item = {"id": "item_h", "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
    delta = "Hm" + ".!" * (LARGE_BYTES // 2)
    return b"".join(
        map(
            _from_upstream,
            (
                _event("response.created", event_id="event_1", response={"id": "resp_h", "output": []}),
                _event("conversation.item.added", event_id="event_2", previous_item_id=None, item=item),
                _event("response.output_text.delta", event_id="event_3", **part, delta=delta),
            ),
        )
    )


_UPSTREAMS = (
    _upstream("events with a million members", _many_members_down),
    HostileInput(WayIn.UPSTREAM, "small events", lambda: _burst(_small_event_down())),
    HostileInput(WayIn.UPSTREAM_VOICE, "2 MB of dots and exclamation marks", _punctuation),
)

HOSTILE_INPUTS = (*_DEVICES, *_REALTIME_CLIENTS, *_REQUESTS, *_UPSTREAMS)

# -- large but legitimate events --------------------------------------------------------------------------------------


def _item(**content: object) -> bytes:
    item = {"type": "message", "role": "user", "content": [content]}
    return _event("conversation.item.create", item=item)


def _append_with_more() -> bytes:
    return _event("input_audio_buffer.append", more=1, audio=_base64(LARGE_BYTES * 3 // 4))


def _retrieved() -> bytes:
    content = {"type": "input_audio", "audio": _base64(60 * 48_000), "transcript": None}
    item = {"id": "item_1", "type": "message", "role": "user", "status": "completed", "content": [content]}
    return _event("conversation.item.retrieved", event_id="event_1", item=item)


def _done() -> bytes:
    content = {"type": "output_text", "text": "word " * (LARGE_BYTES // 5)}
    item = {"id": "item_2", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
    response = {"id": "resp_1", "object": "realtime.response", "status": "completed", "output": [item]}
    return _event("response.done", event_id="event_1", response=response)


def _updated() -> bytes:
    session = {"type": "realtime", "instructions": "word " * (LARGE_BYTES // 5)}
    return _event("session.updated", event_id="event_1", session=session)


def _image() -> bytes:
    url = f"data:image/png;base64,{_base64(LARGE_BYTES * 3 // 4)}"
    return _item(type="input_image", image_url=url)


LARGE_EVENTS = (
    _realtime("item with 2 MB of text", lambda: _item(type="input_text", text="word " * (LARGE_BYTES // 5))),
    _realtime("item with 2 MB of audio", lambda: _item(type="input_audio", audio=_base64(LARGE_BYTES * 3 // 4))),
    _realtime("item with an image of 2 MB", _image),
    _realtime("append of 2 MB with another member", _append_with_more),
    _realtime("append of 2 MB", lambda: _event("input_audio_buffer.append", audio=_base64(LARGE_BYTES * 3 // 4))),
    _upstream("retrieved item with 60 s of audio", _retrieved),
    _upstream("session.updated of 2 MB", _updated),
    _upstream("response.done with 2 MB of text", _done),
)
"""Events that an honest application may send or receive; a recording contains them completely."""
