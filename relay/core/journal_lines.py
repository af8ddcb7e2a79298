"""The lines of a recorded journal: what happened with its time and what followed, one JSON object each.

| line | meaning |
|---|---|
| `{"now":T,"event":{…},"do":[…]}` | an event and its commands; no `do`: none |
| `{"now":T,"event":{…},"raised":"…"}` | our own code failed at this event |
| `{"now":T,"in":N}` | N bytes of microphone audio, the next ones of `client.pcm`, passed on |
| `{"now":T,"out":N,"item":…,"response":…,"part":…}` | N bytes of the model's audio, the next of `upstream.pcm` |
| `{"now":T,"voice":N,"context":…,"do":[…]}` | N bytes of an external voice, the next of `voice.pcm` |
| `{"now":T,"words":…,"item":…,"response":…,"part":…,"spoken":…}` | words of the model, told to the client as they are |
| `{"now":T,"sent":N,"crc":C}` | N bytes of audio went to the client; `"kept":true`: they stand in `sent.pcm` |
| `{"gap":{"records":R,"from":T,"to":T}}` | that many records could not be written |
| `{"now":T,"end":"…"}` | the recording ends here, and why |
| `{"unredacted":{…}}` | a long line, not yet searched for credentials; there is none in a finished recording |

A Realtime client's session has lines of its own besides: `relay.core.journal_realtime`.

`do` of the model's and the user's audio is there only if something else followed than passing it on. In `do`, `"="` is
the event itself, passed on; other audio is told by its length and its CRC-32. Where a voice told when each character
sounds, `chars`, `starts` and `lengths` (ms) say so. `now` is the session's clock, in seconds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

import orjson

from relay.core.commands import Command, TellText
from relay.core.events import Event, Forwarded, TextDelta, VoiceSpoke
from relay.core.journal import build, from_json, sound_members, to_json
from relay.core.journal_realtime import Frame, clean_frame, clean_members, is_frame, members_of, read_frame
from relay.core.passed import Passed
from relay.core.realtime_events import ClientSaid, PassDown, TellClient, TellUpstream, UpstreamSaid
from relay.core.redact import clean, redact
from relay.core.values import Alignment

PASSED_ON: Final = "="
MAX_LINE_BYTES: Final = 48 * 1024 * 1024
"""A Realtime client's event may have 16 MiB, and stands there twice if the relay changed it."""
MAX_RAISED_CHARS: Final = 500
MAX_LIVE_REDACTED_BYTES: Final = 8 * 1024
"""A longer line is not searched for credentials while its session goes on: that takes 0.2 µs a byte."""
MAX_WORDS_CHARS: Final = 400
"""No `delta` of words is longer; one that is holds sound."""

Obj = dict[str, Any]

_NOT_ORJSON = b'{"now": '
_UNREDACTED = b'{"unredacted":'


@dataclass(frozen=True, slots=True)
class Happened:
    """An event with its time; `do` as it stands in the journal, None if our code `raised`.

    Audio has no `raw` yet: it is in `client.pcm`, `upstream.pcm` or `voice.pcm`, `n_audio_bytes` long.
    """

    now: float
    event: Any
    do: tuple[Any, ...] | None
    raised: str | None = None
    n_audio_bytes: int = 0
    frame: Frame | None = None

    @property
    def is_input(self) -> bool:
        """Whether its audio is the client's."""
        return isinstance(self.event, ClientSaid) or getattr(self.event, "kind", "") == "input_audio"


@dataclass(frozen=True, slots=True)
class Sent:
    """Audio that went to the client's socket; `kept`: its bytes stand in `sent.pcm`."""

    now: float
    n_bytes: int
    crc: int
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """`records` lines, from one time to another, that could not be written."""

    records: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class End:
    """The last line."""

    now: float
    reason: str


Line = Happened | Sent | Gap | End

# -- writing ----------------------------------------------------------------------------------------------------------


def done_of(event: Any, commands: Sequence[Any]) -> list[Any]:
    """Commands as they stand in `do`."""
    return [_cleaned_command(one) for one in _as_recorded(event, commands)]


def _as_recorded(event: Any, commands: Sequence[Any]) -> list[Any]:
    return [PASSED_ON if _is_passed_on(event, command) else _command(command) for command in commands]


