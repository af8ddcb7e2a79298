"""The items, content parts and tools of the Realtime protocol, and what a policy must allow for each (D5).

`item`, `part`, `tool`, `tool_choice` and `prompt` are the rules that `relay.session.realtime.policy_table` puts into
its rows. Each looks at the type of the object, requires the capabilities that this type needs, and applies the table
of its members. Images are `images` as data and `image_urls` as addresses; a call of the model's or its output is
`history`; a server to be called is `mcp`.

The tables are held against the types of the official package. What has no row could be anything, a file to fetch or a
server to call: where a policy limits something, it is refused by name.
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


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid_type(path, "an object")
    return value


def _unknown_type(value: Mapping[str, Any], policy: RealtimePolicy, path: str) -> JsonObject:
    require_capability("unknown", policy, f"{path}.type")
    if policy.is_restricted:
        kind = str(value.get("type"))[:80]
        raise PolicyViolation(f"'{path}.type' '{kind}' is not known to this relay.", f"{path}.type", "invalid_value")
    return dict(value)


def _kind(value: Mapping[str, Any], default: str) -> str:
    """The type of an object, "" for what is no text."""
    kind = value.get("type", default)
    return kind if isinstance(kind, str) else ""


# -- parts ------------------------------------------------------------------------------------------------------------


def _image_url(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and not isinstance(value, str):
        return unknown_member(value, policy, path)
    is_data = isinstance(value, str) and value[:5].lower() == "data:"
    if value is not None:
        require_capability("images" if is_data else "image_urls", policy, path)
    return value


def part(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """One part of a message's content."""
    return _part(value, _PART, policy, path)


