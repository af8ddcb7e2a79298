"""From a loaded module to its tools: functions, classes, objects and dicts of functions, by NAVAI's rules.

What a module exports is `__all__` where there is one, else the public names of what it defines itself, in the order of
their names. Only what `__all__` names is complained about when it holds nothing to call: a constant is no mistake.
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
    """Reads modules one after the other; no two of their tools get the same name."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.warnings: list[str] = []

    def add_module(self, module: ModuleType, source: str) -> None:
        """Take up the tools of one module, whose path is `source`."""
        before = len(self.tools)
        names = self._exported_names(module, source)
        for name, is_explicit in names:
            self._add_export(name, getattr(module, name), source, is_explicit)
        if not names:
            self.warnings.append(f"Ignored {source}: module has no exports.")
        elif len(self.tools) == before:
            self.warnings.append(f"Ignored {source}: module has no callable exports.")

    def _exported_names(self, module: ModuleType, source: str) -> list[tuple[str, bool]]:
        members = vars(module)
        declared = getattr(module, "__all__", None)
        if declared is None:
            names = [name for name, one in members.items() if _is_defined_here(name, one, module)]
            return [(name, False) for name in sorted(names, key=_utf16_key) if not _is_alias(name, members)]
        for name in declared:
            if name not in members:
                self.warnings.append(f'{source}: __all__ names "{name}", which is not there.')
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
        wanted = is_explicit or get_tool_options(cls) is not None
        if _is_data_type(cls) and not wanted:
            if methods and is_dataclass(cls):  # the others have methods of their kind, not of the module's
                text = "it describes data; name it in __all__ to make tools of its methods."
                self.warnings.append(f"Ignored {where}: {text}")
            return
        if not methods and wanted:
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
    """Whether a public name holds something that this module defines, not something it imported."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    if isinstance(value, (*_PLAIN_TYPES, Mapping, SimpleNamespace, list, tuple, set, frozenset)):
        return True
    return getattr(value, "__module__", None) == module.__name__


def _is_alias(name: str, members: Mapping[str, Any]) -> bool:
    """A second name for the same function is not a second tool."""
    value = members[name]
    own = getattr(value, "__name__", name)
    if own != name and callable(value):
        return members.get(own) is value
    return False


def _is_function(member: Any) -> bool:
    """Functions, those wrapped by lru_cache and its like, and whatever was decorated with @tool."""
    if inspect.isclass(member) or not callable(member):
        return False
    return inspect.isroutine(member) or hasattr(member, "__wrapped__") or get_tool_options(member) is not None


def _is_data_type(cls: type) -> bool:
    """Types of parameters and results, and those of which there can be no instance."""
    kinds = (enum.Enum, BaseException, tuple, dict, pydantic.BaseModel)
    return (
        issubclass(cls, kinds)
        or is_dataclass(cls)
        or typing.is_typeddict(cls)
        or typing_extensions.is_protocol(cls)
        or inspect.isabstract(cls)
    )


def _public_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public instance methods in the order of their definition, inherited ones after its own."""
    seen: set[str] = set()
    for one in cls.__mro__:
        for name, member in vars(one).items():
            if name in seen or name.startswith("_"):
                continue
            seen.add(name)
            if inspect.isfunction(member):
                yield name, member


def _callable_members(value: Any, is_explicit: bool) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The callables of a dict, a namespace or an instance. Without `__all__` a dict must hold nothing else."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if isinstance(value, Mapping):
        if is_explicit or (value and all(isinstance(key, str) and callable(one) for key, one in value.items())):
            yield from (
                (key, one)
                for key, one in value.items()
                if isinstance(key, str) and callable(one) and not key.startswith("_")
            )
        return
    if not isinstance(value, list | tuple | set | frozenset):
        yield from ((name, getattr(value, name)) for name, _ in _public_methods(type(value)))
