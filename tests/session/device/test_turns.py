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
from tests.support.device_script import (
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
    script = DeviceSessionHarness(config).ready()
    script.model_speaks(ms=ms)
    return script


# -- a plain turn -----------------------------------------------------------------------------------------------------


def test_a_spoken_turn_from_end_to_end() -> None:
    script = DeviceSessionHarness().ready()
    assert kinds(script.feed(ev.SpeechStarted("item_user"))) == ["SendSpeechState"]
    assert kinds(script.feed(ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))) == ["SendSpeechState"]
    commands = script.model_speaks(ms=100)
    assert kinds(commands) == ["SendResponseStart", "SendTextDelta", "SendAudioStart", "OutputAudio"]
    assert kinds(script.feed(audio(ms=100))) == ["OutputAudio"]
    assert script.feed(ev.OutputAudioDone("resp_1", "item_1", 0)) == [cmd.SendAudioEnd("item_1", 0, 200)]
    [end] = script.feed(done())
    assert end == cmd.SendResponseEnd("one two three four five six seven eight nine ten", "completed", more=False)


def test_under_vad_the_upstream_creates_the_response_and_the_relay_does_not() -> None:
    script = DeviceSessionHarness().ready()
    commands = script.feed(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert not only(commands, cmd.CreateResponse)


def test_when_vad_does_not_create_responses_the_relay_does() -> None:
    script = DeviceSessionHarness(SessionConfig(turn=TurnDetection(create_response=False))).ready()
    commands = script.feed(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert kinds(commands)[-1] == "CreateResponse"


def test_a_manual_turn_is_committed_and_answered() -> None:
    script = DeviceSessionHarness(MANUAL).ready()
    script.feed(*[microphone(50) for _ in range(4)])
    assert kinds(script.feed(ev.Commit())) == ["CommitInput"]
    assert kinds(script.feed(ev.InputCommitted("item_user"))) == ["CreateResponse"]


def test_a_commit_of_less_than_100_ms_never_leaves_the_relay() -> None:
    script = DeviceSessionHarness(MANUAL).ready()
    script.feed(microphone(80))
    [error] = script.feed(ev.Commit())
    assert error.code == "commit_too_short"


def test_a_commit_that_the_upstream_finds_empty_is_told() -> None:
    script = DeviceSessionHarness(MANUAL).ready()
    script.feed(microphone(200))
    [commit] = script.feed(ev.Commit())
    [error] = script.feed(
        ev.UpstreamErrorEvent("input_audio_buffer_commit_empty", "too small", event_id=commit.event_id)
    )
    assert error.code == "commit_too_short"
    assert script.session.turns.responses.slot.is_free


def test_clear_forgets_the_turn() -> None:
    script = DeviceSessionHarness(MANUAL).ready()
    script.feed(microphone(200))
    assert kinds(script.feed(ev.Clear())) == ["ClearInput"]
    assert script.feed(ev.Commit())[0].code == "commit_too_short"


# -- D2: barge-in -----------------------------------------------------------------------------------------------------


def test_d2_1_the_client_is_silenced_before_anything_is_said_upstream() -> None:
    script = talking()
    assert kinds(script.feed(BARGE_IN)) == ["SendSpeechState", "ClearPlayout"]
    commands = script.feed(playout_cleared(("item_1", 2000, 1500)))
    assert kinds(commands) == ["SendInterrupted", "TruncateItem"]


def test_d2_1_an_upstream_that_truncates_by_itself_is_not_asked_to() -> None:
    script = DeviceSessionHarness(
        options=DeviceOptions(upstream=UpstreamCapabilities(supports_truncation=False))
    ).ready()
    script.model_speaks(ms=3000)
    script.feed(BARGE_IN)
    [interrupted] = script.feed(playout_cleared(("item_1", 2000, 1500)))
    assert interrupted == cmd.SendInterrupted("item_1", 1500, "one two three four five", estimated=True)


def test_d2_1_stale_deltas_are_dropped_by_response_id() -> None:
    script = talking()
    script.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    late = script.feed(
        audio(),
        ev.TextDelta("resp_1", "item_1", 0, "eleven", spoken=True),
        ev.TextDone("resp_1", "item_1", 0, "one … eleven", spoken=True),
        ev.OutputAudioDone("resp_1", "item_1", 0),
    )
    assert late == []
    assert kinds(script.model_speaks("resp_2", "item_2")) == [
        "SendResponseStart",
        "SendTextDelta",
        "SendAudioStart",
        "OutputAudio",
    ]


def test_d2_2_no_cancel_when_the_upstream_interrupts_by_itself() -> None:
    script = talking()
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    assert not only(commands, cmd.CancelResponse)


def test_d2_2_a_cancel_by_id_when_it_does_not() -> None:
    script = talking(config=SessionConfig(turn=TurnDetection(interrupt_response=False)))
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1500)))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "SendInterrupted", "CancelResponse", "TruncateItem"]
    assert only(commands, cmd.CancelResponse)[0].response_id == "resp_1"


