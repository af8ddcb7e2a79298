"""Rules for one field of a client event, and the functions that apply a table of them (D5).

A rule is a function of a value, the policy and the field's path. It returns the value to forward, or raises
`PolicyViolation`. Most rules are built by others: `needs` a capability, `allowed_name` by a pattern, `nested` and
`list_of` for the members of an object or list. A table maps the members of an object to their rules.

`filter_fields` is for settings. A denied field is dropped or rejects the whole event, as the policy's `denied_fields`
says; a value of the wrong type always rejects it. `check_fields` is for items, parts and tools, which are forwarded as
a whole or not at all.

An unknown member may mean anything to the upstream. It is forwarded only where the policy limits nothing that it could
be another name for. Where addresses are forbidden, it must be plain text that cannot be an address.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.policy import CAPABILITIES, RealtimePolicy, allows_any, first_literal_name, matches

MAX_PATH_CHARS = 120
MAX_MESSAGE_CHARS = 1000
REASONING_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
MIN_OUTPUT_TOKENS = 1
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_ -]{0,256}")
"""Text that cannot be an address."""
_ADDRESS_WORDS = ("url", "mcp", "connector", "file_id")
"""Words in the names of members that hold an address or a reference to one."""


class PolicyViolation(Exception):
    """A client event that the policy forbids. It is answered by an `error` event and not forwarded."""

    def __init__(self, message: str, param: str | None = None, code: str = "not_allowed_by_policy") -> None:
        super().__init__(message[:MAX_MESSAGE_CHARS])
        self.code = code
        self.param = param[:MAX_PATH_CHARS] if param else None


FieldRule = Callable[[Any, RealtimePolicy, str], Any]
"""Value, policy and path of the field; returns the value to forward. Raises PolicyViolation."""
RuleTable = Mapping[str, FieldRule]

REQUIRED_FIELDS = ("response.input", "response.conversation")
"""Fields that change what a response is. If one is denied, the event is rejected under any policy."""


def filter_fields(obj: Mapping[str, Any], table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    """Apply a table to an object of settings; a denied field is dropped or rejects the event, as the policy says.

    A value of the wrong type always rejects the event, and so does any denied top-level field.
    """
    allowed: JsonObject = {}
    for key, value in obj.items():
        field_path = f"{path}{key}"
        try:
            allowed[key] = table.get(key, unknown_setting)(value, policy, field_path)
        except PolicyViolation as violation:
            is_invalid = violation.code == "invalid_type"
            if policy.denied_fields == "refuse" or not path or field_path in REQUIRED_FIELDS or is_invalid:
                raise
    return allowed


def check_fields(obj: Mapping[str, Any], table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    """Apply a table to an item, a part or a tool, which is forwarded as a whole or not at all."""
    return {key: table.get(key, unknown_member)(value, policy, f"{path}.{key}") for key, value in obj.items()}


# -- violations -------------------------------------------------------------------------------------------------------


def invalid_type(path: str, expected: str) -> PolicyViolation:
    """Return the violation for a value of the wrong type."""
    return PolicyViolation(f"Invalid type for '{path[:MAX_PATH_CHARS]}': expected {expected}.", path, "invalid_type")


def require_capability(capability: str, policy: RealtimePolicy, path: str) -> None:
    """Raise PolicyViolation unless the policy grants this capability."""
    if capability not in policy.allow:
        message = f"This client may not {CAPABILITIES[capability]} ('{path[:MAX_PATH_CHARS]}')."
        raise PolicyViolation(message, path)


def unknown_setting(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for a member of an event or of its settings that is not in the table.

    Where only addresses are forbidden, any value that cannot be an address is allowed.
    """
    is_denied = "unknown" not in policy.allow or policy.restricts_settings
    if is_denied or (policy.forbids_fetches and not (is_plain(value) and is_plain(path.rpartition(".")[2]))):
        raise PolicyViolation(f"Unknown parameter: '{path[:MAX_PATH_CHARS]}'.", path, "unknown_parameter")
    return value


