"""The one string a model gets for a tool call: JSON encoded once, bounded, whatever the tool did.

A result is its JSON, a plain string itself; a failure is
`{"ok": false, "error": code, "message": sentence, "retryable": bool}`. Over HTTP a result is JSON in any case.
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
    "refused",  # the tool said no, by a ToolError
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
# Where the same model, asking again with better arguments or a little later, may well get an answer.
_RETRYABLE_CODES: frozenset[FailureCode] = frozenset({"invalid_json", "invalid_arguments", "busy", "timeout"})
_PATH = re.compile(r"(?<![\w/:.…])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+){2,}[/\\]?")
_SLASH = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class ClientResult:
    """A tool returns this for a result that is for the client alone; the model only gets `note`.

    For what is long, private, or to be drawn and not read out. Over HTTP the result is `value`.
    """

    value: object
    note: str = "The result was given to the user's device; there is no need to read it out."


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What came of a call: the model's string, and how it ended.

    `code` and `message` say why there is no result; `client_output` is what the client gets instead of `output`.
    """

    output: str
    status: OutputStatus
    code: FailureCode | None = None
    message: str = ""
    client_output: str | None = None


def failure_output(code: FailureCode, message: str, http_message: str | None = None) -> ToolOutput:
    """The output of a call that has no result; `http_message` is the message for readers to whom the type says
    nothing.
    """
    body = {
        "ok": False,
        "error": code,
        "message": _truncate(message, MAX_MESSAGE_CHARS),
        "retryable": code in _RETRYABLE_CODES,
    }
    output = _valid_text(json.dumps(body, ensure_ascii=False))
    return ToolOutput(
        output,
        _STATUS_BY_CODE.get(code, "failed"),
        code,
        _valid_text(message if http_message is None else http_message),
    )


def encode_result(value: object, max_bytes: int) -> ToolOutput:
    """The output for what a tool returned; a value that JSON cannot hold is a failure."""
    if isinstance(value, ClientResult):
        shown = encode_result(value.value, max_bytes)
        return (
            shown
            if shown.code
            else ToolOutput(_truncate_to_bytes(_valid_text(value.note), max_bytes), "done", client_output=shown.output)
        )
    try:
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_jsonable)
        )
    except (TypeError, ValueError, RecursionError) as error:  # pydantic's serialisation error is a ValueError
        return failure_output(
            "unserialisable", f"The tool returned a {type(value).__name__} that is no JSON: {_error_text(error)}"
        )
    return ToolOutput(_truncate_to_bytes(_valid_text(text), max_bytes), "done")


def encode_http_result(value: object, max_bytes: int) -> ToolOutput:
    """The result as JSON for HTTP: NaN and infinities are null; what is too big or no JSON is a failure."""
    if isinstance(value, ClientResult):
        value = value.value
    try:
        raw = orjson.dumps(value, default=_to_jsonable, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"The function returned a {type(value).__name__} that is no JSON: {_error_text(error)}"
        return failure_output("unserialisable", text)
    if len(raw) > max_bytes:
        text = f"The result has {len(raw)} bytes, {max_bytes} are allowed."
        return failure_output("unserialisable", text)
    return ToolOutput(raw.decode(), "done")


def exception_output(name: str, error: BaseException) -> ToolOutput:
    """The output for what a tool raised: type and message; the traceback goes to the log only.

    A ToolError is a refusal in the tool's own words, meant to be read, so it stands alone and is no fault.
    """
    message = _error_text(error)
    if isinstance(error, RelayError):
        log.info("tool %s refused: %s", name, message)
        return failure_output("refused", message or "The tool refused.")
    log.error("tool %s failed", name, exc_info=error)
    kind = type(error).__name__
    return failure_output("exception", f"{kind}: {message}" if message else kind, http_message=message or kind)


def _to_jsonable(value: object) -> object:
    """What JSON does not know: models, dataclasses, dates, enums, sets, decimals."""
    if isinstance(value, Iterator):
        raise TypeError(f"a {type(value).__name__} may never end; return a list")
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # one order, so that a replay gives the same output
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    plain: object = pydantic_core.to_jsonable_python(value)
    return plain


def _truncate_to_bytes(text: str, max_bytes: int) -> str:
    """Cuts at a whole character and says so; the note is within the bound."""
    if len(text) * 4 <= max_bytes:
        return text
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    note = f"… [cut: the result has {len(raw)} bytes, {max_bytes} are allowed]"
    return raw[: max_bytes - len(note.encode())].decode(errors="ignore") + note


def _truncate(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def _valid_text(text: str) -> str:
    """Without lone surrogates, which no frame can carry."""
    return text.encode(errors="replace").decode()


def _error_text(error: BaseException) -> str:
    try:
        return _truncate(str(error), MAX_MESSAGE_CHARS)
    except Exception:
        return "its message cannot be read"


def shorten_paths(text: str) -> str:
    """`text` with each absolute path of two or more parts cut to its last one: `/srv/app/x.py` becomes `…/x.py`."""
    return _PATH.sub(lambda found: f"…/{[part for part in _SLASH.split(found[0]) if part][-1]}", text)
