"""Tools that the client runs itself, as transcripts: announced, called with a deadline, answered once (D4)."""

import json
from typing import Any

import pytest

from relay.session.common.model import SessionConfig, ToolSpec
from relay.session.common.policy import Policy, Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.tools.client_calls import MAX_ARGUMENT_CHARS, MAX_OUTPUT_BYTES, TRUNCATION_NOTE, merge_tools
from tests.support.device_session_harness import DeviceSessionHarness, call, done, kinds, microphone

CLOCK = ToolSpec("clock", "Tell the time.", {"type": "object"})
SAFE = ToolSpec("safe", "Open the safe.", {"type": "object"}, protected=True)
DOOR = ToolSpec("door", "Open the door.", {"type": "object", "required": ["wide"]}, timeout_ms=2000)


def announced(*tools: ToolSpec, config: SessionConfig | None = None, **options: Any) -> DeviceSessionHarness:
    """A ready session whose client brought `tools`."""
    harness = DeviceSessionHarness(config or SessionConfig(tools=(CLOCK, SAFE)), **options)
    harness.feed(ev.Hello(("tools",), tools=tools))
    return harness.ready()


def calling(harness: DeviceSessionHarness, name: str = "door", arguments: str = '{"wide":true}') -> list[cmd.Command]:
    return harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", call("call_1", name, arguments)))


def output(commands: list[cmd.Command]) -> Any:
    """The one tool output among `commands`."""
    [item] = [command.item for command in commands if isinstance(command, cmd.CreateItem)]
    assert (item.kind, item.call_id) == ("function_call_output", "call_1")
    return item.text


def test_a_hello_adds_its_tools_to_the_relays() -> None:
    harness = DeviceSessionHarness(SessionConfig(tools=(CLOCK, SAFE)))
    harness.feed(ev.Hello(("tools",), tools=(DOOR,)))
    [configure] = [
        c for c in harness.feed(ev.UpstreamOpened(), ev.SessionCreated()) if isinstance(c, cmd.ConfigureSession)
    ]
    assert [tool.name for tool in configure.config.tools] == ["clock", "safe", "door"]
    [ready] = [c for c in harness.feed(ev.SessionUpdated()) if isinstance(c, cmd.SendReady)]
    assert [tool.name for tool in ready.config.tools] == ["clock", "safe", "door"]


def test_the_clients_tool_comes_first_on_equal_names_unless_the_relays_is_protected() -> None:
    mine = (ToolSpec("clock", "Mine.", {}), ToolSpec("safe", "Mine too.", {}))
    tools, refused = merge_tools((CLOCK, SAFE), mine)
    assert {tool.name: (tool.description, tool.runs_on_client) for tool in tools} == {
        "safe": ("Open the safe.", False),
        "clock": ("Mine.", True),
    }
    assert refused == ["safe"]


def test_a_protected_name_is_refused_by_name_and_the_rest_is_active() -> None:
    harness = DeviceSessionHarness(SessionConfig(tools=(CLOCK, SAFE)))
    [refused] = [c for c in harness.feed(ev.Hello(("tools",), tools=(SAFE, DOOR))) if isinstance(c, cmd.SendError)]
    assert (refused.code, refused.field) == ("not_allowed", "tools")
    assert "safe" in refused.message
    assert [tool.name for tool in harness.session.config.tools] == ["clock", "safe", "door"]


def test_a_later_hello_replaces_the_clients_tools_and_leaves_the_relays() -> None:
    harness = announced(DOOR)
    harness.feed(ev.Hello(("tools",), tools=(ToolSpec("bell", "", {}),)), ev.SessionUpdated())
    assert [tool.name for tool in harness.session.config.tools] == ["clock", "safe", "bell"]
    harness.feed(ev.Hello(("voice",), voice="cedar"), ev.SessionUpdated())
    assert [tool.name for tool in harness.session.config.tools] == ["clock", "safe", "bell"]


def test_a_policy_may_keep_a_clients_tools_out() -> None:
    harness = DeviceSessionHarness(
        SessionConfig(tools=(CLOCK,)), principal=Principal(policy=Policy(hello_fields=frozenset({"voice"})))
    )
    [refused] = [c for c in harness.feed(ev.Hello(("tools",), tools=(DOOR,))) if isinstance(c, cmd.SendError)]
    assert refused.field == "tools"
    assert harness.session.config.tools == (CLOCK,)


