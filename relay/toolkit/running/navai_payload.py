"""NAVAI's rules for the arguments of a call over HTTP: from `payload` to the call of a Python function.

An object that fits the tool's `parameters` is taken by name: that is what the list tells its readers to send. Anything
else goes by place: `args` or `arguments`, else `value`, else the whole payload as the first argument. Values for which
there is no place are left out. `constructorArgs` and `methodArgs` belong to the methods of classes.
"""

import json
from typing import Any

from relay.toolkit.context import ToolContext
from relay.toolkit.loading.class_tools import CONSTRUCTOR_ARGS, MethodSignature
from relay.toolkit.schema.signature import BoundArguments, FunctionSignature, ToolSignature
from relay.toolkit.schema.validation_errors import InvalidArguments, check_arguments


def bind_payload(signature: ToolSignature, payload: object, context: ToolContext) -> BoundArguments:
    """The call that a payload means; what is no object or array counts as `{}`. Raises InvalidArguments."""
    given: dict[str, Any] | list[Any] = payload if isinstance(payload, dict | list) else {}
    check_arguments(given)
    if isinstance(signature, MethodSignature):
        return _bind_class(signature, given, context)
    if isinstance(signature, FunctionSignature):
        return _bind(signature, given, given, context)
    return signature.bind(json.dumps(given if isinstance(given, dict) else {}), context)


def _bind_class(signature: MethodSignature, given: dict[str, Any] | list[Any], context: ToolContext) -> BoundArguments:
    named = given if isinstance(given, dict) else {}
    constructor = signature.bind_constructor(named.get(CONSTRUCTOR_ARGS), context)
    values = named.get("methodArgs")
    if isinstance(values, list):
        method = signature.method.bind_positional(values, context)
    else:
        rest = {key: value for key, value in named.items() if key != CONSTRUCTOR_ARGS}
        method = _bind(signature.method, given, rest, context)
    return signature.combine(constructor, method, named)


def _bind(
    signature: FunctionSignature,
    given: dict[str, Any] | list[Any],
    by_name: dict[str, Any] | list[Any],
    context: ToolContext,
) -> BoundArguments:
    """`given` is the whole payload, `by_name` what of it may be meant by name."""
    complaint: InvalidArguments | None = None
    if isinstance(by_name, dict) and by_name:
        try:
            return signature.bind(json.dumps(by_name), context)
        except InvalidArguments as error:
            complaint = error
    values, is_whole = _values(given)
    try:
        return signature.bind_positional(values, context)
    except InvalidArguments:
        if is_whole and complaint is not None:
            raise complaint from None
        raise


def _values(given: dict[str, Any] | list[Any]) -> tuple[list[Any], bool]:
    """The values by their place, and whether they are the whole payload itself."""
    if isinstance(given, dict):
        listed = given.get("args") if given.get("args") is not None else given.get("arguments")
        if isinstance(listed, list):
            return listed, False
        if "value" in given:
            return [given["value"]], False
    return ([given], True) if given else ([], False)