def test_d2_3_the_item_is_cut_at_what_was_acknowledged() -> None:
    script = talking()
    script.feed(ev.Playback("item_1", 1210))
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 2000, 1900)))
    [told] = only(commands, cmd.SendInterrupted)
    [truncate] = only(commands, cmd.TruncateItem)
    assert (told.played_ms, told.estimated, truncate.audio_end_ms) == (1210, False, 1210)
    assert told.heard_text == "one two three four"


def test_d2_3_without_acknowledgements_the_cut_is_estimated_and_says_so() -> None:
    commands = talking().feed(BARGE_IN, playout_cleared(("item_1", 2000, 900)))
    assert only(commands, cmd.SendInterrupted)[0].estimated is True
    assert only(commands, cmd.TruncateItem)[0].audio_end_ms == 900


def test_d2_3_the_item_being_played_is_cut_not_the_last_one_received() -> None:
    script = talking(ms=2000)
    script.feed(ev.OutputAudioDone("resp_1", "item_1", 0), ev.ItemAdded(Item("item_2", "message", "assistant")))
    script.feed(audio(item="item_2", ms=2000))
    script.feed(ev.Playback("item_1", 500))
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 1500, 500), ("item_2", 0, 0)))
    assert [one.item_id for one in only(commands, cmd.TruncateItem)] == ["item_1"]
    assert [one.item_id for one in only(commands, cmd.DeleteItem)] == ["item_2"]
    assert [one.item_id for one in only(commands, cmd.SendInterrupted)] == ["item_1"]


def test_d2_3_what_was_never_heard_is_deleted_if_it_was_added() -> None:
    commands = talking().feed(BARGE_IN, playout_cleared(("item_1", 0, 0)))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "SendInterrupted", "DeleteItem"]
    script = DeviceSessionHarness().ready()
    script.feed(ev.ResponseCreated("resp_1"), audio())
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 0, 0)))
    assert not only(commands, cmd.DeleteItem), "the upstream has not added it: nothing to delete"


def test_d2_3_what_was_heard_to_its_end_is_not_touched() -> None:
    script = talking(ms=500)
    script.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done(), ev.Playback("item_1", 500))
    assert kinds(script.feed(BARGE_IN)) == ["SendSpeechState"]
    script = talking(ms=500)
    script.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done())
    assert kinds(script.feed(BARGE_IN, playout_cleared())) == ["SendSpeechState", "ClearPlayout"], (
        "the playout no longer lists it"
    )


def test_d2_3_one_part_heard_keeps_the_item() -> None:
    script = DeviceSessionHarness().ready()
    script.model_speaks(ms=1000)
    script.feed(audio(ms=1000, part=1))
    commands = script.feed(BARGE_IN, playout_cleared(("item_1", 1000, 600)))
    assert not only(commands, cmd.DeleteItem)


def test_d2_5_a_response_asked_for_before_the_barge_in_is_cancelled_when_it_appears() -> None:
    script = DeviceSessionHarness().ready()
    [_, create] = script.feed(ev.UserText("hello"))
    script.feed(BARGE_IN)
    [cancel] = script.feed(ev.ResponseCreated("resp_1", request_id=create.event_id))
    assert cancel == cmd.CancelResponse("resp_1", cancel.event_id)
    assert script.feed(audio()) == []


