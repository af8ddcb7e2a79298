"""What an MCP server writes to its standard error, as lines of the relay's log.

A server may write its token there, escape sequences, or megabytes: values of its configuration are taken out, control
characters are escaped, and lines are bounded in length and in number.
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
"""Of a line that is longer, no more is read than its beginning."""
MIN_SECRET_CHARS = 8
DRAIN_TIMEOUT_S = 0.2
"""How long the last words of a server that has ended are waited for."""

log = logging.getLogger(__name__)


class StderrFormatter:
    """Turns the bytes of one server into log lines. `now` is in seconds."""

    def __init__(self, name: str, values: Iterable[str], redact: Callable[[str], str]) -> None:
        self._name = name
        # The longest first: a value within another one must not leave the rest of it.
        self._secret_values = sorted(
            {value for value in values if len(value) >= MIN_SECRET_CHARS}, key=len, reverse=True
        )
        self._redact = redact
        self._minute_began = float("-inf")
        self._n_lines = 0
        self._n_omitted = 0

    def format_line(self, raw: bytes, now: float) -> list[str]:
        """The lines to log for one line of the server's."""
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
        """How many lines have been left out, if any."""
        left_out, self._n_omitted = self._n_omitted, 0
        return [f"MCP server {self._name}: {left_out} more lines were left out"] if left_out else []

    def _sanitize(self, line: str) -> str:
        for value in self._secret_values:
            line = line.replace(value, "[…]")
        line = self._redact(line)
        cut = line if len(line) <= MAX_LINE_CHARS else f"{line[: MAX_LINE_CHARS - 1]}…"
        return escape_controls(cut)


@contextlib.asynccontextmanager
async def stderr_to_log(lines: StderrFormatter) -> AsyncIterator[TextIO]:
    """A file to be a child's standard error; what is written there is logged until the block is left."""
    if sys.platform == "win32":  # its loop cannot read from such a pipe
        with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230, PTH123  # opened at once, and no path of anybody's
            yield nowhere
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
        # The server has ended and the pipe with it, unless a process that it started holds on to the other end.
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
        if is_rest:  # it may begin with the second half of a secret
            continue
        for line in lines.format_line(raw, loop.time()):
            log.info("%s", line)
    for line in lines.flush():
        log.info("%s", line)
