"""Loads Python files by their path, under private names.

The root folder is a package of such a name, so that `from ._helpers import x` works and nothing of the folder can hide
another module. The name depends on the path alone, so that pickles stay valid.

Whatever is imported from below a root, by whatever name, is checked before it runs (`relay.toolkit.loading.trust`):
helpers, packages' `__init__`, and what they import in their turn. Their bytecode is never read: it could be planted as
well.
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
    """Makes the package of a root anew, without what was loaded from it before."""
    name = _package_name(root)
    for old in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[old]
    _add_package(name, root)
    _finder.guard(root)


@contextmanager
def collect_refused_imports() -> Iterator[list[str]]:
    """What this thread's imports are refused meanwhile, a clause each: also where a tool catches the ImportError."""
    reasons: list[str] = []
    _thread_state.clauses = reasons
    try:
        yield reasons
    finally:
        del _thread_state.clauses


def import_file(file: SourceFile) -> ModuleType:
    """The module of a file, run once; raises whatever the file raises, SystemExit too."""
    if file.path.suffix != ".py":
        raise ImportError(f'Unknown file extension "{file.path.suffix}"; Python modules end in ".py"')
    name = _module_name(file)
    if name in sys.modules:  # a file before this one imported it
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file.path, loader=_UncachedLoader(name, str(file.path)))
    assert spec is not None
    return _execute_module(spec, name)


def _module_name(file: SourceFile) -> str:
    """The module's name; makes the packages on the way to it."""
    name, folder = _package_name(file.root), file.root
    for part in file.path.relative_to(file.root).parts[:-1]:
        name, folder = f"{name}.{_module_name_part(part)}", folder / part
        if name not in sys.modules:
            _add_package(name, folder)
    return f"{name}.{_module_name_part(file.path.stem)}"


def _module_name_part(part: str) -> str:
    """A part of a module's name: a dot in it would be taken for a package."""
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
    """Reads the source every time: bytecode, known by its second and size, could be that of the file before."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _GuardedFinder(MetaPathFinder):
    """Stands before the finder of Python's import path, and answers for what lies below the tools folders."""

    def __init__(self) -> None:
        self.roots: frozenset[Path] = frozenset()

    def guard(self, root: Path) -> None:
        """From here on, look at what is imported from below this folder; it is resolved."""
        self.roots |= {root}
        if self not in sys.meta_path:  # behind the finders of builtin modules, which no file may hide
            sys.meta_path.insert(sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if it lies below a guarded folder. Raises ImportError if it may not be run."""
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        places = [spec.origin] if spec.has_location and spec.origin else spec.submodule_search_locations or ()
        is_ours = [_check_trusted(Path(place).absolute()) for place in places]
        if any(is_ours) and spec.origin and type(spec.loader) is SourceFileLoader:
            spec.loader, spec.cached = _UncachedLoader(fullname, spec.origin), None
        return spec if any(is_ours) else None


_finder = _GuardedFinder()
_thread_state = threading.local()


def _check_trusted(path: Path) -> bool:
    """Whether a path lies below a guarded folder. Raises ImportError if it may not be run."""
    both = (path, path.resolve())
    found = [root for root in _finder.roots if any(one.is_relative_to(root) for one in both)]
    root = min(found, key=lambda root: len(root.parts), default=None)  # the outermost
    why = untrusted_reason(path, root) if root is not None else None
    if why is not None:
        if hasattr(_thread_state, "clauses"):
            _thread_state.clauses.append(why)
        raise ImportError(why)
    return root is not None


def _execute_module(spec: ModuleSpec, name: str) -> ModuleType:
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
