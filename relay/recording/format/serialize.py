"""Encode events, commands and settings as JSON and decode them, by the stored names in `tags`.

The round trip is exact. A field that is None, and is None by default, is not stored. The bytes of a Realtime event are
stored as text.
"""

import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from audio.framing import BytesLike
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, StoredType

ValueT = TypeVar("ValueT")
_SCALARS = frozenset({str, int, float, bool, type(None)})


class _Field(NamedTuple):
    name: str
    """In Python."""
    stored: str
    hint: Any
    is_required: bool
    is_omitted: bool
    """If it is None."""


class Schema:
    """The stored names of one format, with their Python classes and fields."""

    def __init__(self, tagged: Iterable[StoredType], values: Iterable[StoredType]) -> None:
        """`tagged`: events and commands, stored with their tag. `values`: their members, which need none."""
        self._rows_by_tag = {row.tag: row for row in tagged}
        self._rows = {row.python_type: row for row in (*self._rows_by_tag.values(), *values)}
        self._fields = {kind: _stored_fields(row) for kind, row in self._rows.items()}

    def to_json(self, value: Any) -> dict[str, Any]:
        """Encode an event or a command."""
        return {"t": self._rows[type(value)].tag, **self._members(value)}

    def from_json(self, obj: Any) -> Any:
        """Decode an event or a command. Raises ValueError that names the wrong member."""
        if not isinstance(obj, Mapping):
            raise ValueError(f"an event or command must be a JSON object, not {obj!r:.80}")
        tag = obj.get("t")
        row = self._rows_by_tag.get(tag) if isinstance(tag, str) else None
        if row is None:
            raise ValueError(f"unknown event or command {tag!r:.80}")
        return self.decode_value(row.python_type, {name: member for name, member in obj.items() if name != "t"})

    def encode_value(self, value: Any) -> Any:
        """Encode any value of the table; JSON values stay as they are."""
        if type(value) in _SCALARS:
            return value
        if type(value) in self._rows:
            return self._members(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value).decode(errors="replace")
        if isinstance(value, frozenset):
            return sorted(self.encode_value(member) for member in value)
        if isinstance(value, tuple | list):
            return [self.encode_value(member) for member in value]
        if isinstance(value, Mapping):
            return {key: self.encode_value(member) for key, member in value.items()}
        return value

    def decode_value(self, kind: type[ValueT], obj: Any) -> ValueT:
        """Decode a value of class `kind`, encoded by `encode_value`. Raises ValueError that names the wrong member."""
        try:
            return self._decode_members(kind, obj)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._rows[kind].tag}: {error}") from error

    def _members(self, value: Any) -> dict[str, Any]:
        members = {}
        for field in self._fields[type(value)]:
            member = getattr(value, field.name)
            if member is not None or not field.is_omitted:
                members[field.stored] = self.encode_value(member)
        return members

    def _decode_members(self, kind: Any, obj: Any) -> Any:
        _expect(Mapping, "an object", obj)
        known = self._fields[kind]
        unknown = obj.keys() - {field.stored for field in known}
        if unknown:
            raise ValueError(f"{self._rows[kind].tag} has no field {min(map(str, unknown))!r:.80}")
        members: dict[str, Any] = {}
        for field in known:
            if field.stored in obj:
                members[field.name] = self._decode_typed(field.hint, obj[field.stored])
            elif field.is_required:
                raise ValueError(f"{field.stored} is missing")
        return kind(**members)

    def _decode_typed(self, hint: Any, value: Any) -> Any:
        if hint in self._rows:
            return self._decode_members(hint, value)
        if hint == BytesLike:
            _expect(str, "a text", value)
            return value.encode()
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if value is None and type(None) in arguments:
                return None
            return self._decode_typed(next(choice for choice in arguments if choice is not type(None)), value)
        if origin in (tuple, frozenset):
            _expect(list, "a list", value)
            return origin(self._decode_typed(arguments[0], member) for member in value)
        if origin is Literal:
            if value not in arguments:
                raise ValueError(f"{value!r:.80} is not one of {', '.join(map(repr, arguments))}")
            return value
        if hint is float and type(value) is int:
            return value
        if hint in (int, float, str, bool) and type(value) is not hint:
            raise TypeError(f"{value!r:.80} is not of type {hint.__name__}")
        if origin is Mapping:
            _expect(Mapping, "an object", value)
        return value


def _stored_fields(row: StoredType) -> tuple[_Field, ...]:
    hints, defaults = get_type_hints(row.python_type), _field_defaults(row.python_type)
    return tuple(
        _Field(name, stored, hints[name], name not in defaults, defaults.get(name, MISSING) is None)
        for name, stored in row.fields.items()
    )


def _field_defaults(kind: Any) -> dict[str, Any]:
    """Return the optional fields of a class, with their defaults."""
    if not is_dataclass(kind):
        return dict(kind._field_defaults)
    return {
        field.name: field.default
        for field in fields(kind)
        if field.default is not MISSING or field.default_factory is not MISSING
    }


def _expect(kind: Any, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.80} is not {name}")


FORMAT_2: Final = Schema((*EVENTS, *COMMANDS), VALUES)
to_json, from_json = FORMAT_2.to_json, FORMAT_2.from_json
encode_value, decode_value = FORMAT_2.encode_value, FORMAT_2.decode_value
