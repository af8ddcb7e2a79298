"""The three projects with which NAVAI's backend was recorded, in Python: their functions and folders are twins."""

from pathlib import Path

TWINS_FOLDER = Path(__file__).parent.parent / "endpoints" / "navai_twins"

_SCAN = {
    "dist/index": "fn_root_dist",
    "lib/outside": "fn_outside_src",
    "node_modules/rootpkg/index": "fn_root_node_modules",
    "src/B_upper": "fn_b_upper",
    "src/a_lower": "fn_a_lower",
    "src/ai/functions-modules/.hidden/i": "fn_in_hidden_dir",
    "src/ai/functions-modules/.hidden_file": "fn_hidden_file",
    "src/ai/functions-modules/deep/nested/inner": "fn_nested",
    "src/ai/functions-modules/default_one": "fn_default_folder",
    "src/ai/functions-modules/dist/i": "fn_in_dist",
    "src/ai/functions-modules/node_modules/pkg/i": "fn_in_node_modules",
    "src/ai/functions-modules-extra/x": "fn_sibling_prefix",
    "src/features/cart/voice-functions/cart": "fn_cart",
    "src/features/user/other/skip": "fn_skip",
    "src/features/user/voice-functions/user": "fn_user",
}
_AGENTS = {
    "src/ai/food/menu": "food_menu",
    "src/ai/food/sub/deep": "food_deep",
    "src/ai/functions-modules/fallback": "fallback_fn",
    "src/ai/loose": "loose_fn",
    "src/ai/main/orders": "main_orders",
    "src/ai/other/secret": "other_secret",
}


def write_file(path: Path, text: str) -> None:
    """A file that only its owner may change, in folders of the same kind, whatever the umask."""
    for folder in reversed([one for one in path.parents if not one.exists()]):
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    path.write_text(text)
    path.chmod(0o644)


def _function(name: str) -> str:
    return f"def {name}():\n    return {name!r}\n"


def make_project(base: Path, name: str) -> Path:
    """Writes the project `main`, `scan` or `agents` below `base`; returns its folder."""
    root = base / name
    if name == "main":
        folder = root / "src" / "ai" / "functions-modules"
        for file in sorted(TWINS_FOLDER.iterdir()):
            if file.is_file():
                write_file(folder / file.name, file.read_text())
        write_file(folder / "i_broken.py", "def broken(\n")
    for path, function in {"scan": _SCAN, "agents": _AGENTS}.get(name, {}).items():
        write_file(root / f"{path}.py", _function(function))
    if name == "scan":
        write_file(root / "src/ai/functions-modules/UPPER.PY", _function("fn_upper_ext"))
        write_file(root / "src/ai/functions-modules/data.json", "{}")
    if name == "agents":
        config = '__all__ = ["agent"]\nagent = {"key": "food", "name": "Food", "isPrimary": False}\n'
        write_file(root / "src/ai/food/agent.config.py", config)
    return root
