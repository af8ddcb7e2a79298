"""A method of a class as a tool: every call makes an instance of its own, with `constructorArgs`, and calls it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from relay.errors import ToolError
from relay.toolkit.context import ToolContext
from relay.toolkit.loading.names import normal_name
from relay.toolkit.registry import Tool, ToolOptions, is_async_function, is_void, options_of
from relay.toolkit.schema.docstrings import read_docstring
from relay.toolkit.schema.signature import Bound, Signature, describe, parse_arguments
from relay.toolkit.schema.validation_errors import InvalidArguments

CONSTRUCTOR = "constructorArgs"


@dataclass(frozen=True, slots=True, eq=False)
class ClassSignature:
    """The parameters of a method, and beside them those of the constructor as one object `constructorArgs`."""

    parameters: dict[str, Any]
    constructor: Signature
    method: Signature

    def bind(self, text: str, context: ToolContext) -> Bound:
        arguments = parse_arguments(text)
        given = dict(arguments)
        constructor = given.pop(CONSTRUCTOR, None)
        return self.join(
            self.bind_constructor(constructor, context), self.method.bind(json.dumps(given), context), arguments
        )

    def bind_constructor(self, given: Any, context: ToolContext) -> Bound:
        """The constructor's call for a list of values, an object, or nothing. Raises InvalidArguments."""
        try:
            if isinstance(given, list):
                return self.constructor.bind_values(given, context)
            return self.constructor.bind(json.dumps(given if isinstance(given, dict) else {}), context)
        except InvalidArguments as error:
            raise InvalidArguments(f"{CONSTRUCTOR}: {error}") from None

    def join(self, constructor: Bound, method: Bound, arguments: dict[str, Any]) -> Bound:
        """Both calls as the one that `class_tool`'s function takes."""
        return Bound((constructor, method), {}, arguments)


def class_tool(cls: type, method: str, function: Callable[..., Any], source: str) -> Tool:
    """The tool of one public method. Raises ToolError where it cannot be described."""
    own = options_of(function)
    name = (own and own.name) or normal_name(f"{cls.__name__}_{method}")
    unbound = describe(partial(function, None), name)
    makes = "__init__" in {name for one in cls.__mro__[:-1] for name in vars(one)}  # all but object
    constructor = describe(cls if makes else _nothing, f"{name}, constructor")
    return Tool.described(
        own or options_of(cls) or ToolOptions(),
        name,
        partial(_call, cls, method),
        ClassSignature(_parameters(unbound, constructor, name), constructor, unbound),
        source=source,
        description=read_docstring(function).summary or f"Call class method {cls.__name__}.{method}().",
        # A constructor may block: then it is called in a thread, and what the method returns is awaited on the loop.
        is_async=is_async_function(function) and not makes,
        is_void=is_void(function),
    )


def _call(cls: type, method: str, constructor: Bound, call: Bound) -> Any:
    instance = cls(*constructor.args, **constructor.kwargs)
    return getattr(instance, method)(*call.args, **call.kwargs)


def _nothing() -> None:
    """Stands for the constructor of a class that has none."""


def _parameters(method: Signature, constructor: Signature, name: str) -> dict[str, Any]:
    if not constructor.parameters["properties"]:
        return method.parameters
    if CONSTRUCTOR in method.parameters["properties"]:
        raise ToolError(f'Tool "{name}": "{CONSTRUCTOR}" is kept for the constructor; name the parameter otherwise.')
    parameters = dict(method.parameters)
    parameters["properties"] = {**parameters["properties"], CONSTRUCTOR: constructor.parameters}
    if constructor.parameters.get("required"):
        parameters["required"] = [*parameters.get("required", []), CONSTRUCTOR]
    return parameters
