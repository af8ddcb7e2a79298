"""The session's fields, one check each: what `session.update` and `response.create` may say in them."""

from collections.abc import Callable
from typing import Any

import orjson

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.protocol import (
    Fault,
    a_flag,
    a_list,
    a_number,
    a_text,
    a_whole_number,
    an_object,
    need,
    one_of,
    only,
)

MOST_TOOLS = 128
LARGEST_TOOLS_BYTES = 1_000_000
MODALITIES = ("audio", "text")
DEFAULT_VOICE = "marin"
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_EAGERNESS = ("low", "medium", "high", "auto")
_NOISE = ("near_field", "far_field")
_DELAYS = ("minimal", "low", "medium", "high", "xhigh")
_INCLUDED = ("item.input_audio_transcription.logprobs",)

Check = Callable[[Any, str], Any]


def given(value: Any, default: Any) -> Any:
    """The value, or the default if it is null: a false value of a wrong type is still wrong."""
    return default if value is None else value


def _or_default(check: Check, default: Any) -> Check:
    return lambda value, param: default if value is None else check(value, param)


def wire_format(value: Any, param: str) -> JsonObject:
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


def turn_rules(value: Any, param: str) -> JsonObject | None:
    """Turn detection, or none."""
    if value is None:
        return None
    value = an_object(value, param)
    kind = one_of(need(value, "type", f"{param}."), f"{param}.type", ("server_vad", "semantic_vad"))
    checks = _SERVER_VAD if kind == "server_vad" else _SEMANTIC_VAD
    only(value, ("type", *checks), f"{param}.")
    return {"type": kind} | {key: check(value.get(key), f"{param}.{key}") for key, check in checks.items()}


def _truncation(value: Any, param: str) -> Any:
    if not isinstance(value, dict):
        return one_of(value, param, ("auto", "disabled"))
    return _shaped(_RETENTION, "type", "retention_ratio")(value, param)


def _tracing(value: Any, param: str) -> Any:
    if isinstance(value, dict):
        return _shaped(_TRACING)(value, param)
    return None if value is None else one_of(value, param, ("auto",))


def _include(value: Any, param: str) -> list[str] | None:
    return None if value is None else [one_of(entry, param, _INCLUDED) for entry in a_list(value, param, 8)]


def _shaped(checks: dict[str, Check], *required: str) -> Check:
    """Null, or an object of known fields; those of them that are null are left out."""

    def check(value: Any, param: str) -> JsonObject | None:
        if value is None:
            return None
        value = an_object(value, param)
        for key in required:
            need(value, key, f"{param}.")
        only(value, checks, f"{param}.")
        return {key: checks[key](entry, f"{param}.{key}") for key, entry in value.items() if entry is not None}

    return check


def _choice(*options: str) -> Check:
    return lambda value, param: one_of(value, param, options)


def _texts(value: Any, param: str) -> list[str]:
    return [a_text(entry, f"{param}[{index}]", 200) for index, entry in enumerate(a_list(value, param, 1000))]


def _voice(value: Any, param: str) -> Any:
    """One of OpenAI's voices by name, or a custom one by its id: here, a voice of this machine ({"id": "kal16"})."""
    if isinstance(value, dict):
        only(value, ("id",), f"{param}.")
        return {"id": a_text(need(value, "id", f"{param}."), f"{param}.id", 200, 1)}
    return one_of(value, param, VOICES)


def _modalities(value: Any, param: str) -> list[str]:
    kinds = [one_of(kind, param, MODALITIES) for kind in a_list(value, param, 2)]
    if len(kinds) != 1:
        raise Fault(f"Invalid modalities: {kinds}. Supported combinations are: ['text'] and ['audio'].", param=param)
    return kinds


def _max_tokens(value: Any, param: str) -> int | str:
    return "inf" if value == "inf" else a_whole_number(value, param, 1, 4096)