def unknown_member(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Rule for a member of an item, a part or a tool that is not in the table."""
    if "unknown" not in policy.allow or policy.is_restricted:
        raise PolicyViolation(f"Unknown parameter: '{path[:MAX_PATH_CHARS]}'.", path, "unknown_parameter")
    return value


def is_plain(value: Any) -> bool:
    """Return whether a value holds no text that could be an address, and no member named like one."""
    if isinstance(value, str):
        lower = value[:MAX_MESSAGE_CHARS].lower()
        return _PLAIN_TEXT.fullmatch(value) is not None and not any(name in lower for name in _ADDRESS_WORDS)
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(member) for key, member in value.items())
    return all(map(is_plain, value)) if isinstance(value, list) else True


# -- rules for any value ----------------------------------------------------------------------------------------------


def any_value(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Allow any value: only the client reads it, or it is a JSON Schema."""
    return value


def scalar(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Allow a string, a number, a boolean or null."""
    if isinstance(value, Mapping | list) and policy.is_restricted:
        raise invalid_type(path, "a string, a number, a boolean or null")
    return value


def scalar_fields(*names: str) -> RuleTable:
    """Return table rows for members that are scalars."""
    return dict.fromkeys(names, scalar)


def scalar_or_list(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Allow a scalar or a list of scalars."""
    for index, member in enumerate(value if isinstance(value, list) else ()):
        scalar(member, policy, f"{path}[{index}]")
    return value if isinstance(value, list) else scalar(value, policy, path)


def string(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Allow a string or null."""
    if value is not None and not isinstance(value, str):
        raise invalid_type(path, "a string")
    return value


def null_only(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Allow null only: the API has this member in other objects, and SDKs serialize it as null."""
    return value if value is None else unknown_member(value, policy, path)


def one_of(*values: str) -> FieldRule:
    """Allow one of these strings, spelled exactly so, or null."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is not None and value not in values and policy.is_restricted:
            raise PolicyViolation(f"'{path}' must be one of: {', '.join(values)}.", path, "invalid_value")
        return value

    return rule


def needs(capability: str, rule: FieldRule = any_value) -> FieldRule:
    """Require a capability for any value but null, "" and [], which request nothing."""

    def guarded(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is not None and value != "" and value != []:
            require_capability(capability, policy, path)
        return rule(value, policy, path)

    return guarded


# -- rules for objects and lists --------------------------------------------------------------------------------------


def nested(table: Callable[[], RuleTable], *, may_reset: bool = True) -> FieldRule:
    """Apply a table to an object of settings; `may_reset`: null is allowed, as it resets no limited setting."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None and (may_reset or not policy.restricts_settings):
            return None
        if not isinstance(value, Mapping):
            raise invalid_type(path, "an object")
        return filter_fields(value, table(), policy, f"{path}.")

    return rule


def scalar_or_object(table: RuleTable) -> FieldRule:
    """Allow a scalar, or an object whose members are in the table."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        return check_fields(value, table, policy, path) if isinstance(value, Mapping) else scalar(value, policy, path)

    return rule


def list_of(rule: FieldRule) -> FieldRule:
    """Apply a rule to every member of a list; null is allowed."""

    def list_rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise invalid_type(path, "a list")
        return [rule(member, policy, f"{path}[{index}]") for index, member in enumerate(value)]

    return list_rule


# -- limits -----------------------------------------------------------------------------------------------------------


def allowed_name(patterns: Callable[[RealtimePolicy], tuple[str, ...]]) -> FieldRule:
    """Allow a name, or an object with only an `id`, that matches the policy's patterns, spelled exactly so.

    Null is not a name: it would reset the field to a default that may match none of them.
    """

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        allowed = patterns(policy)
        if allows_any(allowed):
            return _NAME(value, policy, path)
        name = value["id"] if isinstance(value, Mapping) and list(value) == ["id"] else value
        if not isinstance(name, str) or not matches(name, allowed):
            raise PolicyViolation(f"'{path}' must be one of: {', '.join(allowed)}.", path, "invalid_value")
        return value

    return rule


_NAME = scalar_or_object({"id": scalar})


def capped_max_tokens(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Cap a number of tokens: any value other than an integer within the policy's cap becomes the cap."""
    cap = policy.max_output_tokens
    if cap is None:
        return scalar(value, policy, path)
    is_within = type(value) is int and MIN_OUTPUT_TOKENS <= value <= cap
    return value if is_within else cap


def capped_effort(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Cap the reasoning effort: any value other than a known lower effort becomes the policy's cap."""
    cap = policy.max_effort
    if cap is None:
        return scalar(value, policy, path)
    is_within = value in REASONING_EFFORTS and REASONING_EFFORTS.index(value) <= REASONING_EFFORTS.index(cap)
    return value if is_within else cap


def capped_reasoning(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Cap the effort in a `reasoning` object; leaving it out would reset it to a default that may be higher."""
    if policy.max_effort is None:
        return _REASONING(value, policy, path)
    limited_reasoning: JsonObject = _REASONING({} if value is None else value, policy, path)
    return {"effort": policy.max_effort} | limited_reasoning


_REASONING = nested(lambda: {"effort": capped_effort})


def transcription_settings(table: Callable[[], RuleTable]) -> FieldRule:
    """Apply a table to transcription settings; with limited models, the policy's first name is the default."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        checked_settings = nested(table)(value, policy, path)
        allowed = policy.transcription_models
        if checked_settings is None or allows_any(allowed) or "model" in checked_settings:
            return checked_settings
        model = allowed_name(lambda _: allowed)(first_literal_name(allowed), policy, f"{path}.model")
        return {**checked_settings, "model": model}

    return rule
