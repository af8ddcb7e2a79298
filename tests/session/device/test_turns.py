"""Whose turn it is, as transcripts: barge-in (D2), response.create (D3), tool calls (D4), latency."""

import pytest

from relay.session.common.limits import AUTO_RESPONSE_TIMEOUT_S, RETRY_DELAY_S, STALL_TIMEOUT_S
from relay.session.common.model import (
    DeviceOptions,
    Item,
    SessionConfig,
    ToolSpec,
    TurnDetection,
    UpstreamCapabilities,
    Usage,
)
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import ACK_WAIT_S, TurnMetrics
from relay.session.device.user_turn import MAX_TYPED_TURNS
from relay.session.tools.dispatcher import MAX_VISIBLE_CHARS
from relay.session.tools.pending_calls import MAX_RUNNING_CALLS, MAX_TOOL_ROUNDS, TOO_MANY_AT_ONCE
from tests.support.device_session_harness import (
    MANUAL,
    DeviceSessionHarness,
    audio,
    call,
    done,
    kinds,
    microphone,
    only,
    playout_cleared,
    tool_finished,
)

BARGE_IN = ev.SpeechStarted("item_user", 5000)


def talking(ms: int = 3000, config: SessionConfig | None = None) -> DeviceSessionHarness:
    harness = DeviceSessionHarness(config).ready()
    harness.model_speaks(ms=ms)
    return harness


# -- a plain turn -----------------------------------------------------------------------------------------------------


def test_a_spoken_turn_from_end_to_end() -> None:
    harness = DeviceSessionHarness().ready()
    assert kinds(harness.feed(ev.SpeechStarted("item_user"))) == ["SendSpeechState"]
    assert kinds(harness.feed(ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))) == [
        "SendSpeechState"
    ]
    commands = harness.model_speaks(ms=100)
    assert kinds(commands) == ["SendResponseStart", "SendTextDelta", "SendAudioStart", "OutputAudio"]
    assert kinds(harness.feed(audio(ms=100))) == ["OutputAudio"]
    assert harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0)) == [cmd.SendAudioEnd("item_1", 0, 200)]
    [end] = harness.feed(done())
    assert end == cmd.SendResponseEnd("one two three four five six seven eight nine ten", "completed", more=False)


