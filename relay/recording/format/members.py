"""The members of a line, checked; for the readers of both formats."""

from collections.abc import Mapping
from typing import Any

from relay.core.events import TextDelta
from relay.core.realtime_events import Obj
from relay.core.values import Alignment
from relay.recording.format.lines import Frame, Happened
from relay.recording.format.serialize import build
from relay.recording.format.write import PASSED_ON


def happened(
    line: Obj, now: float, event: Any, usual: tuple[Any, ...] = (), n_audio_bytes: int = 0, frame: Frame | None = None
) -> Happened:
    """An event and what the line says followed; `usual` did where it says nothing."""
    raised = line.get("raised")
    if raised is not None:
        return Happened(now, event, None, str(raised), n_audio_bytes, frame)
    return Happened(now, event, done(line, usual), None, n_audio_bytes, frame)


def done(line: Obj, usual: tuple[Any, ...]) -> tuple[Any, ...]:
    """The commands of a line as stored."""
    do = line.get("do", usual)
    if not isinstance(do, list | tuple) or not all(command == PASSED_ON or isinstance(command, dict) for command in do):
        raise ValueError('do must be a list of commands, or of "="')
    return tuple(do)


def alignment(line: Obj) -> Alignment | None:
    """When each character of a piece of speech is spoken, where the line says so."""
    if "chars" not in line:
        return None
    obj = {"chars": line["chars"], "starts_ms": line.get("starts"), "durations_ms": line.get("lengths")}
    return build(Alignment, obj)


def words(line: Obj) -> TextDelta:
    """More of the assistant's text."""
    text, item_id, response_id = texts(line, "words", "item", "response")
    return TextDelta(response_id, item_id, count(line, "part"), text, line.get("spoken") is True)


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
