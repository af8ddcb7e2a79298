"""The beta dialect (`OpenAI-Beta: realtime=v1`), translated at the border: inside, everything is GA.

Its shapes are those of `openai.types.beta.realtime`: a flat session, `conversation.item.created` in place of added and
done, `response.audio.delta` in place of `response.output_audio.delta`, content types `text` and `audio`.
"""

import itertools
from typing import Any

import orjson

from relay.local_engine.protocol import Obj

_FORMATS: dict[str, Obj] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_FORMAT_NAMES = {str(form["type"]): name for name, form in _FORMATS.items()}
_EVENTS = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
_PARTS = {"output_text": "text", "output_audio": "audio"}
_INPUT = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_OUTPUT = {"output_audio_format": "format", "voice": "voice", "speed": "speed"}
_TOKENS = "max_response_output_tokens"
_DROPPED = ("temperature", "client_secret", "expires_at")  # GA has no temperature; the others are the server's


class Dialect:
    """Translates one session's messages; what it does not know it hands on as it is."""

    def __init__(self, conversation_id: str) -> None:
        self._conversation_id = conversation_id
        self._numbers = itertools.count(1)

    def to_ga(self, message: str | bytes) -> str | bytes:
        """A client's message as GA has it."""
        try:
            event = orjson.loads(message)
        except orjson.JSONDecodeError:
            return message
        if not isinstance(event, dict):
            return message
        if isinstance(event.get("session"), dict):
            event["session"] = {"type": "realtime", **_nested(event["session"])}
        if isinstance(event.get("response"), dict):
            event["response"] = _nested(event["response"])
            for item in event["response"].get("input") or ():
                _rename_parts(item)
        if isinstance(event.get("item"), dict):
            _rename_parts(event["item"])
        return orjson.dumps(event)

    def from_ga(self, event: Obj) -> list[Obj]:
        """A server's event as the beta has it: none, one, or two."""
        kind = event["type"]
        if kind == "conversation.item.done":
            return []
        told = event | {"type": _EVENTS.get(kind, kind)}
        if kind in ("session.created", "session.updated"):
            told["session"] = _flat_session(event["session"])
        if "item" in event:
            told["item"] = _renamed_item(event["item"])
        if "response" in event:
            told["response"] = _flat_response(event["response"])
        if kind == "response.function_call_arguments.done":
            told.pop("name")
        if kind == "session.created":
            conversation = {"id": self._conversation_id, "object": "realtime.conversation"}
            number = f"event_beta_{next(self._numbers)}"
            return [told, {"type": "conversation.created", "event_id": number, "conversation": conversation}]
        return [told]


def _nested(flat: Obj) -> Obj:
    """A flat session or response as GA nests it; a wrong format's name is left for GA to refuse."""
    audio: dict[str, Obj] = {"input": {}, "output": {}}
    nested: Obj = {}
    for key, value in flat.items():
        side, names = ("input", _INPUT) if key in _INPUT else ("output", _OUTPUT)
        if key in names:
            is_format = names[key] == "format" and isinstance(value, str)
            audio[side][names[key]] = _FORMATS.get(value, {"type": value}) if is_format else value
        elif key == "modalities":
            spoken = isinstance(value, list) and "audio" in value
            nested["output_modalities"] = ["audio"] if spoken else value
        elif key == _TOKENS:
            nested["max_output_tokens"] = value
        elif key not in _DROPPED:
            nested[key] = value
    sides = {side: fields for side, fields in audio.items() if fields}
    return nested | ({"audio": sides} if sides else {})


def _flat_session(session: Obj) -> Obj:
    sound = session["audio"]
    kept = ("id", "object", "model", "instructions", "tools", "tool_choice", "expires_at", "tracing", "engine")
    flat = {key: session[key] for key in kept if key in session}
    flat["modalities"] = _modalities(session["output_modalities"])
    for ours, theirs in _INPUT.items():
        flat[ours] = sound["input"][theirs]
    for ours, theirs in _OUTPUT.items():
        flat[ours] = sound["output"][theirs]
    for key in ("input_audio_format", "output_audio_format"):
        flat[key] = _FORMAT_NAMES[flat[key]["type"]]
    return flat | {"temperature": 0.8, _TOKENS: session["max_output_tokens"]}


def _flat_response(response: Obj) -> Obj:
    flat = {key: value for key, value in response.items() if key not in ("audio", "output_modalities")}
    output = response["audio"]["output"]
    return flat | {
        "modalities": _modalities(response["output_modalities"]),
        "voice": output["voice"],
        "output_audio_format": _FORMAT_NAMES[output["format"]["type"]],
        "temperature": 0.8,
        "output": [_renamed_item(item) for item in response["output"]],
    }


def _modalities(kinds: list[str]) -> list[str]:
    return ["audio", "text"] if "audio" in kinds else ["text"]


def _renamed_item(item: Obj) -> Obj:
    if "content" not in item:
        return item
    parts = [part | {"type": _PARTS.get(part["type"], part["type"])} for part in item["content"]]
    return item | {"content": parts}


def _rename_parts(item: Any) -> None:
    """An assistant's parts of a client, by their GA names."""
    if not isinstance(item, dict) or item.get("role") != "assistant":
        return
    for part in item.get("content") or ():
        if isinstance(part, dict) and part.get("type") in ("text", "audio"):
            part["type"] = f"output_{part['type']}"
