"""A Realtime client's session in the journal: events of both ends as they came, their sound by reference.

| line | meaning |
|---|---|
| `{"now":T,"in":N}` | N bytes of the client's audio, the next ones of `client.pcm`, in an append of the usual shape |
| `{"now":T,"in":N,"head":…,"tail":…}` | the same in a frame that begins and ends so |
| `{"now":T,"in":N,"said":{…}}` | the same in an event that was read; `said` is the rest of it |
| `{"now":T,"up":{…}}` | any other event of the client's |
| `{"now":T,"out":N,"head":…,"tail":…}` | N bytes of the model's audio, the next of `upstream.pcm`, in such a frame |
| `{"now":T,"down":"…"}` | any other event of the model's, as it came |

`"read":true`: the rules looked into it. No `do` means here that it was passed on, and nothing else followed.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson
import pybase64

from relay.core.events import Forwarded
from relay.core.realtime_events import ClientSaid, Obj, UpstreamSaid
from relay.core.redact import clean, redact

APPEND: Final = "input_audio_buffer.append"
USUAL_HEAD: Final = '{"type":"input_audio_buffer.append","audio":"'
USUAL_TAIL: Final = '"}'
_OUT_KIND = b'response.output_audio.delta"'
_KIND_BYTES = 256
_DELTA = re.compile(rb'"delta"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/]*={0,2})"')


class Frame(NamedTuple):
    """What stands around the sound of a line: the text before and behind it, or the rest of an event that was read."""

    head: str = USUAL_HEAD
    tail: str = USUAL_TAIL
    is_read: bool = False
    said: Mapping[str, Any] | None = None


def members_of(event: Forwarded | ClientSaid | UpstreamSaid) -> tuple[Obj | None, bytes]:
    """The members of an event's line as it came, and its sound; None for one that only fits a line of its own."""
    if isinstance(event, ClientSaid):
        return _said_members(event.body)
    raw = bytes(event.raw)
    if isinstance(event, Forwarded):
        end = raw.rfind(b'"')
        cut = _cut(raw, raw.rfind(b'"', 0, end) + 1, end)
        if cut is None:
            return None, b""
        head, samples, tail = cut
        around = {} if (head, tail) == (USUAL_HEAD, USUAL_TAIL) else {"head": head, "tail": tail}
        return {"in": len(samples), **around}, samples
    read: Obj = {"read": True} if event.body else {}
    found = _DELTA.search(raw) if _OUT_KIND in raw[:_KIND_BYTES] else None
    cut = _cut(raw, found.start(1), found.end(1)) if found is not None else None
    if cut is not None:
        head, samples, tail = cut
        return {"out": len(samples), "head": head, "tail": tail, **read}, samples
    return {"down": raw.decode(errors="replace"), **read}, b""


def _said_members(body: Mapping[str, Any]) -> tuple[Obj, bytes]:
    audio = body.get("audio")
    if body.get("type") == APPEND and isinstance(audio, str):
        try:
            samples = pybase64.b64decode(audio, validate=True)
        except ValueError:
            samples = b""
        if samples and pybase64.b64encode_as_string(samples) == audio:
            return {"in": len(samples), "said": {k: v for k, v in body.items() if k != "audio"}}, samples
    return {"up": body}, b""


def clean_members(line: Obj) -> Obj:
    """A line of this module without anything that looks like a credential."""
    return {name: _CLEANERS[name](member) if name in _CLEANERS else member for name, member in line.items()}


def _cut(raw: bytes, start: int, end: int) -> tuple[str, bytes, str] | None:
    """A frame as head, sound and tail; None if it would not be the same when it is put together again."""
    try:
        samples = pybase64.b64decode(raw[start:end], validate=True)
        head, tail = raw[:start].decode(), raw[end:].decode()
    except ValueError:
        return None
    if not samples or pybase64.b64encode(samples) != raw[start:end]:
        return None
    return head, samples, tail


def clean_frame(text: str) -> str:
    """A frame of the upstream's without anything that looks like a credential."""
    try:
        body = orjson.loads(text)
    except ValueError:
        return redact(text, len(text))
    cleaned = clean(body)
    return text if cleaned == body else orjson.dumps(cleaned).decode()


def _clean_text(text: str) -> str:
    return redact(text, len(text))


_CLEANERS: Mapping[str, Callable[[Any], Any]] = {
    "up": clean, "said": clean, "down": clean_frame, "head": _clean_text, "tail": _clean_text
}  # fmt: skip


# -- reading ----------------------------------------------------------------------------------------------------------


def is_frame(line: Mapping[str, Any]) -> bool:
    """Whether a line is one of these; a plain `in` is read by the recording's kind, and all others are."""
    return "up" in line or "down" in line or "said" in line or "head" in line


def read_frame(line: Mapping[str, Any]) -> tuple[ClientSaid | UpstreamSaid | Forwarded, Frame]:
    """The event of such a line, its sound still missing. Raises ValueError."""
    is_read = line.get("read") is True
    if "up" in line:
        return ClientSaid(_object(line, "up")), Frame()
    if "down" in line:
        raw = _text(line, "down").encode()
        return UpstreamSaid(raw, _parsed(raw) if is_read else {}), Frame(is_read=is_read)
    if "said" in line:
        said = _object(line, "said")
        return ClientSaid(said), Frame(said=said)
    frame = Frame(_text(line, "head"), _text(line, "tail"), is_read)
    return (Forwarded("input_audio", "", 0, b"") if "in" in line else UpstreamSaid(b"", {})), frame


def with_sound(event: Any, frame: Frame, samples: bytes) -> Any:
    """The event as it was, with its sound in it. Raises ValueError."""
    audio = pybase64.b64encode(samples)
    if frame.said is not None:
        return ClientSaid({**frame.said, "audio": audio.decode()})
    raw = b"".join((frame.head.encode(), audio, frame.tail.encode()))
    if isinstance(event, Forwarded):
        return event._replace(raw=raw, n_bytes=len(samples))
    return UpstreamSaid(raw, _parsed(raw) if frame.is_read else {})


def _object(line: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = line[name]
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an event, not {value!r:.40}")
    return value


def _text(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {value!r:.40}")
    return value


def _parsed(raw: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the event in it is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError("the event in it is no object")
    return body
