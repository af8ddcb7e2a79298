"""`@tool`, what it makes of a function, and the ordered set of tools that a session offers.

    @tool(examples=["what time is it in {city}"], timeout_s=5)
    def current_time(city: str) -> dict[str, str]: ...

The decorated function stays a plain function: `@tool` only notes the options on it, and everything else is
worked out when the registry is filled, so that one bad tool is a message and not the end of its module.
"""

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
    """What `@tool` was given; refuses with ToolError what makes no sense."""

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
            raise ToolError(f"@tool: timeout_s must be a number of seconds above 0, not {self.timeout_s}.")
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ToolError(f"@tool: concurrency must be a whole number from 1, not {self.concurrency}.")
        unknown = sorted(self.expose - AUDIENCES)
        if unknown:
            raise ToolError(f'@tool: expose knows "model", "http" and "client", not {", ".join(unknown)}.')


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


def tool(function: F | None = None, /, **given: Any) -> F | Callable[[F], F]:
    """Marks a function as a tool; usable bare and with options. The function itself is returned.

    `examples` are sentences a user might say, with `{parameter}` for values. `expose` says who may see and
    call the tool: the "model", callers over "http"; "client" shows arguments and result to the client. A
    `protected` tool wins over a client's tool of the same name. `cancel_on_interrupt` lets a barge-in end a
    running call. At most `concurrency` calls of it run at a time; one more is answered "busy". On a class the options
    hold for all its methods. Raises ToolError for options that make no sense.
    """
    if isinstance(given.get("examples"), str) or isinstance(given.get("expose"), str):
        raise ToolError("@tool: examples and expose are lists of strings, not one string.")
    options = ToolOptions(**given)

    def decorate(function: F) -> F:
        setattr(function, _OPTIONS_ATTRIBUTE, options)
        return function

    return decorate if function is None else decorate(function)


def get_tool_options(function: object) -> ToolOptions | None:
    """The options that `@tool` left on a function or class itself, or None where it was not decorated."""
    own: dict[str, object] = getattr(getattr(function, "__func__", function), "__dict__", {})
    options = own.get(_OPTIONS_ATTRIBUTE)
    return options if isinstance(options, ToolOptions) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool(ToolOptions):
    """One tool, ready to be offered and run; `parameters` is its JSON Schema, `source` where it came from.

    `is_void`: the function is declared to return nothing, so that over HTTP it has no result at all.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any] = field(repr=False)
    signature: ToolSignature = field(repr=False)
    is_async: bool
    source: str
    is_void: bool = False

    __eq__ = object.__eq__  # no two of them are the same, whatever their options
    __hash__ = object.__hash__

    @classmethod
    def from_function(
        cls, function: Callable[..., Any], *, name: str | None = None, source: str = "", description: str | None = None
    ) -> "Tool":
        """Describes a function, decorated or not.

        Its name is that given to `@tool`, else `name`, else its own; `description` serves where neither `@tool` nor
        the docstring gives one. Raises ToolError where it has no name that is allowed, where a parameter cannot be
        described, or where an example names no parameter.
        """
        options = get_tool_options(function) or ToolOptions()
        own_name = options.name or name or str(getattr(function, "__name__", type(function).__name__))
        check_tool_name(own_name)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ToolError(f'Tool "{own_name}": it yields; a tool returns one value.')
        summary = read_docstring(function).summary
        return cls.from_signature(
            options,
            own_name,
            function,
            build_signature(function, own_name),
            source=source or f"{getattr(function, '__module__', '')}#{own_name}",
            description=summary or description or f"{own_name.replace('_', ' ').strip().capitalize()}.",
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
        """A tool of parts: what `function` takes is whatever `signature` binds. Raises ToolError for bad examples."""
        _check_examples(options.examples, signature, name)
        own = {one.name: getattr(options, one.name) for one in fields(ToolOptions)}
        own |= {"name": name, "description": options.description or description}
        return cls(
            **own,
            parameters=signature.parameters,
            function=function,
            signature=signature,
            is_async=is_async,
            source=source,
            is_void=is_void,
        )


class ToolRegistry:
    """Tools by name, in the order they were added. Not for use from several threads while it is filled.

    Tools have an owner (the folders, an MCP server), whose tools are exchanged together by `assign`.
    """

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        self._owners: dict[str, tuple[tuple[Tool, ...], tuple[str, ...]]] = {}
        self.warnings: list[str] = []
        """What went wrong when the tools were loaded, and one for each that had to be renamed."""
        for one in tools:
            self.add(one)

    def assign(self, owner: str, tools: Iterable[Tool], warnings: Iterable[str] = ()) -> None:
        """Puts tools in the place of all that this owner had; calls that run go on."""
        if not self._owners:  # what was added one by one stays
            self._owners[""] = (tuple(self), tuple(self.warnings))
        self._owners[owner] = (tuple(tools), tuple(warnings))
        self._tools, self.warnings = {}, []
        for its_tools, its_warnings in self._owners.values():
            self.warnings.extend(its_warnings)
            for one in its_tools:
                self.add(one)

    def add(self, tool: Tool) -> Tool:
        """Adds a tool and returns it; where its name is taken, as name_2, name_3… with a warning."""
        check_tool_name(tool.name)
        name = unique_name(tool.name, self._tools)
        if name != tool.name:
            warning = f'Renamed duplicated function "{tool.name}" to "{name}".'
            self.warnings.append(warning)
            log.warning("%s (%s)", warning, tool.source)
            tool = replace(tool, name=name)
        self._tools[name] = tool
        return tool

    def get(self, name: str) -> Tool | None:
        """The tool of that name, if there is one."""
        return self._tools.get(name)

    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(self._tools)

    def exposed_to(self, audience: Audience) -> tuple[Tool, ...]:
        """The tools that this audience may see, in order."""
        return tuple(one for one in self if audience in one.expose)

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools


def unique_name(name: str, taken: Container[str]) -> str:
    """The name, or where it is taken name_2, name_3…, within 64 characters."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        suffix = f"_{number}"
        candidate = name[: MAX_NAME_CHARS - len(suffix)] + suffix
    return candidate


def check_tool_name(name: str) -> None:
    """Raises ToolError for a name that models do not take."""
    if not _TOOL_NAME.fullmatch(name):
        raise ToolError(
            f'"{name[:80]}" cannot be the name of a tool: it takes 1 to 64 ASCII letters, digits, _ and -. '
            'Give it another one with @tool(name="…").'
        )


def _check_examples(examples: tuple[str, ...], signature: ToolSignature, name: str) -> None:
    known = signature.parameters["properties"]
    for example in examples:
        for placeholder in _PLACEHOLDER.findall(example):
            if placeholder not in known:
                raise ToolError(
                    f'Tool "{name}": the example "{example}" speaks of {{{placeholder}}}, '
                    f"but the parameters are: {', '.join(known) or 'none'}."
                )


def is_async_function(function: Callable[..., Any]) -> bool:
    """Whether a call of it gives something to await."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def is_void(function: Callable[..., Any]) -> bool:
    """Whether it is declared to return nothing (`-> None`)."""
    return getattr(function, "__annotations__", {}).get("return", ...) in (None, "None")
