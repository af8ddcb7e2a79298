"""Under a limiting policy, every shape of the official package is accepted, and no other."""

import collections.abc
import types
from collections.abc import Iterator
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin

import pytest
import typing_extensions
from openai.types import realtime
from openai.types.responses import response_input_file_param, response_input_image_param

from relay.session.common.policy import CAPABILITIES, DEFAULT_ALLOW, RealtimePolicy
from relay.session.realtime.policy_table import PolicyViolation, apply_policy

Obj = dict[str, Any]
CLOSED = RealtimePolicy(allow=frozenset(CAPABILITIES) - {"image_urls"})
OPEN = RealtimePolicy(allow=frozenset(CAPABILITIES))
DATA = "data:image/png;base64,AAAA"
URL = "https://example.com/cat.png"
FILES = (response_input_file_param.ResponseInputFileParam, response_input_image_param.ResponseInputImageParam)
"""Other variables of a stored prompt; those that the upstream fetches are denied."""


def samples(kind: Any) -> Iterator[Any]:
    """Values of a type of the package's, each alternative and each member at least once."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired, typing_extensions.Required, typing_extensions.NotRequired):
        yield from samples(args[0])
    elif origin in (Union, types.UnionType):
        for arg in args:
            yield from samples(arg)
    elif origin is Literal:
        yield args[0]
    elif typing_extensions.is_typeddict(kind):
        yield from whole(kind)
    elif origin in (list, collections.abc.Iterable, collections.abc.Sequence) or "SequenceNotStr" in str(kind):
        yield [value for arg in args for value in samples(arg)]
    elif origin is dict:
        yield {f"key{number}": value for number, value in enumerate(samples(args[1]))}
    else:
        yield {str: "text", int: 7, float: 0.5, bool: True, type(None): None}.get(kind, {"any": ["thing"]})


def whole(kind: Any) -> Iterator[Obj]:
    """Objects that between them have every value of every member."""
    members = typing_extensions.get_type_hints(kind)
    values = {
        name: [DATA] if name == "image_url" else list(samples(member))
        for name, member in members.items()
        if kind not in FILES or name not in ("file_id", "file_url")
    }
    for number in range(max(map(len, values.values()))):
        yield {name: options[number % len(options)] for name, options in values.items()}


EVENTS = [event for kind in get_args(realtime.RealtimeClientEventParam) for event in samples(kind)]


def test_there_is_a_sample_of_every_event() -> None:
    assert len({event["type"] for event in EVENTS}) == 11
    assert len(EVENTS) > 30


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_every_shape_of_the_official_package_passes_unchanged(event: Obj) -> None:
    assert apply_policy(event, CLOSED) == event


def message(*parts: Any, **members: Any) -> Obj:
    return {"type": "message", "role": "user", "content": list(parts)} | members


IMAGE = {"type": "input_image", "image_url": URL}
TEXT = {"type": "input_text", "text": "hi"}
FUNCTION = {"type": "function", "name": "lamp", "parameters": {"type": "object"}}
OUTPUT = {"type": "function_call_output", "call_id": "c1"}
ITEMS = [
    ("item.content[0].image_url", message(IMAGE)),
    ("item.content", message() | {"content": IMAGE}),
    ("item.content", message() | {"content": "hi"}),
    ("item.content[0]", message("hi")),
    ("item.content[0].file_url", message(TEXT | {"file_url": URL})),
    ("item.content[0].file_id", message({"type": "input_image", "file_id": "file-1"})),
    ("item.content[0].type", message({"type": "input_file", "file_id": "file-1"})),
    ("item.content[0].type", message({"type": ["input_image"]})),
    ("item.content[0].type", message({"type": "Input_Image"})),
    ("item.content[0].image_url", message({"type": "input_image"})),
    ("item.content[0].image_url", message({"type": "input_image", "image_url": {"url": URL}})),
    ("item.content[0].image_url", message({"type": "input_image", "image_url": " data:,x"})),
    ("item.content[0].image_url", message(TEXT | {"image_url": URL})),
    ("item.content[0].Image_URL", message(TEXT | {"Image_URL": URL})),
    ("item.content[0].text", message({"type": "input_text", "text": {"image_url": URL}})),
    ("item.content[0].audio", message({"type": "input_audio", "audio": [{"url": URL}]})),
    ("item.output", OUTPUT | {"output": IMAGE}),
    ("item.output[0].image_url", OUTPUT | {"output": [IMAGE]}),
    ("item.output[1].file_url", OUTPUT | {"output": [TEXT, {"type": "input_text", "file_url": URL}]}),
    ("item.call_id", OUTPUT | {"call_id": {"a": 1}, "output": "x"}),
    ("item.output", message(TEXT, output=[IMAGE])),
    ("item.attachments", message(TEXT, attachments=[IMAGE])),
    ("item.role", message(TEXT, role="assistant ")),
    ("item.role", message(TEXT, role=["system"])),
    ("item.type", message(TEXT, type="image")),
    ("item.type", message(TEXT, type=None)),
    ("item.type", message(TEXT, type={"a": 1})),
    ("item.type", {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}),
    ("item.type", {"type": "mcp_call", "server_label": "s"}),
    ("item.server_url", {"type": "item_reference", "id": "i", "server_url": URL}),
    ("item.arguments", {"type": "function_call", "name": "lamp", "arguments": {"a": URL}}),
    ("item", [message(IMAGE)]),
]  # fmt: skip


@pytest.mark.parametrize(("param", "item"), ITEMS)
def test_an_unknown_item_type_is_rejected_in_both_places(param: str, item: Any) -> None:
    policy = RealtimePolicy()
    assert "unknown" in policy.allow
    for event, path in (
        ({"type": "conversation.item.create", "item": item}, param),
        ({"type": "response.create", "response": {"input": [item]}}, "response.input[0]" + param[4:]),
    ):
        with pytest.raises(PolicyViolation) as denied:
            apply_policy(event, policy)
        assert denied.value.param == path


TOOLS = [
    ("[0]", {"type": "mcp", "server_label": "s", "server_url": URL}),
    ("[0].server_url", FUNCTION | {"server_url": URL}),
    ("[0].connector_id", FUNCTION | {"connector_id": "connector_gmail"}),
    ("[0].type", FUNCTION | {"type": "MCP", "server_url": URL}),
    ("[0].type", FUNCTION | {"type": None, "server_url": URL}),
    ("[0].type", FUNCTION | {"type": "web_search"}),
    ("[0].description", FUNCTION | {"description": {"server_url": URL}}),
    ("[0].parameters", FUNCTION | {"parameters": [URL]}),
    ("[0]", [FUNCTION]),
    ("[0]", URL),
]  # fmt: skip


@pytest.mark.parametrize(("param", "tool"), TOOLS)
@pytest.mark.parametrize(("kind", "part"), [("session.update", "session"), ("response.create", "response")])
def test_an_unknown_tool_type_is_rejected_by_name(param: str, tool: Any, kind: str, part: str) -> None:
    with pytest.raises(PolicyViolation) as denied:
        apply_policy({"type": kind, part: {"tools": [tool]}}, RealtimePolicy())
    assert denied.value.param == f"{part}.tools{param}"


@pytest.mark.parametrize(
    ("param", "prompt"),
    [
        ("variables.cat.image_url", {"id": "p", "variables": {"cat": IMAGE}}),
        ("variables.cat.file_id", {"id": "p", "variables": {"cat": {"type": "input_file", "file_id": "f"}}}),
        ("variables.cat.file_url", {"id": "p", "variables": {"cat": {"type": "input_file", "file_url": URL}}}),
        ("variables.cat.file_data", {"id": "p", "variables": {"cat": {"type": "input_file", "file_data": URL}}}),
        (
            "variables.cat.file_data",
            {"id": "p", "variables": {"cat": {"type": "input_file", "file_data": " " * 64 + URL}}},
        ),
        ("variables.cat", {"id": "p", "variables": {"cat": [IMAGE]}}),
        ("variables", {"id": "p", "variables": [IMAGE]}),
        ("url", {"id": "p", "url": URL}),
    ],
)
def test_variables_of_a_stored_prompt_are_checked(param: str, prompt: Obj) -> None:
    with pytest.raises(PolicyViolation) as denied:
        apply_policy({"type": "session.update", "session": {"prompt": prompt}}, RealtimePolicy())
    assert denied.value.param == f"session.prompt.{param}"


@pytest.mark.parametrize("choice", [{"type": "mcp", "server_label": "s"}, {"type": "new"}, {"server_url": URL}, ["x"]])
def test_an_unknown_tool_choice_is_rejected(choice: Any) -> None:
    with pytest.raises(PolicyViolation):
        apply_policy({"type": "session.update", "session": {"tool_choice": choice}}, RealtimePolicy())


def test_null_members_of_sdks_are_accepted() -> None:
    item = message(TEXT, call_id=None, name=None, arguments=None, output=None, object="realtime.item", status=None)
    assert apply_policy({"type": "conversation.item.create", "item": item}, RealtimePolicy())["item"] == item


def test_where_nothing_is_limited_everything_passes() -> None:
    assert not OPEN.is_restricted
    assert not RealtimePolicy(allow=DEFAULT_ALLOW).restricts_settings
    items = [message(TEXT | {"file_url": URL}), message() | {"content": IMAGE}, OUTPUT | {"output": IMAGE}]
    for item in (*items, {"type": "brand_new", "url": URL}):
        event = {"type": "conversation.item.create", "item": item}
        assert apply_policy(event, OPEN) == event
    event = {"type": "session.update", "session": {"tools": [{"type": "web_search", "url": URL}], "new": {"url": URL}}}
    assert apply_policy(event, OPEN) == event
