"""The programs of docs/client.md against a real relay with its local engine, and what the page names."""

import asyncio
import inspect
import re
import sys
from pathlib import Path

import pytest

import relay.client
from audio.files import read_audio
from relay.client import connection
from tests.test_end_to_end import SAMPLES, local_relay

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
SHORTEST, COMPLETE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TIMEOUT_S = 40.0


async def run(program: Path, code: str, *arguments: str) -> tuple[int | None, str, str]:
    await asyncio.to_thread(program.write_text, code, "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    async with asyncio.timeout(TIMEOUT_S):
        printed, complained = await process.communicate()
    return process.returncode, printed.decode(), complained.decode()


async def test_the_shortest_program(tmp_path: Path) -> None:
    async with local_relay() as local:
        code = SHORTEST.replace("ws://127.0.0.1:8080/", local.ws())
        assert code != SHORTEST
        exit_code, printed, complained = await run(tmp_path / "shortest.py", code)
    assert (exit_code, complained) == (0, "")
    assert printed.startswith("In Tokyo it is ")


async def test_the_complete_program(tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"
    async with local_relay() as local:
        question = str(SAMPLES / "time-in-tokyo.flac")
        exit_code, printed, complained = await run(tmp_path / "a.py", COMPLETE, local.ws(), question, str(answer))
    assert (exit_code, complained) == (0, "")
    assert printed.startswith("user: what time is it in tokyo\nassistant: In Tokyo it is ")
    assert len(read_audio(answer, 24_000)) > 24_000


async def test_an_error_is_a_sentence(unused_tcp_port: int, tmp_path: Path) -> None:
    url, question = f"ws://127.0.0.1:{unused_tcp_port}/", str(SAMPLES / "hello.flac")
    exit_code, printed, complained = await run(tmp_path / "a.py", COMPLETE, url, question, "unused.wav")
    assert (exit_code, printed) == (1, "")
    assert complained == f"cannot reach {url}: nothing listens there; is the relay running?\n"


def test_the_module_starts_with_the_shortest_program() -> None:
    assert inspect.cleandoc(relay.client.__doc__ or "").endswith(SHORTEST.rstrip())


@pytest.mark.parametrize("name", relay.client.__all__)
def test_everything_that_is_exported_is_on_the_page(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE) or name == "SessionOptions"


def test_every_argument_and_method_is_in_its_table() -> None:
    arguments = connection.connect.__wrapped__.__annotations__.keys() - {"return", "options"}  # type: ignore[attr-defined]
    for name in arguments | connection.SessionOptions.__annotations__.keys():
        assert re.search(rf"^\|[^|]*`{name}`", PAGE, re.MULTILINE), name
    methods = {name for name in vars(connection.RelayClient) if not name.startswith("_")}
    for name in methods - {"recv"}:
        assert re.search(rf"^\|[^|]*`{name}\(", PAGE, re.MULTILINE), name
