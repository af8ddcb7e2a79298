"""Writes the lines of a journal of format 2, one JSON object each; `docs/recording-format.md` is their table.

A line without what looks like a credential is `redacted_line`; while a session goes on, `live_line` leaves long ones
for later. `now` is the session's clock, in seconds.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import orjson

from relay.json_types import JsonObject
from relay.recording.format.lines import GapRecord
from relay.recording.format.realtime import (
    check_nesting,
    event_members,
    redact_event_text,
    redact_members,
    split_append,
    split_delta,
)
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
"""In `do`: the event itself, passed on."""
MAX_LINE_BYTES: Final = 48 * 1024 * 1024
"""A Realtime client's event may have 16 MiB, and is stored twice if the relay changed it."""
MAX_RAISED_CHARS: Final = 500
MAX_LIVE_REDACTED_BYTES: Final = 8 * 1024
"""A longer line is not searched for credentials while its session goes on: that takes 0.2 µs a byte."""
MAX_TEXT_CHARS: Final = 400
"""No `delta` of text is longer; one that is holds audio."""

_NOT_ORJSON = b'{"now": '
_UNREDACTED = b'{"unredacted":'

# -- events -----------------------------------------------------------------------------------------------------------


def stored_event_object(
    event: Any, now: float, stored_commands: Sequence[Any] | None, raised: str
) -> tuple[JsonObject, bytes]:
    """Any event, for `redacted_line` or `live_line`, and a client's audio in it, which is written elsewhere.

    `stored_commands` are its commands as stored, None: our own code `raised`.
    """
    is_realtime = isinstance(event, RealtimeClientEvent | RealtimeServerEvent)
    members, samples = event_members(event) if is_realtime else ({"event": to_json(event)}, b"")
    line: JsonObject = {"now": now, **members}
    if stored_commands is None:
        line["raised"] = raised
    elif stored_commands != ([FORWARDED] if is_realtime else []):
        line["do"] = stored_commands
    return line, samples


def event_object(event: Any, now: float, commands: Sequence[Any] | None, raised: str = "") -> tuple[JsonObject, bytes]:
    """An event and its commands, and a client's audio in it; `commands` None: our own code `raised`."""
    return stored_event_object(event, now, None if commands is None else _as_stored(event, commands), raised)


def event_line(event: Any, now: float, commands: Sequence[Any] | None, raised: str = "") -> bytes:
    """The line of any event."""
    return redacted_line(event_object(event, now, commands, raised)[0])


def text_line(event: TextDelta, now: float, commands: Sequence[Any]) -> bytes:
    """The line of more of the assistant's text; short where nothing followed but sending it to the client."""
    if len(commands) != 1 or type(commands[0]) is not SendTextDelta or commands[0].text != event.text:
        return event_line(event, now, commands)
    response_id, item_id, part, text, spoken = event
    kept = redact(text, len(text)) if len(text) > 6 else text
    return _dump({"now": now, "words": kept, "item": item_id, "response": response_id, "part": part, "spoken": spoken})


def encode_commands(event: Any, commands: Sequence[Any]) -> list[Any]:
    """Commands as they are stored in `do`, without what looks like a credential."""
    return [_cleaned_command(command) for command in _as_stored(event, commands)]


def _as_stored(event: Any, commands: Sequence[Any]) -> list[Any]:
    return [FORWARDED if _is_passed_on(event, command) else _command(command) for command in commands]


def _is_passed_on(event: Any, command: Any) -> bool:
    if isinstance(event, RealtimeServerEvent):
        return type(command) is ForwardToClient and command.raw == event.raw
    return isinstance(event, RealtimeClientEvent) and type(command) is SendToUpstream and command.body == event.body


def _command(command: Any) -> JsonObject:
    obj = to_json(command)
    if type(command) in (SendToClient, SendToUpstream):
        obj["body"] = {name: _without_audio(name, member) for name, member in obj["body"].items()}
    return obj


def _without_audio(name: str, value: Any) -> Any:
    """A member of an event that was written anew; audio is stored once, with the event that brought it."""
    if name in ("audio", "delta") and isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        return f"{len(value)} characters"
    return value


# -- audio ------------------------------------------------------------------------------------------------------------


def input_lines(times: Sequence[float], n_bytes: int) -> bytes:
    """The lines of the client's audio that came at these times, `n_bytes` each.

    Fifty a second in each session: orjson writes a float ten times as fast as `repr`, and in a list all at once.
    """
    end = b',"in":%d}\n' % n_bytes
    return b'{"now":' + orjson.dumps(times)[1:-1].replace(b",", end + b'{"now":') + end


def output_line(
    now: float, n_bytes: int, response_id: str, item_id: str, content_index: int, discarded: bool = False
) -> bytes:
    """The line of the upstream's audio; `discarded`: it went no further."""
    line: JsonObject = {"now": now, "out": n_bytes, "item": item_id, "response": response_id, "part": content_index}
    if discarded:
        line["discarded"] = True
    return _dump(line)


