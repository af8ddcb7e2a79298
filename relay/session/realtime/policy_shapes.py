"""The items, content parts and tools of the Realtime protocol, and the capabilities that each of them needs (D5).

`item`, `part`, `tool`, `tool_choice` and `prompt` are rules in the tables of `relay.session.realtime.policy_table`.
Each looks at the type of the object, requires the capabilities for this type, and applies the table of its members.
Images need `images` as data and `image_urls` as addresses. A function call or its output needs `history`, a remote
server `mcp`.

Tests compare the tables with the types of the official package. A member that is not in its table could be a file to
fetch or a server to call. It is rejected where the policy limits anything.
"""

from collections.abc import Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.policy import RealtimePolicy
from relay.session.realtime.policy_rules import (
    FieldRule,
    PolicyViolation,
    RuleTable,
    any_value,
    check_fields,
    invalid_type,
    list_of,
    needs,
    null_only,
    one_of,
    require_capability,
    scalar,
    scalar_fields,
    scalar_or_list,
    scalar_or_object,
    string,
    unknown_member,
)


def _require_object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid_type(path, "an object")
    return value


def _unknown_type(value: Mapping[str, Any], policy: RealtimePolicy, path: str) -> JsonObject:
    require_capability("unknown", policy, f"{path}.type")
    if policy.is_restricted:
        object_type = str(value.get("type"))[:80]
        raise PolicyViolation(f"Unknown type '{object_type}' in '{path}.type'.", f"{path}.type", "invalid_value")
    return dict(value)


def _get_type(value: Mapping[str, Any], default: str) -> str:
    """Return the type of an object, "" if it is not a string."""
    object_type = value.get("type", default)
    return object_type if isinstance(object_type, str) else ""


# -- parts ------------------------------------------------------------------------------------------------------------


