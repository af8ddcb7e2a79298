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
from relay.toolkit.schema.inlining import tidy_schema
from relay.toolkit.schema.validation_errors import (
    MAX_VALUES,
    InvalidArguments,
    check_arguments,
    check_length,
    describe_problems,
)

_HELP = "Use a type such as str, int, float, bool, list, Literal, Enum, a dataclass or a pydantic model."
_Kind = inspect._ParameterKind
_KINDS = {bool: "true or false", str: "a string", list: "an array"}
_PLACED = (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Bound:
    """Arguments ready for the call; `arguments` is the JSON object they came from."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    arguments: dict[str, Any]


class Binder(Protocol):
    """What the arguments of a tool look like, and the way from JSON to a call."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""

    def bind(self, text: str, context: ToolContext) -> Bound:
        """The call for a JSON object. Raises InvalidArguments with sentences by which a model can correct itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The parameters of one function as the model sees them, and the way from its JSON to a call.

    `placed` are the names that a list of values fills, in order; `rest` is the name of `*args`, if there is one.
    """

    parameters: dict[str, Any]
    adapter: pydantic.TypeAdapter[dict[str, Any]]
    positional: tuple[inspect.Parameter, ...]
    context_names: tuple[str, ...]
    placed: tuple[str, ...] = ()
    rest: str | None = None

    def bind(self, text: str, context: ToolContext) -> Bound:
        """Checks `text` (a JSON object; empty and `null_only` count as `{}`) and adds the context.

        Raises InvalidArguments with sentences by which a model can correct itself.
        """
        arguments = parse_arguments(text)
        if text.count(":") > MAX_VALUES:  # a name can come many times, and each would be checked
            text = json.dumps(arguments)
        try:
            # From JSON again, not from the parsed values: strict types then accept an array for a tuple.
            values = dict(self.adapter.validate_json(text if arguments else "{}"))
        except pydantic.ValidationError as error:
            raise InvalidArguments(describe_problems(error, arguments, self.parameters)) from None
        values |= dict.fromkeys(self.context_names, context)
        rest = values.pop(self.rest, ()) if self.rest else ()
        args = tuple(values.pop(one.name, one.default) for one in self.positional)
        return Bound((*args, *rest), values, arguments)

    def bind_values(self, values: list[Any], context: ToolContext) -> Bound:
        """Checks values given by their place; those for which there is no place are left out."""
        arguments = dict(zip(self.placed, values, strict=False))
        if self.rest and len(values) > len(self.placed):
            arguments[self.rest] = values[len(self.placed) :]
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
        kind = _KINDS.get(type(values), "a number")
        raise InvalidArguments(f"The arguments must be one JSON object, not {kind}.")
    check_arguments(values)
    return values


def describe(function: Callable[..., Any], name: str) -> Signature:
    """Works out the schema of `function`, which is known to the reader of errors as `name`.

    Raises ToolError naming the parameter that cannot be described. What the docstring says about a parameter becomes
    its description.
    """
    context_names: list[str] = []
    placed: list[inspect.Parameter] = []
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    parameters = _parameters_of(function, name)
    rest = next((one.name for one in parameters if one.kind is _Kind.VAR_POSITIONAL), None)
    for parameter in parameters:
        annotation = _annotation_of(function, parameter, name)
        if parameter.kind in _PLACED:
            placed.append(parameter)
        if _is_context(annotation):
            context_names.append(parameter.name)
            continue
        if parameter.kind is _Kind.VAR_POSITIONAL:
            annotation = typing_extensions.NotRequired[types.GenericAlias(list, (annotation,))]
        elif parameter.kind is _Kind.VAR_KEYWORD:
            continue
        fields[parameter.name] = _field_of(annotation, parameter)
        if parameter.default is not parameter.empty and not isinstance(parameter.default, FieldInfo):
            defaults[parameter.name] = parameter.default
    is_open = any(one.kind is _Kind.VAR_KEYWORD for one in parameters)
    adapter, schema = _adapter_of(fields, name, is_open=is_open)
    _add_defaults(schema, defaults)
    for described, text in read_docstring(function).parameters.items():
        if described in schema["properties"]:
            schema["properties"][described].setdefault("description", text)
    return Signature(
        schema,
        adapter,
        tuple(one for one in placed if rest or one.kind is _Kind.POSITIONAL_ONLY),
        tuple(context_names),
        tuple(one.name for one in placed if one.name not in context_names),
        rest,
    )


def _parameters_of(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ToolError(f'Tool "{name}": its parameters cannot be read ({error}).') from error


def _annotation_of(function: Callable[..., Any], parameter: inspect.Parameter, name: str) -> Any:
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


def _field_of(annotation: Any, parameter: inspect.Parameter) -> Any:
    annotation = _modern_typed_dicts(annotation)
    if isinstance(parameter.default, FieldInfo):  # written as `city: str = Field(description=…)`
        return Annotated[annotation, parameter.default]
    if parameter.default is not parameter.empty:
        return typing_extensions.NotRequired[annotation]
    return annotation


def _modern_typed_dicts(annotation: Any) -> Any:
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
            for key, hint in ((key, _modern_typed_dicts(_bare(hint))) for key, hint in hints.items())
        }
        return make(annotation.__name__, fields)
    if origin is Annotated:
        return Annotated[(_modern_typed_dicts(arguments[0]), *annotation.__metadata__)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_modern_typed_dicts(one) for one in arguments)]  # noqa: UP007
    if isinstance(origin, type) and any(typing.is_typeddict(one) for one in arguments):
        return types.GenericAlias(origin, tuple(_modern_typed_dicts(one) for one in arguments))
    return annotation


def _bare(hint: Any) -> Any:
    """A hint without its Required or NotRequired."""
    if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
        return typing.get_args(hint)[0]
    return hint


class _Schema(GenerateJsonSchema):
    # A default that JSON cannot hold is left out; a warning would only repeat that.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _adapter_of(
    fields: dict[str, Any], name: str, *, is_open: bool
) -> tuple[pydantic.TypeAdapter[dict[str, Any]], dict[str, Any]]:
    try:
        adapter = _build(fields, is_open=is_open)
        return adapter, tidy_schema(adapter.json_schema(schema_generator=_Schema))
    except Exception as error:
        culprit = next((key for key in fields if not _describable(fields[key])), None)
        if culprit is None:
            raise ToolError(f'Tool "{name}" cannot be described: {_first_line(error)}.') from error
        raise ToolError(
            f'Tool "{name}": the type of parameter "{culprit}" has no JSON Schema ({_first_line(error)}). {_HELP}'
        ) from error


def _build(fields: dict[str, Any], *, is_open: bool = False) -> pydantic.TypeAdapter[dict[str, Any]]:
    make: Any = typing_extensions.TypedDict
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="allow" if is_open else "forbid")
    return pydantic.TypeAdapter(arguments)


def _describable(field: Any) -> bool:
    try:
        _build({"it": field}).json_schema(schema_generator=_Schema)
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
