"""A signature in, a JSON Schema out; then JSON in, a call or sentences out."""

import dataclasses
import enum
import functools
import json
import typing
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Strict

from relay.errors import ToolError
from relay.toolkit.context import ToolContext
from relay.toolkit.registry import Tool
from relay.toolkit.schema.signature import BoundArguments, build_signature
from relay.toolkit.schema.validation_errors import InvalidArguments

CONTEXT = ToolContext(session_id="s1", call_id="c1")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    title: str = "here"


class Address(typing.TypedDict):
    street: str
    floor: typing.NotRequired[int]


class Modern(typing_extensions.TypedDict):
    size: int


class Order(BaseModel):
    item: str = Field(description="What to bring.")
    amount: int = Field(default=1, ge=1)


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


def property_of(annotation: Any, default: Any = dataclasses.MISSING) -> Any:
    """The schema of a single parameter `x` of that type."""

    def function(x: Any) -> None: ...

    function.__annotations__["x"] = annotation
    if default is not dataclasses.MISSING:
        function.__defaults__ = (default,)
    return build_signature(function, "f").parameters["properties"]["x"]


def bind(function: Callable[..., Any], text: str) -> Any:
    """What the function returns for these arguments."""
    bound = build_signature(function, "f").bind(text, CONTEXT)
    return function(*bound.args, **bound.kwargs)


def complaint(function: Callable[..., Any], text: str) -> str:
    with pytest.raises(InvalidArguments) as caught:
        build_signature(function, "f").bind(text, CONTEXT)
    return str(caught.value)


def test_a_whole_signature() -> None:
    def book(
        city: Annotated[str, Field(description="Where to.", examples=["Rome", "Oslo"])],
        nights: Annotated[int, Field(ge=1, le=30)] = 1,
        *,
        room: Literal["single", "double"] = "single",
        context: ToolContext,
    ) -> None: ...

    assert build_signature(book, "book").parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where to.", "examples": ["Rome", "Oslo"]},
            "nights": {"type": "integer", "minimum": 1, "maximum": 30, "default": 1},
            "room": {"type": "string", "enum": ["single", "double"], "default": "single"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters() -> None:
    def ping() -> str:
        return "pong"

    assert build_signature(ping, "ping").parameters == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    for text in ("", "  ", "{}", "null"):
        assert bind(ping, text) == "pong"


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (date, {"type": "string", "format": "date"}),
        (Color, {"type": "string", "enum": ["red", "blue"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            Address,
            {
                "type": "object",
                "properties": {"street": {"type": "string"}, "floor": {"type": "integer"}},
                "required": ["street"],
                "additionalProperties": False,
            },
        ),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "title": {"type": "string", "default": "here"}},
                "required": ["x"],
                "additionalProperties": False,
            },
        ),
        (
            list[Order],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "item": {"type": "string", "description": "What to bring."},
                        "amount": {"type": "integer", "minimum": 1, "default": 1},
                    },
                    "required": ["item"],
                },
            },
        ),
    ],
    ids=str,
)
def test_types(annotation: Any, schema: dict[str, Any]) -> None:
    assert property_of(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "default", "shown"),
    [
        (int, 3, 3),
        (Color, Color.RED, "red"),
        (str | None, None, None),
        (list[int], [], []),
        (Point, Point(1), {"x": 1, "title": "here"}),
    ],
    ids=str,
)
def test_defaults_are_shown_as_json(annotation: Any, default: Any, shown: Any) -> None:
    assert property_of(annotation, default)["default"] == shown


def test_a_default_that_json_cannot_hold_is_not_shown_but_used() -> None:
    missing = object()

    def f(x: Any = missing) -> bool:
        return x is missing

    assert build_signature(f, "f").parameters["properties"] == {"x": {}}
    assert bind(f, "{}") is True


def test_field_as_the_default_of_a_parameter() -> None:
    def f(city: str = Field(description="Where to."), nights: int = Field(2, ge=1)) -> tuple[str, int]:
        return city, nights

    parameters = build_signature(f, "f").parameters
    assert parameters["required"] == ["city"]
    assert parameters["properties"]["nights"] == {"type": "integer", "minimum": 1, "default": 2}
    assert bind(f, '{"city": "Oslo"}') == ("Oslo", 2)


def test_names_that_a_model_class_would_not_take() -> None:
    def f(json: int, model_config: int, _x: int, self: int, schema: int = 5) -> int:
        return json + model_config + _x + self + schema

    assert bind(f, '{"json": 1, "model_config": 2, "_x": 3, "self": 4}') == 15


