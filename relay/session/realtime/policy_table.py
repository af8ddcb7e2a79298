"""The policy's rule for each field of each client event of the Realtime protocol: allow, deny or cap (D5).

`apply_policy` applies the table of the event's type and returns the event to forward. The tables have a row for every
field of the protocol. The rules in the rows are in `relay.session.realtime.policy_rules`. A field without a row is
unknown, and so is an event without a table. They are forwarded only where the policy limits nothing they could change.

Events are in GA form, so these rules hold for every dialect of client and upstream. The server's instructions and tools
are merged afterwards (`relay.session.common.server_overlay`).

A client that leaves a field out must not get more than one that sets it. So `apply_limits` puts the caps, the voice and
the transcription model into the initial configuration. `check_session` is for sessions in a client secret.
https://platform.openai.com/docs/api-reference/realtime-client-events
"""

from collections.abc import Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.policy import RealtimePolicy, allows_any, first_literal_name, matches
from relay.session.realtime.policy_rules import (
    PolicyViolation,
    RuleTable,
    allowed_name,
    any_value,
    capped_max_tokens,
    capped_reasoning,
    filter_fields,
    invalid_type,
    is_plain,
    list_of,
    needs,
    nested,
    one_of,
    require_capability,
    scalar,
    scalar_fields,
    scalar_or_list,
    scalar_or_object,
    string,
    transcription_settings,
)
from relay.session.realtime.policy_shapes import item, prompt, tool, tool_choice

__all__ = ["PolicyViolation", "apply_limits", "apply_policy", "check_session"]

BETA_ONLY_EVENTS = frozenset({"transcription_session.update"})
"""Events that are translated to GA first; untranslated, one would bypass the rules on a beta upstream."""


def apply_policy(event: Mapping[str, Any], policy: RealtimePolicy) -> JsonObject:
    """Return the event to forward. Raises PolicyViolation."""
    table = EVENT_FIELDS.get(event["type"])
    return _unknown_event(event, policy) if table is None else filter_fields(event, table, policy, "")


def check_session(session: Any, policy: RealtimePolicy) -> JsonObject:
    """Apply the policy to a whole session, such as that of a client secret. Raises PolicyViolation."""
    checked = nested(lambda: SESSION_FIELDS)(session, policy, "session")
    return dict(checked) if checked else {}


def _unknown_event(event: Mapping[str, Any], policy: RealtimePolicy) -> JsonObject:
    """Forward an event of unknown type only if it cannot get around a limit."""
    is_denied = "unknown" not in policy.allow or policy.restricts_settings or event["type"] in BETA_ONLY_EVENTS
    members = {name: value for name, value in event.items() if name not in _BASE_FIELDS}
    if is_denied or (policy.forbids_fetches and not is_plain(members)):
        event_type = event["type"][:80]
        raise PolicyViolation(f"Unknown event type '{event_type}'.", "type", "unknown_event_type")
    return dict(event)


