"""Imports point down only: what each part may import of ours, and what the pure parts may not import at all."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# part -> the parts of ours that it may import; "relay.errors" and the like stand for single modules
LAYERS: dict[str, set[str]] = {
    "audio": set(),
    "relay.errors": set(),
    "relay.json_types": set(),
    "relay.callbacks": set(),
    "relay.escaping": set(),
    "relay.private_files": set(),
    "relay.loopback": set(),
    "relay.child_environment": set(),
    "relay.log_lines": {"relay.escaping"},
    "relay.session.device.turn_metrics": set(),
    "relay.session": {"audio", "relay.session.device.turn_metrics"},
    "relay.protocols.openai.beta": set(),
    "relay.protocols": {"audio", "relay.protocols.openai.beta", "relay.session", "relay.session.device.turn_metrics"},
    "relay.logs": {"relay.escaping", "relay.log_lines", "relay.session"},
    "relay.transport": {"audio", "relay.callbacks", "relay.errors", "relay.protocols", "relay.session"},
    "relay.upstreams": {
        "relay.callbacks",
        "relay.errors",
        "relay.loopback",
        "relay.protocols",
        "relay.protocols.openai.beta",
        "relay.session",
    },
    "relay.toolkit": {"relay.callbacks", "relay.child_environment", "relay.errors", "relay.escaping"},
    "relay.config": {"relay.auth", "relay.errors", "relay.loopback", "relay.session", "relay.upstreams"},
    "relay.auth": {
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.loopback",
        "relay.private_files",
        "relay.session",
    },
    "relay.upstreams.clients": {
        "relay.callbacks",
        "relay.child_environment",
        "relay.config",
        "relay.errors",
        "relay.protocols",
        "relay.session",
        "relay.transport",
        "relay.upstreams",
    },
    "relay.recording.format": {"audio", "relay.session", "relay.session.device.turn_metrics"},
    "relay.recording": {
        "audio",
        "relay",
        "relay.child_environment",
        "relay.errors",
        "relay.escaping",
        "relay.private_files",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.recording.replay",
        "relay.session",
    },
    "relay.recording.derive": {
        "audio",
        "relay.escaping",
        "relay.protocols",
        "relay.recording",
        "relay.recording.format",
        "relay.session",
        "relay.session.device.turn_metrics",
    },
    "relay.recording.replay": {
        "audio",
        "relay.app.server",
        "relay.cli",
        "relay.client",
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.protocols",
        "relay.recording",
        "relay.recording.derive",
        "relay.recording.format",
        "relay.session",
        "relay.session.device.turn_metrics",
    },
    "relay.runtime": {
        "audio",
        "relay.callbacks",
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
    "relay.app": {
        "relay",
        "relay.auth",
        "relay.config",
        "relay.errors",
        "relay.loopback",
        "relay.private_files",
        "relay.protocols",
        "relay.recording",
        "relay.runtime",
        "relay.session",
        "relay.toolkit",
        "relay.transport",
        "relay.upstreams.clients",
    },
    "relay.web": set(),
    "relay.endpoints": {
        "audio",
        "relay",
        "relay.app",
        "relay.auth",
        "relay.config",
        "relay.errors",
        "relay.protocols",
        "relay.recording",
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
        "relay.app.routes",
        "relay.auth",
        "relay.config",
        "relay.endpoints",
        "relay.errors",
        "relay.logs",
        "relay.session",
        "relay.toolkit",
    },
    "relay.client": {"audio", "relay.errors", "relay.loopback", "relay.transport"},
    "scripts.benchmark": set(),
    "relay.cli": {
        "audio",
        "relay",
        "relay.app",
        "relay.app.server",
        "relay.auth",
        "relay.client",
        "relay.config",
        "relay.errors",
        "relay.escaping",
        "relay.local_engine",
        "relay.logs",
        "relay.private_files",
        "relay.recording",
        "relay.recording.derive",
        "relay.recording.replay",
        "relay.session",
        "relay.session.device.turn_metrics",
        "relay.testing.faults",
        "relay.toolkit",
        "relay.transport",
        "relay.upstreams",
        "relay.upstreams.clients",
    },
    "relay.__main__": {"relay.cli"},
    "relay": {"relay.app.server", "relay.errors", "relay.toolkit"},
    "tools": {"relay"},
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
    return [path for folder in ("audio", "relay", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]


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
                is_module = (ROOT / whole.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / whole.replace(".", "/")
                ).is_dir()
                found.add(whole if is_module else base)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(module_of(path))
    assert part in LAYERS, f"{part} is in no layer: add it to the table"
    ours = {part_of(name) for name in imports_of(path) if name.split(".")[0] in ("audio", "relay", "tools")}
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
