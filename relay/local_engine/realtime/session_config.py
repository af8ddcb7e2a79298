"""The session's configuration: its fields, one check each, and how updates merge into it.

Omitted fields keep their value, null clears them back to the default. Settings that only a real model could follow
(instructions, tracing, noise reduction) are checked, kept and echoed.
"""

from typing import Any

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.validation import (
    Check,
    Fault,
    a_flag,
    a_list,
    a_number,
    a_text,
    a_whole_number,
    an_object,
    any_json,
    choice,
    given,
    json_bytes,
    metadata,
    need,
    one_of,
    one_of_or,
    only,
    or_default,
    shaped,
)

MOST_TOOLS = 128
LARGEST_TOOLS_BYTES = 1_000_000
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_DELAYS = ("minimal", "low", "medium", "high", "xhigh")
_INCLUDED = ("item.input_audio_transcription.logprobs",)


def default_session(
    session_id: str, model: str, *, kind: str = "realtime", expires_at: int | None = None
) -> JsonObject:
    """A new session of type "realtime" or "transcription"; `expires_at` in seconds of Unix time."""
    return {
        "type": kind,
        "object": "realtime.session" if kind == "realtime" else "realtime.transcription_session",
        "id": session_id,
        **({} if expires_at is None else {"expires_at": expires_at}),
        "model": model,
        "engine": "relay-local",
        **{key: check(None, key) for key, check in SESSION.items() if key != "reasoning"},
        "audio": {
            "input": {
                **{key: check(None, key) for key, check in AUDIO_INPUT.items()},
                "transcription": None if kind == "realtime" else {"model": model},
                "turn_detection": _turn_rules({"type": "server_vad"}, ""),
            },
            "output": {key: check(None, key) for key, check in AUDIO_OUTPUT.items()},
        },
    }


def shown(session: JsonObject) -> JsonObject:
    """The session as `session.created` and `session.updated` show it."""
    if session["type"] == "realtime":
        return session
    kept = {key: session[key] for key in ("type", "object", "id", "expires_at", "engine", "include") if key in session}
    return kept | {"audio": {"input": session["audio"]["input"]}}


def merge_session(current: JsonObject, update: Any, *, has_spoken: bool) -> JsonObject:
    """The session after an update; raises Fault and changes nothing if any part of it is wrong."""
    update = an_object(update, "session")
    kind = one_of(need(update, "type", "session."), "session.type", ("realtime", "transcription"))
    if kind != current["type"]:
        raise Fault(
            f"The session is of type '{current['type']}', and that cannot change: it was settled by the address.",
            param="session.type",
        )
    if kind == "transcription":
        only(update, ("type", "include", "audio", "id", "object", "engine", "expires_at"), "session.")
        only(an_object(given(update.get("audio"), {}), "session.audio"), ("input",), "session.audio.")
    sound = current["audio"]
    merged = current | {"audio": {"input": dict(sound["input"]), "output": dict(sound["output"])}}
    only(update, (*SESSION, "type", "model", "audio", "id", "object", "engine", "expires_at"), "session.")
    for key, check in SESSION.items():
        if key in update:
            merged[key] = check(update[key], f"session.{key}")
    if "model" in update and update["model"] is not None:
        # Clients repeat their model here; which engine answers was settled when they connected.
        a_text(update["model"], "session.model", 200)
    audio = an_object(given(update.get("audio"), {}), "session.audio")
    only(audio, ("input", "output"), "session.audio.")
    _merge(merged["audio"]["input"], audio.get("input"), AUDIO_INPUT, "session.audio.input")
    _merge(merged["audio"]["output"], audio.get("output"), AUDIO_OUTPUT, "session.audio.output")
    if has_spoken and merged["audio"]["output"]["voice"] != current["audio"]["output"]["voice"]:
        raise Fault(
            "The voice cannot change once the assistant has spoken.",
            code="cannot_update_voice",
            param="session.audio.output.voice",
        )
    return merged


