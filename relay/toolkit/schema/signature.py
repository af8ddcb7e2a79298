"""Builds the JSON Schema and the validation of a tool's arguments from the signature of its function.

    def roll_dice(count: Annotated[int, Field(ge=1, le=20)] = 1) -> dict[str, object]: ...
    -> {"type": "object", "additionalProperties": false,
        "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 20, "default": 1}}}

pydantic derives both from a TypedDict of the parameters. With a TypedDict instead of a model, a parameter may have any
name (`json`, `model_config`, `_x`), and an omitted argument keeps the function's own default.
"""

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import pydantic
import pydantic_core
import typing_extensions
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from relay.errors import ToolError
from relay.toolkit.context import ToolContext
from relay.toolkit.schema.docstrings import read_docstring
from relay.toolkit.schema.inlining import inline_refs
from relay.toolkit.schema.validation_errors import (
    MAX_VALUES,
    InvalidArguments,
    check_arguments,
    check_length,
    explain_validation_error,
)

_SUPPORTED_TYPES_HINT = (
    "Use a type such as str, int, float, bool, list, Literal, Enum, a dataclass or a pydantic model."
)
_JSON_TYPE_NAMES = {bool: "true or false", str: "a string", list: "an array"}


@dataclass(frozen=True, slots=True)
class BoundArguments:
    """Validated arguments of a call; `arguments` is the JSON object that they came from."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    arguments: dict[str, Any]


class ToolSignature(Protocol):
    """The parameters of a tool, and the conversion from JSON to arguments."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        """Bind a JSON object. Raises InvalidArguments with sentences that help a model to correct its call."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionSignature:
    """The parameters of a function as the model sees them, and the conversion from its JSON to arguments.

    `positional_names` are the parameters that a list of values fills, in order. `var_positional` is the name of
    `*args`, None without it.
    """

    parameters: dict[str, Any]
    adapter: pydantic.TypeAdapter[dict[str, Any]]
    positional_parameters: tuple[inspect.Parameter, ...]
    context_names: tuple[str, ...]
    positional_names: tuple[str, ...] = ()
    var_positional: str | None = None

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        """Validate `text` (a JSON object; empty and `null` count as `{}`) and add the context.

        Raises InvalidArguments with sentences that help a model to correct its call.
        """
        arguments = parse_arguments(text)
        if text.count(":") > MAX_VALUES:  # every duplicate of a name would be validated
            text = json.dumps(arguments)
        try:
            # Validate JSON instead of the parsed values, so that strict types accept an array for a tuple.
            values = dict(self.adapter.validate_json(text if arguments else "{}"))
        except pydantic.ValidationError as error:
            raise InvalidArguments(explain_validation_error(error, arguments, self.parameters)) from None
        values |= dict.fromkeys(self.context_names, context)
        rest = values.pop(self.var_positional, ()) if self.var_positional else ()
        args = tuple(values.pop(parameter.name, parameter.default) for parameter in self.positional_parameters)
        return BoundArguments((*args, *rest), values, arguments)

    def bind_positional(self, values: list[Any], context: ToolContext) -> BoundArguments:
        """Validate values by position; surplus values are ignored."""
        arguments = dict(zip(self.positional_names, values, strict=False))
        if self.var_positional and len(values) > len(self.positional_names):
            arguments[self.var_positional] = values[len(self.positional_names) :]
        return self.bind(json.dumps(arguments), context)


def parse_arguments(text: str) -> dict[str, Any]:
    """Parse the arguments of a call. Raises InvalidArguments if they are not a JSON object within the limits."""
    check_length(text)
    if not text.strip():
        return {}  # several models send this for a function without parameters
    try:
        values = pydantic_core.from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError) as error:  # TypeError: a lone surrogate, which is not UTF-8
        raise InvalidArguments(f"The arguments are not valid JSON: {error}.", code="invalid_json") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = _JSON_TYPE_NAMES.get(type(values), "a number")
        raise InvalidArguments(f"The arguments must be a JSON object, not {kind}.")
    check_arguments(values)
    return values


def build_signature(function: Callable[..., Any], name: str) -> FunctionSignature:
    """Build the signature of `function`; error messages call it `name`.

    The docstring's descriptions of parameters become those of the schema. Raises ToolError for a parameter without a
    JSON Schema.
    """
    parameters = _read_parameters(function, name)
    annotations = {p.name: _resolve_annotation(function, p, name) for p in parameters}
    context_names = tuple(p.name for p in parameters if _is_context(annotations[p.name]))
    var_positional = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
    visible = [p for p in parameters if p.name not in context_names and p.kind is not p.VAR_KEYWORD]
    fields = {p.name: _field_annotation(annotations[p.name], p) for p in visible}
    adapter, schema = _build_adapter(fields, name, is_open=is_open)
    _add_defaults(schema, visible)
    for parameter_name, description in read_docstring(function).parameters.items():
        if parameter_name in schema["properties"]:
            schema["properties"][parameter_name].setdefault("description", description)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return FunctionSignature(
        schema,
        adapter,
        tuple(p for p in positional if var_positional or p.kind is p.POSITIONAL_ONLY),
        context_names,
        tuple(p.name for p in positional if p.name not in context_names),
        var_positional,
    )


