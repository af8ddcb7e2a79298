"""The session's configuration: one check per field, and how updates merge into it.

An omitted field keeps its value; null resets it to the default. Settings that need a real model (instructions,
tracing, noise reduction) are validated, stored and echoed, without an effect.
"""

from typing import Any

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.validation import (
    FieldCheck,
    InvalidRequestError,
    check_bool,
    check_enum,
    check_integer,
    check_json,
    check_list,
    check_metadata,
    check_number,
    check_object,
    check_string,
    default_if_none,
    enum_check,
    enum_or_object,
    json_size_bytes,
    nullable,
    object_check,
    reject_unknown_fields,
    require_field,
)

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 1_000_000
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_DELAYS = ("minimal", "low", "medium", "high", "xhigh")
_INCLUDED = ("item.input_audio_transcription.logprobs",)


def default_session(
    session_id: str, model: str, *, session_type: str = "realtime", expires_at: int | None = None
) -> JsonObject:
    """Create a session of type "realtime" or "transcription"; `expires_at` is Unix time in seconds."""
    return {
        "type": session_type,
        "object": "realtime.session" if session_type == "realtime" else "realtime.transcription_session",
        "id": session_id,
        **({} if expires_at is None else {"expires_at": expires_at}),
        "model": model,
        "engine": "relay-local",
        **{key: check(None, key) for key, check in SESSION_CHECKS.items() if key != "reasoning"},
        "audio": {
            "input": {
                **{key: check(None, key) for key, check in AUDIO_INPUT_CHECKS.items()},
                "transcription": None if session_type == "realtime" else {"model": model},
                "turn_detection": _check_turn_detection({"type": "server_vad"}, ""),
            },
            "output": {key: check(None, key) for key, check in AUDIO_OUTPUT_CHECKS.items()},
        },
    }


def session_object(session: JsonObject) -> JsonObject:
    """Return the session as a wire object, for `session.created` and `session.updated`."""
    if session["type"] == "realtime":
        return session
    transcription_fields = {
        key: session[key] for key in ("type", "object", "id", "expires_at", "engine", "include") if key in session
    }
    return transcription_fields | {"audio": {"input": session["audio"]["input"]}}


def merge_session(current: JsonObject, update: Any, *, has_spoken: bool) -> JsonObject:
    """Return the updated session. Raises InvalidRequestError if any part is invalid; `current` never changes."""
    update = check_object(update, "session")
    kind = check_enum(require_field(update, "type", "session."), "session.type", ("realtime", "transcription"))
    if kind != current["type"]:
        raise InvalidRequestError(
            f"The session type is '{current['type']}' and cannot change: the URL of the connection determines it.",
            param="session.type",
        )
    fields, audio_fields = _TRANSCRIPTION_FIELDS if kind == "transcription" else _REALTIME_FIELDS
    reject_unknown_fields(update, fields, "session.")
    audio = check_object(default_if_none(update.get("audio"), {}), "session.audio")
    reject_unknown_fields(audio, audio_fields, "session.audio.")
    current_audio = current["audio"]
    merged = current | {"audio": {"input": dict(current_audio["input"]), "output": dict(current_audio["output"])}}
    for key, check in SESSION_CHECKS.items():
        if key in update:
            merged[key] = check(update[key], f"session.{key}")
    if update.get("model") is not None:
        # Clients repeat their model here; the URL of the connection has determined it.
        check_string(update["model"], "session.model", 200)
    _merge(merged["audio"]["input"], audio.get("input"), AUDIO_INPUT_CHECKS, "session.audio.input")
    _merge(merged["audio"]["output"], audio.get("output"), AUDIO_OUTPUT_CHECKS, "session.audio.output")
    if has_spoken and merged["audio"]["output"]["voice"] != current["audio"]["output"]["voice"]:
        raise InvalidRequestError(
            "The voice cannot change after the assistant has produced audio.",
            code="cannot_update_voice",
            param="session.audio.output.voice",
        )
    return merged


def response_settings(session: JsonObject, params: Any) -> JsonObject:
    """Merge the parameters of `response.create` over the session's settings. Raises InvalidRequestError."""
    params = check_object(params, "response")
    allowed = (*RESPONSE_CHECKS, "audio", "metadata", "conversation", "input")
    reject_unknown_fields(params, allowed, "response.")
    settings: JsonObject = {key: session[key] for key in RESPONSE_CHECKS if key in session}
    for key, check in RESPONSE_CHECKS.items():
        if params.get(key) is not None:
            settings[key] = check(params[key], f"response.{key}")
    settings["output"] = dict(session["audio"]["output"])
    audio = check_object(default_if_none(params.get("audio"), {}), "response.audio")
    reject_unknown_fields(audio, ("output",), "response.audio.")
    _merge(settings["output"], audio.get("output"), AUDIO_OUTPUT_CHECKS, "response.audio.output")
    settings["metadata"] = check_metadata(params.get("metadata"), "response.metadata")
    settings["conversation"] = check_enum(
        default_if_none(params.get("conversation"), "auto"), "response.conversation", ("auto", "none")
    )
    settings["input"] = None if params.get("input") is None else check_list(params["input"], "response.input", 500)
    return settings


