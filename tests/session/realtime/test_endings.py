"""How a Realtime session ends, for each event that ends it."""

from typing import Any

import pytest

from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_session_harness import CREATE, ready_session


@pytest.mark.parametrize(
    ("code", "told", "errors"),
    [
        (1000, 1000, 0),
        (1001, 1001, 0),
        (1008, 1008, 0),
        (3000, 3000, 0),
        (1006, 1011, 1),
        (1005, 1011, 1),
        (1002, 1011, 1),
    ],
)
def test_the_upstreams_close_is_mapped(code: int, told: int, errors: int) -> None:
    at = ready_session()
    at.feed(ev.UpstreamClosed(code, "because sk-secret-key-12345 " + "ü" * 200))
    [close] = [end for end in at.end_commands if isinstance(end, cmd.CloseClient)]
    assert close.code == told
    assert len(close.reason.encode()) <= 123
    assert "sk-secret" not in close.reason
    assert len(at.take_client_events()) == errors


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (ev.ServerDraining(), 1001),
        (ev.KeyRevoked(), 1008),
        (ev.InternalFailure("x"), 1011),
        (ev.UpstreamRefused(401, "no", False), 1011),
        (ev.ClientBackpressure(9), 4003),
    ],
)
def test_other_ends(event: Any, code: int) -> None:
    at = ready_session()
    at.feed(event)
    assert [end.code for end in at.end_commands if isinstance(end, cmd.CloseClient)] == [code]
    assert isinstance(at.end_commands[-1], cmd.CloseUpstream)
    at.client(CREATE)
    assert at.take_upstream_events() == []
    assert at.session.deadline is None


def test_a_revoked_key_is_reported_before_the_close() -> None:
    at = ready_session()
    at.feed(ev.KeyRevoked())
    [error_event] = at.take_client_events()
    assert (error_event["type"], error_event["error"]["code"], error_event["error"]["type"]) == (
        "error",
        "key_revoked",
        "invalid_request_error",
    )
