"""The stored names of format 2: one row for each event, each command and each value that they hold.

The rows are in `format2_names.json`: a tag, then the class in Python, then the name that each field is stored under. A
stored name never changes: recordings hold it. Where a class or a field is renamed, its row gets the new name: a field
that is stored under another one is written `name=stored`. `*` stands for all fields under their own names.

Adding a row, or a field that has a default, keeps older recordings readable. All else needs a new format.
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

_KINDS: dict[str, Any] = {}
for _module in (formats, values, policy, limits, turn_metrics, events, commands, realtime_events):
    _KINDS |= {name: kind for name, kind in vars(_module).items() if isinstance(kind, type)}


class StoredType(NamedTuple):
    """One class and how it is stored; `fields` maps the names of Python to the stored ones."""

    python_type: type
    tag: str
    fields: Mapping[str, str]


def _row(tag: str, written: str) -> StoredType:
    kind, *names = _KINDS[written.split()[0]], *written.split()[1:]
    if names == ["*"]:
        names = [field.name for field in fields(kind)]
    return StoredType(kind, tag, {name.split("=")[0]: name.split("=")[-1] for name in names})


_NAMES: Final[Mapping[str, Mapping[str, str]]] = orjson.loads(
    files(__package__).joinpath("format2_names.json").read_bytes()
)
EVENTS, COMMANDS, VALUES = (
    tuple(_row(*row) for row in _NAMES[kind].items()) for kind in ("events", "commands", "values")
)