def _merge(target: JsonObject, update: Any, checks: dict[str, FieldCheck], path: str) -> None:
    update = check_object(default_if_none(update, {}), path)
    reject_unknown_fields(update, checks, f"{path}.")
    for key, check in checks.items():
        if key in update:
            target[key] = check(update[key], f"{path}.{key}")


def _check_audio_format(value: Any, param: str) -> JsonObject:
    """Check an audio format; pcm must have a rate of 24 kHz."""
    value = check_object(default_if_none(value, {}), param)
    reject_unknown_fields(value, ("type", "rate"), f"{param}.")
    kind = check_enum(default_if_none(value.get("type"), "audio/pcm"), f"{param}.type", REALTIME_FORMATS)
    if kind != "audio/pcm":
        return {"type": kind}
    rate = value.get("rate")
    if rate is not None and rate != 24000:
        raise InvalidRequestError(
            f"Invalid value: {rate!r}. The rate of audio/pcm must be 24000.", param=f"{param}.rate"
        )
    return {"type": kind, "rate": 24000}


def _check_turn_detection(value: Any, param: str) -> JsonObject | None:
    """Check `turn_detection`; None turns it off."""
    if value is None:
        return None
    value = check_object(value, param)
    kind = check_enum(require_field(value, "type", f"{param}."), f"{param}.type", ("server_vad", "semantic_vad"))
    checks = _SERVER_VAD_CHECKS if kind == "server_vad" else _SEMANTIC_VAD_CHECKS
    reject_unknown_fields(value, ("type", *checks), f"{param}.")
    return {"type": kind} | {key: check(value.get(key), f"{param}.{key}") for key, check in checks.items()}


def _check_strings(value: Any, param: str) -> list[str]:
    return [check_string(entry, f"{param}[{index}]", 200) for index, entry in enumerate(check_list(value, param, 1000))]


def _check_voice(value: Any, param: str) -> Any:
    """Check a voice: one of OpenAI's names, or a voice of this machine by id ({"id": "kal16"})."""
    if isinstance(value, dict):
        reject_unknown_fields(value, ("id",), f"{param}.")
        return {"id": check_string(require_field(value, "id", f"{param}."), f"{param}.id", 200, 1)}
    return check_enum(value, param, VOICES)


def _check_modalities(value: Any, param: str) -> list[str]:
    kinds = [check_enum(kind, param, ("audio", "text")) for kind in check_list(value, param, 2)]
    if len(kinds) != 1:
        raise InvalidRequestError(
            f"Invalid modalities: {kinds}. Supported combinations are: ['text'] and ['audio'].", param=param
        )
    return kinds


