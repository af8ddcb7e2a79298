"""The stored names of format 2: one row for each event, each command and each of their values.

The rows are in `format2_names.json`: the tag, the Python class, then its fields. A stored name never changes, because
recordings contain it. A renamed class or field changes the Python side of its row: `name=stored` is a field that is
stored under another name. `*` means all fields under their own names.

A new row, or a new field with a default, keeps older recordings readable. Any other change needs a new format.
"""

from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any, Final, NamedTuple

import orjson

from audio import formats
from relay.session.common import limits, policy
from relay.session.common import model as values
from relay.session.device import commands, events, turn_metrics
from relay.session.realtime import events as realtime_events

LATENCY_TAG: Final = "send_latency"

_PYTHON_TYPES: dict[str, Any] = {}
for _module in (formats, values, policy, limits, turn_metrics, events, commands, realtime_events):
    _PYTHON_TYPES |= {name: kind for name, kind in vars(_module).items() if isinstance(kind, type)}


class StoredType(NamedTuple):
    """A Python class and its stored names; `fields` maps the names in Python to the stored ones."""

    python_type: type
    tag: str
    fields: Mapping[str, str]


def _stored_type(tag: str, definition: str) -> StoredType:
    kind, *names = _PYTHON_TYPES[definition.split()[0]], *definition.split()[1:]
    if names == ["*"]:
        names = [field.name for field in fields(kind)]
    return StoredType(kind, tag, {name.split("=")[0]: name.split("=")[-1] for name in names})


_NAMES: Final[Mapping[str, Mapping[str, str]]] = orjson.loads(
    files(__package__).joinpath("format2_names.json").read_bytes()
)
EVENTS, COMMANDS, VALUES = (
    tuple(_stored_type(*row) for row in _NAMES[kind].items()) for kind in ("events", "commands", "values")
)
