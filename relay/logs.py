"""Logging: one line an entry, as text or JSON; nothing that looks like a credential gets through."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from relay.core.redact import redact

MAX_ENTRY_CHARS = 20_000


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), MAX_ENTRY_CHARS)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage(), MAX_ENTRY_CHARS),
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info), MAX_ENTRY_CHARS)
        return json.dumps(entry, ensure_ascii=False)


def setup_logging(level: str, form: Literal["text", "json"]) -> None:
    """Send all log entries to standard error, in the given form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if form == "json" else _Redacting("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