def _is_passed_on(event: Any, command: Any) -> bool:
    if isinstance(event, UpstreamSaid):
        return type(command) is PassDown and command.raw == event.raw
    if isinstance(event, ClientSaid):
        return type(command) is TellUpstream and command.body == event.body
    return command is event


def _command(command: Any) -> Obj:
    if type(command) is Forwarded:
        told = to_json(command._replace(raw=b""))
        del told["raw"]
        return told | {"crc": crc32(command.raw)}
    if type(command) is PassDown:  # kept back for a while
        return {"t": "PassDown", "frame": bytes(command.raw).decode(errors="replace")}
    if type(command) in (TellClient, TellUpstream):
        return {"t": type(command).__name__, "body": {name: _member(name, one) for name, one in command.body.items()}}
    return to_json(command)


def _member(name: str, value: Any) -> Any:
    """Sound in an event that was written anew is told by its length and its CRC-32 as well."""
    if name in ("audio", "delta") and isinstance(value, str) and len(value) > MAX_WORDS_CHARS:
        return f"{len(value)} characters, CRC-32 {crc32(value.encode())}"
    return value


def event_object(event: Event, now: float, commands: Sequence[Command] | None, raised: str = "") -> Obj:
    """Any event as it came, for `line_of` or `live_line`; its audio, if it is some, stands in the line."""
    line: Obj = {"now": now, "event": to_json(event)}
    if commands is None:
        line["raised"] = raised
    elif commands:
        line["do"] = _as_recorded(event, commands)
    return line


def realtime_object(
    event: Any, now: float, commands: Sequence[Any] | None, raised: str = ""
) -> tuple[Obj, bytes, bool]:
    """An event of a Realtime client's session as it came, its sound, and whether that is the client's."""
    members, samples = members_of(event) if isinstance(event, Forwarded | ClientSaid | UpstreamSaid) else (None, b"")
    line: Obj = {"now": now, **(members if members is not None else {"event": to_json(event)})}
    if commands is None:
        line["raised"] = raised
    else:
        do = _as_recorded(event, commands)
        if do != ([] if members is None else [PASSED_ON]):
            line["do"] = do
    return line, samples, isinstance(event, Forwarded | ClientSaid)


def event_line(event: Event, now: float, commands: Sequence[Command] | None, raised: str = "") -> bytes:
    """The line of any event; its audio, if it is some, stands in the line."""
    return line_of(event_object(event, now, commands, raised))


def realtime_line(
    event: Any, now: float, commands: Sequence[Any] | None, raised: str = ""
) -> tuple[bytes, bytes, bool]:
    """The line of an event of a Realtime client's session, its sound, and whether that is the client's."""
    line, samples, is_clients = realtime_object(event, now, commands, raised)
    return line_of(line), samples, is_clients


def line_of(line: Obj) -> bytes:
    """A line without anything that looks like a credential."""
    return _dump(_cleaned_line(line))


def live_line(line: Obj, n_bytes: int = 0) -> bytes:
    """A line of a running recording. A long one is redacted later, when it is read or the recording is finished.

    `n_bytes`: what is known of its length; a long line is then written down once.
    """
    if n_bytes <= MAX_LIVE_REDACTED_BYTES and len(_dump(line)) <= MAX_LIVE_REDACTED_BYTES:
        return line_of(line)
    return _dump({"unredacted": line})


def is_unredacted(raw: bytes) -> bool:
    """Whether a line was left to be cleaned."""
    return raw.startswith(_UNREDACTED)


def redacted_later(raw: bytes) -> bytes:
    """The line that `live_line` left to be cleaned. Raises ValueError for what it never wrote."""
    line = _load(raw[len(_UNREDACTED) : raw.rindex(b"}")].lstrip())
    if not isinstance(line, dict):
        raise ValueError("what is to be cleaned is no line")
    try:
        return line_of(line)
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"a line that is to be cleaned is none of ours: {type(error).__name__}") from None


def _cleaned_line(line: Obj) -> Obj:
    cleaned = clean_members(line)
    if "event" in cleaned:
        cleaned["event"] = _cleaned(cleaned["event"])
    if "raised" in cleaned:
        cleaned["raised"] = redact(cleaned["raised"], MAX_RAISED_CHARS)
    if "do" in cleaned:
        cleaned["do"] = [_cleaned_command(one) for one in cleaned["do"]]
    return cleaned