def test_under_vad_the_upstream_creates_the_response_and_the_relay_does_not() -> None:
    harness = DeviceSessionHarness().ready()
    commands = harness.feed(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert not only(commands, cmd.CreateResponse)


def test_when_vad_does_not_create_responses_the_relay_does() -> None:
    harness = DeviceSessionHarness(SessionConfig(turn=TurnDetection(create_response=False))).ready()
    commands = harness.feed(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert kinds(commands)[-1] == "CreateResponse"


def test_a_manual_turn_is_committed_and_answered() -> None:
    harness = DeviceSessionHarness(MANUAL).ready()
    harness.feed(*[microphone(50) for _ in range(4)])
    assert kinds(harness.feed(ev.Commit())) == ["CommitInput"]
    assert kinds(harness.feed(ev.InputCommitted("item_user"))) == ["CreateResponse"]


def test_a_commit_of_less_than_100_ms_never_leaves_the_relay() -> None:
    harness = DeviceSessionHarness(MANUAL).ready()
    harness.feed(microphone(80))
    [error] = harness.feed(ev.Commit())
    assert error.code == "commit_too_short"


def test_a_commit_that_the_upstream_finds_empty_is_reported() -> None:
    harness = DeviceSessionHarness(MANUAL).ready()
    harness.feed(microphone(200))
    [commit] = harness.feed(ev.Commit())
    [error] = harness.feed(
        ev.UpstreamErrorEvent("input_audio_buffer_commit_empty", "too small", event_id=commit.event_id)
    )
    assert error.code == "commit_too_short"
    assert harness.session.turns.responses.slot.is_free


def test_clear_forgets_the_turn() -> None:
    harness = DeviceSessionHarness(MANUAL).ready()
    harness.feed(microphone(200))
    assert kinds(harness.feed(ev.Clear())) == ["ClearInput"]
    assert harness.feed(ev.Commit())[0].code == "commit_too_short"


# -- D2: barge-in -----------------------------------------------------------------------------------------------------


def test_d2_1_the_client_is_interrupted_before_anything_is_sent_upstream() -> None:
    harness = talking()
    assert kinds(harness.feed(BARGE_IN)) == ["SendSpeechState", "ClearPlayout"]
    commands = harness.feed(playout_cleared(("item_1", 2000, 1500)))
    assert kinds(commands) == ["SendInterrupted", "TruncateItem"]


def test_d2_1_an_upstream_that_truncates_by_itself_is_not_asked_to() -> None:
    harness = DeviceSessionHarness(
        options=DeviceOptions(upstream=UpstreamCapabilities(supports_truncation=False))
    ).ready()
    harness.model_speaks(ms=3000)
    harness.feed(BARGE_IN)
    [interrupted] = harness.feed(playout_cleared(("item_1", 2000, 1500)))
    assert interrupted == cmd.SendInterrupted("item_1", 1500, "one two three four five", estimated=True)


def test_d2_1_stale_deltas_are_dropped_by_response_id() -> None:
    harness = talking()
    harness.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    late = harness.feed(
        audio(),
        ev.TextDelta("resp_1", "item_1", 0, "eleven", spoken=True),
        ev.TextDone("resp_1", "item_1", 0, "one … eleven", spoken=True),
        ev.OutputAudioDone("resp_1", "item_1", 0),
    )
    assert late == []
    assert kinds(harness.model_speaks("resp_2", "item_2")) == [
        "SendResponseStart",
        "SendTextDelta",
        "SendAudioStart",
        "OutputAudio",
    ]


def test_d2_2_no_cancel_when_the_upstream_interrupts_by_itself() -> None:
    harness = talking()
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    assert not only(commands, cmd.CancelResponse)


def test_d2_2_a_cancel_by_id_when_it_does_not() -> None:
    harness = talking(config=SessionConfig(turn=TurnDetection(interrupt_response=False)))
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "SendInterrupted", "CancelResponse", "TruncateItem"]
    assert only(commands, cmd.CancelResponse)[0].response_id == "resp_1"


def test_d2_3_the_item_is_truncated_at_the_acknowledged_position() -> None:
    harness = talking()
    harness.feed(ev.Playback("item_1", 1210))
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1900)))
    [told] = only(commands, cmd.SendInterrupted)
    [truncate] = only(commands, cmd.TruncateItem)
    assert (told.played_ms, told.estimated, truncate.audio_end_ms) == (1210, False, 1210)
    assert told.heard_text == "one two three four"


def test_d2_3_without_acknowledgements_the_position_is_estimated_and_marked() -> None:
    commands = talking().feed(BARGE_IN, playout_cleared(("item_1", 2000, 900)))
    assert only(commands, cmd.SendInterrupted)[0].estimated is True
    assert only(commands, cmd.TruncateItem)[0].audio_end_ms == 900


def test_d2_3_the_item_being_played_is_truncated_not_the_last_one_received() -> None:
    harness = talking(ms=2000)
    harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0), ev.ItemAdded(Item("item_2", "message", "assistant")))
    harness.feed(audio(item="item_2", ms=2000))
    harness.feed(ev.Playback("item_1", 500))
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 1500, 500), ("item_2", 0, 0)))
    assert [one.item_id for one in only(commands, cmd.TruncateItem)] == ["item_1"]
    assert [one.item_id for one in only(commands, cmd.DeleteItem)] == ["item_2"]
    assert [one.item_id for one in only(commands, cmd.SendInterrupted)] == ["item_1"]


def test_d2_3_what_was_never_heard_is_deleted_if_it_was_added() -> None:
    commands = talking().feed(BARGE_IN, playout_cleared(("item_1", 0, 0)))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "SendInterrupted", "DeleteItem"]
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.ResponseCreated("resp_1"), audio())
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 0, 0)))
    assert not only(commands, cmd.DeleteItem), "the upstream has not added it: nothing to delete"


def test_d2_3_what_was_heard_to_its_end_is_not_touched() -> None:
    harness = talking(ms=500)
    harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done(), ev.Playback("item_1", 500))
    assert kinds(harness.feed(BARGE_IN)) == ["SendSpeechState"]
    harness = talking(ms=500)
    harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done())
    assert kinds(harness.feed(BARGE_IN, playout_cleared())) == ["SendSpeechState", "ClearPlayout"], (
        "the playout no longer lists it"
    )