def test_a_type_that_contains_itself_keeps_its_definition() -> None:
    def f(tree: Tree) -> str:
        return tree.children[0].name

    parameters = build_signature(f, "f").parameters
    assert parameters["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    assert parameters["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert bind(f, '{"tree": {"name": "a", "children": [{"name": "b"}]}}') == "b"


def test_values_arrive_as_what_they_are_annotated() -> None:
    def f(color: Color, point: Point, when: date, order: Order, pair: Annotated[tuple[int, int], Strict()]) -> Any:
        return color, point, when, order, pair

    text = '{"color": "blue", "point": {"x": 2}, "when": "2026-11-21", "order": {"item": "tea"}, "pair": [1, 2]}'
    assert bind(f, text) == (Color.BLUE, Point(2), date(2026, 11, 21), Order(item="tea"), (1, 2))


def test_a_typed_dict_of_either_kind_within_other_types() -> None:
    def f(many: list[Address], modern: Modern | None = None) -> Any:
        return many, modern

    assert bind(f, '{"many": [{"street": "a", "floor": 2}], "modern": {"size": 1}}') == (
        [{"street": "a", "floor": 2}],
        {"size": 1},
    )
    assert complaint(f, '{"many": [{"floor": 2}]}') == '"many[0].street" is missing.'


def test_a_number_in_a_string_is_a_number() -> None:
    def f(count: int, share: float) -> Any:
        return count, share

    assert bind(f, '{"count": "3", "share": "0.5"}') == (3, 0.5)


def test_positional_only_parameters() -> None:
    def f(a: int, b: int = 2, context: ToolContext = CONTEXT, /, *, c: int = 3) -> Any:
        return a, b, c, context.call_id

    assert bind(f, '{"a": 1}') == (1, 2, 3, "c1")
    assert bind(f, '{"a": 1, "c": 5, "b": 4}') == (1, 4, 5, "c1")


def test_the_context_is_never_in_the_schema_and_cannot_be_forged() -> None:
    def f(
        a: ToolContext,
        b: "ToolContext",
        c: ToolContext | None,
        d: Annotated[ToolContext, "mine"],
        e: typing.Optional[ToolContext] = None,  # noqa: UP045 - the older way to write it counts as well
    ) -> Any:
        return [one.session_id for one in (a, b, c, d, e) if one]

    assert build_signature(f, "f").parameters["properties"] == {}
    assert bind(f, "{}") == ["s1"] * 5
    assert complaint(f, '{"a": {"session_id": "s2"}}') == '"a" is not a parameter (the parameters are: none).'


def test_a_decorated_function_is_described_as_what_it_wraps() -> None:
    def plain(city: "Literal['Rome', 'Oslo']") -> str:
        return city

    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs).upper()

    assert bind(wrapped, '{"city": "Rome"}') == "ROME"
    assert bind(functools.partial(plain), '{"city": "Oslo"}') == "Oslo"


def refused(function: Callable[..., Any]) -> str:
    with pytest.raises(ToolError) as caught:
        build_signature(function, "f")
    return str(caught.value)


def test_what_cannot_be_described_is_refused_by_name() -> None:
    def thing(good: int, bad: object) -> None: ...

    def callback(done: Callable[[], None]) -> None: ...

    def forged(contexts: list[ToolContext]) -> None: ...

    def unknown(x: "NoSuchType") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function, name in ((callback, "done"), (forged, "contexts"), (unknown, "x")):
        message = refused(function)
        assert message.startswith(f'Tool "f": the type of parameter "{name}" ')
        assert "\n" not in message
        assert "http" not in message
    assert "name 'NoSuchType' is not defined" in refused(unknown)
    assert refused(type).startswith('Tool "f": its parameters cannot be read')
    thing.__annotations__["bad"] = object()
    assert refused(thing).startswith('Tool "f": the type of parameter "bad" has no JSON Schema')


def test_any_number_of_values_is_a_list_and_further_names_are_allowed() -> None:
    def star(first: str, *numbers: int, context: ToolContext) -> Any:
        return first, numbers

    def stars(**options: int) -> Any:
        return options

    parameters = build_signature(star, "star").parameters
    assert parameters["properties"]["numbers"] == {"type": "array", "items": {"type": "integer"}}
    assert parameters["required"] == ["first"]
    assert bind(star, '{"first": "a", "numbers": [1, 2]}') == ("a", (1, 2))
    assert bind(star, '{"first": "a"}') == ("a", ())
    assert build_signature(stars, "stars").parameters["additionalProperties"] is True
    assert bind(stars, '{"x": 1, "y": 2}') == {"x": 1, "y": 2}


GOOGLE = """Find a table.

    Args:
        city (str): Where to
            look.
        seats: How many people.
        *more: Wishes.
    """
NUMPY = """Find a table.

    Parameters
    ----------
    city : str, optional
        Where to look.
    seats : int
        How many people.
    """
REST = """Find a table.

    :param city: Where to look.
    :param int seats: How many people.
    :returns: a table
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, REST])
def test_parameters_are_described_by_the_docstring(text: str) -> None:
    def find(city: str, seats: Annotated[int, Field(description="Two to eight.")], more: str = "") -> None: ...

    find.__doc__ = text
    properties = build_signature(find, "find").parameters["properties"]
    assert properties["city"]["description"] == "Where to look."
    assert properties["seats"]["description"] == "Two to eight."  # what the annotation says wins
    assert Tool.from_function(find).description == "Find a table."


def test_the_description_is_the_first_paragraph_on_one_line() -> None:
    def documented() -> None:
        """Tell the time
        in a city.

        Not for the model.
        """

    def bare_name() -> None: ...

    assert Tool.from_function(documented).description == "Tell the time in a city."
    assert Tool.from_function(bare_name).description == "Bare name."


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["x", "title"]), inner),
    max_leaves=12,
)


def loose_and_typed(point: Point | list[Address], loose: Any) -> Any:
    return point, loose


DESCRIBED = build_signature(loose_and_typed, "f")


def bind_or_complain(text: str) -> BoundArguments | str:
    try:
        return DESCRIBED.bind(text, CONTEXT)
    except InvalidArguments as error:
        return str(error)


@settings(deadline=None)
@given(point=JSON_VALUES, loose=JSON_VALUES)
def test_any_json_either_binds_or_is_answered_by_a_sentence(point: Any, loose: Any) -> None:
    text = json.dumps({"point": point, "loose": loose})
    answer = bind_or_complain(text)
    if isinstance(answer, str):
        assert answer.endswith(".")
        assert "pydantic" not in answer
    else:
        assert answer.arguments == json.loads(text)
