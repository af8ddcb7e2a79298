"""Nothing grows until nobody reads it: the longest classes and functions of the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_CLASS_LINES = 300
MAX_FUNCTION_LINES = 60


def sources() -> list[Path]:
    return [path for folder in ("audio", "relay") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_class_and_no_function_is_too_long(path: Path) -> None:
    too_long = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or 0) - node.lineno + 1
            if n_lines > (MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES):
                too_long.append(f"{node.name}: {n_lines} lines")
    assert too_long == []
