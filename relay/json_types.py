"""The type of JSON objects, and a tolerant parser for them."""

from collections.abc import Mapping
from typing import Any

import orjson

JsonObject = dict[str, Any]
JsonEvent = Mapping[str, Any]
"""A parsed event of the Realtime protocol, which nobody changes in place."""


def parse_json_object(raw: str | bytes) -> JsonObject | None:
    """Parse a JSON object; None if the text is anything else."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
