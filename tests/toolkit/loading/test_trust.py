"""What a tool imports from below the tools folders: planted code is refused before it runs, and other tools load."""

import builtins
import importlib.util
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.toolkit.loading.library import LoadResult, load_sources
from relay.toolkit.loading.search_paths import ToolSources
from tests.support.navai_project import write_file
from tests.support.tool_folders import load_folder

GOOD = "def good() -> str: return 'good'"
PLANTED = "import builtins\nbuiltins.planted_code_ran = True\nVALUE = 1\n"


@pytest.fixture(autouse=True)
def _nothing_planted_runs() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in ("planted_helper", "planted_mine", "planted_mine.helper"):
        sys.modules.pop(name, None)
    assert not vars(builtins).pop("planted_code_ran", False)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "planted_mine"
    write_file(folder / "good.py", GOOD)
    return folder


def names(result: LoadResult) -> list[str]:
    return [one.name for one in result.tools]


def refusal(result: LoadResult, source: str) -> str:
    """The one warning, and that the other tool is there."""
    assert names(result) == ["good"]
    [told] = result.warnings
    assert told.startswith(f"{source} was not loaded: ")
    return told


def test_a_private_helper_that_everyone_may_write(tools: Path) -> None:
    write_file(tools / "asks.py", "from ._helper import VALUE\ndef asks() -> int: return VALUE")
    write_file(tools / "_helper.py", PLANTED)
    (tools / "_helper.py").chmod(0o666)
    assert refusal(load_folder(tools), "planted_mine/asks.py") == (
        f"planted_mine/asks.py was not loaded: {tools}/_helper.py may be written by everyone on this machine "
        f"(mode 0666); correct that with `chmod o-w {tools}/_helper.py`."
    )
    write_file(tools / "_helper.py", "VALUE = 1")  # which corrects its mode as well
    assert names(load_folder(tools)) == ["asks", "good"]


def test_what_a_helper_imports_in_its_turn(tools: Path) -> None:
    write_file(tools / "asks.py", "from ._one import VALUE\ndef asks() -> int: return VALUE")
    write_file(tools / "_one.py", "from ._lib.two import VALUE")
    write_file(tools / "_lib" / "__init__.py", "")
    write_file(tools / "_lib" / "two.py", PLANTED)
    (tools / "_lib" / "two.py").chmod(0o646)
    assert "_lib/two.py may be written by everyone" in refusal(load_folder(tools), "planted_mine/asks.py")


def test_a_package_s_init(tools: Path) -> None:
    write_file(tools / "food" / "__init__.py", PLANTED)
    write_file(tools / "food" / "menu.py", "def menu() -> str: return 'soup'")
    (tools / "food" / "__init__.py").chmod(0o602)
    found = load_folder(tools)
    assert names(found) == ["good"]
    assert all("food/__init__.py may be written by everyone" in told for told in found.warnings)


def test_a_folder_between_a_helper_and_the_root(tools: Path) -> None:
    write_file(tools / "asks.py", "from ._lib.deep.one import VALUE\ndef asks() -> int: return VALUE")
    write_file(tools / "_lib" / "deep" / "one.py", PLANTED)
    (tools / "_lib").chmod(0o1777)  # sticky or not: everyone may add files
    told = refusal(load_folder(tools), "planted_mine/asks.py")
    assert f"`chmod o-w {tools}/_lib`" in told


@pytest.mark.parametrize("name", ["_helper.py", "_helper"])
def test_a_helper_or_a_folder_that_is_a_link_to_the_outside(tools: Path, name: str) -> None:
    write_file(tools.parent / "outside" / "__init__.py", PLANTED)
    write_file(tools.parent / "outside.py", PLANTED)
    (tools / name).symlink_to(tools.parent / name.replace("_helper", "outside"))
    write_file(tools / "asks.py", "from ._helper import VALUE\ndef asks() -> int: return VALUE")
    assert f"is a link that leads out of {tools}" in refusal(load_folder(tools), "planted_mine/asks.py")


def test_a_link_within_the_folder_is_followed_to_what_everyone_may_write(tools: Path) -> None:
    write_file(tools / "_lib" / "real.py", PLANTED)
    (tools / "_lib" / "real.py").chmod(0o666)
    (tools / "_helper.py").symlink_to("_lib/real.py")
    write_file(tools / "asks.py", "from ._helper import VALUE\ndef asks() -> int: return VALUE")
    refusal(load_folder(tools), "planted_mine/asks.py")
    (tools / "_lib" / "real.py").chmod(0o644)
    write_file(tools / "_lib" / "real.py", "VALUE = 1")
    assert names(load_folder(tools)) == ["asks", "good"]


@pytest.mark.parametrize(
    ("entry", "imported"), [("planted_mine", "planted_helper"), (".", "planted_mine.planted_helper")]
)
def test_a_helper_by_the_import_path(tools: Path, entry: str, imported: str) -> None:
    folder = tools.parent / entry
    write_file(
        tools / "asks.py", f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport {imported}\ndef asks(): ..."
    )
    write_file(tools / "_unused.py", "")
    write_file(tools / "planted_helper.py", PLANTED)
    (tools / "planted_helper.py").chmod(0o666)
    found = load_folder(tools)
    assert names(found) == ["good"]
    assert [told.partition(" ")[0] for told in found.warnings] == [
        "planted_mine/planted_helper.py",  # a tool file itself
        "planted_mine/asks.py",
    ]


