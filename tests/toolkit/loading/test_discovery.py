"""A folder of Python files in, tools and warnings out."""

import pickle
import sys
import textwrap
from pathlib import Path

import pytest

from relay.errors import ToolError
from relay.toolkit.loading.loader import LoadResult
from tests.support.tool_folders import load_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir(mode=0o755)
    return path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        path.chmod(0o644)


def names(result: LoadResult) -> list[str]:
    return [tool.name for tool in result.tools]


def test_public_functions_defined_in_the_file_decorated_or_not(folder: Path) -> None:
    write(
        folder,
        tools='''
        import functools
        from json import dumps
        from os.path import join as path_join
        from relay import tool

        @tool(name="second", timeout_s=3)
        def first(x: int) -> int:
            """Do it."""
            return x

        async def plain(x: int) -> int:
            return x

        def _private() -> None: ...

        @functools.lru_cache
        def cached(x: int) -> int:
            return x

        shout = lambda text: text.upper()
        again = plain

        class Helper:
            def __call__(self) -> None: ...

        helper = Helper()
        LIMIT = 3
        ''',
    )
    result = load_folder(folder)
    assert names(result) == ["cached", "second", "plain", "shout"]
    assert [tool.source for tool in result.tools] == [
        "mine/tools.py#cached",
        "mine/tools.py#first",
        "mine/tools.py#plain",
        "mine/tools.py#shout",
    ]
    assert [tool.is_async for tool in result.tools] == [False, False, True, False]
    assert result.warnings == ()


def test_all_says_what_is_exported(folder: Path) -> None:
    write(
        folder,
        tools="""
        from posixpath import basename
        __all__ = ["basename", "_hidden", "missing", "LIMIT"]
        LIMIT = 3
        def _hidden() -> None: ...
        def public() -> None: ...
        """,
    )
    result = load_folder(folder)
    assert names(result) == ["basename"]  # what is private is never exposed
    assert result.warnings == ('mine/tools.py: __all__ names "missing", which is not defined.',)


def test_files_come_in_order_of_name_and_some_do_not_come(folder: Path) -> None:
    code = "def {}() -> None: ..."
    write(folder, b=code.format("b"), a=code.format("a"), _c=code.format("c"), **{"d-e": code.format("d")})
    (folder / ".hidden.py").write_text(code.format("hidden"))
    (folder / "notes.txt").write_text("no code")
    (folder / "folder.py").mkdir(mode=0o755)
    for below in ("below", "node_modules", ".venv", "_private"):
        (folder / below).mkdir(mode=0o755)
        (folder / below / "f.py").write_text(code.format("f"))
        (folder / below / "f.py").chmod(0o644)
    result = load_folder(folder)
    assert names(result) == ["a", "b", "f", "d"]
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: invalid syntax (bad.py, line 1)"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("from relay import tool\n@tool(timeout_s=-1)\ndef f(): ...", "ToolError: @tool: timeout_s must be"),
    ],
)
def test_a_broken_file_is_a_warning_and_the_others_load(
    folder: Path, text: str, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, bad=text, good="def good() -> None: ...")
    result = load_folder(folder)
    assert names(result) == ["good"]
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith(f"Failed to load mine/bad.py: {warning}")
    assert "Traceback" in caplog.text
    assert result.warnings[0] in caplog.text
    assert not [name for name in sys.modules if name.endswith(".bad")]


def test_bytes_that_are_no_text_are_a_warning(folder: Path) -> None:
    (folder / "bad.py").write_bytes(b"x = '\xff\xfe'")
    assert load_folder(folder).warnings[0].startswith("Failed to load mine/bad.py: SyntaxError: ")