def test_d2_6_the_cut_does_not_depend_on_the_inputs_clock() -> None:
    cuts = []
    for audio_start_ms in (0, 987_654):
        commands = talking().feed(ev.SpeechStarted("item_user", audio_start_ms), playout_cleared(("item_1", 2000, 900)))
        cuts.append(only(commands, cmd.TruncateItem)[0].audio_end_ms)
    assert cuts == [900, 900]


def test_the_client_can_interrupt_and_the_response_is_cancelled_by_id() -> None:
    commands = talking().feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert kinds(commands) == ["ClearPlayout", "SendInterrupted", "CancelResponse", "TruncateItem"]


def test_an_interrupt_in_silence_does_nothing() -> None:
    script = DeviceSessionHarness().ready()
    assert script.feed(ev.Interrupt()) == []


def test_an_interrupt_after_the_response_ended_still_silences_what_is_playing() -> None:
    script = talking()
    script.feed(ev.OutputAudioDone("resp_1", "item_1", 0), done())
    commands = script.feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert kinds(commands) == ["ClearPlayout", "SendInterrupted", "TruncateItem"]


def test_the_end_of_an_interrupted_response_is_told() -> None:
    script = talking()
    script.feed(BARGE_IN, playout_cleared(("item_1", 2000, 900)))
    [end] = script.feed(done(status="cancelled", reason="turn_detected"))
    assert (end.status, end.more) == ("cancelled", False)


# -- D3: response.create ----------------------------------------------------------------------------------------------


def test_d3_a_typed_turn_is_an_item_and_a_response() -> None:
    [item, create] = DeviceSessionHarness().ready().feed(ev.UserText("hello"))
    assert (item.item.role, item.item.text) == ("user", "hello")
    assert isinstance(create, cmd.CreateResponse)


def test_d3_typed_turns_wait_for_the_one_that_is_active() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.UserText("one"))
    assert script.feed(ev.UserText("two"), ev.UserText("three")) == []
    script.model_speaks()
    commands = script.feed(done())
    assert [one.item.text for one in only(commands, cmd.CreateItem)] == ["two"]
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d3_waiting_turns_are_bounded() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.UserText("now"), *[ev.UserText(str(number)) for number in range(MAX_TYPED_TURNS)])
    [error] = script.feed(ev.UserText("one too many"))
    assert error.code == "too_many_turns"


def test_d3_cancel_then_create_waits_for_done() -> None:
    script = talking()
    script.feed(ev.Interrupt(), playout_cleared(("item_1", 2000, 900)))
    assert script.feed(ev.UserText("something else")) == []
    assert kinds(script.feed(done(status="cancelled")))[-2:] == ["CreateItem", "CreateResponse"]


def test_d3_a_refused_create_is_asked_again_after_the_other_response_is_done() -> None:
    script = DeviceSessionHarness().ready()
    [_, create] = script.feed(ev.UserText("hello"))
    refusal = ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id)
    assert script.feed(refusal) == []
    script.feed(ev.ResponseCreated("resp_vad", request_id="not_ours"))
    commands = script.feed(done("resp_vad"))
    assert "CreateResponse" not in kinds(commands), "that response began after the item landed: it is covered"
    script = DeviceSessionHarness().ready()
    script.feed(ev.ResponseCreated("resp_vad"))
    script.feed(ev.UserText("hello"))
    assert kinds(script.feed(done("resp_vad")))[-1] == "CreateResponse"


