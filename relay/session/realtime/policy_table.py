"""What a policy does with each field of each client event of the Realtime protocol: allow, deny or clamp (D5).

`apply` walks an event by the table of its type, and returns the event as it may go on. The tables have a row for every
field of the protocol; `relay.session.realtime.policy_rules` has the rules that the rows name, and the walk. A field
without a row is unknown, and so is an event without a table: they pass only where the policy limits nothing that they
could change.

Events come in the one form that the rules know, GA, whatever a client speaks and whatever goes to the upstream: what
holds here holds for every dialect. Instructions and tools are merged with the server's afterwards
(`relay.session.realtime.server_overlay`).

A client that says nothing must not get more than one that asks: `with_limits` puts the caps, the voice and the
transcription model into the first configuration. `check_session` is for sessions that a client secret carries.
https://platform.openai.com/docs/api-reference/realtime-client-events
"""

from collections.abc import Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.policy import RealtimePolicy, allows_any, first_literal_name, matches
from relay.session.realtime.policy_rules import (
    Denied,
    Table,
    anything,
    each,
    invalid_type,
    is_plain,
    max_tokens,
    named,
    needs,
    nested,
    one_of,
    reasoning,
    require,
    scalar,
    scalar_members,
    scalar_or,
    scalars,
    text,
    transcription,
    walk,
)
from relay.session.realtime.policy_shapes import item, prompt, tool, tool_choice

__all__ = ["Denied", "apply", "check_session", "with_limits"]

OTHER_DIALECT = frozenset({"transcription_session.update"})
"""Events that are translated before they come here: one that is not would reach an upstream of that dialect unseen."""


def apply(event: Mapping[str, Any], policy: RealtimePolicy) -> JsonObject:
    """The event as it may go on. Raises Denied."""
    table = EVENTS.get(event["type"])
    return _unknown_event(event, policy) if table is None else walk(event, table, policy, "")


def check_session(session: Any, policy: RealtimePolicy) -> JsonObject:
    """A whole session, such as a ticket carries, as the policy lets it be. Raises Denied."""
    checked = nested(lambda: SESSION)(session, policy, "session")
    return dict(checked) if checked else {}


def _unknown_event(event: Mapping[str, Any], policy: RealtimePolicy) -> JsonObject:
    """An event of a type that has no row, which may do whatever a limit is about."""
    is_denied = "unknown" not in policy.allow or policy.restricts_settings or event["type"] in OTHER_DIALECT
    others = {name: value for name, value in event.items() if name not in _ANY}
    if is_denied or (policy.forbids_fetches and not is_plain(others)):
        kind = event["type"][:80]
        raise Denied(f"Events of type '{kind}' are not known to this relay.", "type", "unknown_event_type")
    return dict(event)


