"""Words of a setting in, files out: which, in which order, and which not."""

from pathlib import Path

import pytest

from relay.errors import ToolError
from relay.toolkit.loading.names import collation_key, to_tool_name
from relay.toolkit.loading.search_paths import ToolSources, path_matcher
from tests.support.navai_project import make_project, write_file

FILES = ("a.py", "food/menu.py", "food/sub/deep.py", "main/orders.py", "main/x.txt", "other/secret.py")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for file in FILES:
        write_file(tmp_path / "tools" / file, "")
    write_file(tmp_path / "more" / "b.py", "")
    return tmp_path


def found(base: Path, folders: str = "tools", **more: str) -> list[str]:
    return [file.source for file in ToolSources(folders=folders, base_dir=base, **more).find_files([])]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("folders", "sources"),
    [
        ("tools", ["a.py", "food/menu.py", "food/sub/deep.py", "main/orders.py", "other/secret.py"]),
        ("tools/...", ["a.py", "food/menu.py", "food/sub/deep.py", "main/orders.py", "other/secret.py"]),
        ("./tools/main/", ["main/orders.py"]),
        ("tools/food/menu.py", ["food/menu.py"]),
        ("tools/*.py", ["a.py"]),
        ("tools/*/*.py", ["food/menu.py", "main/orders.py", "other/secret.py"]),
        ("tools/**/deep.py", ["food/sub/deep.py"]),
        ("tools/f*", ["food/menu.py", "food/sub/deep.py"]),
        ("tools/main, ,tools/food/sub", ["main/orders.py", "food/sub/deep.py"]),
        ("tools/main,tools/main/orders.py", ["main/orders.py"]),
    ],
)
def test_the_kinds_of_words(base: Path, folders: str, sources: list[str]) -> None:
    assert found(base, folders) == [f"tools/{source}" for source in sources]


def test_a_place_outside_the_base_is_called_by_its_own_name(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = tmp_path_factory.mktemp("away") / "mine"
    write_file(away / "x.py", "")
    assert found(base, f"{away},more") == ["mine/x.py", "more/b.py"]
    assert found(base / "tools", "../more") == ["more/b.py"]


def test_the_agents_filter_holds_for_folders_alone(base: Path) -> None:
    assert found(base, agents="main, food/") == ["tools/food/menu.py", "tools/food/sub/deep.py", "tools/main/orders.py"]
    assert len(found(base, "tools/...", agents="main")) == 5
    assert found(base, "tools/*.py", agents="main") == ["tools/a.py"]
    assert found(base, "tools/a.py", agents="main") == ["tools/a.py"]


def test_nothing_found_is_a_warning(base: Path) -> None:
    warnings: list[str] = []
    assert ToolSources(folders="tools/*/no*.py", base_dir=base).find_files(warnings) == []
    assert warnings == ['RELAY_TOOLS did not match any module: "tools/*/no*.py".']


@pytest.mark.parametrize("folders", ["nowhere", "nowhere/*.py", "tools/nowhere/...", "tools,nowhere"])
def test_a_folder_that_is_not_there_is_refused(base: Path, folders: str) -> None:
    with pytest.raises(ToolError, match=r"There is no tools folder .*nowhere\."):
        found(base, folders)


# -- by NAVAI's rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "sources"),
    [
        ("features/user", ["features/user/other/skip", "features/user/voice-functions/user"]),
        ("/src/features/user/other", ["features/user/other/skip"]),
        ("../../features/cart/...", ["features/cart/voice-functions/cart"]),
        (".\\features\\cart", ["features/cart/voice-functions/cart"]),
        ("src/feat*/*/voice-*", ["features/cart/voice-functions/cart", "features/user/voice-functions/user"]),
        ("src/**/skip.py", ["features/user/other/skip"]),
        ("a_lower.py,B_upper.py", ["a_lower", "B_upper"]),
        ("../lib", ["ai/functions-modules/deep/nested/inner", "ai/functions-modules/default_one"]),  # the fallback
        (",,", ["ai/functions-modules/deep/nested/inner", "ai/functions-modules/default_one"]),
    ],
)  # fmt: skip
def test_navais_words_lie_below_src(tmp_path: Path, folders: str, sources: list[str]) -> None:
    base = make_project(tmp_path, "scan")
    files = ToolSources(folders="lib", navai_folders=folders, base_dir=base).find_files(warnings := [])
    named = [file.source.removeprefix("src/").removesuffix(".py") for file in files if file.path.suffix == ".py"]
    assert named == sources
    assert bool(warnings) is (folders == "../lib")


def test_nothing_configured_means_the_fallback_folder_in_silence(tmp_path: Path) -> None:
    base = make_project(tmp_path, "agents")
    files = ToolSources(navai_only=True, base_dir=base).find_files(warnings := [])
    assert [file.source for file in files] == ["src/ai/functions-modules/fallback.py"]
    assert warnings == []


# -- what is not to be trusted ----------------------------------------------------------------------------------------


def test_links_that_lead_out_are_left_out_and_others_are_not(base: Path) -> None:
    (base / "tools" / "link.py").symlink_to(base / "tools" / "main" / "orders.py")
    (base / "tools" / "out.py").symlink_to(base / "more" / "b.py")
    (base / "tools" / "folder").symlink_to(base / "more")
    warnings: list[str] = []
    files = ToolSources(base_dir=base).find_files(warnings)
    assert "more/b.py" not in [file.path.resolve().relative_to(base.resolve()).as_posix() for file in files]
    [told] = warnings
    assert told.startswith("tools/out.py was not loaded: ")
    assert told.endswith(f"tools/out.py is a link that leads out of {base}/tools; put the file itself there.")


def test_a_folder_below_that_everyone_may_write_to_is_left_out(base: Path) -> None:
    (base / "tools" / "food").chmod(0o777)
    warnings: list[str] = []
    files = ToolSources(base_dir=base).find_files(warnings)
    assert [file.source for file in files] == ["tools/a.py", "tools/main/orders.py", "tools/other/secret.py"]
    assert warnings == [
        f"tools/food/menu.py (and 1 more) was not loaded: {base}/tools/food may be written by everyone on this machine "
        f"(mode 0777); correct that with `chmod o-w {base}/tools/food`."
    ]


def test_the_folder_itself_is_refused(base: Path) -> None:
    (base / "tools").chmod(0o777)
    with pytest.raises(ToolError, match="may be written by everyone"):
        ToolSources(base_dir=base).check()


# -- names and order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("camelCaseName", "camel_case_name"),
        ("getHTTPData2", "get_httpdata2"),
        ("UserService_withContext", "user_service_with_context"),
        ("ñandú", "and"),
        ("_hidden__x_", "hidden_x"),
        ("$", "fn"),
        ("x" * 80, "x" * 64),
    ],
)
def test_names_are_lower_snake_case(name: str, normal: str) -> None:
    assert to_tool_name(name) == normal


def test_files_are_in_the_order_of_a_reader() -> None:
    names = ["B.py", "a.py", "A.py", "é.py", "f.py", "10.py", "_x.py", "a/b.py", "a-b.py", "ab.py"]
    assert sorted(names, key=collation_key) == [
        "_x.py", "10.py", "a-b.py", "a.py", "A.py", "a/b.py", "ab.py", "B.py", "é.py", "f.py"
    ]  # fmt: skip


def test_a_word_may_hold_what_means_something_to_patterns() -> None:
    assert path_matcher("a+(b)*")("a+(b)c.py")
    assert not path_matcher("a+(b)*")("aab.py")