def test_d3_a_refused_create_is_tried_again_if_nothing_else_shows() -> None:
    script = DeviceSessionHarness().ready()
    [_, create] = script.feed(ev.UserText("hello"))
    script.feed(ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert script.session.deadline == pytest.approx(RETRY_DELAY_S)
    assert kinds(script.feed(ev.DeadlineReached(), after_s=RETRY_DELAY_S)) == ["CreateResponse"]


def test_d3_a_create_refused_for_another_reason_ends_the_turn_with_a_word() -> None:
    script = DeviceSessionHarness().ready()
    [_, create] = script.feed(ev.UserText("hello"))
    commands = script.feed(ev.UpstreamErrorEvent("rate_limit_exceeded", "slow down", event_id=create.event_id))
    assert kinds(commands) == ["SendError", "SendResponseStart", "SendResponseEnd"]
    assert (commands[0].code, commands[2].status) == ("response_failed", "failed")
    assert script.session.turns.responses.slot.is_free


def test_d3_an_upstream_that_falls_silent_is_given_up() -> None:
    script = talking()
    deadline = script.session.deadline
    assert deadline == pytest.approx(STALL_TIMEOUT_S)
    commands = script.feed(ev.DeadlineReached(), after_s=STALL_TIMEOUT_S)
    assert kinds(commands) == ["SendError", "SendAudioEnd", "CancelResponse", "SendResponseEnd"]
    assert script.session.turns.responses.slot.is_free


def test_d7_a_failed_response_is_told_and_the_turn_ends() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.UserText("hello"), ev.ResponseCreated("resp_1"))
    commands = script.feed(done(status="failed", error_code="server_error", error_message="try again"))
    assert kinds(commands) == ["SendError", "SendResponseStart", "SendResponseEnd"]
    assert "server_error" in commands[0].message


def test_d7_the_end_of_a_response_never_seen_is_ignored() -> None:
    assert DeviceSessionHarness().ready().feed(done("resp_unknown")) == []


def test_d7_missing_usage_is_no_usage() -> None:
    script = talking()
    assert not only(script.feed(done()), cmd.SendUsage)
    script = talking()
    assert only(script.feed(done(usage=Usage(10, 20, 30))), cmd.SendUsage) == [cmd.SendUsage(Usage(10, 20, 30))]


# -- D4: tool calls ---------------------------------------------------------------------------------------------------


def calling(*call_ids: str, config: SessionConfig | None = None) -> DeviceSessionHarness:
    """A session whose first response called tools and is done."""
    script = DeviceSessionHarness(config).ready()
    script.feed(ev.ResponseCreated("resp_1"))
    script.feed(done("resp_1", *[call(call_id) for call_id in call_ids]))
    return script


def test_d11_an_end_that_comes_twice_costs_once() -> None:
    script = talking()
    script.feed(done(usage=Usage(10, 20, 30)))
    assert script.feed(done(usage=Usage(10, 20, 30))) == []
    assert script.session.turns.responses.usage == Usage(10, 20, 30)


def test_d4_a_call_runs_only_when_its_response_is_complete() -> None:
    script = DeviceSessionHarness().ready()
    assert script.feed(ev.ResponseCreated("resp_1"), ev.OutputItemAdded("resp_1", call("a"))) == []
    commands = script.feed(done("resp_1", call("a")))
    assert kinds(commands) == ["SendToolStatus", "RunTool"]


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed"])
def test_d4_a_call_of_a_response_that_did_not_complete_is_never_run(status: str) -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.ResponseCreated("resp_1"))
    commands = script.feed(done("resp_1", call("a"), call("b", status="incomplete"), status=status))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == ["a"], (
        "whole calls get an output all the same"
    )
    assert not only(commands, cmd.CreateResponse)


def test_d4_an_incomplete_call_is_never_run() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.ResponseCreated("resp_1"))
    commands = script.feed(done("resp_1", call("a", status="incomplete")))
    assert not only(commands, cmd.RunTool)


def test_d4_a_tool_only_response_is_not_told_as_a_response() -> None:
    script = DeviceSessionHarness().ready()
    commands = script.feed(ev.ResponseCreated("resp_1"), done("resp_1", call("a")))
    assert not only(commands, cmd.SendResponseStart)
    assert not only(commands, cmd.SendResponseEnd)


def test_d4_a_preamble_says_that_more_is_to_come() -> None:
    script = talking(ms=100)
    commands = script.feed(done("resp_1", call("a")))
    assert only(commands, cmd.SendResponseEnd)[0].more is True


