"""Types of setting values, which also parse the texts of environment variables."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from relay.session.common.redact import redact
from relay.upstreams.endpoint import is_url

HTTP_SCHEMES = ("http", "https", "ws", "wss")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def lower_choice(value: Any) -> Any:
    """Convert a choice to lower case; a URL keeps its case."""
    if not isinstance(value, str):
        return value
    return value.strip() if "://" in value else value.strip().lower()


def _blank_is_unset(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _path_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
LowerText = Annotated[str, BeforeValidator(lower_choice)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_is_unset)]
OptionalPath = Annotated[Path | None, BeforeValidator(_blank_is_unset)]
PathText = Annotated[str, BeforeValidator(_path_to_text)]

Switch = Annotated[Literal["on", "off"], BeforeValidator(lower_choice)]
BrowserAccess = Annotated[Literal["credential", "origin"], BeforeValidator(lower_choice)]
TurnDetectionKind = Annotated[Literal["server_vad", "semantic_vad", "manual"], BeforeValidator(lower_choice)]
NoiseReduction = Annotated[Literal["near_field", "far_field", "off"], BeforeValidator(lower_choice)]
TtsProvider = Literal["openai", "elevenlabs"]
TtsMode = Annotated[Literal["streaming", "final"], BeforeValidator(lower_choice)]
TtsFallback = Annotated[Literal["model", "off"], BeforeValidator(lower_choice)]
RecordingMode = Annotated[Literal["off", "on", "consent"], BeforeValidator(lower_choice)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower_choice)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(lower_choice)]


def quote(value: object, max_chars: int = 80) -> str:
    """A wrong value for a message: in quotes, cut, and without anything that looks like a key."""
    return repr(redact(str(value), max_chars))


def printable(value: object, max_chars: int = 80) -> str:
    """The same without the quotes."""
    return quote(value, max_chars)[1:-1]


def checked_url(value: str, example: str) -> str:
    """Return the URL of an HTTP API without a trailing slash. Raises ValueError."""
    if not is_url(value, HTTP_SCHEMES):
        raise ValueError(f"{quote(value)} is not a URL; write it like {example}")
    return value.rstrip("/")


def is_origin(text: str) -> bool:
    """Whether `text` is `scheme://host[:port]`, of any scheme."""
    match = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://[^/\s?#@]+", text)
    return match is not None and is_url(text, (match[1].lower(),))


def normalize_origin(origin: str) -> str:
    """Return an origin as browsers send it: lower case, without the default port. Raises ValueError for a bad port."""
    parts = urlsplit(origin.lower())
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    return origin.lower().removesuffix(f":{default_port}") if parts.port == default_port else origin.lower()