def _part(value: Any, table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    checked = check_fields(_object(value, path), table, policy, path)
    if checked.get("type") == "input_image" and checked.get("image_url") is None:
        require_capability("image_urls", policy, f"{path}.image_url")
    return checked


def _parts(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A list of parts; whatever else stands in its place is not understood."""
    return (
        _EACH_PART(value, policy, path) if value is None or policy.is_restricted or isinstance(value, list) else value
    )


def _output(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """What a function returned: a text, or parts."""
    return value if isinstance(value, str) else _parts(value, policy, path)


_PART_TYPES = (
    "input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio", "item_reference"
)  # fmt: skip
_PART: RuleTable = {
    **scalar_fields("text", "audio", "transcript", "detail", "id"),
    "type": one_of(*_PART_TYPES),
    "image_url": _image_url,
    "prompt_cache_breakpoint": scalar_or_object(scalar_fields("mode", "ttl")),
}
_EACH_PART = list_of(part)


# -- items ------------------------------------------------------------------------------------------------------------


def item(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """An item of the conversation, or of a response's input."""
    kind = _kind(_object(value, path), "message")
    if kind == "message":
        _check_role(value.get("role"), policy, f"{path}.role")
    elif kind == "function_call":
        require_capability("history", policy, path)
    elif kind.startswith("mcp_"):
        require_capability("mcp", policy, f"{path}.type")
    table = _ITEMS.get(kind)
    return _unknown_type(value, policy, path) if table is None else check_fields(value, table, policy, path)


_ROLE = one_of("user", "assistant", "system", "developer")


def _check_role(role: Any, policy: RealtimePolicy, path: str) -> None:
    if role == "assistant":
        require_capability("history", policy, path)
    elif role != "user":
        require_capability("system_items", policy, path)  # developer, system, and whatever else ranks above a user
    _ROLE(role, policy, path)


_COMMON_FIELDS: RuleTable = {"id": string, **scalar_fields("type", "object", "status")}
_FOREIGN_FIELDS: RuleTable = dict.fromkeys(("role", "content", "call_id", "name", "arguments", "output"), null_only)
_MCP_ERROR: RuleTable = scalar_fields("type", "code", "message")
_MCP_LISTED: RuleTable = {"name": scalar, "description": scalar, "input_schema": any_value, "annotations": any_value}


def _listed(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    return check_fields(_object(value, path), _MCP_LISTED, policy, path)


_ITEMS: Mapping[str, RuleTable] = {
    "message": {**_COMMON_FIELDS, **_FOREIGN_FIELDS, "role": scalar, "content": _parts},
    "function_call": {**_COMMON_FIELDS, **_FOREIGN_FIELDS, "call_id": string, "name": string, "arguments": scalar},
    "function_call_output": {**_COMMON_FIELDS, **_FOREIGN_FIELDS, "call_id": string, "output": _output},
    "item_reference": {**_COMMON_FIELDS, **_FOREIGN_FIELDS},
    "mcp_approval_request": {**_COMMON_FIELDS, **scalar_fields("server_label", "name", "arguments")},
    "mcp_approval_response": {**_COMMON_FIELDS, **scalar_fields("approval_request_id", "approve", "reason")},
    "mcp_list_tools": {**_COMMON_FIELDS, "server_label": scalar, "tools": list_of(_listed)},
    "mcp_call": {
        **_COMMON_FIELDS,
        **scalar_fields("server_label", "name", "arguments", "approval_request_id", "output"),
        "error": scalar_or_object(_MCP_ERROR),
    },
}
"""Every type of item, all of its members."""


# -- tools ------------------------------------------------------------------------------------------------------------


def _schema(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A JSON schema, read by the model and by nobody else."""
    if policy.is_restricted and value is not None:
        _object(value, path)
    return value


def _headers(value: Any, policy: RealtimePolicy, path: str) -> Any:
    for name, member in value.items() if isinstance(value, Mapping) else ():
        scalar(member, policy, f"{path}.{name}")
    return value if isinstance(value, Mapping) else scalar(value, policy, path)


_TOOL_FILTER: RuleTable = {"read_only": scalar, "tool_names": scalar_or_list}
_APPROVAL: RuleTable = {"always": scalar_or_object(_TOOL_FILTER), "never": scalar_or_object(_TOOL_FILTER)}


def _allowed_tools(value: Any, policy: RealtimePolicy, path: str) -> Any:
    return (
        check_fields(value, _TOOL_FILTER, policy, path)
        if isinstance(value, Mapping)
        else scalar_or_list(value, policy, path)
    )


_TOOLS: Mapping[str, tuple[str, RuleTable]] = {
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
            "require_approval": scalar_or_object(_APPROVAL),
        },
    ),
}
"""Every type of tool: the capability that it needs, and all of its members."""


def tool(value: Any, policy: RealtimePolicy, path: str) -> JsonObject:
    """A tool that the client offers to the model."""
    row = _TOOLS.get(_kind(_object(value, path), "function"))
    if row is None:
        return _unknown_type(value, policy, path)
    capability, table = row
    require_capability(capability, policy, path)
    return check_fields(value, table, policy, path)


def tool_choice(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Which tool the model must use, if any."""
    if value is not None and value != "auto":
        require_capability("tool_choice", policy, path)
    if isinstance(value, Mapping) and value.get("type") == "mcp":
        require_capability("mcp", policy, path)
    return _TOOL_CHOICE(value, policy, path)


_TOOL_CHOICE: FieldRule = scalar_or_object({"type": one_of("function", "mcp"), "name": scalar, "server_label": scalar})


# -- stored prompts ---------------------------------------------------------------------------------------------------


def _file_data(value: Any, policy: RealtimePolicy, path: str) -> Any:
    is_address = isinstance(value, str) and ":" in value and value[:5].lower() != "data:"  # base64 has no colon
    return _FETCHED(value, policy, path) if is_address else scalar(value, policy, path)


_FETCHED: FieldRule = needs("image_urls", scalar)
_VARIABLE: RuleTable = {
    **_PART,
    "type": one_of(*_PART_TYPES, "input_file"),
    "filename": scalar,
    "file_data": _file_data,
    "file_id": _FETCHED,
    "file_url": _FETCHED,
}


def _variable(value: Any, policy: RealtimePolicy, path: str) -> Any:
    is_part = isinstance(value, Mapping)
    return _part(value, _VARIABLE, policy, path) if is_part else scalar(value, policy, path)


def _variables(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """What is put in the place of a prompt's variables: texts, or parts, files among them."""
    members = {} if value is None else _object(value, path)
    return value and {name: _variable(member, policy, f"{path}.{name}") for name, member in members.items()}


prompt: FieldRule = scalar_or_object({"id": scalar, "version": scalar, "variables": _variables})
"""A prompt that is stored with the account."""