def _tools(value: Any, param: str) -> list[JsonObject]:
    tools = [_tool(tool, f"{param}[{index}]") for index, tool in enumerate(a_list(value, param, MOST_TOOLS))]
    names = [tool["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise Fault("Two tools have the same name.", param=param)
    if _size(tools, param) > LARGEST_TOOLS_BYTES:
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


def metadata(value: Any, param: str) -> JsonObject | None:
    """At most 16 short strings, as OpenAI has it."""
    if value is None:
        return None
    value = an_object(value, param)
    if len(value) > 16:
        raise Fault(f"Invalid '{param}': at most 16 entries are allowed.", param=param)
    for key, entry in value.items():
        a_text(key, param, 64)
        a_text(entry, f"{param}.{key}", 512)
    return dict(value)


def _size(value: Any, param: str) -> int:
    """Bytes as JSON; what is nested too deeply to be echoed is refused."""
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise Fault(f"Invalid '{param}': it is nested too deeply.", param=param) from error


def _kept(value: Any, param: str) -> Any:
    """Accepted and echoed; nothing here depends on it."""
    if _size(value, param) > 100_000:
        raise Fault(f"Invalid '{param}': it is too long.", param=param)
    return value


_TRANSCRIPTION: dict[str, Check] = {
    "model": lambda value, param: a_text(value, param, 200, 1),
    "language": lambda value, param: a_text(value, param, 40),
    "languages": _texts,
    "keywords": _texts,
    "prompt": lambda value, param: a_text(value, param, 20_000),
    "delay": _choice(*_DELAYS),
}
_NOISE_REDUCTION: dict[str, Check] = {
    "type": _choice(*_NOISE),
    "strength": lambda value, param: a_number(value, param, 0, 1),
}
_RETENTION: dict[str, Check] = {
    "type": _choice("retention_ratio"),
    "retention_ratio": lambda value, param: a_number(value, param, 0, 1),
    "token_limits": _shaped({"post_instructions": lambda value, param: a_whole_number(value, param, 1, 10**9)}),
}
_TRACING: dict[str, Check] = {
    "group_id": lambda value, param: a_text(value, param, 512),
    "workflow_name": lambda value, param: a_text(value, param, 512),
    "metadata": _kept,
}
_PROMPT: dict[str, Check] = {
    "id": lambda value, param: a_text(value, param, 512, 1),
    "version": lambda value, param: a_text(value, param, 64),
    "variables": _kept,
}
SESSION: dict[str, Check] = {
    "instructions": _or_default(a_text, ""),
    "output_modalities": _or_default(_modalities, ["audio"]),
    "tools": _or_default(_tools, []),
    "tool_choice": _or_default(_tool_choice, "auto"),
    "parallel_tool_calls": _or_default(a_flag, True),
    "max_output_tokens": _or_default(_max_tokens, "inf"),
    "truncation": _or_default(_truncation, "auto"),
    "tracing": _tracing,
    "prompt": _shaped(_PROMPT, "id"),
    "include": _include,
    "reasoning": _shaped({"effort": _choice("minimal", *_DELAYS[1:])}),
}
RESPONSE: dict[str, Check] = {
    key: check for key, check in SESSION.items() if key not in ("truncation", "tracing", "include")
}
AUDIO_INPUT: dict[str, Check] = {
    "format": wire_format,
    "transcription": _shaped(_TRANSCRIPTION),  # models are not told apart here, and new ones appear: any name is taken
    "noise_reduction": _shaped(_NOISE_REDUCTION, "type"),
    "turn_detection": turn_rules,
}
AUDIO_OUTPUT: dict[str, Check] = {
    "format": wire_format,
    "voice": _or_default(_voice, DEFAULT_VOICE),
    "speed": _or_default(lambda value, param: a_number(value, param, 0.25, 1.5), 1.0),
}
_SERVER_VAD: dict[str, Check] = {
    "threshold": _or_default(lambda value, param: a_number(value, param, 0, 1), 0.5),
    "prefix_padding_ms": _or_default(lambda value, param: a_whole_number(value, param, 0, 5000), 300),
    "silence_duration_ms": _or_default(lambda value, param: a_whole_number(value, param, 0, 10_000), 500),
    "idle_timeout_ms": _or_default(lambda value, param: a_whole_number(value, param, 5000, 30_000), None),
    "create_response": _or_default(a_flag, True),
    "interrupt_response": _or_default(a_flag, True),
}
_SEMANTIC_VAD: dict[str, Check] = {
    "eagerness": _or_default(lambda value, param: one_of(value, param, _EAGERNESS), "auto"),
    "create_response": _or_default(a_flag, True),
    "interrupt_response": _or_default(a_flag, True),
}