def _conversation(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and value != "auto":
        require("out_of_band", policy, path)
    return scalar(value, policy, path)


def _metadata(value: Any, policy: RealtimePolicy, path: str) -> Any:
    if value is not None and not isinstance(value, Mapping) and policy.is_restricted:
        raise invalid_type(path, "an object")
    return value


# -- tables -----------------------------------------------------------------------------------------------------------

_FORMAT: Table = scalar_members("type", "rate")
_TURN_DETECTION: Table = {
    **scalar_members("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "eagerness"),
    **scalar_members("create_response", "interrupt_response"),
    "idle_timeout_ms": needs("idle_responses", scalar),
}
_TRANSCRIPTION: Table = {
    "model": named(lambda policy: policy.transcription_models),
    **scalar_members("language", "prompt", "delay"),
    "languages": scalars,
    "keywords": scalars,
}
_AUDIO: Table = {
    "input": nested(lambda: _AUDIO_INPUT, may_reset=False),
    "output": nested(lambda: _AUDIO_OUTPUT, may_reset=False),
}
_AUDIO_INPUT: Table = {
    "format": nested(lambda: _FORMAT),
    "noise_reduction": nested(lambda: {"type": scalar, "strength": scalar}),
    "transcription": transcription(lambda: _TRANSCRIPTION),
    "turn_detection": nested(lambda: _TURN_DETECTION),
}
_AUDIO_OUTPUT: Table = {
    "format": nested(lambda: _FORMAT),
    "voice": named(lambda policy: policy.voices),
    "speed": scalar,
}

_ANSWERS: Table = {
    "instructions": needs("instructions", text),
    "tools": each(tool),
    "tool_choice": tool_choice,
    "parallel_tool_calls": scalar,
    "prompt": needs("prompt", prompt),
    "max_output_tokens": max_tokens,
    "output_modalities": scalars,
    "reasoning": reasoning,
    "audio": nested(lambda: _AUDIO, may_reset=False),
}
"""How the model answers: in a session, and for one response."""
SESSION: Table = {
    **_ANSWERS,
    **scalar_members("object", "id", "expires_at"),
    "type": one_of("realtime", "transcription"),
    "model": named(lambda policy: policy.models),
    "tracing": needs("tracing", scalar_or({**scalar_members("workflow_name", "group_id"), "metadata": anything})),
    "truncation": scalar_or(
        {"type": scalar, "retention_ratio": scalar, "token_limits": scalar_or({"post_instructions": scalar})}
    ),
    "include": scalars,
}
RESPONSE: Table = {**_ANSWERS, "metadata": _metadata, "conversation": _conversation, "input": each(item)}
_ANY: Table = scalar_members("type", "event_id")
EVENTS: Mapping[str, Table] = {
    "session.update": {**_ANY, "session": nested(lambda: SESSION, may_reset=False)},
    "input_audio_buffer.append": {**_ANY, "audio": scalar},
    "input_audio_buffer.commit": _ANY,
    "input_audio_buffer.clear": _ANY,
    "output_audio_buffer.clear": _ANY,
    "conversation.item.create": {**_ANY, "previous_item_id": scalar, "item": item},
    "conversation.item.delete": {**_ANY, "item_id": scalar},
    "conversation.item.retrieve": {**_ANY, "item_id": scalar},
    "conversation.item.truncate": {**_ANY, "item_id": scalar, "content_index": scalar, "audio_end_ms": scalar},
    "response.create": {**_ANY, "response": nested(lambda: RESPONSE)},
    "response.cancel": {**_ANY, "response_id": scalar},
}
"""The 11 client events of the protocol, all of their fields."""


# -- from the start ---------------------------------------------------------------------------------------------------


def with_limits(
    session: JsonObject, policy: RealtimePolicy, upstream_session: Mapping[str, Any] | None = None
) -> JsonObject:
    """A first configuration of the session with the policy's limits in force, whether or not a client names them.

    `upstream_session` is the session as the upstream begins it. If it transcribes by a model that the policy does not
    allow, the first named transcription model replaces that one; without any, transcription is off.
    """
    for name, limit in policy.session_limits.items():
        session.setdefault(name, limit)
    voice, model = policy.first_voice(), first_literal_name(policy.transcription_models)
    if voice is not None and not allows_any(policy.voices):
        _set(session, "output", "voice", voice)
    if not _may_transcribe(upstream_session, policy):
        _set(session, "input", "transcription", None if model is None else {"model": model})
    return session


def with_voice(session: Mapping[str, Any] | None, voice: str) -> JsonObject:
    """A session to begin with that has this voice unless it names one."""
    begun = dict(session or {})
    _set(begun, "output", "voice", voice)
    return begun


def names_voice(session: Mapping[str, Any] | None) -> bool:
    """Whether a session to begin with says who speaks."""
    return _member(session, "audio", "output", "voice") is not None


def _may_transcribe(upstream_session: Mapping[str, Any] | None, policy: RealtimePolicy) -> bool:
    name = _member(upstream_session, "audio", "input", "transcription", "model")
    return name is None or matches(str(name), policy.transcription_models)


def _member(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _set(session: JsonObject, way: str, key: str, value: Any) -> None:
    """A member of the session's audio, unless it has one already."""
    audio = dict(session.get("audio") or {})
    session["audio"] = audio | {way: {key: value} | (audio.get(way) or {})}