def _read_parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ToolError(f'Tool "{name}": the signature of its function is not available ({error}).') from error


def _resolve_annotation(function: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
    """Resolve the annotation of one parameter, so that the error message can name it."""
    if parameter.annotation is parameter.empty:
        return Any
    unwrapped = inspect.unwrap(getattr(function, "func", function))
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        # The stubs require a class or a function, get_type_hints only annotations.
        hints = typing.get_type_hints(
            typing.cast(Any, holder), globalns=getattr(unwrapped, "__globals__", {}), include_extras=True
        )
    except Exception as error:
        raise ToolError(
            f'Tool "{name}": the type of parameter "{parameter.name}" cannot be resolved ({error}). '
            "Import its name at run time, not only under TYPE_CHECKING."
        ) from error
    return hints[parameter.name]


def _is_context(annotation: Any) -> bool:
    """Return whether an annotation is `ToolContext`, also if it is optional or within Annotated."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_context(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
        return len(members) == 1 and _is_context(members[0])
    return annotation is ToolContext


def _field_annotation(annotation: Any, parameter: inspect.Parameter) -> Any:
    annotation = _upgrade_typed_dicts(annotation)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return typing_extensions.NotRequired[types.GenericAlias(list, (annotation,))]
    if isinstance(parameter.default, FieldInfo):  # written as `city: str = Field(description=…)`
        return Annotated[annotation, parameter.default]
    if parameter.default is not parameter.empty:
        return typing_extensions.NotRequired[annotation]
    return annotation


def _upgrade_typed_dicts(annotation: Any) -> Any:
    """Convert `typing.TypedDict` to that of typing_extensions, which pydantic requires before Python 3.12."""
    if sys.version_info >= (3, 12):
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        optional = annotation.__optional_keys__
        make: Any = typing_extensions.TypedDict
        fields = {
            key: typing_extensions.NotRequired[hint] if key in optional else hint
            for key, hint in ((key, _upgrade_typed_dicts(_strip_required(hint))) for key, hint in hints.items())
        }
        return make(annotation.__name__, fields)
    if origin is Annotated:
        return Annotated[(_upgrade_typed_dicts(arguments[0]), *annotation.__metadata__)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_upgrade_typed_dicts(argument) for argument in arguments)]  # noqa: UP007
    if isinstance(origin, type) and any(typing.is_typeddict(argument) for argument in arguments):
        return types.GenericAlias(origin, tuple(_upgrade_typed_dicts(argument) for argument in arguments))
    return annotation


def _strip_required(hint: Any) -> Any:
    """Return a hint without Required or NotRequired."""
    if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        return typing.get_args(hint)[0]
    return hint


class _SchemaGenerator(GenerateJsonSchema):
    # A default that JSON cannot represent is omitted, without a warning.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _build_adapter(
    fields: dict[str, Any], name: str, *, is_open: bool
) -> tuple[pydantic.TypeAdapter[dict[str, Any]], dict[str, Any]]:
    try:
        adapter = _build_type_adapter(fields, is_open=is_open)
        return adapter, inline_refs(adapter.json_schema(schema_generator=_SchemaGenerator))
    except Exception as error:
        culprit = next((key for key in fields if not _has_schema(fields[key])), None)
        if culprit is None:
            raise ToolError(f'Tool "{name}" has no JSON Schema: {_first_line(error)}.') from error
        raise ToolError(
            f'Tool "{name}": the type of parameter "{culprit}" has no JSON Schema ({_first_line(error)}). '
            f"{_SUPPORTED_TYPES_HINT}"
        ) from error


def _build_type_adapter(fields: dict[str, Any], *, is_open: bool = False) -> pydantic.TypeAdapter[dict[str, Any]]:
    make: Any = typing_extensions.TypedDict
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="allow" if is_open else "forbid")
    return pydantic.TypeAdapter(arguments)


def _has_schema(field: Any) -> bool:
    try:
        _build_type_adapter({"it": field}).json_schema(schema_generator=_SchemaGenerator)
    except Exception:
        return False
    return True


def _add_defaults(schema: dict[str, Any], parameters: list[inspect.Parameter]) -> None:
    """Add the parameters' defaults that JSON can represent; Python applies them."""
    for parameter in parameters:
        if parameter.default is parameter.empty or isinstance(parameter.default, FieldInfo):
            continue
        try:
            value = pydantic_core.to_jsonable_python(parameter.default)
        except Exception:  # a default may be any object
            continue
        if parameter.name in schema["properties"]:
            schema["properties"][parameter.name]["default"] = value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