def _cleaned_command(told: Any) -> Any:
    if told == PASSED_ON or "crc" in told:
        return told
    if "frame" in told:
        return {"t": told["t"], "crc": crc32(clean_frame(told["frame"]).encode())}
    return _cleaned(told)


def _cleaned(told: Obj) -> Obj:
    """An event or a command without what looks like a credential; audio is none, whatever its base64."""
    sound = sound_members(told.get("t"))
    return {name: member if name in sound else clean({name: member})[name] for name, member in told.items()}


def audio_line(event: Forwarded, now: float, commands: Sequence[Command]) -> bytes:
    """The line of audio whose bytes are written elsewhere."""
    passed_on = len(commands) == 1 and commands[0] is event
    if event.kind == "input_audio":
        if passed_on:
            return input_lines([now], event.n_bytes)
        line: Obj = {"now": now, "in": event.n_bytes}
    else:
        line = {
            "now": now,
            "out": event.n_bytes,
            "item": event.item_id,
            "response": event.response_id,
            "part": event.content_index,
        }
    if not passed_on:
        line["do"] = done_of(event, commands)
    return _dump(line)


def input_lines(times: Sequence[float], n_bytes: int) -> bytes:
    """The lines of microphone audio that came at these times, `n_bytes` each, and was passed on.

    Fifty a second in each session: orjson writes a float ten times as fast as `repr`, and in a list all at once.
    """
    end = b',"in":%d}\n' % n_bytes
    return b'{"now":' + orjson.dumps(times)[1:-1].replace(b",", end + b'{"now":') + end


def passed_lines(passed: Passed, *, kept: bool) -> list[tuple[float, bytes]]:
    """The lines of what passed unseen, but for the microphone's, with their times.

    A piece of sound came and went out at the same time: two lines, unless a filter held it back.
    """
    names = {"item": passed.item_id, "response": passed.response_id, "part": passed.content_index}
    rest = orjson.dumps(names)[1:]
    lines = [(now, words_line(words, now, (TellText(words.text),))) for now, words in passed.words]
    for (now, n_bytes, n_sent_bytes), sent in zip(passed.pieces, passed.sent, strict=True):
        line = b'{"now":%s,"out":%d,%s\n' % (orjson.dumps(now), n_bytes, rest)
        if sent:
            line += sent_line(now, n_sent_bytes, crc32(sent), kept=kept)
        lines.append((now, line))
    lines.sort(key=itemgetter(0))
    return lines


def voice_line(event: VoiceSpoke, now: float, commands: Sequence[Command]) -> bytes:
    """The line of an external voice's sound, whose bytes are written elsewhere."""
    line: Obj = {"now": now, "voice": event.n_bytes, "context": event.context_id}
    told = event.alignment
    if told is not None and not _spells_a_secret(told):
        line |= {"chars": told.chars, "starts": told.starts_ms, "lengths": told.durations_ms}
    if commands:
        line["do"] = done_of(event, commands)
    return _dump(line)


def _spells_a_secret(told: Alignment) -> bool:
    text = "".join(told.chars)
    return redact(text, len(text)) != text


def words_line(event: TextDelta, now: float, commands: Sequence[Command]) -> bytes:
    """The line of more of the assistant's words; short where nothing followed but telling them."""
    if len(commands) != 1 or type(commands[0]) is not TellText or commands[0].text != event.text:
        return event_line(event, now, commands)
    response_id, item_id, part, text, spoken = event
    words = redact(text, len(text)) if len(text) > 6 else text
    return _dump({"now": now, "words": words, "item": item_id, "response": response_id, "part": part, "spoken": spoken})


def sent_line(now: float, n_bytes: int, crc: int, *, kept: bool) -> bytes:
    """The line of audio that went to the client."""
    return b'{"now":%s,"sent":%d,"crc":%d%s}\n' % (orjson.dumps(now), n_bytes, crc, b',"kept":true' if kept else b"")


def gap_line(gap: Gap) -> bytes:
    """The line that stands for lines that are not there."""
    return _dump({"gap": {"records": gap.records, "from": gap.first, "to": gap.last}})


def end_line(now: float, reason: str) -> bytes:
    """The last line."""
    return _dump({"now": now, "end": reason})


def _dump(line: Obj) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # beyond orjson: numbers over 64 bits, lone surrogates, deep nesting
        return json.dumps(line, ensure_ascii=True, default=str).encode() + b"\n"


# -- reading ----------------------------------------------------------------------------------------------------------


