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
from relay.toolkit.loading.class_tools import class_tool
from relay.toolkit.loading.names import NAMELESS, normal_name
from relay.toolkit.registry import Tool, free_name, options_of

_VALUES = (str, bytes, int, float, complex, bool, type(None))


class Exports:
    """Reads modules one after the other; no two of their tools get the same name."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.warnings: list[str] = []

    def read(self, module: ModuleType, source: str) -> None:
        """Take up the tools of one module, whose path is `source`."""
        before = len(self.tools)
        names = self._names(module, source)
        for name, is_explicit in names:
            self._read_export(name, getattr(module, name), source, is_explicit)
        if not names:
            self.warnings.append(f"Ignored {source}: module has no exports.")
        elif len(self.tools) == before:
            self.warnings.append(f"Ignored {source}: module has no callable exports.")

    def _names(self, module: ModuleType, source: str) -> list[tuple[str, bool]]:
        members = vars(module)
        declared = getattr(module, "__all__", None)
        if declared is None:
            names = [name for name, one in members.items() if _is_own(name, one, module)]
            return [(name, False) for name in sorted(names, key=_code_units) if not _is_alias(name, members)]
        for name in declared:
            if name not in members:
                self.warnings.append(f'{source}: __all__ names "{name}", which is not there.')
        names = [name for name in set(declared) if name in members and not name.startswith("_")]
        return [(name, True) for name in sorted(names, key=_code_units)]

    def _read_export(self, name: str, value: Any, source: str, is_explicit: bool) -> None:
        where = f"{source}#{name}"
        if inspect.isclass(value):
            self._read_class(value, where, is_explicit)
        elif _is_function(value) or (is_explicit and callable(value)):
            self._add(name, where, lambda: _function_tool(value, name, where, f"Call exported function {name}."))
        elif not isinstance(value, _VALUES):
            self._read_object(name, value, where, is_explicit)

    def _read_class(self, cls: type, where: str, is_explicit: bool) -> None:
        methods = list(_methods_of(cls))
        wanted = is_explicit or options_of(cls) is not None
        if _is_data(cls) and not wanted:
            if methods and is_dataclass(cls):  # the others have methods of their kind, not of the module's
                text = "it describes data; name it in __all__ to make tools of its methods."
                self.warnings.append(f"Ignored {where}: {text}")
            return
        if not methods and wanted:
            self.warnings.append(f"Ignored {where}: class has no callable instance methods.")
        for method, function in methods:
            self._add(
                f"{cls.__name__}_{method}",
                f"{where}.{method}",
                functools.partial(class_tool, cls, method, function, f"{where}.{method}"),
            )

    def _read_object(self, name: str, value: Any, where: str, is_explicit: bool) -> None:
        members = dict(_members_of(value, is_explicit))
        if not members and is_explicit:
            self.warnings.append(f"Ignored {where}: exported object has no callable members.")
        for member, function in members.items():
            at = f"{where}.{member}"
            text = f"Call exported object member {name}.{member}()."
            self._add(f"{name}_{member}", at, functools.partial(_function_tool, function, f"{name}_{member}", at, text))

    def _add(self, raw: str, where: str, make: Callable[[], Tool]) -> None:
        try:
            tool = make()
        except ToolError as error:
            self.warnings.append(f"Ignored {where}: {error}")
            return
        final = free_name(tool.name, self.tools)
        is_nameless = tool.name == NAMELESS and raw.lower() != NAMELESS
        if final != tool.name or is_nameless:
            self.warnings.append(f'Renamed duplicated function "{raw}" to "{final}".')
        self.tools[final] = replace(tool, name=final)


def _function_tool(function: Callable[..., Any], name: str, source: str, description: str) -> Tool:
    return Tool.from_function(function, name=normal_name(name), source=source, description=description)


def _code_units(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    """Whether a public name holds something that this module defines, not something it imported."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    if isinstance(value, (*_VALUES, Mapping, SimpleNamespace, list, tuple, set, frozenset)):
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
    return inspect.isroutine(member) or hasattr(member, "__wrapped__") or options_of(member) is not None


def _is_data(cls: type) -> bool:
    """Types of parameters and results, and those of which there can be no instance."""
    kinds = (enum.Enum, BaseException, tuple, dict, pydantic.BaseModel)
    return (
        issubclass(cls, kinds)
        or is_dataclass(cls)
        or typing.is_typeddict(cls)
        or typing_extensions.is_protocol(cls)
        or inspect.isabstract(cls)
    )


def _methods_of(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public instance methods in the order of their definition, inherited ones after its own."""
    seen: set[str] = set()
    for one in cls.__mro__:
        for name, member in vars(one).items():
            if name in seen or name.startswith("_"):
                continue
            seen.add(name)
            if inspect.isfunction(member):
                yield name, member


def _members_of(value: Any, is_explicit: bool) -> Iterator[tuple[str, Callable[..., Any]]]:
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
        yield from ((name, getattr(value, name)) for name, _ in _methods_of(type(value)))