def tts_audio_line(
    now: float,
    n_bytes: int,
    context_id: str,
    alignment: Alignment | None = None,
    commands: Sequence[Any] = (),
    discarded: bool = False,
) -> bytes:
    """The line of an external voice's audio and of the event that followed; `discarded`: none did."""
    line: JsonObject = {"now": now, "voice": n_bytes, "context": context_id}
    if alignment is not None and not _spells_a_secret(alignment):
        line |= {"chars": alignment.chars, "starts": alignment.starts_ms, "lengths": alignment.durations_ms}
    if discarded:
        line["discarded"] = True
    elif commands:
        line["do"] = encode_commands(None, commands)
    return _dump(line)


def _spells_a_secret(alignment: Alignment) -> bool:
    text = "".join(alignment.chars)
    return redact(text, len(text)) != text


def sent_audio_line(now: float, n_bytes: int, crc: int, *, is_stored: bool) -> bytes:
    """The line of audio that went to the client's socket; `is_stored`: it is written to `sent.pcm`."""
    return b'{"now":%s,"sent":%d,"crc":%d%s}\n' % (
        orjson.dumps(now),
        n_bytes,
        crc,
        b',"kept":true' if is_stored else b"",
    )


def input_event_line(now: float, frame: bytes) -> tuple[bytes, bytes]:
    """The line of a Realtime client's append that went through the uplink, and the audio in it.

    Raises ValueError for what the uplink does not take for an append.
    """
    around, samples = split_append(frame)
    if not around:
        return input_lines([now], len(samples)), samples
    return redacted_line({"now": now, "in": len(samples), **around}), samples


def output_event_line(now: float, delta: RawDelta) -> tuple[bytes, bytes]:
    """The line of a delta that went to a Realtime client, and the audio in it.

    A delta of text, or with audio that is no base64, is written like any event that the rules did not read.
    """
    raw = bytes(delta.raw)
    if delta.n_bytes:
        try:
            around, samples = split_delta(raw, delta.audio_offset)
        except ValueError:
            pass
        else:
            return redacted_line({"now": now, "out": len(samples), **around}), samples
    return event_line(RealtimeServerEvent(raw, {}), now, (ForwardToClient(raw),)), b""


# -- the journal ------------------------------------------------------------------------------------------------------


def gap_line(gap: GapRecord | None) -> bytes:
    """The line in place of lines that could not be written; empty if there is no gap."""
    if gap is None:
        return b""
    return _dump({"gap": {"records": gap.n_records, "from": gap.start_s, "to": gap.end_s}})


def end_line(now: float, reason: str) -> bytes:
    """The last line."""
    return _dump({"now": now, "end": reason})


# -- redaction --------------------------------------------------------------------------------------------------------


def redacted_line(line: JsonObject) -> bytes:
    """A line without anything that looks like a credential."""
    cleaned = redact_members(line)
    if "event" in cleaned:
        cleaned["event"] = redact_value(_expect_object(cleaned["event"]))
    if "raised" in cleaned:
        cleaned["raised"] = redact(cleaned["raised"], MAX_RAISED_CHARS)
    if "do" in cleaned:
        cleaned["do"] = [_cleaned_command(command) for command in cleaned["do"]]
    return _dump(cleaned)


def live_line(line: JsonObject, n_bytes: int = 0) -> bytes:
    """A line of a running recording. A long one is redacted later, when it is read or the recording is finished.

    `n_bytes`: what is known of its length; a long line is then encoded once.
    """
    if n_bytes <= MAX_LIVE_REDACTED_BYTES and len(_dump(line)) <= MAX_LIVE_REDACTED_BYTES:
        return redacted_line(line)
    return _dump({"unredacted": line})


def is_unredacted(raw: bytes) -> bool:
    """Whether a line was left to be redacted later."""
    return raw.startswith(_UNREDACTED)


def redact_deferred(raw: bytes) -> bytes:
    """The line that `live_line` left to be redacted, of either format. Raises ValueError for what it never wrote."""
    line = parse_json(raw[len(_UNREDACTED) : raw.rindex(b"}")].lstrip())
    if not isinstance(line, dict):
        raise ValueError("what is to be cleaned is no line")
    try:
        return redacted_line(line)
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"a line that is to be cleaned is none of ours: {type(error).__name__}") from None


def _cleaned_command(command: Any) -> Any:
    if command == FORWARDED:
        return command
    cleaned = redact_value(_expect_object(command))
    if "frame" in command:
        cleaned["frame"] = redact_event_text(command["frame"])
    return cleaned


def _expect_object(value: Any) -> JsonObject:
    if not isinstance(value, dict) or "t" not in value:
        raise TypeError("no event or command")
    return value


# -- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(raw: bytes) -> Any:
    """The JSON of a line. Raises ValueError.

    What orjson could not write it does not read either: it would round whole numbers over 64 bits. The blank after the
    colon tells such lines apart.
    """
    try:
        return check_nesting(json.loads(raw) if raw.startswith(_NOT_ORJSON) else orjson.loads(raw))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _dump(line: JsonObject) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # beyond orjson: numbers over 64 bits, lone surrogates, deep nesting
        return json.dumps(line, ensure_ascii=True, default=str).encode() + b"\n"
