"""Holds every message of the device protocol that a test sends or receives against
`relay/protocols/device/schema.json`.
"""

import functools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, Literal

import jsonschema_rs

Obj = dict[str, Any]
Direction = Literal["toClient", "toRelay"]

SCHEMA: Obj = json.loads((resources.files("relay.protocols.device") / "schema.json").read_text("utf-8"))
DEFS: dict[str, Obj] = SCHEMA["$defs"]
MESSAGES: dict[Direction, list[str]] = {
    direction: [one["$ref"].rpartition("/")[2] for one in DEFS[direction]["oneOf"]]
    for direction in ("toClient", "toRelay")
}
"""The messages of each direction by name: their `type`, or the event's `name`."""


def name_of(message: Obj) -> str:
    """What a message is called in the schema."""
    return str(message.get("name") if message.get("type") == "event" else message.get("type"))


@functools.cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    # By name, not through the `oneOf` of its direction: the complaint then names the field that is wrong.
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": DEFS})


def complaints(message: object, direction: Direction) -> Iterator[str]:
    """What the schema has against a message, one sentence each."""
    if not isinstance(message, dict) or name_of(message) not in MESSAGES[direction]:
        yield f"the schema has no such message {direction}"
        return
    for error in _validator(name_of(message)).iter_errors(message):
        yield f"{'.'.join(map(str, error.instance_path)) or 'the message'}: {error.message}"


def check(message: Obj, direction: Direction) -> Obj:
    """The message, if the schema has nothing against it."""
    found = list(complaints(message, direction))
    assert not found, f"{message!r:.400} is not what schema.json says: {'; '.join(found)}"
    return message
