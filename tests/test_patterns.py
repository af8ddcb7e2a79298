"""No regular expression of ours takes more than linear time, whatever text it meets.

The expressions are found in the source, so that a new one cannot be forgotten.
"""

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_inputs import hostile_inputs
from tests.support.linear_time import assert_linear

ROOT = Path(__file__).parent.parent
N_CHARS = 4_000
METHODS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
ANCHORED = {"match", "fullmatch"}

MADE_AT_RUN_TIME: dict[tuple[str, str], list[str]] = {
    ("relay/session/common/server_overlay.py", "names"): [r"(?<![\w-])(?:abc|abcd|a-b)(?![\w-])"],
}
"""Expressions with parts that are known at run time only, and what they look like."""
OPERATORS_OWN = {
    (
        "relay/toolkit/loading/search_paths.py",
        "for part in parts",
    ): "RELAY_TOOLS, for names of files in the operator's folders",
    ("relay/recording/redact/rules.py", "pattern"): "--pattern of `recordings bundle`",
}
FURTHER_INPUTS: dict[tuple[str, str], list[str]] = {
    ("relay/session/common/redact.py", "_SECRET"): [
        "Bearer ",
        "apikey : ",
        "://a:b",
        "eyJaaaaaaaa.",
        "sk-",
        "key=&",
        "://",
    ],
    ("relay/recording/redact/rules.py", "_E_MAIL"): ["a@b.", "a.", "@", "a@a@", "a@b.c+", "a@-"],
}


@dataclass(frozen=True)
class Found:
    """An expression: where it stands, what it is bound to, and the methods it is used by."""

    path: str
    line: int
    name: str
    pattern: "re.Pattern[Any]"
    methods: frozenset[str]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("audio", "relay", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def expressions() -> Iterator[Found]:
    asked = uses(TREES.values())
    for path, tree in TREES.items():
        names = bound_names(tree)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and is_re(node.func)):
                continue
            method, name = node.func.attr, names.get(id(node), "")
            methods = frozenset({method} if method != "compile" else asked.get(name, ()))
            for pattern in patterns_of(path, node):
                yield Found(path, node.lineno, name, pattern, methods)


def is_re(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "re"
        and function.attr in METHODS
    )


def bound_names(tree: ast.Module) -> dict[int, str]:
    """The module's name for the value of each call that is assigned at its top level."""
    return {
        id(node.value): target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def uses(trees: Iterable[ast.Module]) -> dict[str, set[str]]:
    """The attributes that are asked of each name."""
    found: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.setdefault(node.value.id, set()).add(node.attr)
    return found


def patterns_of(path: str, call: ast.Call) -> list["re.Pattern[Any]"]:
    """The expressions of one call; an unknown one that is made at run time fails the test."""
    written = ast.unparse(call.args[0])
    if any(path == file and word in ast.unparse(call) for file, word in OPERATORS_OWN):
        return []
    for (file, word), examples in MADE_AT_RUN_TIME.items():
        if path == file and word in written:
            return [re.compile(one) for one in examples]
    module = importlib.import_module(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    where = {**vars(module)}
    flags = call.args[1:2] if call.func.attr == "compile" else []  # type: ignore[attr-defined]
    flags += [one.value for one in call.keywords if one.arg == "flags"]
    values = [eval(ast.unparse(one), where) for one in (call.args[0], *flags)]
    return [re.compile(*values)]


FOUND = list(expressions())


@pytest.mark.parametrize("found", FOUND, ids=str)
def test_the_time_grows_with_the_text(found: Found) -> None:
    assert_quick(found, N_CHARS)


def assert_quick(found: Found, n_chars: int) -> None:
    is_bytes = isinstance(found.pattern.pattern, bytes)
    inputs = dict(hostile_inputs(found.pattern))
    for unit in FURTHER_INPUTS.get((found.path, found.name), ()):
        inputs[f"{unit!r} × n"] = lambda n, unit=unit: unit * (n // len(unit))
    for what, make in inputs.items():
        texts = {n: make(n).encode(errors="replace") if is_bytes else make(n) for n in (n_chars, 2 * n_chars)}
        try:
            assert_linear(lambda n, texts=texts: run(found.pattern, found.methods, texts[n]), n_chars)
        except AssertionError as error:
            pytest.fail(f"{found} takes too long for {what}: {error}")


def run(pattern: "re.Pattern[Any]", methods: frozenset[str], text: Any) -> None:
    """As the code uses it; where that cannot be seen, in the way that costs most."""
    if methods and methods <= ANCHORED | {"pattern"}:
        for method in methods & ANCHORED:
            getattr(pattern, method)(text)
        return
    for _ in pattern.finditer(text):
        pass


def test_the_search_finds_every_compiled_expression() -> None:
    """Those that a module keeps, wherever in its names and its tables, were found in its source."""
    known = {(found.pattern.pattern, found.pattern.flags) for found in FOUND}
    for path in sorted({found.path for found in FOUND}):
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        for name, value in vars(module).items():
            members = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            for one in members:
                if isinstance(one, re.Pattern):
                    assert (one.pattern, one.flags) in known, f"{path} {name}"


def test_nothing_takes_expressions_another_way() -> None:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), f"{path}: import re as a whole"
            assert not (isinstance(node, ast.Import) and any(one.name == "regex" for one in node.names)), path


@pytest.mark.parametrize(
    "pattern",
    [
        r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
        r"\s*\n",
        r"[^\s(\[{]*$",
    ],
)
def test_quadratic_expressions_are_seen_as_such(pattern: str) -> None:
    compiled = re.compile(pattern, re.DOTALL)
    with pytest.raises(pytest.fail.Exception, match="takes too long"):
        assert_quick(Found("an example", 1, "", compiled, frozenset()), 2_500)
