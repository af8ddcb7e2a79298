"""One item of the conversation: the engine's record of it, and the validation of items from clients."""

from dataclasses import dataclass, field
from typing import Any

import pybase64

from relay.json_types import JsonObject
from relay.local_engine.realtime.validation import (
    InvalidRequestError,
    check_enum,
    check_id,
    check_list,
    check_object,
    check_string,
    reject_unknown_fields,
    require_field,
)

_PART_TYPES = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
}
_COMMON_FIELDS = ("id", "object", "type", "status")
_ITEM_FIELDS = {
    "message": (*_COMMON_FIELDS, "role", "content"),
    "function_call": (*_COMMON_FIELDS, "call_id", "name", "arguments"),
    "function_call_output": (*_COMMON_FIELDS, "call_id", "output"),
}
_PART_FIELDS = {
    "input_text": ("type", "text"),
    "output_text": ("type", "text"),
    "input_image": ("type", "image_url", "detail"),
    "input_audio": ("type", "audio", "transcript"),
    "output_audio": ("type", "audio", "transcript"),
}


@dataclass(slots=True)
class ItemRecord:
    """One item: `item` is the wire object; the rest is what the engine knows about it.

    `transcript` is the text recognized in a user's audio (None: not understood). `spoken_sentences` are the sentences
    of an assistant's audio with their lengths in ms. `is_answered`: an earlier response has seen the item.
    `is_silence`: the item was committed by the idle timeout.
    """

    item: JsonObject
    transcript: str | None = None
    audio_ms: int = 0
    bytes_per_ms: int = 0
    spoken_sentences: list[tuple[str, int]] = field(default_factory=list)
    truncated_at_ms: int | None = None
    is_answered: bool = False
    is_silence: bool = False

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.item["id"])

    @property
    def text(self) -> str:
        """All text of a message, typed or recognized."""
        parts = self.item.get("content", [])
        typed = [part.get("text") or "" for part in parts if "text" in part]
        return " ".join([*typed, *([self.transcript] if self.transcript else [])]).strip()

    @property
    def n_chars(self) -> int:
        """Characters of all text fields, for the size limit and the token count."""
        fields = sum(len(self.item.get(key) or "") for key in ("arguments", "output", "name"))
        parts = self.item.get("content", [])
        return fields + sum(len(part.get(key) or "") for part in parts for key in ("text", "transcript", "image_url"))

    def truncate_transcript(self) -> None:
        """Cut the transcript of truncated audio to the words that were played."""
        if self.truncated_at_ms is not None and self.item["content"]:
            transcript = text_until(self.spoken_sentences, self.truncated_at_ms)
            self.item["content"] = [self.item["content"][0] | {"transcript": transcript}]


def new_item(item_id: str, kind: str, status: str, **members: Any) -> JsonObject:
    """Return an item as a wire object."""
    return {"id": item_id, "object": "realtime.item", "type": kind, "status": status, **members}


def parse_client_item(value: Any, new_id: str, path: str = "item") -> tuple[ItemRecord, bytes]:
    """Parse a client's item; returns its record and its audio, which may be empty. Raises InvalidRequestError."""
    value = check_object(value, path)
    kind = check_enum(require_field(value, "type", f"{path}."), f"{path}.type", tuple(_ITEM_FIELDS))
    reject_unknown_fields(value, _ITEM_FIELDS[kind], f"{path}.")
    if value.get("object") is not None:
        check_enum(value["object"], f"{path}.object", ("realtime.item",))
    if value.get("status") is not None:
        check_enum(value["status"], f"{path}.status", ("completed", "incomplete", "in_progress"))
    client_id = value.get("id")
    item_id = new_id if client_id is None else check_id(client_id, f"{path}.id")
    item = new_item(item_id, kind, "completed")
    audio = b""
    if kind == "message":
        item["role"] = check_enum(require_field(value, "role", f"{path}."), f"{path}.role", tuple(_PART_TYPES))
        parts = check_list(require_field(value, "content", f"{path}."), f"{path}.content", 100)
        parsed = [_parse_part(part, item["role"], f"{path}.content[{index}]") for index, part in enumerate(parts)]
        item["content"] = [part for part, _ in parsed]
        audio = b"".join(part_audio for _, part_audio in parsed)
    elif kind == "function_call":
        item["name"] = check_string(require_field(value, "name", f"{path}."), f"{path}.name", 64, 1)
        item["arguments"] = check_string(require_field(value, "arguments", f"{path}."), f"{path}.arguments")
        call_id = value.get("call_id")
        item["call_id"] = check_id(f"call_{new_id[-20:]}" if call_id is None else call_id, f"{path}.call_id")
    else:
        item["call_id"] = check_id(require_field(value, "call_id", f"{path}."), f"{path}.call_id")
        item["output"] = check_string(require_field(value, "output", f"{path}."), f"{path}.output")
    return ItemRecord(item), audio


def _parse_part(value: Any, role: str, path: str) -> tuple[JsonObject, bytes]:
    value = check_object(value, path)
    kind = check_enum(require_field(value, "type", f"{path}."), f"{path}.type", _PART_TYPES[role])
    reject_unknown_fields(value, _PART_FIELDS[kind], f"{path}.")
    if kind in ("input_text", "output_text"):
        return {"type": kind, "text": check_string(require_field(value, "text", f"{path}."), f"{path}.text")}, b""
    if kind == "input_image":
        image: JsonObject = {
            "type": kind,
            "image_url": check_string(require_field(value, "image_url", f"{path}."), f"{path}.image_url"),
        }
        if value.get("detail") is not None:
            image["detail"] = check_enum(value["detail"], f"{path}.detail", ("auto", "low", "high"))
        return image, b""
    transcript = value.get("transcript")
    part: JsonObject = {
        "type": kind,
        "transcript": None if transcript is None else check_string(transcript, f"{path}.transcript"),
    }
    encoded = value.get("audio")
    return part, decode_audio(encoded, f"{path}.audio") if encoded is not None and kind == "input_audio" else b""


def decode_audio(value: Any, param: str) -> bytes:
    """Decode base64 audio. Raises InvalidRequestError."""
    if not isinstance(value, str):
        raise InvalidRequestError(
            f"Invalid type for '{param}': expected a string of base64.", code="invalid_type", param=param
        )
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidRequestError(
            f"Invalid '{param}': the audio is not valid base64.", code="invalid_base64", param=param
        ) from error


def text_until(sentences: list[tuple[str, int]], audio_ms: int) -> str:
    """Return the sentences played by `audio_ms`; a partly played one is cut in proportion to its words."""
    texts: list[str] = []
    for text, length_ms in sentences:
        if audio_ms >= length_ms:
            texts.append(text)
        else:
            words = text.split()
            texts.extend(words[: len(words) * max(audio_ms, 0) // max(length_ms, 1)])
            break
        audio_ms -= length_ms
    return " ".join(texts)