def test_d2_3_one_part_heard_keeps_the_item() -> None:
    harness = DeviceSessionHarness().ready()
    harness.model_speaks(ms=1000)
    harness.feed(audio(ms=1000, part=1))
    commands = harness.feed(BARGE_IN, playout_cleared(("item_1", 1000, 600)))
    assert not only(commands, cmd.DeleteItem)


def test_d2_5_a_response_requested_before_the_barge_in_is_cancelled_when_it_appears() -> None:
    harness = DeviceSessionHarness().ready()
    [_, create] = harness.feed(ev.UserText("hello"))
    harness.feed(BARGE_IN)
    [cancel] = harness.feed(ev.ResponseCreated("resp_1", request_id=create.event_id))
    assert cancel == cmd.CancelResponse("resp_1", cancel.event_id)
    assert harness.feed(audio()) == []


def test_d2_6_the_truncation_does_not_depend_on_the_inputs_clock() -> None:
    cuts = []
    for audio_start_ms in (0, 987_654):
        commands = talking().feed(ev.SpeechStarted("item_user", audio_start_ms), playout_cleared(("item_1", 2000, 900)))
        cuts.append(only(commands, cmd.TruncateItem)[0].audio_end_ms)
    assert cuts == [900, 900]


def test_the_client_can_interrupt_and_the_response_is_cancelled_by_id() -> None:
    commands = talking().feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert kinds(commands) == ["ClearPlayout", "SendInterrupted", "CancelResponse", "TruncateItem"]


def test_an_interrupt_in_silence_does_nothing() -> None:
    harness = DeviceSessionHarness().ready()
    assert harness.feed(ev.Interrupt()) == []


def test_an_interrupt_after_the_response_ended_still_stops_what_is_playing() -> None:
    harness = talking()
    harness.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done())
    commands = harness.feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert kinds(commands) == ["ClearPlayout", "SendInterrupted", "TruncateItem"]


def test_the_end_of_an_interrupted_response_is_reported() -> None:
    harness = talking()
    harness.feed(BARGE_IN, playout_cleared(("item_1", 2000, 900)))
    [end] = harness.feed(done(status="cancelled", reason="turn_detected"))
    assert (end.status, end.more) == ("cancelled", False)


# -- D3: response.create ----------------------------------------------------------------------------------------------


def test_d3_a_typed_turn_is_an_item_and_a_response() -> None:
    [item, create] = DeviceSessionHarness().ready().feed(ev.UserText("hello"))
    assert (item.item.role, item.item.text) == ("user", "hello")
    assert isinstance(create, cmd.CreateResponse)


def test_d3_typed_turns_wait_for_the_one_that_is_active() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.UserText("one"))
    assert harness.feed(ev.UserText("two"), ev.UserText("three")) == []
    harness.model_speaks()
    commands = harness.feed(done())
    assert [one.item.text for one in only(commands, cmd.CreateItem)] == ["two"]
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d3_waiting_turns_are_bounded() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.UserText("now"), *[ev.UserText(str(number)) for number in range(MAX_TYPED_TURNS)])
    [error] = harness.feed(ev.UserText("one too many"))
    assert error.code == "too_many_turns"


def test_d3_cancel_then_create_waits_for_done() -> None:
    harness = talking()
    harness.feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert harness.feed(ev.UserText("something else")) == []
    assert kinds(harness.feed(done(status="cancelled")))[-2:] == ["CreateItem", "CreateResponse"]


def test_d3_a_refused_create_is_repeated_after_the_other_response_is_done() -> None:
    harness = DeviceSessionHarness().ready()
    [_, create] = harness.feed(ev.UserText("hello"))
    refusal = ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id)
    assert harness.feed(refusal) == []
    harness.feed(ev.ResponseCreated("resp_vad", request_id="not_ours"))
    commands = harness.feed(done("resp_vad"))
    assert "CreateResponse" not in kinds(commands), "that response began after the item landed: it is covered"
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.ResponseCreated("resp_vad"))
    harness.feed(ev.UserText("hello"))
    assert kinds(harness.feed(done("resp_vad")))[-1] == "CreateResponse"


