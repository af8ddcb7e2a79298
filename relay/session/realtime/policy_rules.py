"""What a policy does with one value of a client's event: rules, and the walk that applies a table of them (D5).

A rule is a function of a value, the policy and the field's path. It returns the value as it may go on, or raises
`PolicyViolation`. Most rules are made by others: `needs` a capability, `allowed_name` by a pattern, `nested` and
`list_of` apply a table or a rule to what is inside. A table names the members of an object and the rule of each.

`filter_fields` is for settings. A denied field refuses its whole event or is left out, as the policy's `denied_fields`
says; a value of the wrong type always refuses. `check_fields` is for items, parts and tools, which pass as a whole or
not at all.

Nobody can say what an upstream would make of an unknown member. So it passes only where the policy limits nothing that
it could be another name of, and where addresses are guarded only as plain text that can be no address.
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
"""Text that can be no address."""
_ADDRESS_WORDS = ("url", "mcp", "connector", "file_id")
"""What is in the names of members that hold one, or that stand for one."""


class PolicyViolation(Exception):
    """A client may not do this; becomes an `error` event, and nothing of the event goes on."""

    def __init__(self, message: str, param: str | None = None, code: str = "not_allowed_by_policy") -> None:
        super().__init__(message[:MAX_MESSAGE_CHARS])
        self.code = code
        self.param = param[:MAX_PATH_CHARS] if param else None


FieldRule = Callable[[Any, RealtimePolicy, str], Any]
"""Value, policy and path of the field; returns the value to send on. Raises Denied."""
RuleTable = Mapping[str, FieldRule]

REQUIRED_FIELDS = ("response.input", "response.conversation")
"""A response without these would be another one than was asked for: they refuse their event, whatever the policy."""


def filter_fields(obj: Mapping[str, Any], table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    """An object of settings by its table; a field that is denied refuses its event or is left out, as the policy says.

    Fields of the wrong type always refuse their event, and so do the event's own members.
    """
    kept: JsonObject = {}
    for key, value in obj.items():
        where = f"{path}{key}"
        try:
            kept[key] = table.get(key, unknown_setting)(value, policy, where)
        except PolicyViolation as denied:
            if (
                policy.denied_fields == "refuse"
                or not path
                or where in REQUIRED_FIELDS
                or denied.code == "invalid_type"
            ):
                raise
    return kept


def check_fields(obj: Mapping[str, Any], table: RuleTable, policy: RealtimePolicy, path: str) -> JsonObject:
    """An item, a part or a tool by its table: as a whole or not at all."""
    return {key: table.get(key, unknown_member)(value, policy, f"{path}.{key}") for key, value in obj.items()}


# -- refusals ---------------------------------------------------------------------------------------------------------


def invalid_type(path: str, expected: str) -> PolicyViolation:
    """The refusal of a value of another type."""
    return PolicyViolation(f"Invalid type for '{path[:MAX_PATH_CHARS]}': expected {expected}.", path, "invalid_type")


def require_capability(capability: str, policy: RealtimePolicy, path: str) -> None:
    """Raise Denied unless the policy grants this capability."""
    if capability not in policy.allow:
        text = f"This client may not {CAPABILITIES[capability]} ('{path[:MAX_PATH_CHARS]}')."
        raise PolicyViolation(text, path)


def unknown_setting(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A member of an event or of its settings that has no row.

    Where nothing but addresses is guarded it may hold whatever can be no address.
    """
    is_denied = "unknown" not in policy.allow or policy.restricts_settings
    if is_denied or (policy.forbids_fetches and not (is_plain(value) and is_plain(path.rpartition(".")[2]))):
        raise PolicyViolation(f"Unknown parameter: '{path[:MAX_PATH_CHARS]}'.", path, "unknown_parameter")
    return value


