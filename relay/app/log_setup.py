"""Logging: an entry a line, as text or JSON, without known secrets and what looks like a credential.

Foreign text cannot forge an entry (`relay.log_lines`).

What Python itself would print past the log (uncaught exceptions, warnings) is logged as well.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from relay.escaping import escape_json
from relay.log_lines import LineFormatter
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.redact import redact

MAX_ENTRY_CHARS = 20_000

_log = logging.getLogger("relay")


class _Redactor:
    def __init__(self) -> None:
        self.secrets = NO_SECRETS

    def clean(self, text: str) -> str:
        return redact(self.secrets.redact_truncated(text), MAX_ENTRY_CHARS)


_redactor = _Redactor()


def redact_from_logs(secrets: KnownSecrets) -> None:
    """Redact these secrets from every entry from now on, in place of those set before."""
    _redactor.secrets = secrets


class _TextFormatter(LineFormatter):
    def clean(self, text: str) -> str:
        return _redactor.clean(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _redactor.clean(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = _redactor.clean(self.formatException(record.exc_info))
        return escape_json(json.dumps(entry, ensure_ascii=False))


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    def handleError(self, record: logging.LogRecord) -> None:
        """An entry that cannot be formatted: Python would print its arguments as they are."""
        error = sys.exc_info()[0]
        name = error.__name__ if error is not None else "an error"
        self.stream.write(f"relay: an entry of {record.name}, line {record.lineno}, cannot be logged ({name})\n")


def setup_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send all log entries to standard error, in the given form."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter()
        if log_format == "json"
        else _TextFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # At "debug" it logs every frame with the middle cut out, which could leave half a secret on each side.
    logging.getLogger("websockets").setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_failure


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("the relay ends with an error", exc_info=(kind, error, traceback))


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    _log.error("an error could not be raised", exc_info=error if error is not None else False)


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit:
        _log.error(
            "a thread ended with an error", exc_info=failure.exc_value if failure.exc_value is not None else False
        )
