"""What is active before the first event of a Realtime client."""

from relay.session.common.policy import RealtimePolicy
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_session_harness import CLOCK, DICE, GUARDED, LAMP, RealtimeSessionHarness


def test_early_client_events_are_held_in_order() -> None:
    at = RealtimeSessionHarness(CLOCK)
    at.client(type="session.update", event_id="u", session={"type": "realtime", "voice": "cedar"})
    at.client(type="response.create", event_id="r")
    assert at.take_upstream_events() == []
    at.upstream(type="session.created", event_id="e1", session={"type": "realtime", "model": "m", "expires_at": 5})
    [first] = at.take_upstream_events()
    assert [tool["name"] for tool in first["session"]["tools"]] == ["clock"]
    assert at.take_client_events() == [], "session.created reports the active settings, so it is held"
    at.upstream(type="rate_limits.updated", rate_limits=[])
    at.upstream(type="session.updated", session={"type": "realtime", "tools": first["session"]["tools"], "a": 1})
    events = at.take_client_events()
    assert [event["type"] for event in events] == ["session.created", "rate_limits.updated"]
    assert events[0]["session"] == {"type": "realtime", "model": "m", "expires_at": 5, "tools": [], "a": 1}
    assert at.upstream_event_types() == ["session.update", "response.create"]


def test_a_server_configuration_that_is_refused_ends_the_session_and_never_runs_without_it() -> None:
    at = RealtimeSessionHarness(policy=GUARDED)
    at.client(type="response.create")
    at.upstream(type="session.created", session={})
    [update] = at.take_upstream_events()
    at.upstream(type="error", error={"type": "invalid_request_error", "message": "no", "event_id": update["event_id"]})
    assert at.take_client_events()[-1]["error"]["code"] == "session_refused"
    assert at.take_upstream_events() == []
    assert cmd.CloseClient(1011, "session refused") in at.end_commands


def test_a_client_secrets_session_is_active_from_the_start() -> None:
    at = RealtimeSessionHarness(
        CLOCK, policy=GUARDED, initial={"type": "realtime", "instructions": "Be kind.", "tools": [LAMP]}
    )
    at.upstream(type="session.created", session={"id": "s"})
    [first] = at.take_upstream_events()
    assert first["session"]["instructions"] == "Be the museum.\n\nBe kind."
    at.upstream(type="session.updated", session=first["session"])
    [created] = at.take_client_events()
    assert (created["session"]["instructions"], created["session"]["tools"]) == ("Be kind.", [LAMP])


def test_an_engine_that_learns_gets_the_examples() -> None:
    at = RealtimeSessionHarness(CLOCK)
    at.upstream(type="session.created", session={"engine": "relay-local"})
    assert at.take_upstream_events()[0]["session"]["tools"][0]["parameters"]["x-examples"] == ["what time is it"]


def test_a_reserved_tool_of_a_client_secret_is_dropped_and_reported() -> None:
    at = RealtimeSessionHarness(DICE, initial={"tools": [LAMP, LAMP | {"name": "dice"}]})
    at.upstream(type="session.created", session={})
    [first] = at.take_upstream_events()
    assert [tool["name"] for tool in first["session"]["tools"]] == ["lamp", "dice"]
    at.upstream(type="session.updated", session=first["session"])
    assert [event["type"] for event in at.client_events] == ["session.created", "error"]
    assert at.client_events[1]["error"]["param"] == "session.tools[1].name"
    at = RealtimeSessionHarness(
        DICE, policy=RealtimePolicy(denied_fields="drop"), initial={"tools": [LAMP | {"name": "dice"}]}
    )
    at.upstream({"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}})
    assert at.client_event_types() == ["session.created"], "a policy that drops fields reports nothing"


def test_a_client_secret_that_its_policy_no_longer_allows_opens_nothing() -> None:
    secret = {"audio": {"output": {"voice": "alloy"}}}
    at = RealtimeSessionHarness(policy=RealtimePolicy(voices=("cedar",)), initial=secret)
    at.upstream(type="session.created", session={})
    assert at.take_upstream_events() == []
    assert at.take_client_events()[0]["error"]["code"] == "session_refused"


def test_an_upstream_that_is_not_ready_in_time_ends_the_session() -> None:
    at = RealtimeSessionHarness(CLOCK)
    at.now = at.session.deadline or 0.0
    at.feed(ev.DeadlineReached())
    assert at.take_client_events()[0]["error"]["code"] == "upstream_timeout"