def response_settings(session: JsonObject, params: Any) -> JsonObject:
    """What one response goes by: the session's settings with those of `response.create` over them."""
    params = an_object(params, "response")
    allowed = (*RESPONSE, "audio", "metadata", "conversation", "input")
    only(params, allowed, "response.")
    settings: JsonObject = {key: session[key] for key in RESPONSE if key in session}
    for key, check in RESPONSE.items():
        if params.get(key) is not None:
            settings[key] = check(params[key], f"response.{key}")
    settings["output"] = dict(session["audio"]["output"])
    audio = an_object(given(params.get("audio"), {}), "response.audio")
    only(audio, ("output",), "response.audio.")
    _merge(settings["output"], audio.get("output"), AUDIO_OUTPUT, "response.audio.output")
    settings["metadata"] = metadata(params.get("metadata"), "response.metadata")
    settings["conversation"] = one_of(
        given(params.get("conversation"), "auto"), "response.conversation", ("auto", "none")
    )
    settings["input"] = None if params.get("input") is None else a_list(params["input"], "response.input", 500)
    return settings


def _merge(target: JsonObject, update: Any, checks: dict[str, Check], path: str) -> None:
    update = an_object(given(update, {}), path)
    only(update, checks, f"{path}.")
    for key, check in checks.items():
        if key in update:
            target[key] = check(update[key], f"{path}.{key}")


def _wire_format(value: Any, param: str) -> JsonObject:
    """A format of audio on the wire."""
    value = an_object(given(value, {}), param)
    only(value, ("type", "rate"), f"{param}.")
    kind = one_of(given(value.get("type"), "audio/pcm"), f"{param}.type", REALTIME_FORMATS)
    if kind != "audio/pcm":
        return {"type": kind}
    rate = value.get("rate")
    if rate is not None and rate != 24000:
        raise Fault(f"Invalid value: {rate!r}. The rate of audio/pcm must be 24000.", param=f"{param}.rate")
    return {"type": kind, "rate": 24000}


def _turn_rules(value: Any, param: str) -> JsonObject | None:
    """Turn detection, or none."""
    if value is None:
        return None
    value = an_object(value, param)
    kind = one_of(need(value, "type", f"{param}."), f"{param}.type", ("server_vad", "semantic_vad"))
    checks = _SERVER_VAD if kind == "server_vad" else _SEMANTIC_VAD
    only(value, ("type", *checks), f"{param}.")
    return {"type": kind} | {key: check(value.get(key), f"{param}.{key}") for key, check in checks.items()}


def _texts(value: Any, param: str) -> list[str]:
    return [a_text(entry, f"{param}[{index}]", 200) for index, entry in enumerate(a_list(value, param, 1000))]


def _voice(value: Any, param: str) -> Any:
    """One of OpenAI's voices by name, or a custom one by its id: here, a voice of this machine ({"id": "kal16"})."""
    if isinstance(value, dict):
        only(value, ("id",), f"{param}.")
        return {"id": a_text(need(value, "id", f"{param}."), f"{param}.id", 200, 1)}
    return one_of(value, param, VOICES)


def _modalities(value: Any, param: str) -> list[str]:
    kinds = [one_of(kind, param, ("audio", "text")) for kind in a_list(value, param, 2)]
    if len(kinds) != 1:
        raise Fault(f"Invalid modalities: {kinds}. Supported combinations are: ['text'] and ['audio'].", param=param)
    return kinds


