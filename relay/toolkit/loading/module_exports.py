"""Finds the tools of an imported module by NAVAI's rules: functions, classes, objects and dicts of functions.

A module exports `__all__` if it has one, else the public names that it defines itself, sorted by name. Only names in
`__all__` cause a warning if they are not callable: other constants are not mistakes.
"""

import enum
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pydantic
import typing_extensions

from relay.errors import ToolError
from relay.toolkit.loading.class_tools import make_method_tool
from relay.toolkit.loading.names import FALLBACK_NAME, to_tool_name
from relay.toolkit.registry import Tool, get_tool_options, unique_name

_PLAIN_TYPES = (str, bytes, int, float, complex, bool, type(None))


class ExportCollector:
    """Collects the tools of several modules, and makes their names unique."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.warnings: list[str] = []

    def add_module(self, module: ModuleType, source: str) -> None:
        """Add the tools of a module; `source` is its path."""
        n_before = len(self.tools)
        names = self._exported_names(module, source)
        for name, is_explicit in names:
            self._add_export(name, getattr(module, name), source, is_explicit)
        if not names:
            self.warnings.append(f"Ignored {source}: module has no exports.")
        elif len(self.tools) == n_before:
            self.warnings.append(f"Ignored {source}: module has no callable exports.")

    def _exported_names(self, module: ModuleType, source: str) -> list[tuple[str, bool]]:
        members = vars(module)
        declared = getattr(module, "__all__", None)
        if declared is None:
            names = [name for name, member in members.items() if _is_defined_here(name, member, module)]
            return [(name, False) for name in sorted(names, key=_utf16_key) if not _is_alias(name, members)]
        for name in declared:
            if name not in members:
                self.warnings.append(f'{source}: __all__ names "{name}", which is not defined.')
        names = [name for name in set(declared) if name in members and not name.startswith("_")]
        return [(name, True) for name in sorted(names, key=_utf16_key)]

    def _add_export(self, name: str, value: Any, source: str, is_explicit: bool) -> None:
        where = f"{source}#{name}"
        if inspect.isclass(value):
            self._add_class(value, where, is_explicit)
        elif _is_function(value) or (is_explicit and callable(value)):
            self._add_tool(name, where, lambda: _function_tool(value, name, where, f"Call exported function {name}."))
        elif not isinstance(value, _PLAIN_TYPES):
            self._add_object(name, value, where, is_explicit)

    def _add_class(self, cls: type, where: str, is_explicit: bool) -> None:
        methods = list(_public_methods(cls))
        is_requested = is_explicit or get_tool_options(cls) is not None
        if _is_data_type(cls) and not is_requested:
            if methods and is_dataclass(cls):  # other data types have inherited methods only
                text = "it is a data type. Add it to __all__ to make tools of its methods."
                self.warnings.append(f"Ignored {where}: {text}")
            return
        if not methods and is_requested:
            self.warnings.append(f"Ignored {where}: class has no callable instance methods.")
        for method, function in methods:
            self._add_tool(
                f"{cls.__name__}_{method}",
                f"{where}.{method}",
                functools.partial(make_method_tool, cls, method, function, f"{where}.{method}"),
            )

    def _add_object(self, name: str, value: Any, where: str, is_explicit: bool) -> None:
        members = dict(_callable_members(value, is_explicit))
        if not members and is_explicit:
            self.warnings.append(f"Ignored {where}: exported object has no callable members.")
        for member, function in members.items():
            at = f"{where}.{member}"
            text = f"Call exported object member {name}.{member}()."
            self._add_tool(
                f"{name}_{member}", at, functools.partial(_function_tool, function, f"{name}_{member}", at, text)
            )

    def _add_tool(self, export_name: str, where: str, make: Callable[[], Tool]) -> None:
        try:
            tool = make()
        except ToolError as error:
            self.warnings.append(f"Ignored {where}: {error}")
            return
        tool_name = unique_name(tool.name, self.tools)
        is_nameless = tool.name == FALLBACK_NAME and export_name.lower() != FALLBACK_NAME
        if tool_name != tool.name or is_nameless:
            self.warnings.append(f'Renamed duplicated function "{export_name}" to "{tool_name}".')
        self.tools[tool_name] = replace(tool, name=tool_name)


def _function_tool(function: Callable[..., Any], name: str, source: str, description: str) -> Tool:
    return Tool.from_function(function, name=to_tool_name(name), source=source, description=description)


def _utf16_key(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _is_defined_here(name: str, value: Any, module: ModuleType) -> bool:
    """Return whether a public name holds a value that this module defines, not an import."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    if isinstance(value, (*_PLAIN_TYPES, Mapping, SimpleNamespace, list, tuple, set, frozenset)):
        return True
    return getattr(value, "__module__", None) == module.__name__


def _is_alias(name: str, members: Mapping[str, Any]) -> bool:
    """Return whether a name is a second name of a function in `members`."""
    value = members[name]
    own_name = getattr(value, "__name__", name)
    if own_name != name and callable(value):
        return members.get(own_name) is value
    return False


def _is_function(member: Any) -> bool:
    """Return whether a member is a function, a wrapped one (lru_cache), or decorated with @tool."""
    if inspect.isclass(member) or not callable(member):
        return False
    return inspect.isroutine(member) or hasattr(member, "__wrapped__") or get_tool_options(member) is not None


def _is_data_type(cls: type) -> bool:
    """Return whether a class is a type of parameters or results, or has no instances."""
    data_types = (enum.Enum, BaseException, tuple, dict, pydantic.BaseModel)
    return (
        issubclass(cls, data_types)
        or is_dataclass(cls)
        or typing.is_typeddict(cls)
        or typing_extensions.is_protocol(cls)
        or inspect.isabstract(cls)
    )


def _public_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public instance methods in order of definition; inherited methods come last."""
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if name in seen or name.startswith("_"):
                continue
            seen.add(name)
            if inspect.isfunction(member):
                yield name, member


def _callable_members(value: Any, is_explicit: bool) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the callables of a dict, a namespace or an instance; a dict not in `__all__` may hold nothing else."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if isinstance(value, Mapping):
        if is_explicit or (value and all(isinstance(key, str) and callable(member) for key, member in value.items())):
            yield from (
                (key, member)
                for key, member in value.items()
                if isinstance(key, str) and callable(member) and not key.startswith("_")
            )
        return
    if not isinstance(value, list | tuple | set | frozenset):
        yield from ((name, getattr(value, name)) for name, _ in _public_methods(type(value)))