def test_d3_a_refused_create_is_repeated_if_no_other_response_begins() -> None:
    harness = DeviceSessionHarness().ready()
    [_, create] = harness.feed(ev.UserText("hello"))
    harness.feed(ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert harness.session.deadline == pytest.approx(RETRY_DELAY_S)
    assert kinds(harness.feed(ev.DeadlineReached(), after_s=RETRY_DELAY_S)) == ["CreateResponse"]


def test_d3_a_create_refused_for_another_reason_ends_the_turn_with_an_error() -> None:
    harness = DeviceSessionHarness().ready()
    [_, create] = harness.feed(ev.UserText("hello"))
    commands = harness.feed(ev.UpstreamErrorEvent("rate_limit_exceeded", "slow down", event_id=create.event_id))
    assert kinds(commands) == ["SendError", "SendResponseStart", "SendResponseEnd"]
    assert (commands[0].code, commands[2].status) == ("response_failed", "failed")
    assert harness.session.turns.responses.slot.is_free


def test_d3_an_upstream_that_stalls_is_abandoned() -> None:
    harness = talking()
    deadline = harness.session.deadline
    assert deadline == pytest.approx(STALL_TIMEOUT_S)
    commands = harness.feed(ev.DeadlineReached(), after_s=STALL_TIMEOUT_S)
    assert kinds(commands) == ["SendError", "SendAudioEnd", "CancelResponse", "SendResponseEnd"]
    assert harness.session.turns.responses.slot.is_free


def test_d7_a_failed_response_is_reported_and_the_turn_ends() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.UserText("hello"), ev.ResponseCreated("resp_1"))
    commands = harness.feed(done(status="failed", error_code="server_error", error_message="try again"))
    assert kinds(commands) == ["SendError", "SendResponseStart", "SendResponseEnd"]
    assert "server_error" in commands[0].message


def test_d7_the_end_of_a_response_never_seen_is_ignored() -> None:
    assert DeviceSessionHarness().ready().feed(done("resp_unknown")) == []


def test_d7_missing_usage_is_zero_usage() -> None:
    harness = talking()
    assert not only(harness.feed(done()), cmd.SendUsage)
    harness = talking()
    assert only(harness.feed(done(usage=Usage(10, 20, 30))), cmd.SendUsage) == [cmd.SendUsage(Usage(10, 20, 30))]


# -- D4: tool calls ---------------------------------------------------------------------------------------------------


def calling(*call_ids: str, config: SessionConfig | None = None) -> DeviceSessionHarness:
    """A session whose first response called tools and is done."""
    harness = DeviceSessionHarness(config).ready()
    harness.feed(ev.ResponseCreated("resp_1"))
    harness.feed(done("resp_1", *[call(call_id) for call_id in call_ids]))
    return harness


def test_d11_an_end_that_comes_twice_costs_once() -> None:
    harness = talking()
    harness.feed(done(usage=Usage(10, 20, 30)))
    assert harness.feed(done(usage=Usage(10, 20, 30))) == []
    assert harness.session.turns.responses.usage == Usage(10, 20, 30)


def test_d4_a_call_runs_only_when_its_response_is_complete() -> None:
    harness = DeviceSessionHarness().ready()
    assert harness.feed(ev.ResponseCreated("resp_1"), ev.OutputItemAdded("resp_1", call("a"))) == []
    commands = harness.feed(done("resp_1", call("a")))
    assert kinds(commands) == ["SendToolStatus", "RunTool"]


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed"])
def test_d4_a_call_of_a_response_that_did_not_complete_is_never_run(status: str) -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.ResponseCreated("resp_1"))
    commands = harness.feed(done("resp_1", call("a"), call("b", status="incomplete"), status=status))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == ["a"], (
        "whole calls get an output all the same"
    )
    assert not only(commands, cmd.CreateResponse)


def test_d4_an_incomplete_call_is_never_run() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.ResponseCreated("resp_1"))
    commands = harness.feed(done("resp_1", call("a", status="incomplete")))
    assert not only(commands, cmd.RunTool)


def test_d4_a_tool_only_response_is_not_reported_as_a_response() -> None:
    harness = DeviceSessionHarness().ready()
    commands = harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", call("a")))
    assert not only(commands, cmd.SendResponseStart)
    assert not only(commands, cmd.SendResponseEnd)


