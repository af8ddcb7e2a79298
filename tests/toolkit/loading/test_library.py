"""Tools loaded in a thread: at the start, anew, after a failure; one that never returns holds up nothing."""

import asyncio
import threading
from pathlib import Path

import pytest

from relay import load_tools
from relay.errors import ToolError
from relay.toolkit.loading.library import ToolLoader
from relay.toolkit.loading.search_paths import ToolSources
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.navai_project import write_file

ONE = "def one() -> int:\n    return 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_file(tmp_path / "tools" / "a.py", ONE)
    return tmp_path / "tools"


def open_to(folder: Path, mode: int) -> None:
    folder.chmod(mode)


def library(folder: Path, **more: float) -> ToolLoader:
    return ToolLoader(ToolSources(folders=str(folder)), ToolRegistry(), **more)


async def test_modules_run_in_a_thread(folder: Path) -> None:
    write_file(folder / "b.py", "import threading\nNAME = threading.current_thread().name\ndef name(): return NAME\n")
    tools = library(folder)
    await tools.ensure_loaded()
    name = tools.registry.get("name")
    assert name is not None
    assert name.function() == "tool loader" != threading.current_thread().name


async def test_loading_anew_exchanges_the_folders_tools_and_leaves_the_others(folder: Path) -> None:
    tools = library(folder)
    other = Tool.from_function(lambda: 2, name="other")
    await tools.load()
    tools.registry.assign("mcp x", [other])
    old = tools.registry.get("one")
    write_file(folder / "a.py", "def two() -> int:\n    return 2\n")
    write_file(folder / "bad.py", "def x(:")
    await tools.load()
    assert tools.registry.names() == ("two", "other")
    assert tools.registry.warnings[0].startswith("Failed to load tools/bad.py")
    assert old is not None
    assert old.function() == 1  # a call that runs goes on


async def test_a_failure_keeps_the_tools_and_the_next_call_tries_again(folder: Path) -> None:
    tools = library(folder)
    open_to(folder, 0o777)
    with pytest.raises(ToolError, match="written by everyone"):
        await tools.ensure_loaded()
    open_to(folder, 0o755)
    await tools.ensure_loaded()
    open_to(folder, 0o777)
    with pytest.raises(ToolError, match="written by everyone"):
        await tools.load()
    assert tools.registry.names() == ("one",)


async def test_a_module_that_does_not_return_is_waited_for_only_so_long(folder: Path) -> None:
    gate = threading.Event()
    threading.relay_test_gate = gate  # type: ignore[attr-defined]
    try:
        write_file(folder / "b.py", "import threading\nthreading.relay_test_gate.wait(20)\n")
        tools = library(folder, load_timeout_s=0.05)
        with pytest.raises(ToolError, match=r"have not loaded within 0\.05 s"):
            await tools.load()
        assert len(tools.registry) == 0
        gate.set()
        async with asyncio.timeout(20):
            while not tools.is_loaded:  # each try waits 50 ms for the one load that is under way
                try:
                    await tools.load()
                except ToolError:
                    continue
        assert tools.registry.names() == ("one",)
    finally:
        del threading.relay_test_gate  # type: ignore[attr-defined]


def test_load_tools_gives_a_registry_here_and_now(folder: Path) -> None:
    registry = load_tools(folder)
    assert registry.names() == ("one",)
    assert load_tools("tools/*.py", base_dir=folder.parent).names() == ("one",)
    with pytest.raises(ToolError, match="There is no tools folder"):
        load_tools(folder / "nowhere")