def test_d4_one_output_and_one_follow_up_for_one_call() -> None:
    commands = calling("a").feed(tool_finished("a", '{"time":"9:00"}'))
    assert kinds(commands) == ["SendToolStatus", "CreateItem", "CreateResponse"]
    assert (commands[1].item.call_id, commands[1].item.text) == ("a", '{"time":"9:00"}')


def test_d4_several_calls_one_follow_up() -> None:
    script = calling("a", "b", "c")
    assert not only(script.feed(tool_finished("b"), tool_finished("a")), cmd.CreateResponse)
    assert len(only(script.feed(tool_finished("c")), cmd.CreateResponse)) == 1


def test_d4_a_second_return_is_no_second_output() -> None:
    script = calling("a")
    script.feed(tool_finished("a"))
    assert script.feed(tool_finished("a")) == []


def test_d4_a_call_id_runs_once() -> None:
    script = calling("a")
    script.feed(tool_finished("a"), ev.ResponseCreated("resp_2"))
    assert not only(script.feed(done("resp_2", call("a"))), cmd.RunTool)


def test_d4_the_follow_up_waits_for_the_active_response() -> None:
    script = calling("a")
    script.feed(ev.ResponseCreated("resp_vad"))
    assert not only(script.feed(tool_finished("a")), cmd.CreateResponse)
    assert only(script.feed(done("resp_vad")), cmd.CreateResponse), "it began before the output landed"


def test_d4_a_response_made_after_the_outputs_covers_them() -> None:
    script = calling("a")
    script.feed(ev.ResponseCreated("resp_vad"), tool_finished("a"), done("resp_vad"))
    script.feed(ev.ResponseCreated("resp_follow_up", request_id="relay_unknown"))
    assert not only(script.feed(done("resp_follow_up")), cmd.CreateResponse)


def test_d4_no_follow_up_in_the_middle_of_the_users_turn() -> None:
    script = calling("a", "b")
    script.feed(tool_finished("a"))
    script.feed(ev.SpeechStarted("item_user"))
    assert not only(script.feed(tool_finished("b")), cmd.CreateResponse)
    script.feed(ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    script.model_speaks("resp_2", "item_2")
    assert not only(script.feed(done("resp_2")), cmd.CreateResponse)


def test_d4_a_follow_up_owed_before_the_user_spoke_is_not_forgotten_if_nothing_comes_of_the_speech() -> None:
    script = calling("a")
    script.feed(ev.ResponseCreated("resp_x"), tool_finished("a"))
    script.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100))
    assert not only(script.feed(done("resp_x", status="cancelled")), cmd.CreateResponse)
    commands = script.feed(ev.DeadlineReached(), after_s=AUTO_RESPONSE_TIMEOUT_S)
    assert kinds(commands) == ["CreateResponse"]


def test_d4_interrupted_tools_deliver_without_a_forced_answer() -> None:
    script = calling("a")
    script.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    script.model_speaks("resp_2", "item_2", ms=100)
    script.feed(done("resp_2"))
    commands = script.feed(tool_finished("a"))
    assert kinds(commands) == ["SendToolStatus", "CreateItem"]


