"""A session's state has one writer: the rules change their own, and the audio lines count in the ledger.

Everything else reads it, or lets an event happen. Held by names: an attribute that only the rules' classes have is set
on another object than `self` by the modules listed here alone.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RULES = ROOT / "relay" / "session"
LEDGER = "relay/session/common/media_ledger.py"

SETS: dict[str, set[str]] = {
    "relay/runtime/uplink.py": {"input_bytes", "remaining"},
    "relay/recording/replay/replayer.py": {"input_bytes"},
    "relay/transport/read_limiter.py": {"remaining"},
}
"""Which modules outside of the rules set an attribute of theirs: counts of the ledger, and what remains of an allowance
(it belongs to the client's connection)."""
CALLS: dict[str, set[str]] = {
    "relay/runtime/base.py": {"handle"},
    "relay/runtime/device.py": {"start_part"},
    "relay/runtime/uplink.py": {"drop_input"},
    "relay/runtime/downlink.py": {"add_output", "add_unpaced_output", "add_tts_output"},
    "relay/recording/replay/replayer.py": {
        "add_output", "add_unpaced_output", "add_tts_output", "drop_input", "handle", "start_part"
    },
}  # fmt: skip
"""Which modules let an event happen to a session, or count in its ledger by a method: those at run time, and replay."""


def modules() -> list[Path]:
    """All of ours but the rules."""
    return [path for path in sorted((ROOT / "relay").rglob("*.py")) if not path.is_relative_to(RULES)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def attributes_set(tree: ast.AST, *, on_self: bool) -> set[str]:
    """The attributes that a module sets on `self`, with those that its classes declare; or on anything else."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if is_self == on_self:
                found.add(node.attr)
        elif on_self and isinstance(node, ast.ClassDef):
            fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
            found |= {field.id for field in fields if isinstance(field, ast.Name)}
    return found


def rules_attributes() -> set[str]:
    """What the rules' classes hold, but for names that other classes of ours hold as well."""
    rules = [ast.parse(path.read_text()) for path in RULES.rglob("*.py")]
    others = [ast.parse(path.read_text()) for path in modules()]
    own = set[str]().union(*(attributes_set(tree, on_self=True) for tree in rules))
    return own - set[str]().union(*(attributes_set(tree, on_self=True) for tree in others))


STATE = rules_attributes()


def test_the_state_is_found() -> None:
    assert {"phase", "refused", "input_bytes", "last_output_at", "is_follow_up_due", "remaining"} <= STATE


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_audio_lines_set_what_belongs_to_the_rules(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert attributes_set(tree, on_self=False) & STATE <= SETS.get(name_of(path), set())


def ledger_methods() -> set[str]:
    [ledger] = [node for node in ast.parse((ROOT / LEDGER).read_text()).body if isinstance(node, ast.ClassDef)]
    methods = [node.name for node in ledger.body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    return {name for name in methods if name not in ("__init__", "received_bytes")}


def calls_of(tree: ast.AST, names: set[str]) -> set[str]:
    """The methods of these names that a module calls; `handle` where it is a session's: with an event and a time."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {
        call.func.attr
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in names
        if call.func.attr != "handle" or len(call.args) == 2
    }


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_events_and_counts_reach_a_session_in_one_place(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert calls_of(tree, ledger_methods() | {"handle"}) <= CALLS.get(name_of(path), set())


def test_no_row_is_out_of_date() -> None:
    for name, attributes in SETS.items():
        assert attributes_set(ast.parse((ROOT / name).read_text()), on_self=False) & STATE == attributes
    for name, calls in CALLS.items():
        assert calls_of(ast.parse((ROOT / name).read_text()), ledger_methods() | {"handle"}) == calls