def unknown_member(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A member of an item, a part or a tool that has no row."""
    if "unknown" not in policy.allow or policy.is_restricted:
        raise PolicyViolation(f"Unknown parameter: '{path[:MAX_PATH_CHARS]}'.", path, "unknown_parameter")
    return value


def is_plain(value: Any) -> bool:
    """Whether a value holds no text that could be an address, and no member by the name of one."""
    if isinstance(value, str):
        lower = value[:MAX_MESSAGE_CHARS].lower()
        return _PLAIN_TEXT.fullmatch(value) is not None and not any(name in lower for name in _ADDRESS_WORDS)
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(member) for key, member in value.items())
    return all(map(is_plain, value)) if isinstance(value, list) else True


# -- rules for any value ----------------------------------------------------------------------------------------------


def any_value(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """Whatever it is: nobody but the client reads it, or it is a schema."""
    return value


def scalar(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A text, a number, true, false or null."""
    if isinstance(value, Mapping | list) and policy.is_restricted:
        raise invalid_type(path, "a text or a number")
    return value


def scalar_fields(*names: str) -> RuleTable:
    """The rows of members that are scalars."""
    return dict.fromkeys(names, scalar)


def scalar_or_list(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """One of them, or a list of them."""
    for index, member in enumerate(value if isinstance(value, list) else ()):
        scalar(member, policy, f"{path}[{index}]")
    return value if isinstance(value, list) else scalar(value, policy, path)


def string(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A text, or null."""
    if value is not None and not isinstance(value, str):
        raise invalid_type(path, "a text")
    return value


def null_only(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """A member that the API has elsewhere: SDKs write it out as null."""
    return value if value is None else unknown_member(value, policy, path)


def one_of(*values: str) -> FieldRule:
    """One of these texts or null, in exactly this spelling."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is not None and value not in values and policy.is_restricted:
            raise PolicyViolation(f"'{path}' may be {', '.join(values)} here.", path, "invalid_value")
        return value

    return rule


def needs(capability: str, rule: FieldRule = any_value) -> FieldRule:
    """Allowed with a capability; null and emptiness ask for nothing and are always allowed."""

    def needing(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is not None and value != "" and value != []:
            require_capability(capability, policy, path)
        return rule(value, policy, path)

    return needing


# -- rules for objects and lists --------------------------------------------------------------------------------------


def nested(table: Callable[[], RuleTable], *, may_reset: bool = True) -> FieldRule:
    """An object of settings or null; `may_reset`: null brings back nothing that a policy limits."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None and (may_reset or not policy.restricts_settings):
            return None
        if not isinstance(value, Mapping):
            raise invalid_type(path, "an object")
        return filter_fields(value, table(), policy, f"{path}.")

    return rule


def scalar_or_object(table: RuleTable) -> FieldRule:
    """A scalar, or an object of a known shape."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        return check_fields(value, table, policy, path) if isinstance(value, Mapping) else scalar(value, policy, path)

    return rule


def list_of(rule: FieldRule) -> FieldRule:
    """A list of such members, or null."""

    def over(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise invalid_type(path, "a list")
        return [rule(member, policy, f"{path}[{index}]") for index, member in enumerate(value)]

    return over


# -- limits -----------------------------------------------------------------------------------------------------------


def allowed_name(patterns: Callable[[RealtimePolicy], tuple[str, ...]]) -> FieldRule:
    """A name, or an object with nothing but an `id`, that must fit the policy's patterns as it is written.

    Null is no name: it would bring back a default that may be none of them.
    """

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        allowed = patterns(policy)
        if allows_any(allowed):
            return _NAME(value, policy, path)
        name = value["id"] if isinstance(value, Mapping) and list(value) == ["id"] else value
        if not isinstance(name, str) or not matches(name, allowed):
            raise PolicyViolation(f"'{path}' may be {', '.join(allowed)} here.", path, "invalid_value")
        return value

    return rule


_NAME = scalar_or_object({"id": scalar})


def capped_max_tokens(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """At most the policy's cap: anything but a whole number within it is the cap."""
    cap = policy.max_output_tokens
    if cap is None:
        return scalar(value, policy, path)
    is_within = type(value) is int and MIN_OUTPUT_TOKENS <= value <= cap
    return value if is_within else cap


def capped_effort(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """At most the policy's cap: anything that is not a known lower effort is the cap."""
    cap = policy.max_effort
    if cap is None:
        return scalar(value, policy, path)
    is_within = value in REASONING_EFFORTS and REASONING_EFFORTS.index(value) <= REASONING_EFFORTS.index(cap)
    return value if is_within else cap


def capped_reasoning(value: Any, policy: RealtimePolicy, path: str) -> Any:
    """The effort of reasoning; saying nothing of it would bring back a default that may be more."""
    if policy.max_effort is None:
        return _REASONING(value, policy, path)
    limited: JsonObject = _REASONING({} if value is None else value, policy, path)
    return {"effort": policy.max_effort} | limited


_REASONING = nested(lambda: {"effort": capped_effort})


def transcription_settings(table: Callable[[], RuleTable]) -> FieldRule:
    """How speech is transcribed; where the models are limited, one that is not named is the policy's first."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        checked = nested(table)(value, policy, path)
        allowed = policy.transcription_models
        if checked is None or allows_any(allowed) or "model" in checked:
            return checked
        return {
            **checked,
            "model": allowed_name(lambda _: allowed)(first_literal_name(allowed), policy, f"{path}.model"),
        }

    return rule