def test_d4_tool_rounds_in_a_row_are_capped() -> None:
    script = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS):
        [create] = only(script.feed(tool_finished(f"call_{number - 1}")), cmd.CreateResponse)
        assert create.allow_tools is True
        script.feed(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        script.feed(done(f"resp_{number}", call(f"call_{number}")))
    [create] = only(script.feed(tool_finished(f"call_{MAX_TOOL_ROUNDS - 1}")), cmd.CreateResponse)
    assert create.allow_tools is False


def test_d4_of_too_many_calls_at_once_the_rest_is_answered_and_not_run() -> None:
    ids = [f"call_{number}" for number in range(MAX_RUNNING_CALLS + 3)]
    script = DeviceSessionHarness().ready()
    commands = script.feed(ev.ResponseCreated("resp_1"), done("resp_1", *map(call, ids)))
    assert [command.call_id for command in only(commands, cmd.RunTool)] == ids[:MAX_RUNNING_CALLS]
    refused = [command.item for command in only(commands, cmd.CreateItem)]
    assert [item.call_id for item in refused] == ids[MAX_RUNNING_CALLS:]
    assert {item.text for item in refused} == {TOO_MANY_AT_ONCE}
    commands = script.feed(ev.ResponseCreated("resp_2"), done("resp_2", call("one_more")))
    assert only(commands, cmd.RunTool) == [], "nor are those of the next response, as long as the first ones run"
    commands = script.feed(*(tool_finished(call_id) for call_id in ids[:MAX_RUNNING_CALLS]))
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d4_a_typed_turn_waits_for_the_answer_that_is_owed() -> None:
    script = calling("a")
    assert script.feed(ev.UserText("and then?")) == []
    [create] = only(script.feed(tool_finished("a")), cmd.CreateResponse)
    script.feed(ev.ResponseCreated("resp_2", request_id=create.event_id))
    assert kinds(script.feed(done("resp_2")))[-2:] == ["CreateItem", "CreateResponse"]


def test_arguments_and_result_are_shown_only_where_the_tool_says_so() -> None:
    for shown in (True, False):
        config = SessionConfig(tools=(ToolSpec("clock", "", {}, visible_to_client=shown),))
        script = DeviceSessionHarness(config).ready()
        script.feed(ev.ResponseCreated("resp_1"))
        [started] = only(script.feed(done("resp_1", call("a", arguments='{"city":"Paris"}'))), cmd.SendToolStatus)
        [ended] = only(script.feed(tool_finished("a", '{"time":"9:00"}')), cmd.SendToolStatus)
        assert (started.arguments is not None, ended.output is not None) == (shown, shown)


def test_arguments_that_are_too_long_to_show_are_not_shown() -> None:
    script = DeviceSessionHarness(
        SessionConfig(tools=(ToolSpec("clock", "Tells.", {}, visible_to_client=True),))
    ).ready()
    long = call("a", arguments='"' + "x" * MAX_VISIBLE_CHARS + '"')
    commands = script.feed(ev.ResponseCreated("resp_1"), done("resp_1", long))
    assert only(commands, cmd.SendToolStatus)[0].arguments is None
    assert only(commands, cmd.RunTool)[0].arguments == long.arguments


def test_a_tools_progress_reaches_the_client_while_it_runs_and_not_later() -> None:
    script = calling("a")
    [told] = script.feed(ev.ToolCallProgress("a", "half way", 10))
    assert (told.status, told.text, told.name) == ("progress", "half way", "clock")
    script.feed(tool_finished("a"))
    assert script.feed(ev.ToolCallProgress("a", "too late", 10)) == []


# -- latency ----------------------------------------------------------------------------------------------------------


def test_a_response_taken_for_ours_and_then_refused_is_asked_for_again() -> None:
    script = DeviceSessionHarness().ready()
    [_, create] = script.feed(ev.UserText("hello"))
    script.feed(ev.ResponseCreated("resp_vad"))  # no metadata: it might be the one that was asked for
    script.feed(ev.UpstreamErrorEvent("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert kinds(script.feed(done("resp_vad")))[-1] == "CreateResponse"


def test_an_interrupt_while_a_tool_runs_ends_the_turn() -> None:
    script = calling("a")
    commands = script.feed(ev.Interrupt())
    assert kinds(commands) == ["SendResponseStart", "SendResponseEnd"]
    assert (commands[1].status, commands[1].more) == ("cancelled", False)
    assert kinds(script.feed(tool_finished("a"))) == ["SendToolStatus", "CreateItem"]


def test_the_calls_of_an_interrupted_response_force_no_answer() -> None:
    script = talking(ms=1000)
    script.feed(ev.Interrupt(), playout_cleared(("item_1", 500, 300)))
    commands = script.feed(done("resp_1", call("a")))
    assert only(commands, cmd.RunTool)
    assert not only(script.feed(tool_finished("a")), cmd.CreateResponse)


def test_a_model_that_calls_on_without_being_allowed_is_answered_but_not_obeyed() -> None:
    script = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS + 1):
        [create] = only(script.feed(tool_finished(f"call_{number - 1}")), cmd.CreateResponse)
        script.feed(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        commands = script.feed(done(f"resp_{number}", call(f"call_{number}")))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == [f"call_{MAX_TOOL_ROUNDS}"]
    assert only(commands, cmd.SendResponseEnd)[0].more is False
    assert script.session.turns.responses.slot.is_free


def test_the_latency_of_a_turn_is_told_step_by_step() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(*[microphone(20) for _ in range(100)])
    script.feed(ev.SpeechStarted("item_user"))
    script.now = 10.0
    script.feed(ev.SpeechStopped("item_user", 1500))  # 2000 ms were heard, so the speech ended 500 ms ago
    script.now = 10.2
    script.model_speaks(ms=500)
    script.now = 10.21
    script.feed(ev.FirstAudioSent("item_1"))
    script.now = 10.5
    [latency] = only(script.feed(ev.Playback("item_1", 200)), TurnMetrics)
    assert latency == TurnMetrics("item_1", 500, 200, 10, 90, 710)


def test_the_silence_that_ends_a_turn_is_part_of_its_latency() -> None:
    script = DeviceSessionHarness()
    script.feed(ev.SessionCreated(), ev.SessionUpdated(silence_ms=500))
    script.feed(*[microphone(20) for _ in range(100)])
    script.now = 10.0
    script.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 1990))
    script.model_speaks(ms=500)
    script.feed(ev.FirstAudioSent("item_1"))
    [latency] = script.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.total_ms) == (510, 510)


