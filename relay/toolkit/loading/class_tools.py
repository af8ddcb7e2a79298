"""Methods of classes as tools: each call creates an instance from `constructorArgs` and calls the method on it."""

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
    """The parameters of a method, plus those of the constructor as one object `constructorArgs`."""

    parameters: dict[str, Any]
    constructor: FunctionSignature
    method: FunctionSignature

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        arguments = parse_arguments(text)
        method_arguments = dict(arguments)
        constructor = self.bind_constructor(method_arguments.pop(CONSTRUCTOR_ARGS, None), context)
        method = self.method.bind(json.dumps(method_arguments), context)
        return self.combine(constructor, method, arguments)

    def bind_constructor(self, values: Any, context: ToolContext) -> BoundArguments:
        """Bind the constructor to a list or an object; anything else counts as `{}`. Raises InvalidArguments."""
        try:
            if isinstance(values, list):
                return self.constructor.bind_positional(values, context)
            return self.constructor.bind(json.dumps(values if isinstance(values, dict) else {}), context)
        except InvalidArguments as error:
            raise InvalidArguments(f"{CONSTRUCTOR_ARGS}: {error}") from None

    def combine(self, constructor: BoundArguments, method: BoundArguments, arguments: dict[str, Any]) -> BoundArguments:
        """Combine both calls into the arguments of the function that `make_method_tool` creates."""
        return BoundArguments((constructor, method), {}, arguments)


def make_method_tool(cls: type, method: str, function: Callable[..., Any], source: str) -> Tool:
    """Create the tool of a public method. Raises ToolError if a parameter has no JSON Schema."""
    method_options = get_tool_options(function)
    name = (method_options and method_options.name) or to_tool_name(f"{cls.__name__}_{method}")
    unbound = build_signature(partial(function, None), name)
    has_constructor = "__init__" in {member for base in cls.__mro__[:-1] for member in vars(base)}  # all but object
    constructor = build_signature(cls if has_constructor else _no_constructor, f"{name}, constructor")
    return Tool.from_signature(
        method_options or get_tool_options(cls) or ToolOptions(),
        name,
        partial(_call_method, cls, method),
        MethodSignature(_merge_parameters(unbound, constructor, name), constructor, unbound),
        source=source,
        description=read_docstring(function).summary or f"Call class method {cls.__name__}.{method}().",
        # A constructor may block. It runs in a thread, and an awaitable that the method returns is awaited on the loop.
        is_async=is_async_function(function) and not has_constructor,
        is_void=is_void(function),
    )


def _call_method(cls: type, method: str, constructor: BoundArguments, call: BoundArguments) -> Any:
    instance = cls(*constructor.args, **constructor.kwargs)
    return getattr(instance, method)(*call.args, **call.kwargs)


def _no_constructor() -> None:
    """The constructor of a class without one."""


def _merge_parameters(method: FunctionSignature, constructor: FunctionSignature, name: str) -> dict[str, Any]:
    if not constructor.parameters["properties"]:
        return method.parameters
    if CONSTRUCTOR_ARGS in method.parameters["properties"]:
        raise ToolError(f'Tool "{name}": "{CONSTRUCTOR_ARGS}" is reserved for the constructor. Rename the parameter.')
    parameters = dict(method.parameters)
    parameters["properties"] = {**parameters["properties"], CONSTRUCTOR_ARGS: constructor.parameters}
    if constructor.parameters.get("required"):
        parameters["required"] = [*parameters.get("required", []), CONSTRUCTOR_ARGS]
    return parameters
