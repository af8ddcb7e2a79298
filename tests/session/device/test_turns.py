"""Whose turn it is, as transcripts: barge-in (D2), response.create (D3), tool calls (D4), latency."""

import pytest

from relay.session.common.limits import REFUSED_RETRY_S, RESPONSE_AFTER_SPEECH_S, STALL_S
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
from relay.session.tools.dispatcher import MAX_SHOWN_CHARS
from relay.session.tools.pending_calls import MAX_RUNNING_CALLS, MAX_TOOL_ROUNDS, TOO_MANY_AT_ONCE
from tests.support.device_script import (
    MANUAL,
    Script,
    audio,
    call,
    done,
    dropped,
    kinds,
    microphone,
    only,
    returned,
)

BARGE_IN = ev.SpeechStarted("item_user", 5000)


def talking(ms: int = 3000, config: SessionConfig | None = None) -> Script:
    script = Script(config).ready()
    script.speaks(ms=ms)
    return script


# -- a plain turn -----------------------------------------------------------------------------------------------------


def test_a_spoken_turn_from_end_to_end() -> None:
    script = Script().ready()
    assert kinds(script.see(ev.SpeechStarted("item_user"))) == ["TellSpeech"]
    assert kinds(script.see(ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))) == ["TellSpeech"]
    commands = script.speaks(ms=100)
    assert kinds(commands) == ["TellResponseStart", "TellText", "PlayStart", "OutputAudio"]
    assert kinds(script.see(audio(ms=100))) == ["OutputAudio"]
    assert script.see(ev.AudioDone("resp_1", "item_1", 0)) == [cmd.PlayEnd("item_1", 0, 200)]
    [end] = script.see(done())
    assert end == cmd.TellResponseEnd("one two three four five six seven eight nine ten", "completed", more=False)