def test_a_function_that_cannot_be_described_is_a_warning_and_its_neighbours_load(folder: Path) -> None:
    write(folder, tools="import threading\ndef bad(lock: threading.Event): ...\ndef good(): ...", empty="LIMIT = 3")
    result = load_folder(folder)
    assert names(result) == ["good"]
    assert result.warnings[0] == "Ignored mine/empty.py: module has no callable exports."
    assert result.warnings[1].startswith('Ignored mine/tools.py#bad: Tool "bad": the type of parameter "lock" has no')


def test_classes_in_a_tool_file_work_as_types_and_can_be_pickled(folder: Path) -> None:
    write(
        folder,
        tools="""
        from __future__ import annotations
        import dataclasses

        @dataclasses.dataclass
        class Point:
            x: int

        def shift(point: Point) -> Point:
            return Point(point.x + 1)
        """,
    )
    (shift,) = load_folder(folder).tools
    point = shift.function.__globals__["Point"](1)
    assert pickle.loads(pickle.dumps(point)) == point
    assert shift.parameters["properties"]["point"]["properties"] == {"x": {"type": "integer"}}


def test_a_file_may_use_its_neighbours(folder: Path) -> None:
    write(
        folder,
        _helpers="LIMIT = 3",
        a="from .b import count\nfrom ._helpers import LIMIT\ndef limit() -> int: return LIMIT + len(count())",
        b="CALLS = []\ndef count() -> list:\n    CALLS.append(1)\n    return CALLS",
    )
    result = load_folder(folder)
    limit, count = result.tools
    assert (limit.function(), count.function()) == (4, [1, 1])  # one module b, not two
    assert result.warnings == ()


def test_nothing_of_the_folder_hides_a_module_of_that_name(folder: Path) -> None:
    import json

    write(folder, json="def dumps() -> str: return 'mine'")
    (mine,) = load_folder(folder).tools
    assert mine.function() == "mine"
    assert sys.modules["json"] is json
    assert str(folder) not in sys.path


def test_loading_again_takes_what_is_there_now(folder: Path) -> None:
    write(folder, tools="def one() -> int: return 1", gone="def gone() -> None: ...")
    (gone, old) = load_folder(folder).tools
    loaded = len(sys.modules)
    write(folder, tools="def one() -> int: return 2")
    (folder / "gone.py").unlink()
    (new,) = load_folder(folder).tools
    assert (old.function(), new.function()) == (1, 2)
    assert gone.function.__module__ not in sys.modules
    assert len(sys.modules) == loaded - 1


def test_a_folder_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(
        ToolError,
        match=r"The tools folder .*nowhere/tools does not exist\. Create it, or name another one \(RELAY_TOOLS\)\.",
    ):
        load_folder(Path("nowhere/tools"))
    file = tmp_path / "file.py"
    file.write_text("")
    with pytest.raises(ToolError, match=r"is a file\. Name the folder that contains it \(RELAY_TOOLS\)"):
        load_folder(file)


def test_a_folder_that_everyone_may_write_to_is_refused(folder: Path) -> None:
    write(folder, tools="raise SystemExit('was run')")
    folder.chmod(0o777)
    with pytest.raises(ToolError, match=r"may be written by everyone.*`chmod o-w .*mine`"):
        load_folder(folder)


def test_a_folder_that_its_group_may_write_to_is_a_warning(folder: Path) -> None:
    write(folder, tools="def one() -> int: return 1")
    folder.chmod(0o775)
    result = load_folder(folder)
    assert names(result) == ["one"]
    assert "may be written by its group. Run `chmod g-w" in result.warnings[0]


def test_a_file_that_everyone_may_write_to_is_not_loaded(folder: Path) -> None:
    write(folder, tools="raise SystemExit('was run')", good="def good() -> None: ...")
    (folder / "tools.py").chmod(0o666)
    result = load_folder(folder)
    assert names(result) == ["good"]
    assert result.warnings == (
        f"mine/tools.py was not loaded: {folder}/tools.py may be written by everyone on this machine (mode 0666); "
        f"run `chmod o-w {folder}/tools.py`.",
    )