def _image_url(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and not isinstance(value, str):
        return unknown_member(value, policy, path)
    is_data = isinstance(value, str) and value[:5].lower() == "data:"
    if value is not None:
        require_capability("images" if is_data else "image_urls", policy, path)
    return value


def part(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """Rule for one content part of a message."""
    return _part(value, _PART_FIELDS, policy, path)


def _part(value: Any, table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    checked = check_fields(_require_object(value, path), table, policy, path)
    if checked.get("type") == "input_image" and checked.get("image_url") is None:
        require_capability("image_urls", policy, f"{path}.image_url")
    return checked


def _parts(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for a list of content parts."""
    is_checked = value is None or policy.is_restricted or isinstance(value, list)
    return _EACH_PART(value, policy, path) if is_checked else value


def _output(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for the output of a function: a string, or content parts."""
    return value if isinstance(value, str) else _parts(value, policy, path)


_PART_TYPES = (
    "input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio", "item_reference"
)  # fmt: skip
_PART_FIELDS: RuleTable = {
    **scalar_fields("text", "audio", "transcript", "detail", "id"),
    "type": one_of(*_PART_TYPES),
    "image_url": _image_url,
    "prompt_cache_breakpoint": scalar_or_object(scalar_fields("mode", "ttl")),
}
_EACH_PART = list_of(part)


# -- items ------------------------------------------------------------------------------------------------------------


def item(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """Rule for an item of the conversation, or of a response's input."""
    item_type = _get_type(_require_object(value, path), "message")
    if item_type == "message":
        _check_role(value.get("role"), policy, f"{path}.role")
    elif item_type == "function_call":
        require_capability("history", policy, path)
    elif item_type.startswith("mcp_"):
        require_capability("mcp", policy, f"{path}.type")
    table = _ITEM_FIELDS.get(item_type)
    return _unknown_type(value, policy, path) if table is None else check_fields(value, table, policy, path)


_ROLE = one_of("user", "assistant", "system", "developer")


def _check_role(role: Any, policy: RealtimePolicy, path: str) -> None:
    if role == "assistant":
        require_capability("history", policy, path)
    elif role != "user":
        require_capability("system_items", policy, path)  # developer, system, and any other role above the user
    _ROLE(role, policy, path)


_COMMON_FIELDS: RuleTable = {"id": string, **scalar_fields("type", "object", "status")}
_NULL_FIELDS: RuleTable = dict.fromkeys(("role", "content", "call_id", "name", "arguments", "output"), null_only)
_MCP_ERROR_FIELDS: RuleTable = scalar_fields("type", "code", "message")
_MCP_TOOL_FIELDS: RuleTable = {
    "name": scalar,
    "description": scalar,
    "input_schema": any_value,
    "annotations": any_value,
}


def _mcp_tool(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    return check_fields(_require_object(value, path), _MCP_TOOL_FIELDS, policy, path)


_ITEM_FIELDS: Mapping[str, RuleTable] = {
    "message": {**_COMMON_FIELDS, **_NULL_FIELDS, "role": scalar, "content": _parts},
    "function_call": {**_COMMON_FIELDS, **_NULL_FIELDS, "call_id": string, "name": string, "arguments": scalar},
    "function_call_output": {**_COMMON_FIELDS, **_NULL_FIELDS, "call_id": string, "output": _output},
    "item_reference": {**_COMMON_FIELDS, **_NULL_FIELDS},
    "mcp_approval_request": {**_COMMON_FIELDS, **scalar_fields("server_label", "name", "arguments")},
    "mcp_approval_response": {**_COMMON_FIELDS, **scalar_fields("approval_request_id", "approve", "reason")},
    "mcp_list_tools": {**_COMMON_FIELDS, "server_label": scalar, "tools": list_of(_mcp_tool)},
    "mcp_call": {
        **_COMMON_FIELDS,
        **scalar_fields("server_label", "name", "arguments", "approval_request_id", "output"),
        "error": scalar_or_object(_MCP_ERROR_FIELDS),
    },
}
"""The members of each item type."""


# -- tools ------------------------------------------------------------------------------------------------------------


def _schema(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for a JSON Schema, which only the model reads."""
    if policy.is_restricted and value is not None:
        _require_object(value, path)
    return value


def _headers(value: Any, policy: RealtimePolicy, path: str) -> Any:
    for name, member in value.items() if isinstance(value, Mapping) else ():
        scalar(member, policy, f"{path}.{name}")
    return value if isinstance(value, Mapping) else scalar(value, policy, path)


_TOOL_FILTER_FIELDS: RuleTable = {"read_only": scalar, "tool_names": scalar_or_list}
_APPROVAL_FIELDS: RuleTable = {
    "always": scalar_or_object(_TOOL_FILTER_FIELDS),
    "never": scalar_or_object(_TOOL_FILTER_FIELDS),
}


def _allowed_tools(value: Any, policy: RealtimePolicy, path: str) -> Any:
    return (
        check_fields(value, _TOOL_FILTER_FIELDS, policy, path)
        if isinstance(value, Mapping)
        else scalar_or_list(value, policy, path)
    )


_TOOL_FIELDS: Mapping[str, tuple[str, RuleTable]] = {
    "function": (
        "client_tools",
        {**scalar_fields("type", "name", "description", "strict"), "parameters": _schema},
    ),
    "mcp": (
        "mcp",
        {
            **scalar_fields("type", "server_label", "server_url", "server_description", "connector_id", "tunnel_id"),
            **scalar_fields("authorization", "defer_loading"),
            "headers": _headers,
            "allowed_callers": scalar_or_list,
            "allowed_tools": _allowed_tools,
            "require_approval": scalar_or_object(_APPROVAL_FIELDS),
        },
    ),
}
"""The capability that each tool type needs, and its members."""


def tool(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """Rule for a tool that the client offers to the model."""
    row = _TOOL_FIELDS.get(_get_type(_require_object(value, path), "function"))
    if row is None:
        return _unknown_type(value, policy, path)
    capability, table = row
    require_capability(capability, policy, path)
    return check_fields(value, table, policy, path)


def tool_choice(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for which tool the model must use."""
    if value is not None and value != "auto":
        require_capability("tool_choice", policy, path)
    if isinstance(value, Mapping) and value.get("type") == "mcp":
        require_capability("mcp", policy, path)
    return _TOOL_CHOICE(value, policy, path)


_TOOL_CHOICE: FieldRule = scalar_or_object({"type": one_of("function", "mcp"), "name": scalar, "server_label": scalar})


# -- stored prompts ---------------------------------------------------------------------------------------------------


def _file_data(value: Any, policy: RealtimePolicy, path: str) -> Any:
    is_address = isinstance(value, str) and ":" in value and value[:5].lower() != "data:"  # base64 has no colon
    return _FETCHED_MEMBER(value, policy, path) if is_address else scalar(value, policy, path)


_FETCHED_MEMBER: FieldRule = needs("image_urls", scalar)
_VARIABLE_FIELDS: RuleTable = {
    **_PART_FIELDS,
    "type": one_of(*_PART_TYPES, "input_file"),
    "filename": scalar,
    "file_data": _file_data,
    "file_id": _FETCHED_MEMBER,
    "file_url": _FETCHED_MEMBER,
}


def _variable(value: Any, policy: RealtimePolicy, path: str) -> Any:
    is_part = isinstance(value, Mapping)
    return _part(value, _VARIABLE_FIELDS, policy, path) if is_part else scalar(value, policy, path)


def _variables(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for the values of a prompt's variables: strings or content parts, including files."""
    members = {} if value is None else _require_object(value, path)
    return value and {name: _variable(member, policy, f"{path}.{name}") for name, member in members.items()}


prompt: FieldRule = scalar_or_object({"id": scalar, "version": scalar, "variables": _variables})
"""Rule for a prompt that is stored with the account."""
