"""Imports Python files by path, under private module names.

A root folder is a package with a private name. So `from ._helpers import x` works, and no file can shadow another
module. The name depends on the path alone, so that pickles stay valid.

Every module imported from below a root is checked before it runs (`relay.toolkit.loading.trust`), helpers and packages
included. Cached bytecode is never read, because it could be planted.
"""

import hashlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from relay.toolkit.loading.search_paths import SourceFile
from relay.toolkit.loading.trust import untrusted_reason


def reset_package(root: Path) -> None:
    """Create the package of a root again, and forget the modules imported from it before."""
    name = _package_name(root)
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]
    _add_package(name, root)
    _finder.guard(root)


@contextmanager
def collect_refused_imports() -> Iterator[list[str]]:
    """Collect why imports of this thread are refused, also where a tool catches the ImportError."""
    reasons: list[str] = []
    _thread_state.reasons = reasons
    try:
        yield reasons
    finally:
        del _thread_state.reasons


def import_file(file: SourceFile) -> ModuleType:
    """Import a file once and return its module. Raises whatever the file raises, SystemExit included."""
    if file.path.suffix != ".py":
        raise ImportError(f'Unknown file extension "{file.path.suffix}". Rename the file to "{file.path.stem}.py".')
    name = _module_name(file)
    if name in sys.modules:  # imported by an earlier file
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file.path, loader=_UncachedLoader(name, str(file.path)))
    assert spec is not None
    return _execute_module(spec, name)


def _module_name(file: SourceFile) -> str:
    """Return the name of the file's module; creates its parent packages."""
    name, folder = _package_name(file.root), file.root
    for part in file.path.relative_to(file.root).parts[:-1]:
        name, folder = f"{name}.{_module_name_part(part)}", folder / part
        if name not in sys.modules:
            _add_package(name, folder)
    return f"{name}.{_module_name_part(file.path.stem)}"


def _module_name_part(part: str) -> str:
    """Return a path's part as part of a module's name, where a dot would mean a package."""
    return part if "." not in part else f"{re.sub(r'[.]', '_', part)}_{hashlib.sha256(part.encode()).hexdigest()[:6]}"


def _package_name(root: Path) -> str:
    return f"_relay_tools_{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}"


def _add_package(name: str, folder: Path) -> None:
    init = folder / "__init__.py"
    if init.is_file() and "." in name:
        _check_trusted(init)
        spec = importlib.util.spec_from_file_location(
            name, init, loader=_UncachedLoader(name, str(init)), submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        _execute_module(spec, name)
        return
    spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)


class _UncachedLoader(SourceFileLoader):
    """Compiles the source each time: cached bytecode may belong to an earlier file of the same size and second."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _GuardedFinder(MetaPathFinder):
    """Runs before the finder of `sys.path` and handles the modules below the tools folders."""

    def __init__(self) -> None:
        self.roots: frozenset[Path] = frozenset()

    def guard(self, root: Path) -> None:
        """Check imports from below this folder from now on; `root` is resolved."""
        self.roots |= {root}
        if self not in sys.meta_path:  # after the finders of builtin modules, which no file may shadow
            sys.meta_path.insert(sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module below a guarded folder. Raises ImportError if it is not trusted."""
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        locations = [spec.origin] if spec.has_location and spec.origin else spec.submodule_search_locations or ()
        guarded = [_check_trusted(Path(location).absolute()) for location in locations]  # all: a check may raise
        if any(guarded) and spec.origin and type(spec.loader) is SourceFileLoader:
            spec.loader, spec.cached = _UncachedLoader(fullname, spec.origin), None
        return spec if any(guarded) else None


_finder = _GuardedFinder()
_thread_state = threading.local()


def _check_trusted(path: Path) -> bool:
    """Return whether a path is below a guarded folder. Raises ImportError if it is not trusted."""
    real_path = path.resolve()
    roots = [root for root in _finder.roots if path.is_relative_to(root) or real_path.is_relative_to(root)]
    outermost = min(roots, key=lambda root: len(root.parts), default=None)
    reason = untrusted_reason(path, outermost) if outermost is not None else None
    if reason is not None:
        if hasattr(_thread_state, "reasons"):
            _thread_state.reasons.append(reason)
        raise ImportError(reason)
    return outermost is not None


def _execute_module(spec: ModuleSpec, name: str) -> ModuleType:
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
