"""JSON Schema and validation of a tool's arguments, from the signature of the function.

    def roll_dice(count: Annotated[int, Field(ge=1, le=20)] = 1) -> dict[str, object]: ...
    -> {"type": "object", "additionalProperties": false,
        "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 20, "default": 1}}}

pydantic does both from one TypedDict made of the parameters. Not from a model: a parameter may then have any
name (`json`, `model_config`, `_x`), and a parameter left out keeps the function's own default.
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
_ParameterKind = inspect._ParameterKind
_JSON_TYPE_NAMES = {bool: "true or false", str: "a string", list: "an array"}
_POSITIONAL_KINDS = (_ParameterKind.POSITIONAL_ONLY, _ParameterKind.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class BoundArguments:
    """Arguments ready for the call; `arguments` is the JSON object they came from."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    arguments: dict[str, Any]


class ToolSignature(Protocol):
    """What the arguments of a tool look like, and the way from JSON to a call."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        """The call for a JSON object. Raises InvalidArguments with sentences by which a model can correct itself."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionSignature:
    """The parameters of one function as the model sees them, and the way from its JSON to a call.

    `positional_names` are the names that a list of values fills, in order; `var_positional` is the name of `*args`, if
    there is one.
    """

    parameters: dict[str, Any]
    adapter: pydantic.TypeAdapter[dict[str, Any]]
    positional_parameters: tuple[inspect.Parameter, ...]
    context_names: tuple[str, ...]
    positional_names: tuple[str, ...] = ()
    var_positional: str | None = None

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        """Checks `text` (a JSON object; empty and `null` count as `{}`) and adds the context.

        Raises InvalidArguments with sentences by which a model can correct itself.
        """
        arguments = parse_arguments(text)
        if text.count(":") > MAX_VALUES:  # a name can come many times, and each would be checked
            text = json.dumps(arguments)
        try:
            # From JSON again, not from the parsed values: strict types then accept an array for a tuple.
            values = dict(self.adapter.validate_json(text if arguments else "{}"))
        except pydantic.ValidationError as error:
            raise InvalidArguments(explain_validation_error(error, arguments, self.parameters)) from None
        values |= dict.fromkeys(self.context_names, context)
        rest = values.pop(self.var_positional, ()) if self.var_positional else ()
        args = tuple(values.pop(one.name, one.default) for one in self.positional_parameters)
        return BoundArguments((*args, *rest), values, arguments)

    def bind_positional(self, values: list[Any], context: ToolContext) -> BoundArguments:
        """Checks values given by their place; those for which there is no place are left out."""
        arguments = dict(zip(self.positional_names, values, strict=False))
        if self.var_positional and len(values) > len(self.positional_names):
            arguments[self.var_positional] = values[len(self.positional_names) :]
        return self.bind(json.dumps(arguments), context)


def parse_arguments(text: str) -> dict[str, Any]:
    """Reads the arguments of a call as a JSON object within the bounds, or raises InvalidArguments."""
    check_length(text)
    if not text.strip():
        return {}  # what several models send for a function without parameters
    try:
        values = pydantic_core.from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError) as error:  # TypeError: a lone surrogate, which is not UTF-8
        raise InvalidArguments(f"The arguments are not valid JSON: {error}.", code="invalid_json") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = _JSON_TYPE_NAMES.get(type(values), "a number")
        raise InvalidArguments(f"The arguments must be one JSON object, not {kind}.")
    check_arguments(values)
    return values


