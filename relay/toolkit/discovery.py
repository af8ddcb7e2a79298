"""Finds tools: the public functions of the Python files of one folder.

A file is loaded by its path under a private name; the folder is that name's package, so that
`from ._helpers import x` works and nothing of the folder can hide another module.
"""

import hashlib
import importlib.util
import inspect
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from relay.errors import ToolError
from relay.toolkit.registry import Tool, options_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a folder gave: the tools in order, and one sentence for each thing that went wrong."""

    tools: tuple[Tool, ...]
    warnings: tuple[str, ...]


def load_folder(path: Path) -> LoadResult:
    """Loads every `*.py` of a folder, in order of name, but those that begin with "_" or ".".

    A file that cannot be loaded, or a function that cannot be described, is a warning; the rest goes on.
    Raises ToolError where there is no such folder, or where anyone on this machine may put code into it.
    Loading a folder again replaces its modules.
    """
    _check_folder(path)
    warnings: list[str] = []
    if _mode(path) & stat.S_IWGRP:
        warnings.append(f"The tools folder {path} may be written by its group; `chmod g-w {path}` keeps it yours.")
    package = _open_package(path)
    tools: list[Tool] = []
    for file in _files(path, warnings):
        source = f"{path.resolve().name}/{file.name}"
        module = _load(file, f"{package}.{file.stem}", source, warnings)
        if module is not None:
            tools.extend(_tools_of(module, source, warnings))
    for warning in warnings:
        log.warning("%s", warning)
    return LoadResult(tuple(tools), tuple(warnings))


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise ToolError(f"There is no tools folder {path}. Create it, or name the folder that holds your tools.")
    if not path.is_dir():
        raise ToolError(f"The tools folder {path} is a file. Name the folder that holds it.")
    if _mode(path) & stat.S_IWOTH:
        raise ToolError(
            f"The tools folder {path} may be written by everyone on this machine, and what is in it is run. "
            f"Correct that with `chmod o-w {path}`."
        )


def _files(path: Path, warnings: list[str]) -> Iterator[Path]:
    for file in sorted(path.glob("*.py")):
        if file.name.startswith(("_", ".")) or not file.is_file():
            continue
        if _mode(file) & stat.S_IWOTH:
            warnings.append(f"{file} may be written by everyone on this machine and was not loaded.")
            continue
        yield file


def _mode(path: Path) -> int:
    return path.stat().st_mode if os.name == "posix" else 0


def _open_package(path: Path) -> str:
    """Makes the package for a folder; its name depends on the path alone, so that pickles stay valid."""
    folder = str(path.resolve())
    name = f"_relay_tools_{hashlib.sha256(folder.encode()).hexdigest()[:12]}"
    for old in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[old]
    spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [folder]
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def _load(file: Path, name: str, source: str, warnings: list[str]) -> ModuleType | None:
    if name in sys.modules:  # a file before this one imported it
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script that ends in sys.exit() as well
        del sys.modules[name]
        log.exception("could not load %s", file)
        warnings.append(f"Could not load {source}: {type(error).__name__}: {str(error)[:300]}")
        return None
    return module


def _tools_of(module: ModuleType, source: str, warnings: list[str]) -> Iterator[Tool]:
    functions = list(_functions_of(module, source, warnings))
    if not functions:
        warnings.append(f"{source} defines no public function.")
    for name, function in functions:
        try:
            yield Tool.from_function(function, name=name, source=f"{source}#{name}")
        except ToolError as error:
            warnings.append(f"Ignored {source}#{name}: {error}")


def _functions_of(module: ModuleType, source: str, warnings: list[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The names in `__all__` where there is one, else the public functions defined in the module itself."""
    names = getattr(module, "__all__", None)
    members = vars(module)
    if names is None:
        names = [name for name, one in members.items() if _is_public(name, one, module)]
    seen: set[int] = set()
    for name in names:
        if name not in members:
            warnings.append(f'{source}: __all__ names "{name}", which is not there.')
        elif _is_function(members[name]) and id(members[name]) not in seen:
            seen.add(id(members[name]))  # a second name for the same function is not a second tool
            yield name, members[name]


def _is_public(name: str, member: object, module: ModuleType) -> bool:
    here = getattr(member, "__module__", None) == module.__name__
    return here and not name.startswith("_") and _is_function(member)


def _is_function(member: Any) -> bool:
    """Functions, those wrapped by lru_cache and its like, and whatever was decorated with @tool."""
    if inspect.isclass(member) or not callable(member):
        return False
    return inspect.isfunction(member) or hasattr(member, "__wrapped__") or options_of(member) is not None
