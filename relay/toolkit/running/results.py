"""The output of a tool call: one string of limited size for the model, whatever the tool did.

A string result is sent as it is, any other as JSON. A failure is
`{"ok": false, "error": code, "message": sentence, "retryable": bool}`. Over HTTP every result is JSON.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import orjson
import pydantic_core

from relay.errors import RelayError

log = logging.getLogger(__name__)

OutputStatus = Literal["done", "failed", "timeout", "cancelled"]
FailureCode = Literal[
    "unknown_tool",
    "invalid_json",
    "invalid_arguments",
    "duplicate_call",
    "refused",  # the tool raised a ToolError
    "exception",
    "unserialisable",
    "busy",
    "timeout",
    "cancelled",
    "shutdown",
]

MAX_MESSAGE_CHARS = 1_000
MIN_RESULT_BYTES = 1_024

_STATUS_BY_CODE: dict[FailureCode, OutputStatus] = {
    "timeout": "timeout",
    "cancelled": "cancelled",
    "shutdown": "cancelled",
}
# Failures where another call, with better arguments or a little later, may succeed.
_RETRYABLE_CODES: frozenset[FailureCode] = frozenset({"invalid_json", "invalid_arguments", "busy", "timeout"})
_PATH = re.compile(r"(?<![\w/:.…])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+){2,}[/\\]?")
_SLASH = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class ClientResult:
    """Return value of a tool whose result is for the client only; the model receives `note`.

    Use it for a result that is long, private, or to be displayed instead of read out. Over HTTP the result is `value`.
    """

    value: object
    note: str = "The result was sent to the user's device; there is no need to read it out."


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The output of a call for the model, and its status.

    `code` and `message` say why a call failed. `client_output` replaces `output` for the client.
    """

    output: str
    status: OutputStatus
    code: FailureCode | None = None
    message: str = ""
    client_output: str | None = None


def failure_output(code: FailureCode, message: str, http_message: str | None = None) -> ToolOutput:
    """Return the output of a failed call; `http_message` replaces `message` over HTTP."""
    sentence, is_retryable = _truncate(message, MAX_MESSAGE_CHARS), code in _RETRYABLE_CODES
    body = {"ok": False, "error": code, "message": sentence, "retryable": is_retryable}
    output = _valid_text(json.dumps(body, ensure_ascii=False))
    message = _valid_text(message if http_message is None else http_message)
    return ToolOutput(output, _STATUS_BY_CODE.get(code, "failed"), code, message)


def encode_result(value: object, max_bytes: int) -> ToolOutput:
    """Return the output for the return value of a tool; one that JSON cannot represent is a failure."""
    if isinstance(value, ClientResult):
        for_client = encode_result(value.value, max_bytes)
        if for_client.code:
            return for_client
        note = _truncate_to_bytes(_valid_text(value.note), max_bytes)
        return ToolOutput(note, "done", client_output=for_client.output)
    text = value
    try:
        if not isinstance(text, str):
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_jsonable)
    except (TypeError, ValueError, RecursionError) as error:  # pydantic's serialisation error is a ValueError
        message = f"The tool returned a {type(value).__name__} that is not JSON: {_error_text(error)}"
        return failure_output("unserialisable", message)
    return ToolOutput(_truncate_to_bytes(_valid_text(text), max_bytes), "done")


def encode_http_result(value: object, max_bytes: int) -> ToolOutput:
    """Return the output as JSON for HTTP; NaN and infinities are null, other values without JSON a failure.

    A result over `max_bytes` is a failure too: JSON cannot be truncated.
    """
    if isinstance(value, ClientResult):
        value = value.value
    try:
        raw = orjson.dumps(value, default=_to_jsonable, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"The function returned a {type(value).__name__} that is not JSON: {_error_text(error)}"
        return failure_output("unserialisable", message)
    if len(raw) > max_bytes:
        return failure_output("unserialisable", f"The result has {len(raw)} bytes, the limit is {max_bytes}.")
    return ToolOutput(raw.decode(), "done")


def exception_output(name: str, error: BaseException) -> ToolOutput:
    """Return the output for an exception of a tool: type and message; only the log has the traceback.

    A ToolError is a refusal by the tool, not a failure of it, so the output is its message without the type.
    """
    message = _error_text(error)
    if isinstance(error, RelayError):
        log.info("tool %s refused: %s", name, message)
        return failure_output("refused", message or "The tool refused the call.")
    log.error("tool %s failed", name, exc_info=error)
    kind = type(error).__name__
    return failure_output("exception", f"{kind}: {message}" if message else kind, http_message=message or kind)


def _to_jsonable(value: object) -> object:
    """Convert models, dataclasses, dates, enums, sets and decimals to JSON types."""
    if isinstance(value, Iterator):
        raise TypeError(f"a {type(value).__name__} may be endless; return a list")
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # a fixed order, so that a replay has the same output
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    jsonable: object = pydantic_core.to_jsonable_python(value)
    return jsonable


def _truncate_to_bytes(text: str, max_bytes: int) -> str:
    """Truncate after a whole character and append a note; both together have at most `max_bytes`."""
    if len(text) * 4 <= max_bytes:
        return text
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    note = f"… [truncated: the result has {len(raw)} bytes, the limit is {max_bytes}]"
    return raw[: max_bytes - len(note.encode())].decode(errors="ignore") + note


def _truncate(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def _valid_text(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def _error_text(error: BaseException) -> str:
    try:
        return _truncate(str(error), MAX_MESSAGE_CHARS)
    except Exception:
        return "its message cannot be read"


def shorten_paths(text: str) -> str:
    """Shorten each absolute path of two or more parts to its last part: `/srv/app/x.py` becomes `…/x.py`."""
    return _PATH.sub(lambda match: f"…/{[part for part in _SLASH.split(match[0]) if part][-1]}", text)
