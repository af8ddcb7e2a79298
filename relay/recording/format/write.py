"""Encode the lines of a journal of format 2, one JSON object each; `docs/recording-format.md` is their table.

No line contains anything that looks like a credential. In a running session `live_line` defers the search in long
lines. `now` is the session's clock in seconds.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import orjson

from relay.json_types import JsonObject
from relay.recording.format.realtime import (
    check_nesting,
    encode_event,
    redact_event_text,
    redact_members,
    split_append,
    split_delta,
)
from relay.recording.format.records import GapRecord
from relay.recording.format.serialize import to_json
from relay.session.common.media_types import RawDelta
from relay.session.common.model import Alignment
from relay.session.common.redact import redact, redact_value
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta
from relay.session.realtime.events import (
    ForwardToClient,
    RealtimeClientEvent,
    RealtimeServerEvent,
    SendToClient,
    SendToUpstream,
)

FORWARDED: Final = "="
"""In `do`: the event itself, forwarded to the other peer."""
MAX_LINE_BYTES: Final = 48 * 1024 * 1024
"""An event of a Realtime client has at most 16 MiB, and is stored twice if the relay changed it."""
MAX_RAISED_CHARS: Final = 500
MAX_LIVE_REDACTED_BYTES: Final = 8 * 1024
"""A longer line is not searched for credentials in a running session: that takes 0.2 µs a byte."""
MAX_TEXT_CHARS: Final = 400
"""A longer `delta` holds audio, not text."""

_NOT_ORJSON = b'{"now": '
_UNREDACTED = b'{"unredacted":'

# -- events -----------------------------------------------------------------------------------------------------------


def stored_event_object(
    event: Any, now: float, stored_commands: Sequence[Any] | None, raised: str
) -> tuple[JsonObject, bytes]:
    """Build the line of an event as an object. Returns it and the client's audio in it, for `client.pcm`.

    `stored_commands` is None if the rules `raised`.
    """
    is_realtime = isinstance(event, RealtimeClientEvent | RealtimeServerEvent)
    members, samples = encode_event(event) if is_realtime else ({"event": to_json(event)}, b"")
    line: JsonObject = {"now": now, **members}
    if stored_commands is None:
        line["raised"] = raised
    elif stored_commands != ([FORWARDED] if is_realtime else []):
        line["do"] = stored_commands
    return line, samples


def event_object(event: Any, now: float, commands: Sequence[Any] | None, raised: str = "") -> tuple[JsonObject, bytes]:
    """Build the line of an event as an object, from commands to encode; None if the rules `raised`."""
    return stored_event_object(event, now, None if commands is None else _encode_each(event, commands), raised)


def event_line(event: Any, now: float, commands: Sequence[Any] | None, raised: str = "") -> bytes:
    """Encode any event."""
    return redacted_line(event_object(event, now, commands, raised)[0])


def text_line(event: TextDelta, now: float, commands: Sequence[Any]) -> bytes:
    """Encode a text delta, in the short form if its only command sent it to the client."""
    if len(commands) != 1 or type(commands[0]) is not SendTextDelta or commands[0].text != event.text:
        return event_line(event, now, commands)
    response_id, item_id, part, text, spoken = event
    safe = redact(text, len(text)) if len(text) > 6 else text
    return _dump_line(
        {"now": now, "words": safe, "item": item_id, "response": response_id, "part": part, "spoken": spoken}
    )


def encode_commands(event: Any, commands: Sequence[Any]) -> list[Any]:
    """Encode commands for `do`, without anything that looks like a credential."""
    return [_redact_command(command) for command in _encode_each(event, commands)]


def _encode_each(event: Any, commands: Sequence[Any]) -> list[Any]:
    return [FORWARDED if _is_forwarded(event, command) else _encode_command(command) for command in commands]


def _is_forwarded(event: Any, command: Any) -> bool:
    if isinstance(event, RealtimeServerEvent):
        return type(command) is ForwardToClient and command.raw == event.raw
    return isinstance(event, RealtimeClientEvent) and type(command) is SendToUpstream and command.body == event.body


def _encode_command(command: Any) -> JsonObject:
    obj = to_json(command)
    if type(command) in (SendToClient, SendToUpstream):
        obj["body"] = {name: _replace_audio(name, member) for name, member in obj["body"].items()}
    return obj


def _replace_audio(name: str, value: Any) -> Any:
    """Replace audio in a rewritten event by its length: it is stored already, with the original event."""
    if name in ("audio", "delta") and isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        return f"{len(value)} characters"
    return value


# -- audio ------------------------------------------------------------------------------------------------------------


def input_lines(times: Sequence[float], n_bytes: int) -> bytes:
    """Encode frames of the client's audio that arrived at these times, `n_bytes` each.

    A session has fifty a second: orjson formats a float ten times as fast as `repr`, and a list in one call.
    """
    end = b',"in":%d}\n' % n_bytes
    return b'{"now":' + orjson.dumps(times)[1:-1].replace(b",", end + b'{"now":') + end


def output_line(
    now: float, n_bytes: int, response_id: str, item_id: str, content_index: int, discarded: bool = False
) -> bytes:
    """Encode audio from the upstream; `discarded`: it was not sent on to the client."""
    line: JsonObject = {"now": now, "out": n_bytes, "item": item_id, "response": response_id, "part": content_index}
    if discarded:
        line["discarded"] = True
    return _dump_line(line)


def tts_audio_line(
    now: float,
    n_bytes: int,
    context_id: str,
    alignment: Alignment | None = None,
    commands: Sequence[Any] = (),
    discarded: bool = False,
) -> bytes:
    """Encode audio of an external TTS voice and its event's commands; `discarded`: no session waited for it."""
    line: JsonObject = {"now": now, "voice": n_bytes, "context": context_id}
    if alignment is not None and not _spells_secret(alignment):
        line |= {"chars": alignment.chars, "starts": alignment.starts_ms, "lengths": alignment.durations_ms}
    if discarded:
        line["discarded"] = True
    elif commands:
        line["do"] = encode_commands(None, commands)
    return _dump_line(line)


