"""A Realtime client's tools beside the server's, including updates that the upstream rejects."""

from typing import Any

import pytest

from tests.support.realtime_session_harness import (
    CLOCK,
    DICE,
    LAMP,
    call_events,
    call_item,
    ready_session,
    response_created,
    response_done,
)


def test_a_client_tool_overrides_an_unprotected_server_tool() -> None:
    at = ready_session(CLOCK, DICE)
    at.client(type="session.update", session={"type": "realtime", "tools": [LAMP | {"name": "clock"}]})
    tools = at.take_upstream_events()[0]["session"]["tools"]
    assert [(tool["name"], tool["description"]) for tool in tools] == [("clock", "Switches."), ("dice", "Rolls dice.")]
    call, roll = call_item("c1", "clock"), call_item("c2", "dice")
    at.upstream(
        response_created("r1"), *call_events("r1", call), *call_events("r1", roll, 1), response_done("r1", call, roll)
    )
    assert [run.name for run in at.tool_runs] == ["dice"]
    assert at.take_client_events()[-1]["response"]["output"] == [call]


def test_rejected_tools_override_nothing() -> None:
    at = ready_session(CLOCK)
    at.client(type="session.update", event_id="u", session={"type": "realtime", "tools": [LAMP | {"name": "clock"}]})
    at.upstream(type="error", error={"code": "invalid_value", "event_id": "u", "message": "no"})
    call = call_item("c1", "clock")
    at.upstream(response_created("r1"), response_done("r1", call))
    assert [run.name for run in at.tool_runs] == ["clock"]


def test_a_tool_of_one_response_is_the_clients_in_any_order_of_events() -> None:
    at = ready_session(CLOCK)
    at.client(type="response.create", event_id="c", response={"tools": [LAMP | {"name": "clock"}]})
    call = call_item("c1", "clock")
    output, item, *others = call_events("r1", call)
    at.upstream(response_created("r1"), item, output, *others, response_done("r1", call))
    assert at.tool_runs == []
    assert len(at.take_client_events()) == 8


@pytest.mark.parametrize("refused", ["u1", "u3"])
def test_a_rejected_update_leaves_the_others_in_effect(refused: str) -> None:
    at = ready_session(CLOCK)
    tools: dict[str, Any] = {"u1": [LAMP], "u2": [LAMP | {"name": "clock"}], "u3": None}
    for event_id in ("u1", "u2", "u3") if refused == "u3" else ("u1", "u2"):
        at.client(type="session.update", event_id=event_id, session={"type": "realtime", "tools": tools[event_id]})
    for event_id in tools:
        if event_id != refused:
            at.upstream(type="session.updated", session={})
            continue
        at.upstream(type="error", error={"code": "invalid_value", "event_id": event_id, "message": "no"})
    call = call_item("c1", "clock")
    at.upstream(response_created("r1"), *call_events("r1", call), response_done("r1", call))
    assert at.tool_runs == []
    assert at.take_client_events()[-1]["response"]["output"] == [call]


def test_a_tool_of_one_response_overrides_only_there() -> None:
    at = ready_session(CLOCK)
    at.client(type="response.create", event_id="c", response={"tools": [LAMP | {"name": "clock"}]})
    call = call_item("c1", "clock")
    at.upstream(response_created("r1"), *call_events("r1", call), response_done("r1", call))
    assert at.tool_runs == []
    assert len(at.take_client_events()) == 8
    at.upstream(response_created("r2"), response_done("r2", call_item("c2", "clock")))
    assert [run.call_id for run in at.tool_runs] == ["c2"]


@pytest.mark.parametrize("event_id", ["x", None])
@pytest.mark.parametrize(("kind", "part"), [("session.update", "session"), ("response.create", "response")])
def test_an_error_keeps_tool_names_that_the_client_used(kind: str, part: str, event_id: str | None) -> None:
    messages = []
    for name in ("clock", "crook"):
        at = ready_session(CLOCK)
        at.client({"type": kind, "event_id": event_id, part: {"tools": [LAMP | {"name": name}] * 2}})
        message = f"Tool names must be unique: '{name}' is there twice."
        error = {
            "code": "invalid_value",
            "message": message,
            "param": f"{part}.tools",
            "event_id": at.upstream_events[0]["event_id"],
        }
        at.upstream(type="error", error=error)
        messages.append(at.client_events[-1]["error"]["message"].replace(name, "<name>"))
    assert messages[0] == messages[1]