def read_line(raw: bytes) -> Line:
    """One line. Raises ValueError naming what is wrong with it."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes; {MAX_LINE_BYTES} are the most a journal's line may have")
    try:
        line = _load(redacted_later(raw) if is_unredacted(raw) else raw)
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    if not isinstance(line, dict):
        raise ValueError("a line is a JSON object")
    if "gap" in line:
        gap = line["gap"] if isinstance(line["gap"], dict) else {}
        return Gap(_count(gap, "records"), _time(gap, "from"), _time(gap, "to"))
    now = _time(line, "now")
    if "end" in line:
        return End(now, str(line["end"]))
    if "sent" in line:
        return Sent(now, _count(line, "sent"), _count(line, "crc"), line.get("kept") is True)
    if is_frame(line):
        return _read_frame(line, now)
    if "in" in line or "out" in line:
        return _read_audio(line, now)
    if "voice" in line:
        return _read_voice(line, now)
    if "event" in line:
        return _read_event(line, now)
    if "words" in line:
        return _read_words(line, now)
    raise ValueError("there is none of event, in, out, voice, words, sent, gap, end in it")


def _load(raw: bytes) -> Any:
    # What orjson could not write it does not read either: it would round whole numbers over 64 bits. The blank behind
    # the colon tells such lines apart.
    try:
        return json.loads(raw) if raw.startswith(_NOT_ORJSON) else orjson.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _read_audio(line: Obj, now: float) -> Happened:
    if "in" in line:
        n_bytes = _count(line, "in")
        event = Forwarded("input_audio", "", n_bytes, b"")
    else:
        n_bytes = _count(line, "out")
        item_id, response_id = line.get("item"), line.get("response")
        if not (isinstance(item_id, str) and isinstance(response_id, str)):
            raise ValueError("item and response must be texts")
        event = Forwarded("output_audio", item_id, n_bytes, b"", response_id, _count(line, "part"))
    return _happened(line, now, event, (PASSED_ON,), n_audio_bytes=n_bytes)


def _read_frame(line: Obj, now: float) -> Happened:
    event, frame = read_frame(line)
    n_bytes = _count(line, "in" if "in" in line else "out") if "in" in line or "out" in line else 0
    return _happened(line, now, event, (PASSED_ON,), n_audio_bytes=n_bytes, frame=frame)


def _read_voice(line: Obj, now: float) -> Happened:
    n_bytes, context_id, alignment = _count(line, "voice"), line.get("context"), None
    if not isinstance(context_id, str):
        raise ValueError("context must be a text")
    if "chars" in line:
        told = {"chars": line["chars"], "starts_ms": line.get("starts"), "durations_ms": line.get("lengths")}
        alignment = build(Alignment, told)
    return _happened(line, now, VoiceSpoke(context_id, n_bytes, b"", alignment), (), n_audio_bytes=n_bytes)


def _read_words(line: Obj, now: float) -> Happened:
    words, item_id, response_id = line["words"], line.get("item"), line.get("response")
    if not (isinstance(words, str) and isinstance(item_id, str) and isinstance(response_id, str)):
        raise ValueError("words, item and response must be texts")
    event = TextDelta(response_id, item_id, _count(line, "part"), words, line.get("spoken") is True)
    return Happened(now, event, ({"t": "TellText", "text": words},))


def _read_event(line: Obj, now: float) -> Happened:
    return _happened(line, now, from_json(line["event"]), ())


def _happened(line: Obj, now: float, event: Any, default: tuple[Any, ...], **more: Any) -> Happened:
    raised = line.get("raised")
    if raised is not None:
        return Happened(now, event, None, str(raised), **more)
    return Happened(now, event, _done(line, default), **more)


def _done(line: Obj, default: tuple[Any, ...]) -> tuple[Any, ...]:
    do = line.get("do", default)
    if not isinstance(do, list | tuple) or not all(one == PASSED_ON or isinstance(one, dict) for one in do):
        raise ValueError('do must be a list of commands, or of "="')
    return tuple(do)


def _count(line: Mapping[str, Any], name: str) -> int:
    value = line.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number, not {value!r:.40}")
    return value


def _time(line: Mapping[str, Any], name: str) -> float:
    value: Any = line.get(name)
    if type(value) not in (int, float) or not -1e12 < value < 1e12:
        raise ValueError(f"{name} must be a time in seconds, not {value!r:.40}")
    return float(value)
