"""Responses in the conversation and out-of-band ones, where the upstream does not report which is which."""

from typing import Any

import pytest

from relay.session.realtime.open_requests import MAX_OPEN_REQUESTS, OpenRequests
from tests.support.realtime_session_harness import (
    CLOCK,
    RealtimeSessionHarness,
    call_events,
    call_item,
    response_created,
    response_done,
)

MARK = {"metadata": {"topic": "x"}}
OUTSIDE = {"conversation": "none", "input": []}
NO_VAD = {"input": {"turn_detection": None}}


def asks(at: RealtimeSessionHarness, event_id: str, **response: Any) -> RealtimeSessionHarness:
    return at.client(type="response.create", event_id=event_id, response=response)


def runs(at: RealtimeSessionHarness, response_id: str, **response: Any) -> int:
    """Send a response in which the model calls the server's tool; returns the number of running calls."""
    before = len(at.tool_runs)
    call = call_item(f"call_{response_id}", "clock")
    at.upstream(
        response_created(response_id, **response),
        *call_events(response_id, call),
        response_done(response_id, call, **response),
    )
    return len(at.tool_runs) - before


@pytest.mark.parametrize("mark", [MARK, {}])
@pytest.mark.parametrize("inside_first", [True, False])
def test_a_response_in_the_conversation_is_never_taken_for_an_out_of_band_one(mark: Any, inside_first: bool) -> None:
    at = RealtimeSessionHarness(CLOCK).ready(audio=NO_VAD)
    wishes = [("in", mark), ("out", OUTSIDE | mark)]
    for event_id, wish in wishes if inside_first else wishes[::-1]:
        asks(at, event_id, **wish)
    assert runs(at, "r1", **mark) == 1
    assert "clock" not in str(at.client_events)


def test_the_order_of_the_requests_tells_which_response_is_which() -> None:
    at = RealtimeSessionHarness(CLOCK).ready()
    asks(asks(at, "in", **MARK), "out", **OUTSIDE, **MARK)
    assert [runs(at, "r1", **MARK), runs(at, "r2", **MARK)] == [1, 0]
    assert at.client_events[-1]["response"]["output"] == [call_item("call_r2", "clock")]


def test_unique_metadata_identifies_an_out_of_band_response() -> None:
    at = RealtimeSessionHarness(CLOCK).ready()
    asks(at, "out", **OUTSIDE, **MARK)
    at.upstream(type="input_audio_buffer.speech_started", item_id="u", audio_start_ms=0)
    at.upstream(type="input_audio_buffer.speech_stopped", item_id="u", audio_end_ms=9)
    assert [runs(at, "vad"), runs(at, "r1", **MARK)] == [1, 0]


def test_without_metadata_a_response_is_out_of_band_only_if_it_can_be_no_other() -> None:
    at = RealtimeSessionHarness(CLOCK).ready(audio=NO_VAD)
    assert runs(asks(at, "out", **OUTSIDE), "r1") == 0
    at = RealtimeSessionHarness(CLOCK).ready()
    assert runs(asks(at, "out", **OUTSIDE), "r1") == 1, "it may answer what the user said"


def test_a_silently_refused_out_of_band_request_is_forgotten() -> None:
    at = RealtimeSessionHarness(CLOCK).ready()
    asks(asks(at, "out", **OUTSIDE, **MARK), "in", **MARK)
    assert [runs(at, "r1", **MARK), runs(at, "r2", **MARK)] == [1, 1]
    assert "clock" not in str(at.client_events)


# -- the requests by themselves ---------------------------------------------------------------------------------------


def test_a_reported_conversation_id_decides() -> None:
    requests = OpenRequests()
    requests.add("in", {"a": "b"})
    requests.add("out", {"a": "b"}, out_of_band=True)
    assert not requests.match_created({"metadata": {"a": "b"}, "conversation_id": "conv_1"}, True)
    requests.add("in", {"a": "b"})
    assert requests.match_created({"metadata": {"a": "b"}, "conversation_id": None}, True)


def test_an_upstream_that_does_not_repeat_metadata_leaves_it_in_doubt() -> None:
    requests = OpenRequests()
    requests.add("out", None, out_of_band=True)
    requests.add("in", {"a": "b"})
    assert not requests.match_created({}, False)


def test_many_out_of_band_requests_do_not_displace_one_in_the_conversation() -> None:
    requests = OpenRequests()
    requests.add("in", {"a": "b"})
    for number in range(2 * MAX_OPEN_REQUESTS):
        requests.add(str(number), {"a": "b"}, out_of_band=True)
    assert not requests.match_created({"metadata": {"a": "b"}}, False)


def test_a_refused_request_is_closed() -> None:
    requests = OpenRequests()
    requests.add("out", {"a": "b"}, out_of_band=True)
    assert requests.remove_refused("out")
    requests.add("in", None)
    assert not requests.remove_refused("in")
    assert not requests.match_created({"metadata": {"a": "b"}}, False)


# -- what a client may do to have the one taken for the other ---------------------------------------------------------


def test_a_refused_id_of_two_requests_never_reveals_a_call() -> None:
    at = RealtimeSessionHarness(CLOCK).ready(audio=NO_VAD)
    asks(asks(at, "x", **OUTSIDE), "x")
    error = {"type": "invalid_request_error", "code": "invalid_value", "message": "no", "event_id": "x"}
    at.upstream(type="error", error=error)
    assert runs(at, "r1") == 1
    assert "clock" not in str(at.client_events)


@pytest.mark.parametrize("value", [1, 1.5, True])
def test_metadata_that_come_back_as_texts_are_the_same(value: Any) -> None:
    at = RealtimeSessionHarness(CLOCK).ready(audio=NO_VAD)
    text = {"metadata": {"a": str(value)}}
    asks(asks(at, "out", **OUTSIDE, **text), "in", metadata={"a": value})
    assert runs(at, "r1", **text) == 1
    assert "clock" not in str(at.client_events)


def test_a_request_overtaken_by_an_unrequested_response_stays_open() -> None:
    at = RealtimeSessionHarness(CLOCK).ready()
    asks(asks(at, "out", **OUTSIDE, **MARK), "in", **MARK)
    assert [runs(at, "vad"), runs(at, "r1", **MARK)] == [1, 1]
    assert "clock" not in str(at.client_events)


def test_with_spontaneous_responses_only_metadata_identifies_out_of_band_ones() -> None:
    idle = {"type": "server_vad", "create_response": False, "idle_timeout_ms": 5000}
    at = RealtimeSessionHarness(CLOCK).ready(audio={"input": {"turn_detection": idle}})
    asks(at, "out", **OUTSIDE)
    assert runs(at, "r1") == 1
    assert "clock" not in str(at.client_events)