def _check_tools(value: Any, param: str) -> list[JsonObject]:
    tools = [_check_tool(tool, f"{param}[{index}]") for index, tool in enumerate(check_list(value, param, MAX_TOOLS))]
    names = [tool["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequestError("Two tools have the same name.", param=param)
    if json_size_bytes(tools, param) > MAX_TOOLS_BYTES:
        raise InvalidRequestError(f"The tools take more than {MAX_TOOLS_BYTES} bytes.", param=param)
    return tools


def _check_tool(value: Any, param: str) -> JsonObject:
    """Check a function tool; unknown keys are kept, because clients send some of their own."""
    value = check_object(value, param)
    if value.get("type", "function") != "function":
        raise InvalidRequestError(
            "relay-local supports function tools only: MCP is not available.", param=f"{param}.type"
        )
    check_string(require_field(value, "name", f"{param}."), f"{param}.name", 64, 1)
    if value.get("description") is not None:
        check_string(value["description"], f"{param}.description", 20_000)
    if value.get("parameters") is not None:
        check_object(value["parameters"], f"{param}.parameters")
    return {"type": "function"} | {key: field for key, field in value.items() if field is not None}


def _check_tool_choice(value: Any, param: str) -> Any:
    if isinstance(value, dict):
        check_enum(require_field(value, "type", f"{param}."), f"{param}.type", ("function",))
        return {
            "type": "function",
            "name": check_string(require_field(value, "name", f"{param}."), f"{param}.name", 64, 1),
        }
    return check_enum(value, param, ("auto", "none", "required"))


_TRANSCRIPTION_CHECKS: dict[str, FieldCheck] = {
    "model": lambda value, param: check_string(value, param, 200, 1),
    "language": lambda value, param: check_string(value, param, 40),
    "languages": _check_strings,
    "keywords": _check_strings,
    "prompt": lambda value, param: check_string(value, param, 20_000),
    "delay": enum_check(*_DELAYS),
}
_NOISE_REDUCTION_CHECKS: dict[str, FieldCheck] = {
    "type": enum_check("near_field", "far_field"),
    "strength": lambda value, param: check_number(value, param, 0, 1),
}
_RETENTION_CHECKS: dict[str, FieldCheck] = {
    "type": enum_check("retention_ratio"),
    "retention_ratio": lambda value, param: check_number(value, param, 0, 1),
    "token_limits": object_check({"post_instructions": lambda value, param: check_integer(value, param, 1, 10**9)}),
}
_TRACING_CHECKS: dict[str, FieldCheck] = {
    "group_id": lambda value, param: check_string(value, param, 512),
    "workflow_name": lambda value, param: check_string(value, param, 512),
    "metadata": check_json,
}
_PROMPT_CHECKS: dict[str, FieldCheck] = {
    "id": lambda value, param: check_string(value, param, 512, 1),
    "version": lambda value, param: check_string(value, param, 64),
    "variables": check_json,
}
SESSION_CHECKS: dict[str, FieldCheck] = {
    "instructions": nullable(check_string, ""),
    "output_modalities": nullable(_check_modalities, ["audio"]),
    "tools": nullable(_check_tools, []),
    "tool_choice": nullable(_check_tool_choice, "auto"),
    "parallel_tool_calls": nullable(check_bool, True),
    "max_output_tokens": nullable(
        lambda value, param: "inf" if value == "inf" else check_integer(value, param, 1, 4096), "inf"
    ),
    "truncation": nullable(
        enum_or_object(object_check(_RETENTION_CHECKS, "type", "retention_ratio"), "auto", "disabled"), "auto"
    ),
    "tracing": nullable(enum_or_object(object_check(_TRACING_CHECKS), "auto"), None),
    "prompt": object_check(_PROMPT_CHECKS, "id"),
    "include": nullable(
        lambda value, param: [check_enum(entry, param, _INCLUDED) for entry in check_list(value, param, 8)], None
    ),
    "reasoning": object_check({"effort": enum_check("minimal", *_DELAYS[1:])}),
}
RESPONSE_CHECKS: dict[str, FieldCheck] = {
    key: check for key, check in SESSION_CHECKS.items() if key not in ("truncation", "tracing", "include")
}
AUDIO_INPUT_CHECKS: dict[str, FieldCheck] = {
    "format": _check_audio_format,
    "transcription": object_check(
        _TRANSCRIPTION_CHECKS
    ),  # any model name is valid: new ones appear, and all are served alike
    "noise_reduction": object_check(_NOISE_REDUCTION_CHECKS, "type"),
    "turn_detection": _check_turn_detection,
}
AUDIO_OUTPUT_CHECKS: dict[str, FieldCheck] = {
    "format": _check_audio_format,
    "voice": nullable(_check_voice, "marin"),
    "speed": nullable(lambda value, param: check_number(value, param, 0.25, 1.5), 1.0),
}
_COMMON_FIELDS = ("type", "include", "audio", "id", "object", "engine", "expires_at")
_TRANSCRIPTION_FIELDS = (_COMMON_FIELDS, ("input",))
_REALTIME_FIELDS = ((*_COMMON_FIELDS, *SESSION_CHECKS, "model"), ("input", "output"))
"""The fields of a session, and those of its `audio`."""
_SERVER_VAD_CHECKS: dict[str, FieldCheck] = {
    "threshold": nullable(lambda value, param: check_number(value, param, 0, 1), 0.5),
    "prefix_padding_ms": nullable(lambda value, param: check_integer(value, param, 0, 5000), 300),
    "silence_duration_ms": nullable(lambda value, param: check_integer(value, param, 0, 10_000), 500),
    "idle_timeout_ms": nullable(lambda value, param: check_integer(value, param, 5000, 30_000), None),
    "create_response": nullable(check_bool, True),
    "interrupt_response": nullable(check_bool, True),
}
_SEMANTIC_VAD_CHECKS: dict[str, FieldCheck] = {
    "eagerness": nullable(enum_check("low", "medium", "high", "auto"), "auto"),
    "create_response": nullable(check_bool, True),
    "interrupt_response": nullable(check_bool, True),
}
