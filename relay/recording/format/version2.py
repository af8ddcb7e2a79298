"""Reads the lines of a journal of format 2 that hold events and audio."""

from collections.abc import Callable, Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.recording.format.lines import Frame, Happened, InputAudio, Line, OutputAudio, SpeechAudio
from relay.recording.format.realtime import parsed
from relay.recording.format.serialize import build, from_json, to_json
from relay.recording.format.write import PASSED_ON
from relay.session.common.model import Alignment
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta
from relay.session.realtime.events import ClientSaid, UpstreamSaid


def read(line: JsonObject, now: float) -> Line:
    """An event or audio. Raises ValueError naming what is wrong with it."""
    for name, read_as in _READERS.items():
        if name in line:
            return read_as(line, now)
    raise ValueError(f"there is none of {', '.join(_READERS)}, sent, gap, end in it")


def _upstream_event(line: JsonObject, now: float) -> Line:
    raw = texts(line, "down")[0].encode()
    return happened(line, now, UpstreamSaid(raw, parsed(raw) if line.get("read") is True else {}), (PASSED_ON,))


def _output(line: JsonObject, now: float) -> Line:
    frame, discarded = _frame(line), line.get("discarded") is True
    if frame is not None:
        return OutputAudio(now, count(line, "out"), discarded=discarded, frame=frame)
    n_bytes, (item_id, response_id) = count(line, "out"), texts(line, "item", "response")
    return OutputAudio(now, n_bytes, response_id, item_id, count(line, "part"), discarded)


def _speech(line: JsonObject, now: float) -> Line:
    n_bytes, (context_id,) = count(line, "voice"), texts(line, "context")
    return SpeechAudio(now, n_bytes, context_id, _alignment(line), line.get("discarded") is True, done(line, ()))


def _text(line: JsonObject, now: float) -> Line:
    """More of the assistant's text, and the message that sent it to the client."""
    text, item_id, response_id = texts(line, "words", "item", "response")
    event = TextDelta(response_id, item_id, count(line, "part"), text, line.get("spoken") is True)
    return Happened(now, event, (to_json(SendTextDelta(text)),))


_READERS: Mapping[str, Callable[[JsonObject, float], Line]] = {
    "event": lambda line, now: happened(line, now, from_json(line["event"])),
    # a client's event of which the audio was cut out
    "said": lambda line, now: happened(line, now, ClientSaid(_object(line, "said")), (PASSED_ON,), count(line, "in")),
    "up": lambda line, now: happened(line, now, ClientSaid(_object(line, "up")), (PASSED_ON,)),
    "down": _upstream_event,
    "in": lambda line, now: InputAudio(now, count(line, "in"), _frame(line)),
    "out": _output,
    "voice": _speech,
    "words": _text,
}

# -- members ----------------------------------------------------------------------------------------------------------


def happened(line: JsonObject, now: float, event: Any, usual: tuple[Any, ...] = (), n_audio_bytes: int = 0) -> Happened:
    """An event and its commands; a line without `do` stands for `usual`."""
    raised = line.get("raised")
    if raised is not None:
        return Happened(now, event, None, str(raised), n_audio_bytes)
    return Happened(now, event, done(line, usual), None, n_audio_bytes)


def done(line: JsonObject, usual: tuple[Any, ...]) -> tuple[Any, ...]:
    """The commands of a line as stored."""
    do = line.get("do", usual)
    if not isinstance(do, list | tuple) or not all(command == PASSED_ON or isinstance(command, dict) for command in do):
        raise ValueError('do must be a list of commands, or of "="')
    return tuple(do)


def texts(line: Mapping[str, Any], *names: str) -> list[str]:
    """Members that are texts."""
    values = [line.get(name) for name in names]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{', '.join(names)} must be {'texts' if len(names) > 1 else 'a text'}")
    return values  # type: ignore[return-value]


def count(line: Mapping[str, Any], name: str) -> int:
    """A member that is a whole number, and not negative."""
    value = line.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number, not {value!r:.40}")
    return value


def time(line: Mapping[str, Any], name: str) -> float:
    """A member that is a time."""
    value: Any = line.get(name)
    if type(value) not in (int, float) or not -1e12 < value < 1e12:
        raise ValueError(f"{name} must be a time in seconds, not {value!r:.40}")
    return float(value)


def _object(line: JsonObject, name: str) -> Mapping[str, Any]:
    value = line[name]
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an event, not {value!r:.40}")
    return value


def _frame(line: JsonObject) -> Frame | None:
    if "head" not in line:
        return None
    head, tail = texts(line, "head", "tail")
    return Frame(head, tail)


def _alignment(line: JsonObject) -> Alignment | None:
    if "chars" not in line:
        return None
    obj = {"chars": line["chars"], "starts_ms": line.get("starts"), "durations_ms": line.get("lengths")}
    return build(Alignment, obj)
