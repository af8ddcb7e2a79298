"""What a running tool may do to its session: end it, be ended by a barge-in, keep its result from the model."""

import pytest

from audio.formats import PCM16_24K
from relay.session.common.graceful_end import MAX_DELAY_S
from relay.session.common.model import DeviceOptions, SessionConfig, ToolSpec, TtsOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_script import (
    MS_BYTES,
    DeviceSessionHarness,
    call,
    kinds,
    only,
    playout_cleared,
    tool_finished,
)
from tests.support.device_script import done as response_done
from tests.support.media import SpeechAudio


def calling(*call_ids: str, config: SessionConfig | None = None) -> DeviceSessionHarness:
    """The model has called tools, and they run."""
    script = DeviceSessionHarness(config).ready()
    script.feed(ev.ResponseCreated("resp_1"), response_done("resp_1", *[call(one) for one in call_ids]))
    return script


def answered(script: DeviceSessionHarness, ms: int = 1000) -> None:
    """The tool returns, and the model has answered with `ms` of sound."""
    [create] = only(script.feed(tool_finished("a")), cmd.CreateResponse)
    script.feed(ev.ResponseCreated("resp_2", request_id=create.event_id))
    script.model_speaks("resp_2", "item_2", ms=ms)
    script.feed(ev.OutputAudioDone("resp_2", "item_2", 0))


def test_the_session_ends_once_the_answer_was_heard() -> None:
    script = calling("a")
    assert script.feed(ev.EndSessionRequested("a", "the user said goodbye")) == []
    answered(script)
    script.feed(response_done("resp_2"))
    assert not only(script.feed(ev.Playback("item_2", 500), after_s=0.5), cmd.CloseClient)
    commands = script.feed(ev.Playback("item_2", 1000), after_s=0.1)
    assert only(commands, cmd.SendGoodbye) == [cmd.SendGoodbye("the user said goodbye")]
    assert only(commands, cmd.CloseClient) == [cmd.CloseClient(1000, "the user said goodbye")]


def test_a_client_that_tells_no_position_has_the_time_to_play_it() -> None:
    script = calling("a")
    script.feed(ev.EndSessionRequested("a", "done"))
    answered(script, ms=2000)
    script.feed(response_done("resp_2"))
    assert not only(script.feed(ev.DeadlineReached(), after_s=1.9), cmd.CloseClient)
    assert script.session.deadline is not None
    assert only(script.feed(ev.DeadlineReached(), after_s=0.5), cmd.CloseClient)


def test_what_the_user_still_says_is_answered_first_but_not_for_ever() -> None:
    script = calling("a")
    script.feed(ev.EndSessionRequested("a", "done"))
    answered(script)
    script.feed(ev.SpeechStarted("item_user"))
    script.feed(playout_cleared(("item_2", 500, 400)), response_done("resp_2", status="cancelled"))
    assert not only(script.feed(ev.DeadlineReached(), after_s=5.0), cmd.CloseClient)
    assert only(script.feed(ev.DeadlineReached(), after_s=MAX_DELAY_S), cmd.CloseClient)


@pytest.mark.parametrize("mode", ["streaming", "final"])
def test_what_an_external_voice_has_to_say_is_heard_though_the_response_has_ended(mode: str) -> None:
    rules = TtsOptions(mode)  # type: ignore[arg-type]
    script = DeviceSessionHarness(
        SessionConfig(voice="elevenlabs:v1"), DeviceOptions(output=PCM16_24K), speech=rules
    ).ready()
    script.feed(ev.TtsConnected(), ev.ResponseCreated("resp_1"), response_done("resp_1", call("a")))
    script.feed(ev.EndSessionRequested("a", "done"), tool_finished("a"), ev.ResponseCreated("resp_2"))
    words = ev.TextDelta("resp_2", "item_2", 0, "Good bye. ", spoken=False)
    asked = script.feed(words, response_done("resp_2"))
    [context_id] = {one.context_id for one in asked if isinstance(one, cmd.SynthesizeSentence | cmd.SynthesizeText)}
    speech = SpeechAudio(context_id, 1000 * MS_BYTES)
    assert not only(script.feed(ev.DeadlineReached(), speech, after_s=2.0), cmd.CloseClient), "it speaks when it can"
    assert not only(script.feed(ev.DeadlineReached(), speech, after_s=1.5), cmd.CloseClient)
    script.feed(ev.TtsContextDone(context_id), ev.Playback("item_2", 1000))
    assert not only(script.feed(ev.DeadlineReached(), after_s=0.9), cmd.CloseClient)
    assert only(script.feed(ev.Playback("item_2", 2000), after_s=0.1), cmd.CloseClient)


def test_only_a_running_call_may_end_the_session() -> None:
    script = calling("a")
    script.feed(ev.EndSessionRequested("b", "forged"))
    answered(script)
    script.feed(response_done("resp_2"), ev.EndSessionRequested("a", "too late"))
    assert not only(script.feed(ev.Playback("item_2", 1000), ev.DeadlineReached(), after_s=5.0), cmd.CloseClient)


def test_a_barge_in_ends_the_calls_that_are_made_for_it_after_the_client_fell_silent() -> None:
    tools = (ToolSpec("clock", "", {}, cancel_on_interrupt=True), ToolSpec("save", "", {}))
    script = DeviceSessionHarness(SessionConfig(tools=tools)).ready()
    script.model_speaks()
    script.feed(response_done("resp_1", call("a"), call("b", name="save")))
    commands = script.feed(ev.SpeechStarted("item_user"))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "CancelTool"]
    assert only(commands, cmd.CancelTool) == [cmd.CancelTool("a")]
    assert kinds(script.feed(tool_finished("a", '{"ok":false}', "cancelled"))) == ["SendToolStatus", "CreateItem"]
    assert only(script.feed(ev.Interrupt()), cmd.CancelTool) == []


def test_a_result_for_the_client_is_shown_to_it_alone() -> None:
    script = calling("a", config=SessionConfig(tools=(ToolSpec("clock", "", {}),)))
    result = ev.ToolCallFinished("a", "done", "It is on the screen.", 5, client_output='{"rows":[1,2]}')
    told, item = script.feed(result)[:2]
    assert isinstance(told, cmd.SendToolStatus)
    assert told.output == '{"rows":[1,2]}'
    assert isinstance(item, cmd.CreateItem)
    assert item.item.text == "It is on the screen."
