"""A method of a class as a tool: every call makes an instance of its own, with `constructorArgs`, and calls it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from relay.errors import ToolError
from relay.toolkit.context import ToolContext
from relay.toolkit.loading.names import to_tool_name
from relay.toolkit.registry import Tool, ToolOptions, get_tool_options, is_async_function, is_void
from relay.toolkit.schema.docstrings import read_docstring
from relay.toolkit.schema.signature import BoundArguments, FunctionSignature, build_signature, parse_arguments
from relay.toolkit.schema.validation_errors import InvalidArguments

CONSTRUCTOR_ARGS = "constructorArgs"


@dataclass(frozen=True, slots=True, eq=False)
class MethodSignature:
    """The parameters of a method, and beside them those of the constructor as one object `constructorArgs`."""

    parameters: dict[str, Any]
    constructor: FunctionSignature
    method: FunctionSignature

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        arguments = parse_arguments(text)
        given = dict(arguments)
        constructor = given.pop(CONSTRUCTOR_ARGS, None)
        return self.combine(
            self.bind_constructor(constructor, context), self.method.bind(json.dumps(given), context), arguments
        )

    def bind_constructor(self, given: Any, context: ToolContext) -> BoundArguments:
        """The constructor's call for a list of values, an object, or nothing. Raises InvalidArguments."""
        try:
            if isinstance(given, list):
                return self.constructor.bind_positional(given, context)
            return self.constructor.bind(json.dumps(given if isinstance(given, dict) else {}), context)
        except InvalidArguments as error:
            raise InvalidArguments(f"{CONSTRUCTOR_ARGS}: {error}") from None

    def combine(self, constructor: BoundArguments, method: BoundArguments, arguments: dict[str, Any]) -> BoundArguments:
        """Both calls as the one that `make_method_tool`'s function takes."""
        return BoundArguments((constructor, method), {}, arguments)


def make_method_tool(cls: type, method: str, function: Callable[..., Any], source: str) -> Tool:
    """The tool of one public method. Raises ToolError where it cannot be described."""
    method_options = get_tool_options(function)
    name = (method_options and method_options.name) or to_tool_name(f"{cls.__name__}_{method}")
    unbound = build_signature(partial(function, None), name)
    has_constructor = "__init__" in {name for one in cls.__mro__[:-1] for name in vars(one)}  # all but object
    constructor = build_signature(cls if has_constructor else _no_constructor, f"{name}, constructor")
    return Tool.from_signature(
        method_options or get_tool_options(cls) or ToolOptions(),
        name,
        partial(_call_method, cls, method),
        MethodSignature(_merge_parameters(unbound, constructor, name), constructor, unbound),
        source=source,
        description=read_docstring(function).summary or f"Call class method {cls.__name__}.{method}().",
        # A constructor may block: then it is called in a thread, and what the method returns is awaited on the loop.
        is_async=is_async_function(function) and not has_constructor,
        is_void=is_void(function),
    )


def _call_method(cls: type, method: str, constructor: BoundArguments, call: BoundArguments) -> Any:
    instance = cls(*constructor.args, **constructor.kwargs)
    return getattr(instance, method)(*call.args, **call.kwargs)


def _no_constructor() -> None:
    """Stands for the constructor of a class that has none."""


def _merge_parameters(method: FunctionSignature, constructor: FunctionSignature, name: str) -> dict[str, Any]:
    if not constructor.parameters["properties"]:
        return method.parameters
    if CONSTRUCTOR_ARGS in method.parameters["properties"]:
        raise ToolError(
            f'Tool "{name}": "{CONSTRUCTOR_ARGS}" is kept for the constructor; name the parameter otherwise.'
        )
    parameters = dict(method.parameters)
    parameters["properties"] = {**parameters["properties"], CONSTRUCTOR_ARGS: constructor.parameters}
    if constructor.parameters.get("required"):
        parameters["required"] = [*parameters.get("required", []), CONSTRUCTOR_ARGS]
    return parameters
