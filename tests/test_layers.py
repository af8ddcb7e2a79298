"""Imports point down only: what each part may import of ours, and what the pure parts may not import at all.

The rows of the table stand from the bottom to the top: a part imports rows above its own alone.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# part -> the parts of ours that it may import; "relay.errors" and the like stand for single modules
LAYERS: dict[str, set[str]] = {
    "audio": set(),
    "relay.errors": set(),
    "relay.json_types": set(),
    "relay.escaping": set(),
    "relay.log_lines": {"relay.escaping"},
    "relay.private_files": set(),
    "relay.loopback": set(),
    "relay.child_environment": set(),
    "relay.session.device.turn_metrics": set(),
    "relay.session": {"audio", "relay.session.device.turn_metrics"},
    "relay.protocols.openai.beta": set(),
    "relay.protocols": {"audio", "relay.protocols.openai.beta", "relay.session", "relay.session.device.turn_metrics"},
    "relay.transport.no_redirects": set(),
    "relay.transport": {"audio", "relay.errors", "relay.protocols", "relay.session", "relay.transport.no_redirects"},
    "relay.upstreams": {
        "relay.errors",
        "relay.loopback",
        "relay.protocols",
        "relay.protocols.openai.beta",
        "relay.session",
    },
    "relay.toolkit.running.threads": set(),
    "relay.toolkit": {"relay.child_environment", "relay.errors", "relay.escaping", "relay.toolkit.running.threads"},
    "relay.config": {"relay.errors", "relay.loopback", "relay.session", "relay.upstreams"},
    "relay.auth": {
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.loopback",
        "relay.private_files",
        "relay.session",
    },
    "relay.local_engine.supervisor": {"relay.child_environment"},
    "relay.upstreams.clients": {
        "relay.config",
        "relay.errors",
        "relay.local_engine.supervisor",
        "relay.protocols",
        "relay.session",
        "relay.transport",
        "relay.upstreams",
    },
    "relay.recording.format": {"audio", "relay.session", "relay.session.device.turn_metrics"},
    "relay.recording.store": {
        "audio",
        "relay.errors",
        "relay.escaping",
        "relay.private_files",
        "relay.recording.format",
        "relay.session",
    },
    "relay.recording.derive": {
        "audio",
        "relay.escaping",
        "relay.protocols",
        "relay.recording.format",
        "relay.recording.store",
        "relay.session",
        "relay.session.device.turn_metrics",
    },
    "relay.recording.replay": {
        "audio",
        "relay.protocols",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.recording.store",
        "relay.session",
        "relay.session.device.turn_metrics",
    },
    "relay.recording.redact": {
        "audio",
        "relay.escaping",
        "relay.private_files",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.recording.replay",
        "relay.recording.store",
        "relay.session",
    },
    "relay.recording": {
        "audio",
        "relay.child_environment",
        "relay.private_files",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.recording.store",
        "relay.session",
    },
    "relay.runtime": {
        "audio",
        "relay.escaping",
        "relay.protocols",
        "relay.session",
        "relay.transport",
        "relay.upstreams",
    },
    "relay.testing.faults": {"relay.errors"},
    "relay.testing": {"relay.testing.faults"},
    "relay.local_engine": {
        "audio",
        "relay.child_environment",
        "relay.errors",
        "relay.log_lines",
        "relay.loopback",
        "relay.protocols.openai.beta",
        "relay.session",
        "relay.testing.faults",
    },
    "relay.app.log_setup": {"relay.escaping", "relay.log_lines", "relay.session"},
    "relay.app": {
        "relay.auth",
        "relay.config",
        "relay.errors",
        "relay.loopback",
        "relay.private_files",
        "relay.protocols",
        "relay.recording",
        "relay.recording.store",
        "relay.runtime",
        "relay.session",
        "relay.toolkit",
        "relay.transport",
        "relay.upstreams.clients",
    },
    "relay.web": set(),
    "relay.endpoints": {
        "audio",
        "relay.app",
        "relay.auth",
        "relay.config",
        "relay.errors",
        "relay.protocols",
        "relay.recording",
        "relay.recording.store",
        "relay.runtime",
        "relay.session",
        "relay.toolkit",
        "relay.transport",
        "relay.upstreams.clients",
        "relay.web",
    },
    "relay.app.routes": {"relay.auth", "relay.config", "relay.endpoints", "relay.protocols", "relay.session"},
    "relay.app.server": {
        "relay.app",
        "relay.app.log_setup",
        "relay.app.routes",
        "relay.auth",
        "relay.config",
        "relay.endpoints",
        "relay.errors",
        "relay.session",
        "relay.toolkit",
        "relay.transport",
    },
    "relay.client": {
        "audio",
        "relay.errors",
        "relay.escaping",
        "relay.loopback",
        "relay.session.device.turn_metrics",
        "relay.toolkit.running.threads",
        "relay.transport.no_redirects",
    },
    "relay.recording.live_replay": {
        "audio",
        "relay.app.server",
        "relay.client",
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.protocols",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.recording.store",
        "relay.session",
    },
    "relay.cli": {
        "audio",
        "relay.app",
        "relay.app.log_setup",
        "relay.app.server",
        "relay.auth",
        "relay.client",
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.local_engine",
        "relay.private_files",
        "relay.recording",
        "relay.recording.derive",
        "relay.recording.live_replay",
        "relay.recording.redact",
        "relay.recording.replay",
        "relay.recording.store",
        "relay.session",
        "relay.session.device.turn_metrics",
        "relay.testing.faults",
        "relay.toolkit",
        "relay.transport",
        "relay.upstreams",
        "relay.upstreams.clients",
    },
    "relay.__main__": {"relay.cli"},
    "relay": {"relay.app.server", "relay.config", "relay.endpoints", "relay.errors", "relay.toolkit"},
    "tools": {"relay"},
    "scripts.benchmark": {"relay.child_environment", "relay.errors", "relay.recording.derive"},
}

FOR_ALL = {"relay.json_types"}
"""What every part may import."""
PURE = ("audio", "relay.session", "relay.escaping", "relay.json_types", "relay.protocols")
IMPURE = {
    "aiohttp", "asyncio", "concurrent", "http", "logging", "multiprocessing", "os", "picows", "random", "secrets",
    "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time", "urllib.request", "uuid",
    "websockets",
}  # fmt: skip
EXCUSED = {
    ("audio/__init__.py", "os"): "sets the threads of numpy's BLAS before numpy loads",
    ("audio/fir.py", "threading"): "scratch arrays are kept per thread; none is started",
}


def part_of(module: str) -> str:
    """The part of the table that a module belongs to: the longest row that is a prefix of its name."""
    rows = [row for row in LAYERS if module == row or module.startswith(row + ".")]
    rows = [row for row in rows if row != "relay"] or (["relay"] if module == "relay" else [])
    return max(rows, key=len, default=module)


def sources() -> list[Path]:
    return [
        path
        for folder in ("audio", "relay", "scripts/benchmark", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which layer is meant"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole == "relay.__version__":  # a string, and nothing of what `relay` exports
                    continue
                is_module = (ROOT / whole.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / whole.replace(".", "/")
                ).is_dir()
                found.add(whole if is_module else base)
    return found


def test_a_row_names_only_rows_above_it() -> None:
    above: set[str] = set()
    for part, imported in LAYERS.items():
        assert imported <= above, f"{part} imports {sorted(imported - above)}, which stands below it"
        above.add(part)


def test_few_modules_lie_outside_of_a_package() -> None:
    """Where a line belongs is told by a package; the modules beside them are small, and many packages use them."""
    modules = {path.stem for path in (ROOT / "relay").glob("*.py")} - {"__init__", "__main__", "errors"}
    assert len(modules) <= 6, sorted(modules)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(module_of(path))
    assert part in LAYERS, f"{part} is in no layer: add it to the table"
    ours = {part_of(name) for name in imports_of(path) if name.split(".")[0] in ("audio", "relay", "scripts", "tools")}
    assert ours - {part} - FOR_ALL <= LAYERS[part]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_pure_parts_know_no_socket_task_clock_or_randomness(path: Path) -> None:
    if not f"{module_of(path)}.".startswith(tuple(f"{part}." for part in PURE)):
        return
    name = str(path.relative_to(ROOT))
    used = {module for module in imports_of(path) if module in IMPURE or module.split(".")[0] in IMPURE}
    assert {module for module in used if (name, module) not in EXCUSED} == set()


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    import sys

    top = {path.name.removesuffix(".py") for folder in (ROOT / "audio", ROOT / "relay") for path in folder.iterdir()}
    # Inside a package such a name cannot hide the library's; at the top level of the path it would.
    assert not {"audio", "relay"} & sys.stdlib_module_names
    assert not {name for name in top if name in ("asyncio", "json", "logging", "types", "typing")}