def test_d4_a_preamble_says_that_more_is_to_come() -> None:
    harness = talking(ms=100)
    commands = harness.feed(done("resp_1", call("a")))
    assert only(commands, cmd.SendResponseEnd)[0].more is True


def test_d4_one_output_and_one_follow_up_for_one_call() -> None:
    commands = calling("a").feed(tool_finished("a", '{"time":"9:00"}'))
    assert kinds(commands) == ["SendToolStatus", "CreateItem", "CreateResponse"]
    assert (commands[1].item.call_id, commands[1].item.text) == ("a", '{"time":"9:00"}')


def test_d4_several_calls_one_follow_up() -> None:
    harness = calling("a", "b", "c")
    assert not only(harness.feed(tool_finished("b"), tool_finished("a")), cmd.CreateResponse)
    assert len(only(harness.feed(tool_finished("c")), cmd.CreateResponse)) == 1


def test_d4_a_second_return_is_not_a_second_output() -> None:
    harness = calling("a")
    harness.feed(tool_finished("a"))
    assert harness.feed(tool_finished("a")) == []


def test_d4_a_call_id_runs_once() -> None:
    harness = calling("a")
    harness.feed(tool_finished("a"), ev.ResponseCreated("resp_2"))
    assert not only(harness.feed(done("resp_2", call("a"))), cmd.RunTool)


def test_d4_the_follow_up_waits_for_the_active_response() -> None:
    harness = calling("a")
    harness.feed(ev.ResponseCreated("resp_vad"))
    assert not only(harness.feed(tool_finished("a")), cmd.CreateResponse)
    assert only(harness.feed(done("resp_vad")), cmd.CreateResponse), "it began before the output landed"


def test_d4_a_response_made_after_the_outputs_covers_them() -> None:
    harness = calling("a")
    harness.feed(ev.ResponseCreated("resp_vad"), tool_finished("a"), done("resp_vad"))
    harness.feed(ev.ResponseCreated("resp_follow_up", request_id="relay_unknown"))
    assert not only(harness.feed(done("resp_follow_up")), cmd.CreateResponse)


def test_d4_no_follow_up_in_the_middle_of_the_users_turn() -> None:
    harness = calling("a", "b")
    harness.feed(tool_finished("a"))
    harness.feed(ev.SpeechStarted("item_user"))
    assert not only(harness.feed(tool_finished("b")), cmd.CreateResponse)
    harness.feed(ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    harness.model_speaks("resp_2", "item_2")
    assert not only(harness.feed(done("resp_2")), cmd.CreateResponse)


def test_d4_a_follow_up_due_before_the_user_spoke_is_not_forgotten_if_nothing_comes_of_the_speech() -> None:
    harness = calling("a")
    harness.feed(ev.ResponseCreated("resp_x"), tool_finished("a"))
    harness.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100))
    assert not only(harness.feed(done("resp_x", status="cancelled")), cmd.CreateResponse)
    commands = harness.feed(ev.DeadlineReached(), after_s=AUTO_RESPONSE_TIMEOUT_S)
    assert kinds(commands) == ["CreateResponse"]


def test_d4_interrupted_tools_deliver_without_a_follow_up() -> None:
    harness = calling("a")
    harness.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    harness.model_speaks("resp_2", "item_2", ms=100)
    harness.feed(done("resp_2"))
    commands = harness.feed(tool_finished("a"))
    assert kinds(commands) == ["SendToolStatus", "CreateItem"]


