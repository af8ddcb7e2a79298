"""What a policy does with each field of each client event of the Realtime protocol: allow, deny or clamp.

`apply` walks an event by the tables below; a field without a row is unknown and needs the capability `unknown`.
Instructions and tools pass here and are merged with the server's afterwards (`relay.core.server_parts`).
https://platform.openai.com/docs/api-reference/realtime-client-events
"""

from collections.abc import Callable, Mapping
from typing import Any

from relay.core.policy import CAPABILITIES, RealtimePolicy, matches
from relay.core.realtime_events import Obj

EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
MAX_PATH_CHARS = 120


class Denied(Exception):
    """A client may not do this; becomes an `error` event, and nothing of the event goes on."""

    def __init__(self, message: str, param: str | None = None, code: str = "not_allowed_by_policy") -> None:
        super().__init__(message)
        self.code = code
        self.param = param[:MAX_PATH_CHARS] if param else None


Rule = Callable[[Any, RealtimePolicy, str], Any]
"""Value, policy and path of the field; returns the value to send on. Raises Denied."""
Table = Mapping[str, Rule]


def apply(event: Mapping[str, Any], policy: RealtimePolicy) -> Obj:
    """The event as it may go on. Raises Denied."""
    kind = event["type"]
    table = EVENTS.get(kind)
    if table is None:
        if "unknown" not in policy.allow:
            raise Denied(f"Events of type '{kind[:80]}' are not known to this relay.", "type", "unknown_event_type")
        return dict(event)
    return _walk(event, table, policy, "")


def check_session(session: Any, policy: RealtimePolicy) -> Obj:
    """A whole session, such as a ticket carries, as the policy lets it be. Raises Denied."""
    checked = _nested(lambda: SESSION)(session, policy, "session")
    return dict(checked) if checked else {}


# -- rules ------------------------------------------------------------------------------------------------------------


def _allow(value: Any, policy: RealtimePolicy, path: str) -> Any:
    return value


def _denied(capability: str, path: str) -> Denied:
    return Denied(f"This client may not {CAPABILITIES[capability]} ('{path[:MAX_PATH_CHARS]}').", path)


def _require(capability: str, policy: RealtimePolicy, path: str) -> None:
    if capability not in policy.allow:
        raise _denied(capability, path)


def _needs(capability: str) -> Rule:
    """Allowed with a capability; null and emptiness ask for nothing and are always allowed."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is not None and value != "" and value != []:
            _require(capability, policy, path)
        return value

    return rule


def _named(patterns: Callable[[RealtimePolicy], tuple[str, ...]]) -> Rule:
    """A name, or an object with an `id`, that must fit the policy's patterns."""

    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        allowed = patterns(policy)
        if value is None or allowed == ("*",):
            return value
        name = value.get("id") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or not matches(name, allowed):
            raise Denied(f"'{path}' may be {', '.join(allowed)} here.", path, "invalid_value")
        return value

    return rule


