"""The pages in Markdown: their links and paths exist, and their Python examples compile and import."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "recordings" / "README.md"))
FOLDERS = ("audio", "docs", "recordings", "relay", "scripts", "tests", "tools")
_FENCED = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.M | re.S)
_EXAMPLE_FILES = ("tools/*/public",)


def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    words = " ".join(re.findall(r"`([^`]+)`", prose(page))).split()
    paths = [word.partition("#")[0] for word in words if word.startswith(tuple(f"{name}/" for name in FOLDERS))]
    assert [path for path in paths if path not in _EXAMPLE_FILES and not any(ROOT.glob(path))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_compile_and_import(page: Path) -> None:
    for language, code in _FENCED.findall(page.read_text("utf-8")):
        if language != "python":
            continue
        compile(code, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(ast.unparse(statement), {})
