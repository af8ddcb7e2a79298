"""NAVAI's rules for the arguments of a call over HTTP: from `payload` to the call of a Python function.

An object that matches the tool's `parameters` is passed by name, as the list of functions describes. Anything else is
passed by position: `args` or `arguments`, else `value`, else the whole payload as the first argument. Surplus values
are ignored. `constructorArgs` and `methodArgs` are for the methods of classes.
"""

import json
from dataclasses import dataclass
from typing import Any

from relay.toolkit.context import ToolContext
from relay.toolkit.loading.class_tools import CONSTRUCTOR_ARGS, MethodSignature
from relay.toolkit.schema.signature import BoundArguments, FunctionSignature, ToolSignature
from relay.toolkit.schema.validation_errors import InvalidArguments, check_arguments

Arguments = dict[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class NavaiPayload:
    """The arguments of a call over HTTP, as a NAVAI frontend sends them."""

    value: object


def bind_payload(signature: ToolSignature, payload: object, context: ToolContext) -> BoundArguments:
    """Bind a payload; anything but an object or an array counts as `{}`. Raises InvalidArguments."""
    arguments: Arguments = payload if isinstance(payload, dict | list) else {}
    check_arguments(arguments)
    if isinstance(signature, MethodSignature):
        return _bind_method(signature, arguments, context)
    if isinstance(signature, FunctionSignature):
        return _bind(signature, arguments, arguments, context)
    return signature.bind(json.dumps(arguments if isinstance(arguments, dict) else {}), context)


def _bind_method(signature: MethodSignature, arguments: Arguments, context: ToolContext) -> BoundArguments:
    named = arguments if isinstance(arguments, dict) else {}
    constructor = signature.bind_constructor(named.get(CONSTRUCTOR_ARGS), context)
    values = named.get("methodArgs")
    if isinstance(values, list):
        method = signature.method.bind_positional(values, context)
    else:
        rest = {key: value for key, value in named.items() if key != CONSTRUCTOR_ARGS}
        method = _bind(signature.method, arguments, rest, context)
    return signature.combine(constructor, method, named)


def _bind(
    signature: FunctionSignature, arguments: Arguments, by_name: Arguments, context: ToolContext
) -> BoundArguments:
    """Bind `by_name` by name, else the whole payload `arguments` by position."""
    first_error: InvalidArguments | None = None
    if isinstance(by_name, dict) and by_name:
        try:
            return signature.bind(json.dumps(by_name), context)
        except InvalidArguments as error:
            first_error = error
    values, is_whole = _positional_values(arguments)
    try:
        return signature.bind_positional(values, context)
    except InvalidArguments:
        if is_whole and first_error is not None:
            raise first_error from None
        raise


def _positional_values(arguments: Arguments) -> tuple[list[Any], bool]:
    """Return the values by position, and whether they are the whole payload."""
    if isinstance(arguments, dict):
        listed = arguments.get("args") if arguments.get("args") is not None else arguments.get("arguments")
        if isinstance(listed, list):
            return listed, False
        if "value" in arguments:
            return [arguments["value"]], False
    return ([arguments], True) if arguments else ([], False)