def test_a_client_that_acknowledges_nothing_is_told_what_is_known() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(ev.UserText("hello"))
    script.model_speaks(ms=500)
    script.feed(ev.FirstAudioSent("item_1"))
    [latency] = script.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.first_played_ms) == (None, None)


def barged_in(audio_start_ms: int, turn: TurnDetection | None = None) -> TurnMetrics:
    """The figures of a turn whose speech is reported at 10.0, after 2000 ms of input; the client is silent at 10.05."""
    script = DeviceSessionHarness(SessionConfig() if turn is None else SessionConfig(turn=turn)).ready()
    script.feed(*[microphone(20) for _ in range(100)])
    script.model_speaks(ms=2000)
    script.now = 10.0
    script.feed(ev.SpeechStarted("item_user", audio_start_ms))
    script.feed(playout_cleared(("item_1", 900, 600)), after_s=0.05)
    script.feed(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 2000), after_s=1.0)
    script.model_speaks("resp_2", "item_2", ms=500)
    script.feed(ev.FirstAudioSent("item_2"))
    [latency] = script.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    return latency


@pytest.mark.parametrize(
    ("turn", "audio_start_ms", "barge_in_ms"),
    [
        (None, 1400, 350),  # the speech began 300 ms behind the padding, 300 ms before its report
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


def test_a_start_of_speech_that_cannot_be_is_not_believed() -> None:
    script = DeviceSessionHarness().ready()
    script.feed(*[microphone(20) for _ in range(300)])
    script.model_speaks(ms=2000)
    script.feed(ev.SpeechStarted("item_user", 0), playout_cleared(("item_1", 900, 600)))
    script.feed(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 6000), after_s=1.0)
    script.model_speaks("resp_2", "item_2", ms=500)
    script.feed(ev.FirstAudioSent("item_2"))
    [latency] = script.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None


def test_a_turn_that_interrupted_nothing_has_no_barge_in() -> None:
    script = talking(ms=1000)
    script.feed(ev.Interrupt(), playout_cleared(("item_1", 500, 300)), done("resp_1", status="cancelled"))
    script.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user"), after_s=1.0)
    script.model_speaks("resp_2", "item_2", ms=500)
    script.feed(ev.FirstAudioSent("item_2"))
    [latency] = script.feed(ev.DeadlineReached(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None