def _tools(value: Any, param: str) -> list[JsonObject]:
    tools = [_tool(tool, f"{param}[{index}]") for index, tool in enumerate(a_list(value, param, MOST_TOOLS))]
    names = [tool["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise Fault("Two tools have the same name.", param=param)
    if json_bytes(tools, param) > LARGEST_TOOLS_BYTES:
        raise Fault(f"The tools take more than {LARGEST_TOOLS_BYTES} bytes.", param=param)
    return tools


def _tool(value: Any, param: str) -> JsonObject:
    """Unknown keys are kept and ignored: clients send some of their own."""
    value = an_object(value, param)
    if value.get("type", "function") != "function":
        raise Fault("relay-local calls functions only: it has no MCP.", param=f"{param}.type")
    a_text(need(value, "name", f"{param}."), f"{param}.name", 64, 1)
    if value.get("description") is not None:
        a_text(value["description"], f"{param}.description", 20_000)
    if value.get("parameters") is not None:
        an_object(value["parameters"], f"{param}.parameters")
    return {"type": "function"} | {key: kept for key, kept in value.items() if kept is not None}


def _tool_choice(value: Any, param: str) -> Any:
    if isinstance(value, dict):
        one_of(need(value, "type", f"{param}."), f"{param}.type", ("function",))
        return {"type": "function", "name": a_text(need(value, "name", f"{param}."), f"{param}.name", 64, 1)}
    return one_of(value, param, ("auto", "none", "required"))


_TRANSCRIPTION: dict[str, Check] = {
    "model": lambda value, param: a_text(value, param, 200, 1),
    "language": lambda value, param: a_text(value, param, 40),
    "languages": _texts,
    "keywords": _texts,
    "prompt": lambda value, param: a_text(value, param, 20_000),
    "delay": choice(*_DELAYS),
}
_NOISE_REDUCTION: dict[str, Check] = {
    "type": choice("near_field", "far_field"),
    "strength": lambda value, param: a_number(value, param, 0, 1),
}
_RETENTION: dict[str, Check] = {
    "type": choice("retention_ratio"),
    "retention_ratio": lambda value, param: a_number(value, param, 0, 1),
    "token_limits": shaped({"post_instructions": lambda value, param: a_whole_number(value, param, 1, 10**9)}),
}
_TRACING: dict[str, Check] = {
    "group_id": lambda value, param: a_text(value, param, 512),
    "workflow_name": lambda value, param: a_text(value, param, 512),
    "metadata": any_json,
}
_PROMPT: dict[str, Check] = {
    "id": lambda value, param: a_text(value, param, 512, 1),
    "version": lambda value, param: a_text(value, param, 64),
    "variables": any_json,
}
SESSION: dict[str, Check] = {
    "instructions": or_default(a_text, ""),
    "output_modalities": or_default(_modalities, ["audio"]),
    "tools": or_default(_tools, []),
    "tool_choice": or_default(_tool_choice, "auto"),
    "parallel_tool_calls": or_default(a_flag, True),
    "max_output_tokens": or_default(
        lambda value, param: "inf" if value == "inf" else a_whole_number(value, param, 1, 4096), "inf"
    ),
    "truncation": or_default(one_of_or(shaped(_RETENTION, "type", "retention_ratio"), "auto", "disabled"), "auto"),
    "tracing": or_default(one_of_or(shaped(_TRACING), "auto"), None),
    "prompt": shaped(_PROMPT, "id"),
    "include": or_default(
        lambda value, param: [one_of(entry, param, _INCLUDED) for entry in a_list(value, param, 8)], None
    ),
    "reasoning": shaped({"effort": choice("minimal", *_DELAYS[1:])}),
}
RESPONSE: dict[str, Check] = {
    key: check for key, check in SESSION.items() if key not in ("truncation", "tracing", "include")
}
AUDIO_INPUT: dict[str, Check] = {
    "format": _wire_format,
    "transcription": shaped(_TRANSCRIPTION),  # models are not told apart here, and new ones appear: any name is taken
    "noise_reduction": shaped(_NOISE_REDUCTION, "type"),
    "turn_detection": _turn_rules,
}
AUDIO_OUTPUT: dict[str, Check] = {
    "format": _wire_format,
    "voice": or_default(_voice, "marin"),
    "speed": or_default(lambda value, param: a_number(value, param, 0.25, 1.5), 1.0),
}
_SERVER_VAD: dict[str, Check] = {
    "threshold": or_default(lambda value, param: a_number(value, param, 0, 1), 0.5),
    "prefix_padding_ms": or_default(lambda value, param: a_whole_number(value, param, 0, 5000), 300),
    "silence_duration_ms": or_default(lambda value, param: a_whole_number(value, param, 0, 10_000), 500),
    "idle_timeout_ms": or_default(lambda value, param: a_whole_number(value, param, 5000, 30_000), None),
    "create_response": or_default(a_flag, True),
    "interrupt_response": or_default(a_flag, True),
}
_SEMANTIC_VAD: dict[str, Check] = {
    "eagerness": or_default(choice("low", "medium", "high", "auto"), "auto"),
    "create_response": or_default(a_flag, True),
    "interrupt_response": or_default(a_flag, True),
}