def test_a_tool_that_does_without_its_helper_loads_and_the_warning_stays(tools: Path) -> None:
    write_file(
        tools / "other.py", "try:\n    from . import _h\nexcept ImportError:\n    pass\ndef other() -> int: return 0"
    )
    write_file(tools / "_h.py", PLANTED)
    (tools / "_h.py").chmod(0o666)
    found = load_folder(tools)
    assert names(found) == ["good", "other"]
    [told] = found.warnings
    assert told.startswith(f"planted_mine/other.py was loaded without one of its imports: {tools}/_h.py may be written")


def test_an_import_that_waits_for_the_call_is_refused_then(tools: Path) -> None:
    write_file(tools / "late.py", "def late() -> int:\n    from ._h import VALUE\n    return VALUE")
    write_file(tools / "_h.py", PLANTED)
    _, late = load_folder(tools).tools
    (tools / "_h.py").chmod(0o666)
    with pytest.raises(ImportError, match=r"_h\.py may be written by everyone"):
        late.function()


def test_bytecode_that_somebody_put_there_is_not_read(tools: Path) -> None:
    write_file(tools / "asks.py", "from ._helper import VALUE\ndef asks() -> int: return VALUE")
    write_file(tools / "_helper.py", PLANTED)
    cached = Path(py_compile.compile(str(tools / "_helper.py")) or "")
    found = (tools / "_helper.py").stat()
    write_file(tools / "_helper.py", "VALUE = 2".ljust(len(PLANTED)))  # as long, and as old
    os.utime(tools / "_helper.py", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert cached == Path(importlib.util.cache_from_source(str(tools / "_helper.py")))
    asks, _ = load_folder(tools).tools
    assert asks.function() == 2


def test_a_builtin_module_is_not_looked_for_in_the_folder(tools: Path) -> None:
    write_file(tools / "_planted" / "_symtable.py", PLANTED)
    write_file(
        tools / "asks.py",
        f"import sys\nsys.path.insert(0, {str(tools / '_planted')!r})\nsys.modules.pop('_symtable', None)\n"
        "import _symtable\ndef asks() -> str: return str(_symtable.__spec__.origin)",
    )
    asks, _ = load_folder(tools).tools
    assert asks.function() == "built-in"


def test_a_parent_folder_that_everyone_may_write_is_one_warning(tmp_path: Path) -> None:
    """A volume of a container, or a folder of a Windows host, is like that, and often nobody can change it."""
    write_file(tmp_path / "open" / "mine" / "asks.py", "def asks(): ...")
    write_file(tmp_path / "open" / "more" / "good.py", GOOD)
    (tmp_path / "open").chmod(0o777)
    sources = ToolSources(folders="open/mine,open/more", base_dir=tmp_path)
    found = load_sources(sources)
    assert names(found) == ["asks", "good"]
    assert found.warnings == (
        f"Others could replace your tools: {tmp_path}/open may be written by everyone on this machine (mode 0777); "
        f"correct that with `chmod o-w {tmp_path}/open`.",
    )
    (tmp_path / "open").chmod(0o1777)  # as /tmp: nobody can replace what is another's
    assert load_sources(sources).warnings == ()


def test_a_link_in_a_folder_that_everyone_may_write(tmp_path: Path) -> None:
    write_file(tmp_path / "real" / "good.py", GOOD)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "link").symlink_to(tmp_path / "real")
    found = load_sources(ToolSources(folders="open/link", base_dir=tmp_path))
    assert names(found) == ["good"]
    [told] = found.warnings
    assert f"`chmod o-w {tmp_path}/open`" in told


def test_files_that_are_refused_were_found_all_the_same(tools: Path) -> None:
    """No second warning says that nothing matched."""
    (tools / "good.py").chmod(0o666)
    [told] = load_folder(tools).warnings
    assert told.startswith("planted_mine/good.py was not loaded: ")


def test_by_navai_s_rules_files_that_are_refused_have_no_fallback(tmp_path: Path) -> None:
    write_file(tmp_path / "src" / "mine" / "asks.py", PLANTED)
    write_file(tmp_path / "src" / "ai" / "functions-modules" / "other.py", "def other(): ...")
    (tmp_path / "src" / "mine").chmod(0o777)
    tmp_path.chmod(0o777)
    found = load_sources(ToolSources(navai_folders="mine", base_dir=tmp_path))
    assert names(found) == []
    assert [told.partition(":")[0] for told in found.warnings] == [
        "Others could replace your tools",
        "src/mine/asks.py was not loaded",
    ]


def test_by_navai_s_rules_it_is_the_same(tmp_path: Path) -> None:
    write_file(tmp_path / "src" / "ai" / "asks.py", "from ._helper import VALUE\ndef asks() -> int: return VALUE")
    write_file(tmp_path / "src" / "ai" / "_helper.py", PLANTED)
    write_file(tmp_path / "src" / "ai" / "good.py", GOOD)
    (tmp_path / "src" / "ai" / "_helper.py").chmod(0o666)
    found = load_sources(ToolSources(navai_folders="ai", base_dir=tmp_path))
    assert "_helper.py may be written by everyone" in refusal(found, "src/ai/asks.py")
