"""The `@tool` decorator, tools, and the ordered registry of the tools that a session offers.

    @tool(examples=["what time is it in {city}"], timeout_s=5)
    def current_time(city: str) -> dict[str, str]: ...

The decorated function stays a plain function: `@tool` only stores the options on it. Its schema is built when the
registry is filled, so that one bad tool is a warning and its module still loads.
"""

import dataclasses
import inspect
import logging
import math
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, overload

from relay.errors import ToolError
from relay.toolkit.loading.names import MAX_NAME_CHARS
from relay.toolkit.schema.docstrings import read_docstring
from relay.toolkit.schema.signature import ToolSignature, build_signature

log = logging.getLogger(__name__)

Audience = Literal["model", "http", "client"]
AUDIENCES: frozenset[str] = frozenset({"model", "http", "client"})
DEFAULT_EXPOSE: frozenset[str] = frozenset({"model", "http"})
DEFAULT_TIMEOUT_S = 15.0

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OPTIONS_ATTRIBUTE = "__relay_tool__"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """The options of `@tool`. Raises ToolError for invalid values."""

    name: str | None = None
    description: str | None = None
    examples: tuple[str, ...] = ()
    timeout_s: float = DEFAULT_TIMEOUT_S
    expose: frozenset[str] = DEFAULT_EXPOSE
    protected: bool = False
    cancel_on_interrupt: bool = False
    concurrency: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", tuple(self.examples))
        object.__setattr__(self, "expose", frozenset(self.expose))
        if self.name is not None:
            check_tool_name(self.name)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ToolError(f"@tool: timeout_s must be a number of seconds greater than 0, not {self.timeout_s}.")
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ToolError(f"@tool: concurrency must be an integer of at least 1, not {self.concurrency}.")
        unknown = sorted(self.expose - AUDIENCES)
        if unknown:
            raise ToolError(f'@tool: expose may contain "model", "http" and "client", not {", ".join(unknown)}.')


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    examples: Iterable[str] = (),
    timeout_s: float = DEFAULT_TIMEOUT_S,
    expose: Iterable[str] = DEFAULT_EXPOSE,
    protected: bool = False,
    cancel_on_interrupt: bool = False,
    concurrency: int | None = None,
) -> Callable[[F], F]: ...


def tool(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Mark a function as a tool, with or without options, and return the function itself.

    `examples` are sentences a user might say, with `{parameter}` for values. `expose` lists who may see and call the
    tool: the "model", or callers over "http"; "client" shows arguments and result to the client. A `protected` tool
    wins over a client's tool of the same name. `cancel_on_interrupt` lets a barge-in cancel a running call. At most
    `concurrency` calls run at a time; further ones fail as "busy". On a class the options apply to all its methods.
    Raises ToolError for invalid options.
    """
    if isinstance(options.get("examples"), str) or isinstance(options.get("expose"), str):
        raise ToolError("@tool: examples and expose must be lists of strings, not a string.")
    known = [option.name for option in fields(ToolOptions)]
    if unknown := [name for name in options if name not in known]:
        raise ToolError(f"@tool has no option {unknown[0]!r}. The options are: {', '.join(known)}.")
    tool_options = ToolOptions(**options)

    def decorate(function: F) -> F:
        setattr(function, _OPTIONS_ATTRIBUTE, tool_options)
        return function

    return decorate if function is None else decorate(function)


def get_tool_options(function: object) -> ToolOptions | None:
    """Return the options that `@tool` stored on a function or class, None if it is not decorated."""
    attributes: dict[str, object] = getattr(getattr(function, "__func__", function), "__dict__", {})
    options = attributes.get(_OPTIONS_ATTRIBUTE)
    return options if isinstance(options, ToolOptions) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool(ToolOptions):
    """A tool that can be offered and run; `parameters` is its JSON Schema, `source` its file and function.

    `is_void`: the function is annotated `-> None`, so that its result over HTTP is empty.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any] = field(repr=False)
    signature: ToolSignature = field(repr=False)
    is_async: bool
    source: str
    is_void: bool = False

    __eq__ = object.__eq__  # two tools with equal options are still two tools
    __hash__ = object.__hash__

    @classmethod
    def from_function(
        cls, function: Callable[..., Any], *, name: str | None = None, source: str = "", description: str | None = None
    ) -> "Tool":
        """Build a tool from a function, decorated or not.

        The name is that of `@tool`, else `name`, else the function's own. `description` is the fallback if neither
        `@tool` nor the docstring has one. Raises ToolError for an invalid name, for a parameter without a JSON
        Schema, and for an example with an unknown placeholder.
        """
        options = get_tool_options(function) or ToolOptions()
        tool_name = options.name or name or str(getattr(function, "__name__", type(function).__name__))
        check_tool_name(tool_name)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ToolError(f'Tool "{tool_name}" is a generator. A tool must return one value.')
        summary = read_docstring(function).summary
        return cls.from_signature(
            options,
            tool_name,
            function,
            build_signature(function, tool_name),
            source=source or f"{getattr(function, '__module__', '')}#{tool_name}",
            description=summary or description or f"{tool_name.replace('_', ' ').strip().capitalize()}.",
            is_async=is_async_function(function),
            is_void=is_void(function),
        )

    @classmethod
    def from_signature(
        cls,
        options: ToolOptions,
        name: str,
        function: Callable[..., Any],
        signature: ToolSignature,
        *,
        source: str,
        description: str,
        is_async: bool,
        is_void: bool = False,
    ) -> "Tool":
        """Build a tool whose `function` takes what `signature` binds. Raises ToolError for invalid examples."""
        _check_examples(options.examples, signature, name)
        values = {field.name: getattr(options, field.name) for field in dataclasses.fields(ToolOptions)}
        values |= {"name": name, "description": options.description or description}
        return cls(
            **values,
            parameters=signature.parameters,
            function=function,
            signature=signature,
            is_async=is_async,
            source=source,
            is_void=is_void,
        )


