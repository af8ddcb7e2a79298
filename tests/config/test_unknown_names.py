"""What a user sees of a mistyped name: one warning at the start, and one of `relay check`."""

import asyncio
from pathlib import Path

from tests.support.relay_command import RELAY_COMMAND, relay_environment, serve_process

TYPO = {"RELAY_RECROD": "a-value", "RELAY_UPSTREAM": "ws://127.0.0.1:9/v1/realtime"}
WARNING = "unknown settings are ignored: RELAY_RECROD (did you mean RELAY_RECORD?)"


async def test_the_start_warns_once(tmp_path: Path) -> None:
    async with serve_process(tmp_path, **TYPO) as served:
        assert served.log.count(WARNING) == 1
        assert "a-value" not in served.log


async def test_relay_check_warns_once(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        RELAY_COMMAND, "check", stdout=asyncio.subprocess.PIPE, env=relay_environment(tmp_path, **TYPO), cwd=tmp_path
    )
    output = (await process.communicate())[0].decode()
    assert output.splitlines()[0] == f"warn  settings       {WARNING}"
    assert "a-value" not in output
    assert output.count("RECROD") == 1


async def test_a_start_that_fails_names_them_too(tmp_path: Path) -> None:
    environment = relay_environment(tmp_path, HOST="0.0.0.0", RELAY_API_KYES="a-value")
    process = await asyncio.create_subprocess_exec(
        RELAY_COMMAND, "serve", stderr=asyncio.subprocess.PIPE, env=environment, cwd=tmp_path
    )
    error = (await process.communicate())[1].decode()
    assert process.returncode == 2
    assert "HOST=0.0.0.0 can be reached from other machines. Set RELAY_API_KEYS" in error
    assert "unknown settings are ignored: RELAY_API_KYES (did you mean RELAY_API_KEYS?)" in error
    assert "a-value" not in error
