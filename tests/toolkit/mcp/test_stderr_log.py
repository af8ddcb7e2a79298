"""What an MCP server writes to its standard error reaches the log as bounded lines without secrets."""

import logging
import sys

import pytest

from relay.toolkit.mcp.client import McpServers
from relay.toolkit.mcp.config import McpServerConfig
from relay.toolkit.mcp.stderr_log import (
    MAX_LINE_CHARS,
    MAX_LINES_PER_MINUTE,
    MAX_READ_BYTES,
    StderrFormatter,
    stderr_to_log,
)
from relay.toolkit.registry import ToolRegistry

TOKEN = "t0ken-of-the-server-1"
RELAY_KEY = "relay-key-0123456789"


def lines() -> StderrFormatter:
    return StderrFormatter("wh", [TOKEN, "short", TOKEN + "-longer"], lambda text: text.replace(RELAY_KEY, "[…]"))


def test_values_of_its_configuration_and_secrets_of_the_relay_are_taken_out() -> None:
    said = f"using {TOKEN}-longer, {TOKEN} and {RELAY_KEY} in short".encode()
    assert lines().format_line(said, 0.0) == ["MCP server wh: using […], […] and […] in short"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"one\rtwo\x00", "one\\rtwo\\x00"),
        ("right\u202eleft\u2028".encode() + b"!", "right\\u202eleft\\u2028!"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_control_characters_are_escaped(raw: bytes, shown: str) -> None:
    assert lines().format_line(raw + b"\n", 0.0) == [f"MCP server wh: {shown}"]


def test_a_line_has_a_bound_and_a_secret_at_it_is_not_cut() -> None:
    [line] = lines().format_line(b"x" * (MAX_LINE_CHARS - 5) + TOKEN.encode(), 0.0)
    assert len(line) == len("MCP server wh: ") + MAX_LINE_CHARS - 2
    assert TOKEN[:3] not in line
    [line] = lines().format_line(b"x" * 10_000, 0.0)
    assert len(line) == len("MCP server wh: ") + MAX_LINE_CHARS


def test_a_minute_has_a_bound_and_the_next_one_tells_what_was_left_out() -> None:
    taken = lines()
    told = [line for n in range(MAX_LINES_PER_MINUTE + 7) for line in taken.format_line(b"again", n / 100)]
    assert len(told) == MAX_LINES_PER_MINUTE
    assert taken.format_line(b"more", 60.0) == ["MCP server wh: 7 more lines were left out", "MCP server wh: more"]
    assert taken.flush() == []


def test_empty_lines_are_not_told() -> None:
    assert lines().format_line(b"  \n", 0.0) == []


async def test_of_an_endless_line_the_beginning_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with stderr_to_log(lines()) as stderr:
        await _write(stderr.fileno(), f"'a' * {3 * MAX_READ_BYTES} + '{TOKEN}\\nend'")
    assert [len(record.getMessage()) for record in caplog.records] == [15 + MAX_LINE_CHARS, 15 + 3]
    assert TOKEN not in caplog.text


async def _write(descriptor: int, expression: str) -> None:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import sys; sys.stderr.write({expression})", stderr=descriptor
    )
    await process.wait()


async def test_a_server_that_prints_its_token(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    program = "import os, sys; print('token is', os.environ['TOKEN'], file=sys.stderr, flush=True); sys.exit(3)"
    config = McpServerConfig(name="loud", command=sys.executable, args=("-c", program), env={"TOKEN": TOKEN})
    servers = McpServers([config], ToolRegistry())
    await servers.start(2.0)
    await servers.stop()
    assert "MCP server loud: token is […]" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(capfd.readouterr())