def test_under_vad_the_upstream_creates_the_response_and_the_relay_does_not() -> None:
    script = Script().ready()
    commands = script.see(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert not only(commands, cmd.CreateResponse)


def test_when_vad_does_not_create_responses_the_relay_does() -> None:
    script = Script(SessionConfig(turn=TurnDetection(create_response=False))).ready()
    commands = script.see(BARGE_IN, ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    assert kinds(commands)[-1] == "CreateResponse"


def test_a_manual_turn_is_committed_and_answered() -> None:
    script = Script(MANUAL).ready()
    script.see(*[microphone(50) for _ in range(4)])
    assert kinds(script.see(ev.Commit())) == ["CommitInput"]
    assert kinds(script.see(ev.InputCommitted("item_user"))) == ["CreateResponse"]


def test_a_commit_of_less_than_100_ms_never_leaves_the_relay() -> None:
    script = Script(MANUAL).ready()
    script.see(microphone(80))
    [error] = script.see(ev.Commit())
    assert error.code == "commit_too_short"


def test_a_commit_that_the_upstream_finds_empty_is_told() -> None:
    script = Script(MANUAL).ready()
    script.see(microphone(200))
    [commit] = script.see(ev.Commit())
    [error] = script.see(ev.UpstreamError("input_audio_buffer_commit_empty", "too small", event_id=commit.event_id))
    assert error.code == "commit_too_short"
    assert script.session.turns.responses.slot.is_free


def test_clear_forgets_the_turn() -> None:
    script = Script(MANUAL).ready()
    script.see(microphone(200))
    assert kinds(script.see(ev.Clear())) == ["ClearInput"]
    assert script.see(ev.Commit())[0].code == "commit_too_short"


# -- D2: barge-in -----------------------------------------------------------------------------------------------------


def test_d2_1_the_client_is_silenced_before_anything_is_said_upstream() -> None:
    script = talking()
    assert kinds(script.see(BARGE_IN)) == ["TellSpeech", "DropAudio"]
    commands = script.see(dropped(("item_1", 2000, 1500)))
    assert kinds(commands) == ["TellInterrupted", "TruncateItem"]


def test_d2_1_an_upstream_that_truncates_by_itself_is_not_asked_to() -> None:
    script = Script(options=DeviceOptions(upstream=UpstreamCapabilities(truncates=False))).ready()
    script.speaks(ms=3000)
    script.see(BARGE_IN)
    [interrupted] = script.see(dropped(("item_1", 2000, 1500)))
    assert interrupted == cmd.TellInterrupted("item_1", 1500, "one two three four five", estimated=True)


def test_d2_1_stale_deltas_are_dropped_by_response_id() -> None:
    script = talking()
    script.see(BARGE_IN, dropped(("item_1", 2000, 1500)))
    late = script.see(
        audio(),
        ev.TextDelta("resp_1", "item_1", 0, "eleven", spoken=True),
        ev.TextDone("resp_1", "item_1", 0, "one … eleven", spoken=True),
        ev.AudioDone("resp_1", "item_1", 0),
    )
    assert late == []
    assert kinds(script.speaks("resp_2", "item_2")) == ["TellResponseStart", "TellText", "PlayStart", "OutputAudio"]


def test_d2_2_no_cancel_when_the_upstream_interrupts_by_itself() -> None:
    script = talking()
    commands = script.see(BARGE_IN, dropped(("item_1", 2000, 1500)))
    assert not only(commands, cmd.CancelResponse)


def test_d2_2_a_cancel_by_id_when_it_does_not() -> None:
    script = talking(config=SessionConfig(turn=TurnDetection(interrupt_response=False)))
    commands = script.see(BARGE_IN, dropped(("item_1", 2000, 1500)))
    assert kinds(commands) == ["TellSpeech", "DropAudio", "TellInterrupted", "CancelResponse", "TruncateItem"]
    assert only(commands, cmd.CancelResponse)[0].response_id == "resp_1"


def test_d2_3_the_item_is_cut_at_what_was_acknowledged() -> None:
    script = talking()
    script.see(ev.Playback("item_1", 1210))
    commands = script.see(BARGE_IN, dropped(("item_1", 2000, 1900)))
    [told] = only(commands, cmd.TellInterrupted)
    [truncate] = only(commands, cmd.TruncateItem)
    assert (told.played_ms, told.estimated, truncate.audio_end_ms) == (1210, False, 1210)
    assert told.heard_text == "one two three four"


def test_d2_3_without_acknowledgements_the_cut_is_estimated_and_says_so() -> None:
    commands = talking().see(BARGE_IN, dropped(("item_1", 2000, 900)))
    assert only(commands, cmd.TellInterrupted)[0].estimated is True
    assert only(commands, cmd.TruncateItem)[0].audio_end_ms == 900


def test_d2_3_the_item_being_played_is_cut_not_the_last_one_received() -> None:
    script = talking(ms=2000)
    script.see(ev.AudioDone("resp_1", "item_1", 0), ev.ItemAdded(Item("item_2", "message", "assistant")))
    script.see(audio(item="item_2", ms=2000))
    script.see(ev.Playback("item_1", 500))
    commands = script.see(BARGE_IN, dropped(("item_1", 1500, 500), ("item_2", 0, 0)))
    assert [one.item_id for one in only(commands, cmd.TruncateItem)] == ["item_1"]
    assert [one.item_id for one in only(commands, cmd.DeleteItem)] == ["item_2"]
    assert [one.item_id for one in only(commands, cmd.TellInterrupted)] == ["item_1"]


def test_d2_3_what_was_never_heard_is_deleted_if_it_was_added() -> None:
    commands = talking().see(BARGE_IN, dropped(("item_1", 0, 0)))
    assert kinds(commands) == ["TellSpeech", "DropAudio", "TellInterrupted", "DeleteItem"]
    script = Script().ready()
    script.see(ev.ResponseCreated("resp_1"), audio())
    commands = script.see(BARGE_IN, dropped(("item_1", 0, 0)))
    assert not only(commands, cmd.DeleteItem), "the upstream has not added it: nothing to delete"


def test_d2_3_what_was_heard_to_its_end_is_not_touched() -> None:
    script = talking(ms=500)
    script.see(ev.AudioDone("resp_1", "item_1", 0), done(), ev.Playback("item_1", 500))
    assert kinds(script.see(BARGE_IN)) == ["TellSpeech"]
    script = talking(ms=500)
    script.see(ev.AudioDone("resp_1", "item_1", 0), done())
    assert kinds(script.see(BARGE_IN, dropped())) == ["TellSpeech", "DropAudio"], "the playout no longer lists it"


def test_d2_3_one_part_heard_keeps_the_item() -> None:
    script = Script().ready()
    script.speaks(ms=1000)
    script.see(audio(ms=1000, part=1))
    commands = script.see(BARGE_IN, dropped(("item_1", 1000, 600)))
    assert not only(commands, cmd.DeleteItem)


def test_d2_5_a_response_asked_for_before_the_barge_in_is_cancelled_when_it_appears() -> None:
    script = Script().ready()
    [_, create] = script.see(ev.UserText("hello"))
    script.see(BARGE_IN)
    [cancel] = script.see(ev.ResponseCreated("resp_1", request_id=create.event_id))
    assert cancel == cmd.CancelResponse("resp_1", cancel.event_id)
    assert script.see(audio()) == []


def test_d2_6_the_cut_does_not_depend_on_the_inputs_clock() -> None:
    cuts = []
    for audio_start_ms in (0, 987_654):
        commands = talking().see(ev.SpeechStarted("item_user", audio_start_ms), dropped(("item_1", 2000, 900)))
        cuts.append(only(commands, cmd.TruncateItem)[0].audio_end_ms)
    assert cuts == [900, 900]


def test_the_client_can_interrupt_and_the_response_is_cancelled_by_id() -> None:
    commands = talking().see(ev.Interrupt(), dropped(("item_1", 2000, 900)))
    assert kinds(commands) == ["DropAudio", "TellInterrupted", "CancelResponse", "TruncateItem"]


def test_an_interrupt_in_silence_does_nothing() -> None:
    script = Script().ready()
    assert script.see(ev.Interrupt()) == []


def test_an_interrupt_after_the_response_ended_still_silences_what_is_playing() -> None:
    script = talking()
    script.see(ev.AudioDone("resp_1", "item_1", 0), done())
    commands = script.see(ev.Interrupt(), dropped(("item_1", 2000, 900)))
    assert kinds(commands) == ["DropAudio", "TellInterrupted", "TruncateItem"]


def test_the_end_of_an_interrupted_response_is_told() -> None:
    script = talking()
    script.see(BARGE_IN, dropped(("item_1", 2000, 900)))
    [end] = script.see(done(status="cancelled", reason="turn_detected"))
    assert (end.status, end.more) == ("cancelled", False)


# -- D3: response.create ----------------------------------------------------------------------------------------------


def test_d3_a_typed_turn_is_an_item_and_a_response() -> None:
    [item, create] = Script().ready().see(ev.UserText("hello"))
    assert (item.item.role, item.item.text) == ("user", "hello")
    assert isinstance(create, cmd.CreateResponse)


def test_d3_typed_turns_wait_for_the_one_that_is_active() -> None:
    script = Script().ready()
    script.see(ev.UserText("one"))
    assert script.see(ev.UserText("two"), ev.UserText("three")) == []
    script.speaks()
    commands = script.see(done())
    assert [one.item.text for one in only(commands, cmd.CreateItem)] == ["two"]
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d3_waiting_turns_are_bounded() -> None:
    script = Script().ready()
    script.see(ev.UserText("now"), *[ev.UserText(str(number)) for number in range(MAX_TYPED_TURNS)])
    [error] = script.see(ev.UserText("one too many"))
    assert error.code == "too_many_turns"


def test_d3_cancel_then_create_waits_for_done() -> None:
    script = talking()
    script.see(ev.Interrupt(), dropped(("item_1", 2000, 900)))
    assert script.see(ev.UserText("something else")) == []
    assert kinds(script.see(done(status="cancelled")))[-2:] == ["CreateItem", "CreateResponse"]


def test_d3_a_refused_create_is_asked_again_after_the_other_response_is_done() -> None:
    script = Script().ready()
    [_, create] = script.see(ev.UserText("hello"))
    refusal = ev.UpstreamError("conversation_already_has_active_response", "busy", event_id=create.event_id)
    assert script.see(refusal) == []
    script.see(ev.ResponseCreated("resp_vad", request_id="not_ours"))
    commands = script.see(done("resp_vad"))
    assert "CreateResponse" not in kinds(commands), "that response began after the item landed: it is covered"
    script = Script().ready()
    script.see(ev.ResponseCreated("resp_vad"))
    script.see(ev.UserText("hello"))
    assert kinds(script.see(done("resp_vad")))[-1] == "CreateResponse"


def test_d3_a_refused_create_is_tried_again_if_nothing_else_shows() -> None:
    script = Script().ready()
    [_, create] = script.see(ev.UserText("hello"))
    script.see(ev.UpstreamError("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert script.session.deadline == pytest.approx(REFUSED_RETRY_S)
    assert kinds(script.see(ev.Tick(), after_s=REFUSED_RETRY_S)) == ["CreateResponse"]


def test_d3_a_create_refused_for_another_reason_ends_the_turn_with_a_word() -> None:
    script = Script().ready()
    [_, create] = script.see(ev.UserText("hello"))
    commands = script.see(ev.UpstreamError("rate_limit_exceeded", "slow down", event_id=create.event_id))
    assert kinds(commands) == ["TellError", "TellResponseStart", "TellResponseEnd"]
    assert (commands[0].code, commands[2].status) == ("response_failed", "failed")
    assert script.session.turns.responses.slot.is_free


def test_d3_an_upstream_that_falls_silent_is_given_up() -> None:
    script = talking()
    deadline = script.session.deadline
    assert deadline == pytest.approx(STALL_S)
    commands = script.see(ev.Tick(), after_s=STALL_S)
    assert kinds(commands) == ["TellError", "PlayEnd", "CancelResponse", "TellResponseEnd"]
    assert script.session.turns.responses.slot.is_free


def test_d7_a_failed_response_is_told_and_the_turn_ends() -> None:
    script = Script().ready()
    script.see(ev.UserText("hello"), ev.ResponseCreated("resp_1"))
    commands = script.see(done(status="failed", error_code="server_error", error_message="try again"))
    assert kinds(commands) == ["TellError", "TellResponseStart", "TellResponseEnd"]
    assert "server_error" in commands[0].message


def test_d7_the_end_of_a_response_never_seen_is_ignored() -> None:
    assert Script().ready().see(done("resp_unknown")) == []


def test_d7_missing_usage_is_no_usage() -> None:
    script = talking()
    assert not only(script.see(done()), cmd.TellUsage)
    script = talking()
    assert only(script.see(done(usage=Usage(10, 20, 30))), cmd.TellUsage) == [cmd.TellUsage(Usage(10, 20, 30))]


# -- D4: tool calls ---------------------------------------------------------------------------------------------------


def calling(*call_ids: str, config: SessionConfig | None = None) -> Script:
    """A session whose first response called tools and is done."""
    script = Script(config).ready()
    script.see(ev.ResponseCreated("resp_1"))
    script.see(done("resp_1", *[call(call_id) for call_id in call_ids]))
    return script


def test_d11_an_end_that_comes_twice_costs_once() -> None:
    script = talking()
    script.see(done(usage=Usage(10, 20, 30)))
    assert script.see(done(usage=Usage(10, 20, 30))) == []
    assert script.session.turns.responses.usage == Usage(10, 20, 30)


def test_d4_a_call_runs_only_when_its_response_is_complete() -> None:
    script = Script().ready()
    assert script.see(ev.ResponseCreated("resp_1"), ev.OutputItemAdded("resp_1", call("a"))) == []
    commands = script.see(done("resp_1", call("a")))
    assert kinds(commands) == ["TellTool", "RunTool"]


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed"])
def test_d4_a_call_of_a_response_that_did_not_complete_is_never_run(status: str) -> None:
    script = Script().ready()
    script.see(ev.ResponseCreated("resp_1"))
    commands = script.see(done("resp_1", call("a"), call("b", status="incomplete"), status=status))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == ["a"], (
        "whole calls get an output all the same"
    )
    assert not only(commands, cmd.CreateResponse)


def test_d4_an_incomplete_call_is_never_run() -> None:
    script = Script().ready()
    script.see(ev.ResponseCreated("resp_1"))
    commands = script.see(done("resp_1", call("a", status="incomplete")))
    assert not only(commands, cmd.RunTool)


def test_d4_a_tool_only_response_is_not_told_as_a_response() -> None:
    script = Script().ready()
    commands = script.see(ev.ResponseCreated("resp_1"), done("resp_1", call("a")))
    assert not only(commands, cmd.TellResponseStart)
    assert not only(commands, cmd.TellResponseEnd)


def test_d4_a_preamble_says_that_more_is_to_come() -> None:
    script = talking(ms=100)
    commands = script.see(done("resp_1", call("a")))
    assert only(commands, cmd.TellResponseEnd)[0].more is True


def test_d4_one_output_and_one_follow_up_for_one_call() -> None:
    commands = calling("a").see(returned("a", '{"time":"9:00"}'))
    assert kinds(commands) == ["TellTool", "CreateItem", "CreateResponse"]
    assert (commands[1].item.call_id, commands[1].item.text) == ("a", '{"time":"9:00"}')


def test_d4_several_calls_one_follow_up() -> None:
    script = calling("a", "b", "c")
    assert not only(script.see(returned("b"), returned("a")), cmd.CreateResponse)
    assert len(only(script.see(returned("c")), cmd.CreateResponse)) == 1


def test_d4_a_second_return_is_no_second_output() -> None:
    script = calling("a")
    script.see(returned("a"))
    assert script.see(returned("a")) == []


def test_d4_a_call_id_runs_once() -> None:
    script = calling("a")
    script.see(returned("a"), ev.ResponseCreated("resp_2"))
    assert not only(script.see(done("resp_2", call("a"))), cmd.RunTool)


def test_d4_the_follow_up_waits_for_the_active_response() -> None:
    script = calling("a")
    script.see(ev.ResponseCreated("resp_vad"))
    assert not only(script.see(returned("a")), cmd.CreateResponse)
    assert only(script.see(done("resp_vad")), cmd.CreateResponse), "it began before the output landed"


def test_d4_a_response_made_after_the_outputs_covers_them() -> None:
    script = calling("a")
    script.see(ev.ResponseCreated("resp_vad"), returned("a"), done("resp_vad"))
    script.see(ev.ResponseCreated("resp_follow_up", request_id="relay_unknown"))
    assert not only(script.see(done("resp_follow_up")), cmd.CreateResponse)


def test_d4_no_follow_up_in_the_middle_of_the_users_turn() -> None:
    script = calling("a", "b")
    script.see(returned("a"))
    script.see(ev.SpeechStarted("item_user"))
    assert not only(script.see(returned("b")), cmd.CreateResponse)
    script.see(ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    script.speaks("resp_2", "item_2")
    assert not only(script.see(done("resp_2")), cmd.CreateResponse)


def test_d4_a_follow_up_owed_before_the_user_spoke_is_not_forgotten_if_nothing_comes_of_the_speech() -> None:
    script = calling("a")
    script.see(ev.ResponseCreated("resp_x"), returned("a"))
    script.see(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100))
    assert not only(script.see(done("resp_x", status="cancelled")), cmd.CreateResponse)
    commands = script.see(ev.Tick(), after_s=RESPONSE_AFTER_SPEECH_S)
    assert kinds(commands) == ["CreateResponse"]


def test_d4_interrupted_tools_deliver_without_a_forced_answer() -> None:
    script = calling("a")
    script.see(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 100), ev.InputCommitted("item_user"))
    script.speaks("resp_2", "item_2", ms=100)
    script.see(done("resp_2"))
    commands = script.see(returned("a"))
    assert kinds(commands) == ["TellTool", "CreateItem"]


def test_d4_tool_rounds_in_a_row_are_capped() -> None:
    script = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS):
        [create] = only(script.see(returned(f"call_{number - 1}")), cmd.CreateResponse)
        assert create.allow_tools is True
        script.see(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        script.see(done(f"resp_{number}", call(f"call_{number}")))
    [create] = only(script.see(returned(f"call_{MAX_TOOL_ROUNDS - 1}")), cmd.CreateResponse)
    assert create.allow_tools is False


def test_d4_of_too_many_calls_at_once_the_rest_is_answered_and_not_run() -> None:
    ids = [f"call_{number}" for number in range(MAX_RUNNING_CALLS + 3)]
    script = Script().ready()
    commands = script.see(ev.ResponseCreated("resp_1"), done("resp_1", *map(call, ids)))
    assert [command.call_id for command in only(commands, cmd.RunTool)] == ids[:MAX_RUNNING_CALLS]
    refused = [command.item for command in only(commands, cmd.CreateItem)]
    assert [item.call_id for item in refused] == ids[MAX_RUNNING_CALLS:]
    assert {item.text for item in refused} == {TOO_MANY_AT_ONCE}
    commands = script.see(ev.ResponseCreated("resp_2"), done("resp_2", call("one_more")))
    assert only(commands, cmd.RunTool) == [], "nor are those of the next response, as long as the first ones run"
    commands = script.see(*(returned(call_id) for call_id in ids[:MAX_RUNNING_CALLS]))
    assert len(only(commands, cmd.CreateResponse)) == 1


def test_d4_a_typed_turn_waits_for_the_answer_that_is_owed() -> None:
    script = calling("a")
    assert script.see(ev.UserText("and then?")) == []
    [create] = only(script.see(returned("a")), cmd.CreateResponse)
    script.see(ev.ResponseCreated("resp_2", request_id=create.event_id))
    assert kinds(script.see(done("resp_2")))[-2:] == ["CreateItem", "CreateResponse"]


def test_arguments_and_result_are_shown_only_where_the_tool_says_so() -> None:
    for shown in (True, False):
        config = SessionConfig(tools=(ToolSpec("clock", "", {}, shown=shown),))
        script = Script(config).ready()
        script.see(ev.ResponseCreated("resp_1"))
        [started] = only(script.see(done("resp_1", call("a", arguments='{"city":"Paris"}'))), cmd.TellTool)
        [ended] = only(script.see(returned("a", '{"time":"9:00"}')), cmd.TellTool)
        assert (started.arguments is not None, ended.output is not None) == (shown, shown)


def test_arguments_that_are_too_long_to_show_are_not_shown() -> None:
    script = Script(SessionConfig(tools=(ToolSpec("clock", "Tells.", {}, shown=True),))).ready()
    long = call("a", arguments='"' + "x" * MAX_SHOWN_CHARS + '"')
    commands = script.see(ev.ResponseCreated("resp_1"), done("resp_1", long))
    assert only(commands, cmd.TellTool)[0].arguments is None
    assert only(commands, cmd.RunTool)[0].arguments == long.arguments


def test_a_tools_progress_reaches_the_client_while_it_runs_and_not_later() -> None:
    script = calling("a")
    [told] = script.see(ev.ToolProgressed("a", "half way", 10))
    assert (told.status, told.text, told.name) == ("progress", "half way", "clock")
    script.see(returned("a"))
    assert script.see(ev.ToolProgressed("a", "too late", 10)) == []


# -- latency ----------------------------------------------------------------------------------------------------------


def test_a_response_taken_for_ours_and_then_refused_is_asked_for_again() -> None:
    script = Script().ready()
    [_, create] = script.see(ev.UserText("hello"))
    script.see(ev.ResponseCreated("resp_vad"))  # no metadata: it might be the one that was asked for
    script.see(ev.UpstreamError("conversation_already_has_active_response", "busy", event_id=create.event_id))
    assert kinds(script.see(done("resp_vad")))[-1] == "CreateResponse"


def test_an_interrupt_while_a_tool_runs_ends_the_turn() -> None:
    script = calling("a")
    commands = script.see(ev.Interrupt())
    assert kinds(commands) == ["TellResponseStart", "TellResponseEnd"]
    assert (commands[1].status, commands[1].more) == ("cancelled", False)
    assert kinds(script.see(returned("a"))) == ["TellTool", "CreateItem"]


def test_the_calls_of_an_interrupted_response_force_no_answer() -> None:
    script = talking(ms=1000)
    script.see(ev.Interrupt(), dropped(("item_1", 500, 300)))
    commands = script.see(done("resp_1", call("a")))
    assert only(commands, cmd.RunTool)
    assert not only(script.see(returned("a")), cmd.CreateResponse)


def test_a_model_that_calls_on_without_being_allowed_is_answered_but_not_obeyed() -> None:
    script = calling("call_0")
    for number in range(1, MAX_TOOL_ROUNDS + 1):
        [create] = only(script.see(returned(f"call_{number - 1}")), cmd.CreateResponse)
        script.see(ev.ResponseCreated(f"resp_{number}", request_id=create.event_id))
        commands = script.see(done(f"resp_{number}", call(f"call_{number}")))
    assert not only(commands, cmd.RunTool)
    assert [one.item.call_id for one in only(commands, cmd.CreateItem)] == [f"call_{MAX_TOOL_ROUNDS}"]
    assert only(commands, cmd.TellResponseEnd)[0].more is False
    assert script.session.turns.responses.slot.is_free


def test_the_latency_of_a_turn_is_told_step_by_step() -> None:
    script = Script().ready()
    script.see(*[microphone(20) for _ in range(100)])
    script.see(ev.SpeechStarted("item_user"))
    script.now = 10.0
    script.see(ev.SpeechStopped("item_user", 1500))  # 2000 ms were heard, so the speech ended 500 ms ago
    script.now = 10.2
    script.speaks(ms=500)
    script.now = 10.21
    script.see(ev.AudioHanded("item_1"))
    script.now = 10.5
    [latency] = only(script.see(ev.Playback("item_1", 200)), TurnMetrics)
    assert latency == TurnMetrics("item_1", 500, 200, 10, 90, 710)


def test_the_silence_that_ends_a_turn_is_part_of_its_latency() -> None:
    script = Script()
    script.see(ev.SessionCreated(), ev.SessionUpdated(silence_ms=500))
    script.see(*[microphone(20) for _ in range(100)])
    script.now = 10.0
    script.see(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 1990))
    script.speaks(ms=500)
    script.see(ev.AudioHanded("item_1"))
    [latency] = script.see(ev.Tick(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.total_ms) == (510, 510)


def test_a_client_that_acknowledges_nothing_is_told_what_is_known() -> None:
    script = Script().ready()
    script.see(ev.UserText("hello"))
    script.speaks(ms=500)
    script.see(ev.AudioHanded("item_1"))
    [latency] = script.see(ev.Tick(), after_s=ACK_WAIT_S)
    assert (latency.speech_stopped_ms, latency.first_played_ms) == (None, None)


def barged_in(audio_start_ms: int, turn: TurnDetection | None = None) -> TurnMetrics:
    """The figures of a turn whose speech is reported at 10.0, after 2000 ms of input; the client is silent at 10.05."""
    script = Script(SessionConfig() if turn is None else SessionConfig(turn=turn)).ready()
    script.see(*[microphone(20) for _ in range(100)])
    script.speaks(ms=2000)
    script.now = 10.0
    script.see(ev.SpeechStarted("item_user", audio_start_ms))
    script.see(dropped(("item_1", 900, 600)), after_s=0.05)
    script.see(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 2000), after_s=1.0)
    script.speaks("resp_2", "item_2", ms=500)
    script.see(ev.AudioHanded("item_2"))
    [latency] = script.see(ev.Tick(), after_s=ACK_WAIT_S)
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
    script = Script().ready()
    script.see(*[microphone(20) for _ in range(300)])
    script.speaks(ms=2000)
    script.see(ev.SpeechStarted("item_user", 0), dropped(("item_1", 900, 600)))
    script.see(done("resp_1", status="cancelled"), ev.SpeechStopped("item_user", 6000), after_s=1.0)
    script.speaks("resp_2", "item_2", ms=500)
    script.see(ev.AudioHanded("item_2"))
    [latency] = script.see(ev.Tick(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None


def test_a_turn_that_interrupted_nothing_has_no_barge_in() -> None:
    script = talking(ms=1000)
    script.see(ev.Interrupt(), dropped(("item_1", 500, 300)), done("resp_1", status="cancelled"))
    script.see(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user"), after_s=1.0)
    script.speaks("resp_2", "item_2", ms=500)
    script.see(ev.AudioHanded("item_2"))
    [latency] = script.see(ev.Tick(), after_s=ACK_WAIT_S)
    assert latency.barge_in_ms is None
