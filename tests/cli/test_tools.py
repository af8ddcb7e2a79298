"""`relay tools` in a terminal of its own folder."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.app import app
from relay.errors import ToolError
from tests.support.navai_project import write_file

MINE = '''
from relay import ToolContext, tool

@tool(timeout_s=3, concurrency=2, expose={"model"})
def stock_of(fruit: str, shelf: int = 1) -> dict:
    """How many pieces of a fruit are left."""
    return {"fruit": fruit, "left": 12 * shelf}

def slow(context: ToolContext) -> str:
    context.progress("half way")
    raise ValueError("no")
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    write_file(tmp_path / "tools" / "mine.py", MINE)
    write_file(tmp_path / "tools" / "broken.py", "def x(:")
    monkeypatch.chdir(tmp_path)
    for name in ("RELAY_TOOLS", "NAVAI_FUNCTIONS_FOLDERS", "RELAY_MCP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    log = logging.getLogger("relay")
    level = log.level
    yield
    log.setLevel(level)  # the command silences it, for its process


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["tools", *arguments], catch_exceptions=False, standalone_mode=True)
    return result.exit_code, result.stdout, result.stderr


def test_the_list_names_signature_source_exposure_and_warnings() -> None:
    code, out, err = run()
    assert code == 0
    assert out.splitlines()[3:] == [
        "stock_of(fruit: string, shelf: integer = 1)",
        "    How many pieces of a fruit are left.",
        "    tools/mine.py#stock_of · model · 3 s, at most 2 at a time",
    ]
    assert err.startswith("warning: Failed to load tools/broken.py: SyntaxError")


def test_the_list_as_json() -> None:
    _, out, _ = run("--json")
    listed = json.loads(out)
    assert [one["name"] for one in listed["tools"]] == ["slow", "stock_of"]
    assert len(listed["warnings"]) == 1


def test_a_call_prints_what_the_model_would_be_told() -> None:
    assert run("call", "stock_of", '{"fruit": "pears"}')[:2] == (0, '{"fruit": "pears", "left": 12}\n')
    code, out, err = run("call", "slow")
    assert (code, json.loads(out)["message"]) == (1, "ValueError: no")
    assert "progress: half way" in err
    assert run("call", "stock_of", "{}")[0] == 1


def test_the_schema_of_one() -> None:
    code, out, _ = run("schema", "stock_of")
    assert (code, json.loads(out)["parameters"]["required"]) == (0, ["fruit"])


def test_a_name_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(ToolError, match=r"There is no tool 'nope'\. The tools are: slow, stock_of\."):
        run("schema", "nope")