def test_the_client_is_called_and_its_result_is_the_calls_one_output() -> None:
    harness = announced(DOOR)
    commands = calling(harness)
    assert cmd.SendToolCall("call_1", "door", '{"wide":true}', 2000) in commands
    assert not any(isinstance(command, cmd.RunTool) for command in commands)
    answered = harness.feed(ev.ToolResult("call_1", '{"open":true}'), after_s=0.3)
    assert output(answered) == '{"open":true}'
    [status] = [command for command in answered if isinstance(command, cmd.SendToolStatus)]
    assert (status.status, status.ms) == ("done", 300)
    assert kinds(answered)[-1] == "CreateResponse"


def test_what_the_client_could_not_do_is_reported_to_the_model() -> None:
    harness = announced(DOOR)
    calling(harness)
    answered = harness.feed(ev.ToolResult("call_1", "The door is jammed.", failed=True))
    assert json.loads(output(answered)) == {
        "ok": False,
        "error": "client_error",
        "message": "The door is jammed.",
        "retryable": False,
    }


def test_a_client_that_does_not_answer_in_time_costs_one_output_and_a_late_answer_nothing() -> None:
    harness = announced(DOOR)
    calling(harness)
    assert harness.session.deadline == pytest.approx(2.0)
    late = harness.feed(ev.DeadlineReached(), after_s=2.0)
    assert json.loads(output(late))["error"] == "timeout"
    assert [c.status for c in late if isinstance(c, cmd.SendToolStatus)] == ["timeout"]
    assert harness.feed(ev.ToolResult("call_1", "now")) == []


def test_a_second_answer_is_ignored_and_one_to_no_call_is_a_fault() -> None:
    harness = announced(DOOR)
    calling(harness)
    harness.feed(ev.ToolResult("call_1", "yes"))
    assert harness.feed(ev.ToolResult("call_1", "no")) == []
    [fault] = harness.feed(ev.ToolResult("call_9", "what?"))
    assert isinstance(fault, cmd.SendError)
    assert (fault.code, fault.field) == ("unknown_call", "callId")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [("{", "not JSON"), ("[1]", "JSON object"), ('{"wide":NaN}', "not JSON"), ("{}", "Missing: wide")],
)
def test_arguments_that_make_no_sense_never_reach_the_client(arguments: str, what: str) -> None:
    harness = announced(DOOR)
    commands = calling(harness, arguments=arguments)
    assert not any(isinstance(command, cmd.SendToolCall) for command in commands)
    refused = json.loads(output(commands))
    assert refused["error"] == "invalid_arguments"
    assert what in refused["message"]


def test_a_long_result_is_cut_with_a_note() -> None:
    harness = announced(DOOR)
    calling(harness)
    text = output(harness.feed(ev.ToolResult("call_1", "ä" * MAX_OUTPUT_BYTES)))
    assert len(text.encode()) <= MAX_OUTPUT_BYTES
    assert text.endswith(TRUNCATION_NOTE)


def test_the_relays_tools_and_the_clients_in_one_response_get_one_follow_up() -> None:
    harness = announced(DOOR)
    both = (call("call_1", "door", '{"wide":false}'), call("call_2", "clock"))
    commands = harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", *both))
    assert [type(c).__name__ for c in commands if isinstance(c, cmd.RunTool | cmd.SendToolCall)] == [
        "SendToolCall",
        "RunTool",
    ]
    assert "CreateResponse" not in kinds(harness.feed(ev.ToolCallFinished("call_2", "done", "12:00", 3)))
    assert kinds(harness.feed(ev.ToolResult("call_1", "open")))[-1] == "CreateResponse"


def test_arguments_longer_than_a_device_may_be_sent_never_reach_it() -> None:
    harness = announced(DOOR)
    commands = calling(harness, arguments=json.dumps({"wide": "x" * MAX_ARGUMENT_CHARS}))
    assert "SendToolCall" not in kinds(commands)
    assert json.loads(output(commands))["error"] == "invalid_arguments"


def test_the_user_goes_on_while_the_client_works_and_no_follow_up_is_requested() -> None:
    harness = announced(DOOR)
    calling(harness)
    harness.feed(microphone(), ev.SpeechStarted("item_2"))
    answered = harness.feed(ev.ToolResult("call_1", "open"))
    assert output(answered) == "open"
    assert "CreateResponse" not in kinds(answered)
