"""The tools that a device client announces: names, descriptions and schemas that a model can be shown."""

import re
from typing import Any

import orjson

from relay.core import events as ev
from relay.core.values import ToolSpec
from relay.json_types import JsonObject

MAX_TOOLS = 32
MAX_DESCRIPTION_CHARS = 1024
MAX_SCHEMA_BYTES = 8 * 1024
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 100, 120_000

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class MessageError(Exception):
    """A message that makes no sense; becomes a `ClientFault`."""

    def __init__(self, message: str, field: str | None = None, code: Any = "bad_message") -> None:
        super().__init__(message)
        self.fault = ev.ClientFault(code, message, field)


def string(obj: JsonObject, field: str, max_chars: int) -> str:
    """A member that must be a text. Raises `MessageError` naming it."""
    value = obj.get(field)
    if not isinstance(value, str) or not value.strip():
        raise MessageError(f"{field} must be a text that is not empty.", field)
    if len(value) > max_chars:
        raise MessageError(f"{field} may have at most {max_chars} characters.", field)
    return value


def read_tools(value: Any, field: str) -> tuple[ToolSpec, ...]:
    """The `tools` of a hello: `[{name, description?, parameters?, timeoutMs?}]`. Raises `MessageError`."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise MessageError(f"{field} must be a list of at most {MAX_TOOLS} tools.", field)
    tools = tuple(_tool(one, f"{field}[{index}]") for index, one in enumerate(value))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MessageError(f"{field}: there are two tools of the name {twice}.", field)
    return tools


def _tool(value: Any, field: str) -> ToolSpec:
    if not isinstance(value, dict):
        raise MessageError(f'{field} must be an object such as {{"name":"open_door"}}.', field)
    name = value.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MessageError(f"{field}.name must be 1 to 64 letters, digits, _ or -.", f"{field}.name")
    description = value.get("description", "")
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION_CHARS:
        raise MessageError(
            f"{field}.description must be a text of at most {MAX_DESCRIPTION_CHARS} characters.", f"{field}.description"
        )
    timeout_ms = value.get("timeoutMs", ToolSpec("", "", {}).timeout_ms)
    if type(timeout_ms) is not int or not MIN_TIMEOUT_MS <= timeout_ms <= MAX_TIMEOUT_MS:
        raise MessageError(
            f"{field}.timeoutMs must be a number of ms from {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}.", f"{field}.timeoutMs"
        )
    return ToolSpec(name, description, _schema(value, field), timeout_ms=timeout_ms)


def _schema(value: JsonObject, field: str) -> JsonObject:
    schema = value.get("parameters", {"type": "object", "properties": {}})
    try:
        n_bytes = len(orjson.dumps(schema))
    except orjson.JSONEncodeError:  # nested too deeply
        n_bytes = MAX_SCHEMA_BYTES + 1
    if not isinstance(schema, dict) or schema.get("type") != "object" or n_bytes > MAX_SCHEMA_BYTES:
        raise MessageError(
            f'{field}.parameters must be a JSON Schema with "type":"object", of at most {MAX_SCHEMA_BYTES} bytes.',
            f"{field}.parameters",
        )
    return schema
