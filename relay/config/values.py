"""Types of the values of settings, which also read the texts of the environment."""

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


def lower(value: Any) -> Any:
    """A choice in lower case; a URL keeps its case."""
    if not isinstance(value, str):
        return value
    return value.strip() if "://" in value else value.strip().lower()


def _blank_is_unset(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
OptionalText = Annotated[str | None, BeforeValidator(_blank_is_unset)]
OptionalPath = Annotated[Path | None, BeforeValidator(_blank_is_unset)]
PathText = Annotated[str, BeforeValidator(_text)]

Switch = Annotated[Literal["on", "off"], BeforeValidator(lower)]
BrowserAccess = Annotated[Literal["credential", "origin"], BeforeValidator(lower)]
TurnDetectionKind = Annotated[Literal["server_vad", "semantic_vad", "manual"], BeforeValidator(lower)]
NoiseReduction = Annotated[Literal["near_field", "far_field", "off"], BeforeValidator(lower)]
TtsProvider = Literal["openai", "elevenlabs"]
TtsMode = Annotated[Literal["streaming", "final"], BeforeValidator(lower)]
TtsFallback = Annotated[Literal["model", "off"], BeforeValidator(lower)]
RecordingMode = Annotated[Literal["off", "on", "consent"], BeforeValidator(lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(lower)]


def quote(value: object, max_chars: int = 80) -> str:
    """A wrong value for a message: in quotes, cut, and without anything that looks like a key."""
    return repr(redact(str(value), max_chars))


def printable(value: object, max_chars: int = 80) -> str:
    """The same without the quotes."""
    return quote(value, max_chars)[1:-1]


def checked_url(value: str, example: str) -> str:
    """A URL of an HTTP API, without a slash at its end. Raises ValueError."""
    if not is_url(value, HTTP_SCHEMES):
        raise ValueError(f"{quote(value)} is not a URL; write it like {example}")
    return value.rstrip("/")


def is_origin(text: str) -> bool:
    """Whether `text` is `scheme://host[:port]`, of any scheme."""
    match = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://[^/\s?#@]+", text)
    return match is not None and is_url(text, (match[1].lower(),))


def normal_origin(origin: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port. Raises ValueError for a bad port."""
    parts = urlsplit(origin.lower())
    own_port = {"http": 80, "https": 443}.get(parts.scheme)
    return origin.lower().removesuffix(f":{own_port}") if parts.port == own_port else origin.lower()
