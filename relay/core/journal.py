"""Events and commands as JSON and back: one object a value, `{"t": "<class>", "<field>": …}`; bytes as base64.

The round trip is exact, so that what a session saw and did can be written down and run again. The lines of a recorded
journal are made of these: `relay.core.journal_lines`.
"""

import base64
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from audio.framing import Chunk
from relay.core import commands, events, realtime_events
from relay.core.commands import Command
from relay.core.events import Event
from relay.core.realtime_events import RealtimeCommand, RealtimeEvent

Value = TypeVar("Value")


def to_json(value: Event | Command | RealtimeEvent | RealtimeCommand) -> dict[str, Any]:
    """One event or command as a JSON object."""
    return {"t": type(value).__name__, **_members(value)}


def from_json(obj: Mapping[str, Any]) -> Event | Command | RealtimeEvent | RealtimeCommand:
    """The event or command of a JSON object. Raises ValueError naming what is wrong."""
    if not isinstance(obj, Mapping):
        raise ValueError(f"an event or command is a JSON object, not {obj!r:.80}")
    name = obj.get("t")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown event or command {name!r:.80}")
    try:
        return _build(kind, {key: member for key, member in obj.items() if key != "t"})  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def sound_members(name: Any) -> frozenset[str]:
    """The members of an event or command, by its `t`, that hold sound in base64."""
    kind = _KINDS.get(name) if isinstance(name, str) else None
    return frozenset() if kind is None else _sound_members(kind)


def plain(value: Any) -> Any:
    """Any of the frozen values that sessions are made of (a configuration, options, a policy) as JSON."""
    return _plain(value)


def build(kind: type[Value], obj: Any) -> Value:
    """The value of class `kind` of a JSON object made by `plain`. Raises ValueError naming what is wrong."""
    try:
        return _build(kind, obj)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _members(value: Any) -> dict[str, Any]:
    kind = value.__class__
    sparse = _only_if_set(kind)
    members = {name: _plain(getattr(value, name)) for name in _hints(kind)}
    return {name: one for name, one in members.items() if one is not None or name not in sparse} if sparse else members


def _plain(value: Any) -> Any:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, frozenset):
        return sorted(_plain(member) for member in value)
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)] if is_dataclass(kind) else kind._fields
    return {name: hints[name] for name in names}


@cache
def _sound_members(kind: Any) -> frozenset[str]:
    return frozenset(name for name, hint in _hints(kind).items() if hint == Chunk)


@cache
def _only_if_set(kind: Any) -> frozenset[str]:
    found = fields(kind) if is_dataclass(kind) else ()
    return frozenset(one.name for one in found if one.metadata.get("only_if_set"))


def _build(kind: Any, obj: Mapping[str, Any]) -> Any:
    _expect(Mapping, "an object", obj)
    hints = _hints(kind)
    unknown = obj.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {min(map(str, unknown))!r:.80}")
    return kind(**{name: _typed(hints[name], member) for name, member in obj.items()})


def _typed(hint: Any, value: Any) -> Any:
    if hint == Chunk:
        _expect(str, "base64", value)
        return base64.b64decode(value, validate=True)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _typed_union(get_args(hint), value)
    if origin is tuple:
        _expect(list, "a list", value)
        return tuple(_typed(get_args(hint)[0], member) for member in value)
    if origin is frozenset:
        _expect(list, "a list", value)
        return frozenset(_typed(get_args(hint)[0], member) for member in value)
    if origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{value!r:.80} is none of {', '.join(map(repr, get_args(hint)))}")
        return value
    if is_dataclass(hint):
        return _build(hint, value)
    if hint is float and type(value) is int:
        return value
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise TypeError(f"{value!r:.80} is not of type {hint.__name__}")
    if origin is Mapping:
        _expect(Mapping, "an object", value)
    return value


def _expect(kind: Any, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.80} is not {name}")


def _typed_union(choices: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in choices:
        return None
    return _typed(next(choice for choice in choices if choice is not type(None)), value)


_SCALARS = frozenset({str, int, float, bool, type(None)})

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for module in (events, commands, realtime_events)
    for kind in vars(module).values()
    if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields"))
    if kind.__module__ in (events.__name__, commands.__name__, realtime_events.__name__)
}
