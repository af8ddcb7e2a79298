"""Turn tool outputs of any shape into sentences; nothing here knows a tool by name."""

import re
from typing import Any

import orjson

from relay.local_engine.nlu.text_normalization import name_to_words

_TEXT_KEYS = ("spoken", "summary", "text", "message", "answer", "description")
_REASON_KEYS = ("message", "error", "reason", "detail")
_MAX_CHARS = 600
_MAX_ENTRIES = 6
_MAX_DEPTH = 3


def output_sentences(name: str, output: str) -> list[str]:
    """Return the sentences to say about one function call's output."""
    title = " ".join(name_to_words(name)) or "tool"
    try:
        value = orjson.loads(output)
    except orjson.JSONDecodeError:
        value = output
    reason = _failure_reason(value)
    if reason is not None:
        return [f"I am sorry, {title} did not work: {_clip(reason).rstrip('.')}."]
    text = _find_text(value)
    if text is None:
        text = f"The {title} says: {_describe(value, 0) or 'nothing'}."
    return [part for part in re.split(r"(?<=[.!?])\s+", _clip(text).strip()) if part]


def _failure_reason(value: Any) -> str | None:
    """Return the reason if the output reports a failure, else None."""
    if not isinstance(value, dict):
        return None
    failed = value.get("ok") is False or value.get("success") is False or value.get("isError") is True
    if not failed and not (value.get("error") and value.get("ok") is not True):
        return None
    for key in _REASON_KEYS:
        reason = value.get(key)
        if isinstance(reason, dict):
            reason = reason.get("message")
        if isinstance(reason, str) and reason.strip():
            return reason.strip()
    return "it gave no reason"


def _find_text(value: Any) -> str | None:
    """Return the text that the output provides for people, or None."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, dict):
        for key in _TEXT_KEYS:
            text = value.get(key)
            if isinstance(text, str) and text.strip():
                return text.strip()
        for key in ("result", "data", "value", "output"):
            if isinstance(value.get(key), dict) and (inner := _find_text(value[key])):
                return inner
    return None


def _describe(value: Any, depth: int) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case float():
            return f"{value:.6g}"
        case str():
            return value.replace(":", " ").replace("_", " ").strip()
    if depth >= _MAX_DEPTH:
        return "more"
    if isinstance(value, dict):
        entries = [f"{' '.join(name_to_words(str(key)))} {_describe(entry, depth + 1)}" for key, entry in value.items()]
    else:
        entries = [_describe(entry, depth + 1) for entry in value]
    more = len(entries) - _MAX_ENTRIES
    return ", ".join([*entries[:_MAX_ENTRIES], *([f"and {more} more"] if more > 0 else [])])


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS].rsplit(" ", 1)[0] + " and so on."
