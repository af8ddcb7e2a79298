"""Writes the standard error of MCP servers to the relay's log.

A server may write its token, escape sequences or megabytes. So values of its configuration are removed, control
characters are escaped, and both the length and the number of lines are limited.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TextIO

from relay.escaping import escape_controls

MAX_LINE_CHARS = 500
MAX_LINES_PER_MINUTE = 60
MAX_READ_BYTES = 64 * 1024
"""The rest of a longer line is skipped."""
MIN_SECRET_CHARS = 8
DRAIN_TIMEOUT_S = 0.2
"""The time to wait for the last lines of a server that has ended."""

log = logging.getLogger(__name__)


class StderrFormatter:
    """Formats and limits the log lines of one server."""

    def __init__(self, name: str, values: Iterable[str], redact: Callable[[str], str]) -> None:
        self._name = name
        # Longest first: replacing a part of a longer value would leave the rest of it.
        self._secret_values = sorted(
            {value for value in values if len(value) >= MIN_SECRET_CHARS}, key=len, reverse=True
        )
        self._redact = redact
        self._minute_began = float("-inf")
        self._n_lines = 0
        self._n_omitted = 0

    def format_line(self, raw: bytes, now: float) -> list[str]:
        """Return the log lines for one line of the server; `now` is in seconds."""
        log_lines: list[str] = []
        if now - self._minute_began >= 60:
            log_lines = self.flush()
            self._minute_began, self._n_lines = now, 0
        line = raw.decode(errors="replace").strip()
        if not line:
            return log_lines
        self._n_lines += 1
        if self._n_lines > MAX_LINES_PER_MINUTE:
            self._n_omitted += 1
            return log_lines
        return [*log_lines, f"MCP server {self._name}: {self._sanitize(line)}"]

    def flush(self) -> list[str]:
        """Return a line with the number of omitted lines, if there are any."""
        n_omitted, self._n_omitted = self._n_omitted, 0
        return [f"MCP server {self._name}: {n_omitted} more lines omitted"] if n_omitted else []

    def _sanitize(self, line: str) -> str:
        for value in self._secret_values:
            line = line.replace(value, "[…]")
        line = self._redact(line)
        truncated = line if len(line) <= MAX_LINE_CHARS else f"{line[: MAX_LINE_CHARS - 1]}…"
        return escape_controls(truncated)


@contextlib.asynccontextmanager
async def stderr_to_log(lines: StderrFormatter) -> AsyncIterator[TextIO]:
    """Yield a file for a child's standard error, whose lines are logged until the block ends."""
    if sys.platform == "win32":  # its event loop cannot read from a pipe
        with open(os.devnull, "w") as null_file:  # noqa: ASYNC230, PTH123  # does not block
            yield null_file
        return
    receiver, sender = os.pipe()
    reader = asyncio.StreamReader(limit=MAX_READ_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(receiver, "rb", buffering=0)
    )
    task = loop.create_task(_log_lines(reader, lines), name="mcp stderr")
    try:
        with os.fdopen(sender, "w") as file:
            yield file
        # The server has ended and so has the pipe, unless a child process of the server keeps it open.
        await asyncio.wait({task}, timeout=DRAIN_TIMEOUT_S)
    finally:
        transport.close()
        task.cancel()
        await asyncio.wait({task})


async def _log_lines(reader: asyncio.StreamReader, lines: StderrFormatter) -> None:
    loop = asyncio.get_running_loop()
    at_end = is_within = False
    while not at_end:
        is_rest, is_within = is_within, False
        try:
            raw = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            raw, at_end = error.partial, True
        except asyncio.LimitOverrunError as error:
            raw, is_within = await reader.readexactly(max(error.consumed, 1)), True
        if is_rest:  # it may begin within a secret
            continue
        for line in lines.format_line(raw, loop.time()):
            log.info("%s", line)
    for line in lines.flush():
        log.info("%s", line)
