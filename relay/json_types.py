"""The type of JSON objects, and how one is read from a message of somebody else."""

from collections.abc import Mapping
from typing import Any

import orjson

JsonObject = dict[str, Any]
JsonEvent = Mapping[str, Any]
"""A parsed event of the Realtime protocol, which nobody changes in place."""


def parse_json_object(raw: str | bytes) -> JsonObject | None:
    """The object that a JSON text is; None if it is none."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