def _nested(table: Callable[[], Table]) -> Rule:
    def rule(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise Denied(f"Invalid type for '{path}': expected an object.", path, "invalid_type")
        return _walk(value, table(), policy, f"{path}.")

    return rule


def _each(rule: Rule) -> Rule:
    def over(value: Any, policy: RealtimePolicy, path: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise Denied(f"Invalid type for '{path}': expected a list.", path, "invalid_type")
        return [rule(member, policy, f"{path}[{index}]") for index, member in enumerate(value)]

    return over


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Denied(f"Invalid type for '{path}': expected an object.", path, "invalid_type")
    return value


def _max_tokens(value: Any, policy: RealtimePolicy, path: str) -> Any:
    most = policy.max_output_tokens
    if most is None:
        return value
    is_less = isinstance(value, int) and not isinstance(value, bool) and value <= most
    return value if is_less else most  # "inf" and null are the most there is


def _effort(value: Any, policy: RealtimePolicy, path: str) -> Any:
    most = policy.max_effort
    if most is None:
        return value
    is_less = value in EFFORTS and EFFORTS.index(value) <= EFFORTS.index(most)
    return value if is_less else most


def _reasoning(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is None and policy.max_effort is not None:
        return {"effort": policy.max_effort}  # null would bring back a default that may be more
    return _nested(lambda: {"effort": _effort})(value, policy, path)


def _idle_timeout(value: Any, policy: RealtimePolicy, path: str) -> Any:
    return _needs("idle_responses")(value, policy, path)


def _conversation(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value == "none":
        _require("out_of_band", policy, path)
    return value


def _tool(value: Any, policy: RealtimePolicy, path: str) -> Any:
    kind = _object(value, path).get("type", "function")
    if kind == "function":
        _require("client_tools", policy, path)
    elif kind == "mcp":
        _require("mcp", policy, path)
    else:
        _require("unknown", policy, path)
    return value


def _tool_choice(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and value != "auto":
        _require("tool_choice", policy, path)
    return value


def _item(value: Any, policy: RealtimePolicy, path: str) -> Any:
    kind = _object(value, path).get("type", "message")
    if kind == "message":
        _message(value, policy, path)
    elif kind == "function_call":
        _require("history", policy, path)
    elif kind not in ("function_call_output", "item_reference"):
        is_mcp = isinstance(kind, str) and kind.startswith("mcp_")
        _require("mcp" if is_mcp else "unknown", policy, f"{path}.type")
    return value


def _message(item: Mapping[str, Any], policy: RealtimePolicy, path: str) -> None:
    role = item.get("role")
    if role == "assistant":
        _require("history", policy, f"{path}.role")
    elif role != "user":
        _require("system_items", policy, f"{path}.role")  # developer, system, and whatever else ranks above a user
    content = item.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        _part(part, policy, f"{path}.content[{index}]")


def _part(part: Any, policy: RealtimePolicy, path: str) -> None:
    image = _object(part, path).get("image_url")
    if image is None and part.get("type") != "input_image":
        return
    url = image.get("url") if isinstance(image, Mapping) else image
    is_data = isinstance(url, str) and url[:5].lower() == "data:"
    _require("images" if is_data else "image_urls", policy, f"{path}.image_url")


# -- tables -----------------------------------------------------------------------------------------------------------

_FORMAT: Table = {"type": _allow, "rate": _allow}
_TURN_DETECTION: Table = {
    "type": _allow,
    "threshold": _allow,
    "prefix_padding_ms": _allow,
    "silence_duration_ms": _allow,
    "eagerness": _allow,
    "create_response": _allow,
    "interrupt_response": _allow,
    "idle_timeout_ms": _idle_timeout,
}
_TRANSCRIPTION: Table = {
    "model": _named(lambda policy: policy.transcription_models),
    "language": _allow,
    "languages": _allow,
    "prompt": _allow,
    "delay": _allow,
    "keywords": _allow,
}
_AUDIO: Table = {
    "input": _nested(lambda: _AUDIO_INPUT),
    "output": _nested(lambda: _AUDIO_OUTPUT),
}
_AUDIO_INPUT: Table = {
    "format": _nested(lambda: _FORMAT),
    "noise_reduction": _nested(lambda: {"type": _allow, "strength": _allow}),
    "transcription": _nested(lambda: _TRANSCRIPTION),
    "turn_detection": _nested(lambda: _TURN_DETECTION),
}
_AUDIO_OUTPUT: Table = {
    "format": _nested(lambda: _FORMAT),
    "voice": _named(lambda policy: policy.voices),
    "speed": _allow,
}

SESSION: Table = {
    "type": _allow,
    "object": _allow,
    "id": _allow,
    "expires_at": _allow,
    "model": _named(lambda policy: policy.models),
    "instructions": _needs("instructions"),
    "tools": _each(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _allow,
    "prompt": _needs("prompt"),
    "tracing": _needs("tracing"),
    "max_output_tokens": _max_tokens,
    "output_modalities": _allow,
    "reasoning": _reasoning,
    "truncation": _allow,
    "include": _allow,
    "audio": _nested(lambda: _AUDIO),
}
RESPONSE: Table = {
    "instructions": _needs("instructions"),
    "tools": _each(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _allow,
    "prompt": _needs("prompt"),
    "max_output_tokens": _max_tokens,
    "output_modalities": _allow,
    "reasoning": _reasoning,
    "metadata": _allow,
    "conversation": _conversation,
    "input": _each(_item),
    "audio": _nested(lambda: _AUDIO),
}
_ANY: Table = {"type": _allow, "event_id": _allow}
EVENTS: Mapping[str, Table] = {
    "session.update": {**_ANY, "session": _nested(lambda: SESSION)},
    "input_audio_buffer.append": {**_ANY, "audio": _allow},
    "input_audio_buffer.commit": _ANY,
    "input_audio_buffer.clear": _ANY,
    "output_audio_buffer.clear": _ANY,
    "conversation.item.create": {**_ANY, "previous_item_id": _allow, "item": _item},
    "conversation.item.delete": {**_ANY, "item_id": _allow},
    "conversation.item.retrieve": {**_ANY, "item_id": _allow},
    "conversation.item.truncate": {**_ANY, "item_id": _allow, "content_index": _allow, "audio_end_ms": _allow},
    "response.create": {**_ANY, "response": _nested(lambda: RESPONSE)},
    "response.cancel": {**_ANY, "response_id": _allow},
}
"""The 11 client events of the protocol, all of their fields."""


_WHOLE = ("response.input", "response.conversation")
"""A response without these would be another one than was asked for: they refuse their event, whatever the policy."""


def _walk(obj: Mapping[str, Any], table: Table, policy: RealtimePolicy, path: str) -> Obj:
    kept: Obj = {}
    for key, value in obj.items():
        where = f"{path}{key}"
        try:
            rule = table.get(key)
            if rule is None:
                if "unknown" not in policy.allow:
                    raise Denied(f"Unknown parameter: '{where[:MAX_PATH_CHARS]}'.", where, "unknown_parameter")
                kept[key] = value
            else:
                kept[key] = rule(value, policy, where)
        except Denied as denied:
            if policy.denied_fields == "refuse" or not path or where in _WHOLE or denied.code == "invalid_type":
                raise
    return kept


def with_limits(session: Obj, policy: RealtimePolicy) -> Obj:
    """A first configuration of the session with the policy's limits in force, whether or not a client names them."""
    if policy.max_output_tokens is not None:
        session.setdefault("max_output_tokens", policy.max_output_tokens)
    if policy.max_effort is not None:
        session.setdefault("reasoning", {"effort": policy.max_effort})
    first_voice = policy.voices[0] if policy.voices else "*"
    if "*" not in first_voice:
        audio = dict(session.get("audio") or {})
        output = dict(audio.get("output") or {})
        output.setdefault("voice", first_voice)
        session["audio"] = audio | {"output": output}
    return session
