"""The engine as a program: `python -m relay.local_engine`."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process

import pytest

from tests.local_engine.engine_harness import connected


async def started(*arguments: str) -> tuple[Process, int]:
    command = (sys.executable, "-m", "relay.local_engine", "--host", "127.0.0.1", "--port", "0", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(15):
        line = await process.stdout.readline()
    return process, int(json.loads(line)["port"])


async def ended(process: Process) -> int:
    """Return the exit code; the process must end within 2 s."""
    try:
        async with asyncio.timeout(2):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sigterm_ends_it_even_with_a_client_in_mid_story():
    process, port = await started()
    async with connected(port, audio={"output": {"voice": "alloy"}}) as client:
        await client.play_sample("tell-a-story")
        await client.wait_for("response.output_audio.delta")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    assert process.stdout is not None
    assert await process.stdout.read() == b""


async def test_it_ends_with_its_standard_input():
    process, _ = await started("--exit-with-stdin")
    assert process.stdin is not None
    process.stdin.write(b"still here\n")
    process.stdin.close()
    assert await ended(process) == 0


async def test_without_the_option_it_ignores_the_end_of_standard_input():
    process, port = await started()
    assert process.stdin is not None
    process.stdin.close()
    async with connected(port):
        pass
    process.terminate()
    assert await ended(process) == 0


@pytest.mark.parametrize("arguments", [("--host", "192.0.2.1"), ("--port", "99999")])
async def test_an_address_that_it_cannot_listen_on_is_named(arguments: tuple[str, ...]):
    command = (sys.executable, "-m", "relay.local_engine", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(15):
        stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (1, b"")
    assert b"cannot listen on" in stderr
