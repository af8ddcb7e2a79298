"""Tool calls in flight: one output each, one follow-up for those of a response (D4)."""

from relay.session.tools.pending_calls import MAX_TOOL_ROUNDS, PendingToolCalls
from tests.support.device_session_harness import call


def test_the_follow_up_is_due_when_the_last_output_is_in() -> None:
    calls = PendingToolCalls()
    calls.accept("resp_1", [call("a"), call("b")])
    assert calls.expects_follow_up
    assert not calls.is_follow_up_due
    calls.finish("a")
    assert not calls.is_follow_up_due
    calls.finish("b")
    assert calls.is_follow_up_due


def test_a_call_id_never_runs_twice() -> None:
    calls = PendingToolCalls()
    assert len(calls.accept("resp_1", [call("a"), call("a")]).to_run) == 1
    assert calls.accept("resp_2", [call("a")]) == ([], [])


def test_a_second_return_counts_for_nothing() -> None:
    calls = PendingToolCalls()
    calls.accept("resp_1", [call("a")])
    assert calls.finish("a") is not None
    assert calls.finish("a") is None
    assert calls.finish("never_called") is None


def test_when_the_user_goes_on_no_follow_up_is_requested() -> None:
    calls = PendingToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.on_user_turn_started()
    assert calls.finish("a") is not None
    assert not calls.expects_follow_up


def test_any_response_after_the_outputs_covers_them() -> None:
    calls = PendingToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.finish("a")
    calls.clear_follow_up()
    assert not calls.expects_follow_up


def test_calls_of_two_responses_are_separate_batches() -> None:
    calls = PendingToolCalls()
    calls.accept("resp_1", [call("a")])
    calls.accept("resp_2", [call("b"), call("c")])
    calls.finish("b")
    assert not calls.is_follow_up_due  # c is still out, and so is a
    calls.finish("a")
    assert calls.is_follow_up_due
    assert calls.n_running == 1


def test_rounds_are_counted_until_the_user_speaks() -> None:
    calls = PendingToolCalls()
    for number in range(MAX_TOOL_ROUNDS):
        assert not calls.at_round_limit
        calls.accept(f"resp_{number}", [call(f"call_{number}")])
        calls.finish(f"call_{number}")
    assert calls.at_round_limit
    calls.on_user_turn_started()
    assert not calls.at_round_limit
