"""What a running tool can do to a Realtime session: end it, or be cancelled by an interruption."""

import base64
from typing import Any

import pytest

from relay.session.common.graceful_end import MAX_DELAY_S, PLAYBACK_MARGIN_S
from relay.session.common.limits import AUTO_RESPONSE_TIMEOUT_S
from relay.session.common.model import ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_session_harness import (
    CLOCK,
    SPEECH,
    SPEECH_ENDS,
    RealtimeSessionHarness,
    call_item,
    message_item,
    response_created,
    response_done,
)

OVEN = ToolSpec("oven", "Watches.", {"type": "object", "properties": {}}, cancel_on_interrupt=True)
GONE = [cmd.CancelAllTools(), cmd.CloseClient(1000, "they said goodbye"), cmd.CloseUpstream()]


def asked(*calls: dict[str, Any], **session: Any) -> RealtimeSessionHarness:
    """The model has called `clock`, which requests the end of the session while it runs."""
    at = RealtimeSessionHarness(CLOCK).ready(**session)
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "clock"), *calls))
    at.feed(ev.EndSessionRequested("c1", "they said goodbye"))
    return at


def audio(n_bytes: int) -> dict[str, Any]:
    delta = base64.b64encode(bytes(n_bytes)).decode()
    return {"type": "response.output_audio.delta", "response_id": "r2", "item_id": "m", "delta": delta}


def wait(at: RealtimeSessionHarness, seconds: float) -> None:
    at.now += seconds
    at.feed(ev.DeadlineReached())


def test_a_session_ends_after_the_answer() -> None:
    at = asked()
    assert at.tool_returns("c1").end_commands == []
    at.upstream(response_created("r2"))
    assert at.end_commands == []
    at.upstream(response_done("r2", message_item("m")))
    assert at.end_commands == GONE


@pytest.mark.parametrize(("kind", "bytes_per_ms"), [("audio/pcm", 48), ("audio/pcmu", 8)])
def test_the_client_has_the_time_to_play_the_answer(kind: str, bytes_per_ms: int) -> None:
    at = asked(audio={"output": {"format": {"type": kind}}})
    at.tool_returns("c1").upstream(
        response_created("r2"), audio(1500 * bytes_per_ms), audio(1500 * bytes_per_ms), response_done("r2")
    )
    wait(at, 2.9)
    assert at.end_commands == []
    assert at.session.deadline == pytest.approx(3.0 + PLAYBACK_MARGIN_S, abs=0.01)
    wait(at, 0.5)
    assert at.end_commands == GONE


def test_a_client_that_stops_playing_hears_no_more() -> None:
    at = asked().tool_returns("c1").upstream(response_created("r2"), audio(480_000), response_done("r2"))
    assert at.end_commands == []
    at.client(type="conversation.item.truncate", item_id="m", content_index=0, audio_end_ms=10)
    assert at.end_commands == GONE


def test_a_started_user_turn_is_answered_first() -> None:
    at = (
        asked()
        .tool_returns("c1")
        .upstream(response_created("r2"), audio(480_000), SPEECH, response_done("r2", status="cancelled"))
    )
    at.client(type="conversation.item.truncate", item_id="m", content_index=0, audio_end_ms=10)
    at.upstream(SPEECH_ENDS)
    wait(at, AUTO_RESPONSE_TIMEOUT_S - 0.1)
    assert at.end_commands == [], "a response may still come"
    wait(at, 0.1)
    assert at.end_commands == GONE


def test_without_an_answer_to_come_it_ends_at_once() -> None:
    at = asked().client(type="response.cancel")
    assert at.end_commands == [], "the call still runs"
    assert at.tool_returns("c1").end_commands == GONE
    assert at.upstream_event_types() == ["response.cancel", "conversation.item.create"]


def test_the_end_waits_for_the_clients_request_but_not_for_ever() -> None:
    at = asked(call_item("c2", "lamp")).tool_returns("c1")
    assert at.end_commands == []
    at.client(type="conversation.item.create", item={"type": "function_call_output", "call_id": "c2", "output": "on"})
    at.client(type="response.create")
    at.upstream(response_created("r2"), response_done("r2", message_item("m")))
    assert at.end_commands == GONE
    at = asked(call_item("c2", "lamp")).tool_returns("c1")
    wait(at, MAX_DELAY_S)
    assert at.end_commands == GONE


def test_only_a_running_call_may_end_the_session() -> None:
    at = (
        RealtimeSessionHarness(CLOCK)
        .ready()
        .upstream(response_created("r1"), response_done("r1", call_item("c1", "clock")))
    )
    at.feed(ev.EndSessionRequested("c2", "forged"))
    at.tool_returns("c1").upstream(response_created("r2"), response_done("r2"))
    at.feed(ev.EndSessionRequested("c1", "too late"))
    wait(at, MAX_DELAY_S)
    assert at.end_commands == []


@pytest.mark.parametrize("by", ["speech", "cancel"])
def test_an_interruption_cancels_cancellable_calls(by: str) -> None:
    at = RealtimeSessionHarness(CLOCK, OVEN).ready()
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "oven"), call_item("c2", "clock")))
    if by == "speech":
        at.upstream(SPEECH)
    else:
        at.client(type="response.cancel")
    assert at.end_commands == [cmd.CancelTool("c1")]
    at.clear()
    at.feed(ev.ToolCallFinished("c1", "cancelled", '{"ok":false}', 1))
    at.tool_returns("c2")
    assert at.upstream_event_types() == ["conversation.item.create"] * 2, (
        "each has its output, and there is no follow-up"
    )
