"""The stored names of format 2, complete: `stored_names.json` is what recordings hold, and may only grow."""

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from audio.framing import BytesLike
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, StoredType
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import events as rt

STORED_NAMES = Path(__file__).parent / "stored_names.json"
TABLES = {"events": EVENTS, "commands": COMMANDS, "values": VALUES}
ROWS = (*EVENTS, *COMMANDS, *VALUES)
NOT_STORED = {rt.RealtimeClientEvent: {"n_members"}}
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
TAGS = {row.python_type: row.tag for row in ROWS}


def defaults_of(kind: Any) -> set[str]:
    if not is_dataclass(kind):
        return set(kind._field_defaults)
    return {field.name for field in fields(kind) if (field.default, field.default_factory) != (MISSING, MISSING)}


def described(hint: Any) -> str:
    """The type of a field, without a Python name in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in TAGS:
        return TAGS[hint]
    if hint == BytesLike:
        return "text"
    if origin is Literal:
        return " | ".join(arguments)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return f"{described(inner)}, or null"
    if origin in (tuple, frozenset):
        return f"list of {described(arguments[0])}"
    return "object" if origin is Mapping else SCALARS[hint]


def vocabulary() -> dict[str, dict[str, dict[str, str]]]:
    return {name: {row.tag: described_row(row) for row in rows} for name, rows in TABLES.items()}


def described_row(row: StoredType) -> dict[str, str]:
    hints, defaults = get_type_hints(row.python_type), defaults_of(row.python_type)
    return {
        stored: described(hints[name]) + ("" if name in defaults else "; required")
        for name, stored in row.fields.items()
    }


def test_stored_names_are_those_that_recordings_hold() -> None:
    """A name here never changes: a new tag, field or choice is added to the file, all else is a new format."""
    assert vocabulary() == json.loads(STORED_NAMES.read_text())


def test_every_event_and_command_has_a_tag() -> None:
    assert {row.python_type for row in EVENTS} == {*get_args(ev.Event), *get_args(rt.RealtimeEvent)}
    assert {row.python_type for row in COMMANDS} == {*get_args(cmd.Command), *get_args(rt.RealtimeCommand)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.tag)
def test_every_field_is_stored_under_a_name_of_its_own(row: StoredType) -> None:
    names = set(get_type_hints(row.python_type)) - NOT_STORED.get(row.python_type, set())
    assert set(row.fields) == names
    assert len(set(row.fields.values())) == len(names)
    assert "t" not in row.fields.values()  # which is the tag


def test_no_tag_stands_for_two() -> None:
    assert len({row.tag for row in ROWS}) == len(ROWS)
    assert len({row.python_type for row in ROWS}) == len(ROWS)