def _conversation(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and value != "auto":
        require_capability("out_of_band", policy, path)
    return scalar(value, policy, path)


def _metadata(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and not isinstance(value, Mapping) and policy.is_restricted:
        raise invalid_type(path, "an object")
    return value


# -- tables -----------------------------------------------------------------------------------------------------------

_FORMAT_FIELDS: RuleTable = scalar_fields("type", "rate")
_TURN_DETECTION_FIELDS: RuleTable = {
    **scalar_fields("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "eagerness"),
    **scalar_fields("create_response", "interrupt_response"),
    "idle_timeout_ms": needs("idle_responses", scalar),
}
_TRANSCRIPTION_FIELDS: RuleTable = {
    "model": allowed_name(lambda policy: policy.transcription_models),
    **scalar_fields("language", "prompt", "delay"),
    "languages": scalar_or_list,
    "keywords": scalar_or_list,
}
_AUDIO_FIELDS: RuleTable = {
    "input": nested(lambda: _AUDIO_INPUT_FIELDS, may_reset=False),
    "output": nested(lambda: _AUDIO_OUTPUT_FIELDS, may_reset=False),
}
_AUDIO_INPUT_FIELDS: RuleTable = {
    "format": nested(lambda: _FORMAT_FIELDS),
    "noise_reduction": nested(lambda: {"type": scalar, "strength": scalar}),
    "transcription": transcription_settings(lambda: _TRANSCRIPTION_FIELDS),
    "turn_detection": nested(lambda: _TURN_DETECTION_FIELDS),
}
_AUDIO_OUTPUT_FIELDS: RuleTable = {
    "format": nested(lambda: _FORMAT_FIELDS),
    "voice": allowed_name(lambda policy: policy.voices),
    "speed": scalar,
}

_ANSWER_FIELDS: RuleTable = {
    "instructions": needs("instructions", string),
    "tools": list_of(tool),
    "tool_choice": tool_choice,
    "parallel_tool_calls": scalar,
    "prompt": needs("prompt", prompt),
    "max_output_tokens": capped_max_tokens,
    "output_modalities": scalar_or_list,
    "reasoning": capped_reasoning,
    "audio": nested(lambda: _AUDIO_FIELDS, may_reset=False),
}
"""How the model answers: in a session, and in one response."""
SESSION_FIELDS: RuleTable = {
    **_ANSWER_FIELDS,
    **scalar_fields("object", "id", "expires_at"),
    "type": one_of("realtime", "transcription"),
    "model": allowed_name(lambda policy: policy.models),
    "tracing": needs(
        "tracing", scalar_or_object({**scalar_fields("workflow_name", "group_id"), "metadata": any_value})
    ),
    "truncation": scalar_or_object(
        {"type": scalar, "retention_ratio": scalar, "token_limits": scalar_or_object({"post_instructions": scalar})}
    ),
    "include": scalar_or_list,
}
RESPONSE_FIELDS: RuleTable = {
    **_ANSWER_FIELDS,
    "metadata": _metadata,
    "conversation": _conversation,
    "input": list_of(item),
}
_BASE_FIELDS: RuleTable = scalar_fields("type", "event_id")
EVENT_FIELDS: Mapping[str, RuleTable] = {
    "session.update": {**_BASE_FIELDS, "session": nested(lambda: SESSION_FIELDS, may_reset=False)},
    "input_audio_buffer.append": {**_BASE_FIELDS, "audio": scalar},
    "input_audio_buffer.commit": _BASE_FIELDS,
    "input_audio_buffer.clear": _BASE_FIELDS,
    "output_audio_buffer.clear": _BASE_FIELDS,
    "conversation.item.create": {**_BASE_FIELDS, "previous_item_id": scalar, "item": item},
    "conversation.item.delete": {**_BASE_FIELDS, "item_id": scalar},
    "conversation.item.retrieve": {**_BASE_FIELDS, "item_id": scalar},
    "conversation.item.truncate": {**_BASE_FIELDS, "item_id": scalar, "content_index": scalar, "audio_end_ms": scalar},
    "response.create": {**_BASE_FIELDS, "response": nested(lambda: RESPONSE_FIELDS)},
    "response.cancel": {**_BASE_FIELDS, "response_id": scalar},
}
"""The 11 client events of the protocol, with all their fields."""


# -- initial configuration --------------------------------------------------------------------------------------------


def apply_limits(
    session: JsonObject, policy: RealtimePolicy, upstream_session: Mapping[str, Any] | None = None
) -> JsonObject:
    """Add the policy's limits to an initial session configuration where the client set no value.

    `upstream_session` is the session as the upstream created it. If its transcription model is not allowed, the
    policy's first literal name replaces it; without one, transcription is turned off.
    """
    for name, limit in policy.session_limits.items():
        session.setdefault(name, limit)
    voice, model = policy.first_voice(), first_literal_name(policy.transcription_models)
    if voice is not None and not allows_any(policy.voices):
        _set_audio_default(session, "output", "voice", voice)
    if not _may_transcribe(upstream_session, policy):
        _set_audio_default(session, "input", "transcription", None if model is None else {"model": model})
    return session


def with_default_voice(session: Mapping[str, Any] | None, voice: str) -> JsonObject:
    """Return an initial session configuration with this voice, unless it has one."""
    initial = dict(session or {})
    _set_audio_default(initial, "output", "voice", voice)
    return initial


def has_voice(session: Mapping[str, Any] | None) -> bool:
    """Return whether an initial session configuration sets a voice."""
    return _member(session, "audio", "output", "voice") is not None


def _may_transcribe(upstream_session: Mapping[str, Any] | None, policy: RealtimePolicy) -> bool:
    name = _member(upstream_session, "audio", "input", "transcription", "model")
    return name is None or matches(str(name), policy.transcription_models)


def _member(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _set_audio_default(session: JsonObject, direction: str, key: str, value: Any) -> None:
    """Set a member of `audio.input` or `audio.output` unless it is set already."""
    audio = dict(session.get("audio") or {})
    session["audio"] = audio | {direction: {key: value} | (audio.get(direction) or {})}
