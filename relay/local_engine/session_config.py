"""The session's configuration, and how updates merge into it.

Omitted fields keep their value, null clears them back to the default. Settings that only a real model could follow
(instructions, tracing, noise reduction) are checked, kept and echoed.
"""

from typing import Any

from relay.json_types import JsonObject
from relay.local_engine.protocol import Fault, a_list, a_text, an_object, need, one_of, only
from relay.local_engine.session_fields import (
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    RESPONSE,
    SESSION,
    Check,
    given,
    metadata,
    turn_rules,
)


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
                "turn_detection": turn_rules({"type": "server_vad"}, ""),
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