def test_d4_tool_rounds_in_a_row_are_capped() -> None:
    harness = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS):
        [create] = only(harness.feed(tool_finished(f"call_{number - 1}")), cmd.CreateResponse)
        assert create.allow_tools is True
        harness.feed(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        harness.feed(done(f"resp_{number}", call(f"call_{number}")))
    [create] = only(harness.feed(tool_finished(f"call_{MAX_TOOL_ROUNDS - 1}")), cmd.CreateResponse)
    assert create.allow_tools is False


def test_d4_of_too_many_calls_at_once_the_rest_is_answered_and_not_run() -> None:
    ids = [f"call_{number}" for number in range(MAX_RUNNING_CALLS + 3)]
    harness = DeviceSessionHarness().ready()
    commands = harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", *map(call, ids)))
    assert [command.call_id for command in only(commands, cmd.RunTool)] == ids[:MAX_RUNNING_CALLS]
    refused = [command.item for command in only(commands, cmd.CreateItem)]
    assert [item.call_id for item in refused] == ids[MAX_RUNNING_CALLS:]
    assert {item.text for item in refused} == {TOO_MANY_AT_ONCE}
    commands = harness.feed(ev.ResponseCreated("resp_2"), done("resp_2", call("one_more")))
    assert only(commands, cmd.RunTool) == [], "nor are those of the next response, as long as the first ones run"
    commands = harness.feed(*(tool_finished(call_id) for call_id in ids[:MAX_RUNNING_CALLS]))
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d4_a_typed_turn_waits_for_the_answer_that_is_pending() -> None:
    harness = calling("a")
    assert harness.feed(ev.UserText("and then?")) == []
    [create] = only(harness.feed(tool_finished("a")), cmd.CreateResponse)
    harness.feed(ev.ResponseCreated("resp_2", request_id=create.event_id))
    assert kinds(harness.feed(done("resp_2")))[-2:] == ["CreateItem", "CreateResponse"]


def test_arguments_and_result_are_shown_only_where_the_tool_says_so() -> None:
    for shown in (True, False):
        config = SessionConfig(tools=(ToolSpec("clock", "", {}, visible_to_client=shown),))
        harness = DeviceSessionHarness(config).ready()
        harness.feed(ev.ResponseCreated("resp_1"))
        [started] = only(harness.feed(done("resp_1", call("a", arguments='{"city":"Paris"}'))), cmd.SendToolStatus)
        [ended] = only(harness.feed(tool_finished("a", '{"time":"9:00"}')), cmd.SendToolStatus)
        assert (started.arguments is not None, ended.output is not None) == (shown, shown)


def test_arguments_that_are_too_long_to_show_are_not_shown() -> None:
    harness = DeviceSessionHarness(
        SessionConfig(tools=(ToolSpec("clock", "Tells.", {}, visible_to_client=True),))
    ).ready()
    long = call("a", arguments='"' + "x" * MAX_VISIBLE_CHARS + '"')
    commands = harness.feed(ev.ResponseCreated("resp_1"), done("resp_1", long))
    assert only(commands, cmd.SendToolStatus)[0].arguments is None
    assert only(commands, cmd.RunTool)[0].arguments == long.arguments


def test_a_tools_progress_reaches_the_client_while_it_runs_and_not_later() -> None:
    harness = calling("a")
    [told] = harness.feed(ev.ToolCallProgress("a", "half way", 10))
    assert (told.status, told.text, told.name) == ("progress", "half way", "clock")
    harness.feed(tool_finished("a"))
    assert harness.feed(ev.ToolCallProgress("a", "too late", 10)) == []


# -- latency ----------------------------------------------------------------------------------------------------------


def test_a_response_presumed_ours_and_then_refused_is_requested_again() -> None:
    harness = DeviceSessionHarness().ready()
    [_, create] = harness.feed(ev.UserText("hello"))
    harness.feed(ev.ResponseCreated("resp_vad"))  # no metadata: it might be the one that was asked for
    harness.feed(ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert kinds(harness.feed(done("resp_vad")))[-1] == "CreateResponse"


def test_an_interrupt_while_a_tool_runs_ends_the_turn() -> None:
    harness = calling("a")
    commands = harness.feed(ev.Interrupt())
    assert kinds(commands) == ["SendResponseStart", "SendResponseEnd"]
    assert (commands[1].status, commands[1].more) == ("cancelled", False)
    assert kinds(harness.feed(tool_finished("a"))) == ["SendToolStatus", "CreateItem"]


def test_the_calls_of_an_interrupted_response_need_no_follow_up() -> None:
    harness = talking(ms=1000)
    harness.feed(ev.Interrupt(), playout_cleared(("item_1", 500, 300)))
    commands = harness.feed(done("resp_1", call("a")))
    assert only(commands, cmd.RunTool)
    assert not only(harness.feed(tool_finished("a")), cmd.CreateResponse)


def test_a_model_that_calls_on_without_being_allowed_is_answered_but_not_obeyed() -> None:
    harness = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS + 1):
        [create] = only(harness.feed(tool_finished(f"call_{number - 1}")), cmd.CreateResponse)
        harness.feed(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        commands = harness.feed(done(f"resp_{number}", call(f"call_{number}")))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == [f"call_{MAX_TOOL_ROUNDS}"]
    assert only(commands, cmd.SendResponseEnd)[0].more is False
    assert harness.session.turns.responses.slot.is_free


def test_the_latency_of_a_turn_is_reported_step_by_step() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(*[microphone(20) for _ in range(100)])
    harness.feed(ev.SpeechStarted("item_user"))
    harness.now = 10.0
    harness.feed(ev.SpeechStopped("item_user", 1500))  # 2000 ms were heard, so the speech ended 500 ms ago
    harness.now = 10.2
    harness.model_speaks(ms=500)
    harness.now = 10.21
    harness.feed(ev.FirstAudioSent("item_1"))
    harness.now = 10.5
    [latency] = only(harness.feed(ev.Playback("item_1", 200)), TurnMetrics)
    assert latency == TurnMetrics("item_1", 500, 200, 10, 90, 710)


def test_the_silence_that_ends_a_turn_is_part_of_its_latency() -> None:
    harness = DeviceSessionHarness()
    harness.feed(ev.SessionCreated(), ev.SessionUpdated(silence_ms=500))
    harness.feed(*[microphone(20) for _ in range(100)])
    harness.now = 10.0
    harness.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 1990))
    harness.model_speaks(ms=500)
    harness.feed(ev.FirstAudioSent("item_1"))
    [latency] = harness.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.total_ms) == (510, 510)


