"""Every command, with a recording, tools, a relay and a provider that try to command the terminal."""

import asyncio
import contextlib
import logging
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import orjson
import pytest
import typer
from websockets.asyncio.server import Server, ServerConnection, serve

from relay.cli import main
from relay.cli.app import app
from relay.recording.redact.bundle import REPORT_FILE
from relay.recording.store.layout import HEADER_FILE, TIMELINE_FILE, TRANSCRIPT_FILE
from relay.session.device import events as ev
from tests.support.contracts import navai_env
from tests.support.scripted_provider import ScriptedResponse, scripted_provider
from tests.support.scripted_recordings import conversation, make_recording

EVIL = "\x1b]0;x\x07\x9b2J\u202e\x7f\u2028\x85\r\nrelay: forged\n\n00:00 --> 00:09\n👩\u200d🚀"
TOOL = f'''
def stock_of(fruit: str = {EVIL!r}) -> str:
    """{EVIL.encode("unicode_escape").decode()} How many are left."""
    return {EVIL!r}

def broken() -> str:
    raise ValueError({EVIL!r})
'''
SILENT = {
    "serve": "it writes the log (tests/test_logs.py)",
    "local": "it writes the log",
    "console": "prints a link of its own",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = make_recording(tmp_path / "recordings", hostile_conversation(), identity=EVIL)
    header = orjson.loads((folder / HEADER_FILE).read_bytes())
    (folder / HEADER_FILE).write_bytes(orjson.dumps(header | {"model": EVIL, "upstream": EVIL}))
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "mine.py").write_text(TOOL)
    (tmp_path / "tools" / "bad.py").write_text(f"raise ValueError({EVIL!r})")
    (tmp_path / "policies.toml").write_text(f"[policies.p]\nmodels = [{orjson.dumps(EVIL).decode()}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hostile_conversation() -> list[tuple[float, ev.Event]]:
    events = [
        *conversation()[:-1],
        (3.8, ev.TextDelta("resp_2", "item_b", 0, EVIL, True)),
        (3.8, ev.UpstreamErrorEvent("bad", EVIL, None, None)),
        (3.9, ev.UserTranscript("item_v", EVIL, True)),
        (4.0, ev.ClientClosed(1000, EVIL)),
    ]
    return [(at, ev.ToolCallFinished("call_1", "done", EVIL, 50) if at == 1.65 else event) for at, event in events]


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Some commands set up the log of their process; afterwards it is as it was."""
    level = logging.root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root, "handlers", [*logging.root.handlers])
        for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
            patch.setattr(module, name, getattr(module, name))
        yield
    logging.captureWarnings(False)
    logging.root.setLevel(level)
    logging.getLogger("relay").setLevel(logging.NOTSET)


async def relay(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """A command in a thread of its own, beside the servers of the test; what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["relay", *arguments])
        with contextlib.suppress(SystemExit):
            await asyncio.to_thread(main)
    told = capsys.readouterr()
    return told.out + told.err


Print = Callable[[Path, pytest.CaptureFixture[str]], Awaitable[str]]


def simply(*arguments: str) -> Print:
    return lambda _, capsys: relay(capsys, *arguments)


async def all_replays(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (folder,) = (root / "recordings").iterdir()
    told = await relay(capsys, "replay", "rs_scripted")
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"heard_text":"It', b'"heard_text":"At'))
    told += await relay(capsys, "replay", "rs_scripted")

    async def refuse(connection: ServerConnection) -> None:
        await connection.close(1011, EVIL[:40])

    async with serve(refuse, "127.0.0.1", 0) as server:
        return told + await relay(capsys, "replay", "rs_scripted", "--against", url_of(server))


def url_of(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def talk(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    async def hostile(connection: ServerConnection) -> None:
        await connection.send(orjson.dumps({"type": "event", "name": "AIConnected", "sessionId": EVIL}).decode())
        for message in (
            {"type": "transcript", "role": "user", "text": EVIL, "final": True},
            {"type": "textDelta", "text": EVIL},
            {"type": "tool", "name": EVIL, "status": EVIL, "ms": 1, "output": EVIL},
            {"type": "error", "code": EVIL, "message": EVIL},
            {"type": "goodbye", "reason": EVIL},
        ):
            await connection.send(orjson.dumps(message).decode())
        await connection.close(1011, EVIL[:40])

    async with serve(hostile, "127.0.0.1", 0) as server:
        asked = ("talk", "--text", "hi", "--url", url_of(server))
        return await relay(capsys, *asked) + await relay(capsys, *asked, "--json")


def with_provider(command: str) -> Print:
    async def run(_: Path, capsys: pytest.CaptureFixture[str]) -> str:
        async with scripted_provider() as provider:
            provider.script = ScriptedResponse(status=400, json={"error": {"message": EVIL, "code": EVIL}})
            with pytest.MonkeyPatch.context() as patch:
                for name, value in navai_env(provider).items():
                    patch.setenv(name, value)
                return await relay(capsys, command)

    return run


COMMANDS: dict[str, Print] = {
    "recordings list": simply("recordings", "list"),
    "recordings show": simply("recordings", "show", "rs_scripted"),
    "recordings export": simply("recordings", "export", "rs_scripted"),
    "recordings bundle": simply("recordings", "bundle", "rs_scripted", "--field", EVIL, "--to", "b.zip"),
    "recordings delete": simply("recordings", "delete", "--identity", EVIL, "--yes"),
    "recordings prune": simply("recordings", "prune", "--dry-run", "--max-days", "0.001"),
    "recordings repair": simply("recordings", "repair"),
    "replay": all_replays,
    "talk": talk,
    "tools": simply("tools"),
    "tools call": simply("tools", "call", "stock_of"),
    "tools schema": simply("tools", "schema", "stock_of"),
    "policies": simply("policies"),
    "check": with_provider("check"),
    "secret": with_provider("secret"),
}


def names(command: Any, path: str = "") -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield path
        return
    if command.invoke_without_command and path:
        yield path
    for name, member in command.commands.items():
        yield from names(member, f"{path} {name}".strip())


def test_every_command_is_tried() -> None:
    assert set(names(typer.main.get_command(app))) == COMMANDS.keys() | SILENT.keys()


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_command_lets_foreign_text_command_the_terminal(
    command: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "policies":
        monkeypatch.setenv("RELAY_POLICIES", str(root / "policies.toml"))
    told = await COMMANDS[command](root, capsys)
    assert told != ""
    assert "Traceback" not in told
    assert harmful(told) == []
    if command != "tools call":  # which prints nothing but what the tool returned, line by line
        assert not re.search(r"^relay: forged", told, re.MULTILINE)


async def test_files_for_people_hold_no_control_characters(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await relay(capsys, "recordings", "repair")
    (folder,) = (root / "recordings").iterdir()
    await relay(capsys, "recordings", "bundle", "rs_scripted", "--field", EVIL, "--to", "b.zip")
    vtt = (folder / TRANSCRIPT_FILE).read_text()
    assert [harmful(vtt), harmful((folder / TIMELINE_FILE).read_text())] == [[], []]
    assert vtt.count("-->") == vtt.count("<v ")
    with ZipFile("b.zip") as archive:
        for name in archive.namelist():
            if name.endswith((REPORT_FILE, HEADER_FILE)):
                assert harmful(archive.read(name).decode()) == []


def harmful(text: str) -> list[str]:
    return sorted({char for char in text if char in "\x1b\x07\x9b\u202e\x7f\u2028\x85\r"})
