"""Names: each public class has one of its own, and a local is the noun of what it holds."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("audio", "relay", "scripts/benchmark", "tools")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NOT_NOUNS = frozenset({"asked", "given", "heard", "kept", "one", "said", "shown", "told", "wanted"})


def public_classes(tree: ast.Module) -> Iterator[str]:
    """Classes at the top of a module, and aliases that are written like one."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) if name[0].isupper() and not name.isupper() and len(name) > 1:
                yield name


def test_no_two_public_classes_have_one_name() -> None:
    homes = defaultdict(list)
    for path in SOURCES:
        for name in public_classes(ast.parse(path.read_text("utf-8"))):
            if not name.startswith("_"):
                homes[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_values_are_named_by_nouns(path: Path) -> None:
    """But for the fields of a class, which may be keys of a file."""
    bound: set[str] = set()
    tree = ast.parse(path.read_text("utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [part.target for node in classes for part in node.body if isinstance(part, ast.AnnAssign)]
    for node in ast.walk(tree):
        if node in fields:
            continue
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.MatchAs(name=str(name)):
                bound.add(name)
    assert bound & NOT_NOUNS == set()