class ToolRegistry:
    """Tools by name, in the order in which they were added. Filling it is not thread-safe.

    Tools have an owner (the folders, an MCP server); `assign` replaces all tools of one owner.
    """

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        self._owners: dict[str, tuple[tuple[Tool, ...], tuple[str, ...]]] = {}
        self.warnings: list[str] = []
        """Problems of loading, and one entry for each renamed tool."""
        for tool in tools:
            self.add(tool)

    def assign(self, owner: str, tools: Iterable[Tool], warnings: Iterable[str] = ()) -> None:
        """Replace all tools and warnings of an owner; running calls continue."""
        if not self._owners:  # keep what `add` has added
            self._owners[""] = (tuple(self), tuple(self.warnings))
        self._owners[owner] = (tuple(tools), tuple(warnings))
        self._tools, self.warnings = {}, []
        for owner_tools, owner_warnings in self._owners.values():
            self.warnings.extend(owner_warnings)
            for tool in owner_tools:
                self.add(tool)

    def add(self, tool: Tool) -> Tool:
        """Add a tool and return it; if its name is in use, it becomes name_2, name_3… with a warning."""
        check_tool_name(tool.name)
        name = unique_name(tool.name, self._tools)
        if name != tool.name:
            warning = f'Renamed duplicated function "{tool.name}" to "{name}".'
            self.warnings.append(warning)
            log.warning("tools: %s (%s)", warning, tool.source)
            tool = replace(tool, name=name)
        self._tools[name] = tool
        return tool

    def get(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> tuple[str, ...]:
        """Return all names, in order."""
        return tuple(self._tools)

    def exposed_to(self, audience: Audience) -> tuple[Tool, ...]:
        """Return the tools that this audience may see, in order."""
        return tuple(tool for tool in self if audience in tool.expose)

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools


def unique_name(name: str, used_names: Container[str]) -> str:
    """Return the name, or name_2, name_3… if it is in use, in at most 64 characters."""
    candidate, number = name, 1
    while candidate in used_names:
        number += 1
        suffix = f"_{number}"
        candidate = name[: MAX_NAME_CHARS - len(suffix)] + suffix
    return candidate


def check_tool_name(name: str) -> None:
    """Raise ToolError for a name that models do not accept."""
    if not _TOOL_NAME.fullmatch(name):
        raise ToolError(
            f'"{name[:80]}" is not a valid tool name: use 1 to 64 ASCII letters, digits, "_" and "-". '
            'Set another name with @tool(name="…").'
        )


def _check_examples(examples: tuple[str, ...], signature: ToolSignature, name: str) -> None:
    known = signature.parameters["properties"]
    for example in examples:
        for placeholder in _PLACEHOLDER.findall(example):
            if placeholder not in known:
                raise ToolError(
                    f'Tool "{name}": the example "{example}" has an unknown placeholder {{{placeholder}}}. '
                    f"The parameters are: {', '.join(known) or 'none'}."
                )


def is_async_function(function: Callable[..., Any]) -> bool:
    """Return whether a call of the function returns an awaitable."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def is_void(function: Callable[..., Any]) -> bool:
    """Return whether the function is annotated `-> None`."""
    return getattr(function, "__annotations__", {}).get("return", ...) in (None, "None")