def build_signature(function: Callable[..., Any], name: str) -> FunctionSignature:
    """Works out the schema of `function`, which is known to the reader of errors as `name`.

    Raises ToolError naming the parameter that cannot be described. What the docstring says about a parameter becomes
    its description.
    """
    context_names: list[str] = []
    placed: list[inspect.Parameter] = []
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    parameters = _read_parameters(function, name)
    rest = next((one.name for one in parameters if one.kind is _ParameterKind.VAR_POSITIONAL), None)
    for parameter in parameters:
        annotation = _resolve_annotation(function, parameter, name)
        if parameter.kind in _POSITIONAL_KINDS:
            placed.append(parameter)
        if _is_context(annotation):
            context_names.append(parameter.name)
            continue
        if parameter.kind is _ParameterKind.VAR_POSITIONAL:
            annotation = typing_extensions.NotRequired[types.GenericAlias(list, (annotation,))]
        elif parameter.kind is _ParameterKind.VAR_KEYWORD:
            continue
        fields[parameter.name] = _field_annotation(annotation, parameter)
        if parameter.default is not parameter.empty and not isinstance(parameter.default, FieldInfo):
            defaults[parameter.name] = parameter.default
    is_open = any(one.kind is _ParameterKind.VAR_KEYWORD for one in parameters)
    adapter, schema = _build_adapter(fields, name, is_open=is_open)
    _add_defaults(schema, defaults)
    for described, text in read_docstring(function).parameters.items():
        if described in schema["properties"]:
            schema["properties"][described].setdefault("description", text)
    return FunctionSignature(
        schema,
        adapter,
        tuple(one for one in placed if rest or one.kind is _ParameterKind.POSITIONAL_ONLY),
        tuple(context_names),
        tuple(one.name for one in placed if one.name not in context_names),
        rest,
    )


def _read_parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ToolError(f'Tool "{name}": its parameters cannot be read ({error}).') from error


def _resolve_annotation(function: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
    """The annotation with strings resolved; one parameter at a time, so that the message can name it."""
    if parameter.annotation is parameter.empty:
        return Any
    home = inspect.unwrap(getattr(function, "func", function))
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        # The stubs ask for a class or a function; the function itself takes all that has annotations.
        hints = typing.get_type_hints(
            typing.cast(Any, holder), globalns=getattr(home, "__globals__", {}), include_extras=True
        )
    except Exception as error:
        raise ToolError(
            f'Tool "{name}": the type of parameter "{parameter.name}" cannot be resolved ({error}). '
            "Import it at run time, not only under TYPE_CHECKING."
        ) from error
    return hints[parameter.name]


def _is_context(annotation: Any) -> bool:
    """True for `ToolContext`, also when optional or within Annotated."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_context(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        members = [one for one in typing.get_args(annotation) if one is not types.NoneType]
        return len(members) == 1 and _is_context(members[0])
    return annotation is ToolContext


def _field_annotation(annotation: Any, parameter: inspect.Parameter) -> Any:
    annotation = _upgrade_typed_dicts(annotation)
    if isinstance(parameter.default, FieldInfo):  # written as `city: str = Field(description=…)`
        return Annotated[annotation, parameter.default]
    if parameter.default is not parameter.empty:
        return typing_extensions.NotRequired[annotation]
    return annotation


def _upgrade_typed_dicts(annotation: Any) -> Any:
    """Before Python 3.12 pydantic refuses `typing.TypedDict`; this rebuilds it as the one it accepts."""
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
        return typing.Union[tuple(_upgrade_typed_dicts(one) for one in arguments)]  # noqa: UP007
    if isinstance(origin, type) and any(typing.is_typeddict(one) for one in arguments):
        return types.GenericAlias(origin, tuple(_upgrade_typed_dicts(one) for one in arguments))
    return annotation


def _strip_required(hint: Any) -> Any:
    """A hint without its Required or NotRequired."""
    if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        return typing.get_args(hint)[0]
    return hint


class _SchemaGenerator(GenerateJsonSchema):
    # A default that JSON cannot hold is left out; a warning would only repeat that.
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
            raise ToolError(f'Tool "{name}" cannot be described: {_first_line(error)}.') from error
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


def _add_defaults(schema: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Shows the function's own defaults, as far as JSON can hold them; they are applied by Python."""
    for name, default in defaults.items():
        try:
            value = pydantic_core.to_jsonable_python(default)
        except Exception:  # any object may be a default, and only Python needs to know it
            continue
        if name in schema["properties"]:
            schema["properties"][name]["default"] = value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
