"""What commands print goes through one place, where foreign text is escaped."""

import ast
from pathlib import Path

import pytest

from relay.cli.terminal import say, say_json, say_lines, say_output

ROOT = Path(__file__).parents[2]
PRINTERS = {
    "relay/cli/terminal.py": "the one place",
    "relay/cli/talk/display.py": "rich's console, whose texts are escaped there",
    "relay/__main__.py": "nothing of ours can be imported yet; it prints a path of this machine",
    "relay/local_engine/__main__.py": "tells the program that started it the port, as JSON",
    "scripts/benchmark/__main__.py": "prints its own figures",
    "scripts/benchmark/report.py": "prints its own figures",
    "scripts/benchmark/load.py": "talks to its parent process",
    "relay/app/log_setup.py": "the log's handler",
}


def prints(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "print" or name.endswith((".print", ".echo", ".secho", "stdout.write", "stderr.write")):
                return True
    return False


@pytest.mark.parametrize("path", sorted((ROOT / "relay").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_else_prints(path: Path) -> None:
    assert not prints(path) or str(path.relative_to(ROOT)) in PRINTERS


def test_a_line_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b[2J")
    say("c\x9b", err=True)
    assert capsys.readouterr() == ("a\\nb\\x1b[2J\n", "c\\x9b\n")


def test_further_lines_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    say_lines("relay: wrong:\nrelay: forged\x07", err=True)
    assert capsys.readouterr().err == "relay: wrong:\n  relay: forged\\x07\n"


def test_json_is_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"a": "é\x9b"}, indent=2)
    say_output('{"a":"\u202e"}')
    say_output("no JSON\n\x9b")
    assert capsys.readouterr().out == '{\n  "a": "é\\u009b"\n}\n{"a":"\\u202e"}\nno JSON\n\\x9b\n'