def _spells_secret(alignment: Alignment) -> bool:
    text = "".join(alignment.chars)
    return redact(text, len(text)) != text


def sent_audio_line(now: float, n_bytes: int, crc: int, *, is_stored: bool) -> bytes:
    """Encode audio that was sent to the client; `is_stored`: its bytes are in `sent.pcm`."""
    end = b',"kept":true' if is_stored else b""
    return b'{"now":%s,"sent":%d,"crc":%d%s}\n' % (orjson.dumps(now), n_bytes, crc, end)


def input_event_line(now: float, frame: bytes) -> tuple[bytes, bytes]:
    """Encode an append of a Realtime client that the uplink forwarded. Returns the line and the audio in it.

    Raises ValueError for a frame that the uplink does not recognise as an append.
    """
    envelope, samples = split_append(frame)
    if not envelope:
        return input_lines([now], len(samples)), samples
    return redacted_line({"now": now, "in": len(samples), **envelope}), samples


def output_event_line(now: float, delta: RawDelta) -> tuple[bytes, bytes]:
    """Encode a delta that was sent to a Realtime client. Returns the line and the audio in it.

    A text delta, or one with invalid base64, is stored as any other event that the rules did not read.
    """
    raw = bytes(delta.raw)
    if delta.n_bytes:
        try:
            envelope, samples = split_delta(raw, delta.audio_offset)
        except ValueError:
            pass
        else:
            return redacted_line({"now": now, "out": len(samples), **envelope}), samples
    return event_line(RealtimeServerEvent(raw, {}), now, (ForwardToClient(raw),)), b""


# -- the journal ------------------------------------------------------------------------------------------------------


def gap_line(gap: GapRecord | None) -> bytes:
    """Encode a gap; empty if there is none."""
    if gap is None:
        return b""
    return _dump_line({"gap": {"records": gap.n_records, "from": gap.start_s, "to": gap.end_s}})


def end_line(now: float, reason: str) -> bytes:
    """Encode the end of the recording."""
    return _dump_line({"now": now, "end": reason})


# -- redaction --------------------------------------------------------------------------------------------------------


def redacted_line(line: JsonObject) -> bytes:
    """Encode a line without anything that looks like a credential."""
    redacted = redact_members(line)
    if "event" in redacted:
        redacted["event"] = redact_value(_expect_object(redacted["event"]))
    if "raised" in redacted:
        redacted["raised"] = redact(redacted["raised"], MAX_RAISED_CHARS)
    if "do" in redacted:
        redacted["do"] = [_redact_command(command) for command in redacted["do"]]
    return _dump_line(redacted)


def live_line(line: JsonObject, n_bytes: int = 0) -> bytes:
    """Encode a line of a running recording. A long one is redacted later, by the reader or when it is finalized.

    `n_bytes`: a lower bound of its length, so that a long line is encoded only once.
    """
    if n_bytes <= MAX_LIVE_REDACTED_BYTES and len(_dump_line(line)) <= MAX_LIVE_REDACTED_BYTES:
        return redacted_line(line)
    return _dump_line({"unredacted": line})


def is_unredacted(raw: bytes) -> bool:
    """Return whether the redaction of a line was deferred."""
    return raw.startswith(_UNREDACTED)


def redact_deferred(raw: bytes) -> bytes:
    """Redact a line that `live_line` deferred, of either format. Raises ValueError for any other line."""
    line = parse_json(raw[len(_UNREDACTED) : raw.rindex(b"}")].lstrip())
    if not isinstance(line, dict):
        raise ValueError("the line with deferred redaction is not a JSON object")
    try:
        return redacted_line(line)
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"the line with deferred redaction is invalid: {type(error).__name__}") from None


def _redact_command(command: Any) -> Any:
    if command == FORWARDED:
        return command
    redacted = redact_value(_expect_object(command))
    if "frame" in command:
        redacted["frame"] = redact_event_text(command["frame"])
    return redacted


def _expect_object(value: Any) -> JsonObject:
    if not isinstance(value, dict) or "t" not in value:
        raise TypeError("not an event or command")
    return value


# -- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(raw: bytes) -> Any:
    """Parse the JSON of a line. Raises ValueError.

    A line that orjson could not encode is not parsed by it either: it would round integers over 64 bits. The space
    after the colon marks such lines.
    """
    try:
        return check_nesting(json.loads(raw) if raw.startswith(_NOT_ORJSON) else orjson.loads(raw))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _dump_line(line: JsonObject) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # beyond orjson: numbers over 64 bits, lone surrogates, deep nesting
        return json.dumps(line, ensure_ascii=True, default=str).encode() + b"\n"