def test_a_client_that_acknowledges_nothing_is_sent_what_is_known() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.UserText("hello"))
    harness.model_speaks(ms=500)
    harness.feed(ev.FirstAudioSent("item_1"))
    [latency] = harness.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.first_played_ms) == (None, None)


def barged_in(audio_start_ms: int, turn: TurnDetection | None = None) -> TurnMetrics:
    """The figures of a turn whose speech is reported at 10.0, after 2000 ms of input; the client is silent at 10.05."""
    harness = DeviceSessionHarness(SessionConfig() if turn is None else SessionConfig(turn=turn)).ready()
    harness.feed(*[microphone(20) for _ in range(100)])
    harness.model_speaks(ms=2000)
    harness.now = 10.0
    harness.feed(ev.SpeechStarted("item_user", audio_start_ms))
    harness.feed(playout_cleared(("item_1", 900, 600)), after_s=0.05)
    harness.feed(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 2000), after_s=1.0)
    harness.model_speaks("resp_2", "item_2", ms=500)
    harness.feed(ev.FirstAudioSent("item_2"))
    [latency] = harness.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    return latency


@pytest.mark.parametrize(
    ("turn", "audio_start_ms", "barge_in_ms"),
    [
        (None, 1400, 350),  # the speech began 300 ms after the padding, 300 ms before its report
        (TurnDetection(prefix_padding_ms=100), 1400, 550),
        (TurnDetection(prefix_padding_ms=0), 1400, 650),
        (TurnDetection(kind="semantic_vad"), 1400, 650),
        (None, 1900, 50),  # the padding holds what was not sent yet
    ],
)
def test_a_turn_that_began_with_a_barge_in_says_how_long_the_client_spoke_on(
    turn: TurnDetection | None, audio_start_ms: int, barge_in_ms: int
) -> None:
    assert barged_in(audio_start_ms, turn).barge_in_ms == barge_in_ms


def test_a_start_of_speech_that_is_implausible_is_ignored() -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(*[microphone(20) for _ in range(300)])
    harness.model_speaks(ms=2000)
    harness.feed(ev.SpeechStarted("item_user", 0), playout_cleared(("item_1", 900, 600)))
    harness.feed(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 6000), after_s=1.0)
    harness.model_speaks("resp_2", "item_2", ms=500)
    harness.feed(ev.FirstAudioSent("item_2"))
    [latency] = harness.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None


def test_a_turn_that_interrupted_nothing_has_no_barge_in() -> None:
    harness = talking(ms=1000)
    harness.feed(ev.Interrupt(), playout_cleared(("item_1", 500, 300)), done("resp_1", status="cancelled"))
    harness.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user"), after_s=1.0)
    harness.model_speaks("resp_2", "item_2", ms=500)
    harness.feed(ev.FirstAudioSent("item_2"))
    [latency] = harness.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None
