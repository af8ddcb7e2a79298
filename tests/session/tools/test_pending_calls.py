"""Tool calls in flight: one output each, one follow-up for those of a response (D4)."""

from relay.session.tools.pending_calls import MAX_TOOL_ROUNDS, ToolCalls
from tests.support.device_script import call


def test_the_follow_up_is_owed_when_the_last_output_is_in() -> None:
    calls = ToolCalls()
    calls.accept("resp_1", [call("a"), call("b")])
    assert calls.owes_follow_up
    assert not calls.owes_response
    calls.returned("a")
    assert not calls.owes_response
    calls.returned("b")
    assert calls.owes_response


def test_a_call_id_never_runs_twice() -> None:
    calls = ToolCalls()
    assert len(calls.accept("resp_1", [call("a"), call("a")]).to_run) == 1
    assert calls.accept("resp_2", [call("a")]) == ([], [])


def test_a_second_return_counts_for_nothing() -> None:
    calls = ToolCalls()
    calls.accept("resp_1", [call("a")])
    assert calls.returned("a") is not None
    assert calls.returned("a") is None
    assert calls.returned("never_called") is None


def test_when_the_user_goes_on_no_answer_is_forced() -> None:
    calls = ToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.user_went_on()
    assert calls.returned("a") is not None
    assert not calls.owes_follow_up


def test_any_response_after_the_outputs_covers_them() -> None:
    calls = ToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.returned("a")
    calls.owe_nothing()
    assert not calls.owes_follow_up


def test_two_responses_calls_are_kept_apart() -> None:
    calls = ToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.accept("resp_2", [call("b"), call("c")])
    calls.returned("b")
    assert not calls.owes_response  # c is still out, and so is a
    calls.returned("a")
    assert calls.owes_response
    assert calls.running == 1


def test_rounds_are_counted_until_the_user_speaks() -> None:
    calls = ToolCalls()
    for number in range(MAX_TOOL_ROUNDS):
        assert not calls.at_round_limit
        calls.accept(f"resp_{number}", [call(f"call_{number}")])
        calls.returned(f"call_{number}")
    assert calls.at_round_limit
    calls.user_went_on()
    assert not calls.at_round_limit
