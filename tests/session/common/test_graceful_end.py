"""What a running tool may do to its session: end it, be ended by a barge-in, keep its result from the model."""

import pytest

from audio.formats import PCM16_24K
from relay.session.common.graceful_end import LATEST_S
from relay.session.common.model import DeviceOptions, SessionConfig, SpeechRules, ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_script import MS_BYTES, Script, call, dropped, kinds, only, returned
from tests.support.device_script import done as response_done
from tests.support.media import SpeechAudio


def calling(*call_ids: str, config: SessionConfig | None = None) -> Script:
    """The model has called tools, and they run."""
    script = Script(config).ready()
    script.see(ev.ResponseCreated("resp_1"), response_done("resp_1", *[call(one) for one in call_ids]))
    return script


def answered(script: Script, ms: int = 1000) -> None:
    """The tool returns, and the model has answered with `ms` of sound."""
    [create] = only(script.see(returned("a")), cmd.CreateResponse)
    script.see(ev.ResponseCreated("resp_2", request_id=create.event_id))
    script.speaks("resp_2", "item_2", ms=ms)
    script.see(ev.AudioDone("resp_2", "item_2", 0))


def test_the_session_ends_once_the_answer_was_heard() -> None:
    script = calling("a")
    assert script.see(ev.EndAsked("a", "the user said goodbye")) == []
    answered(script)
    script.see(response_done("resp_2"))
    assert not only(script.see(ev.Playback("item_2", 500), after_s=0.5), cmd.CloseClient)
    commands = script.see(ev.Playback("item_2", 1000), after_s=0.1)
    assert only(commands, cmd.TellGoodbye) == [cmd.TellGoodbye("the user said goodbye")]
    assert only(commands, cmd.CloseClient) == [cmd.CloseClient(1000, "the user said goodbye")]


def test_a_client_that_tells_no_position_has_the_time_to_play_it() -> None:
    script = calling("a")
    script.see(ev.EndAsked("a", "done"))
    answered(script, ms=2000)
    script.see(response_done("resp_2"))
    assert not only(script.see(ev.Tick(), after_s=1.9), cmd.CloseClient)
    assert script.session.deadline is not None
    assert only(script.see(ev.Tick(), after_s=0.5), cmd.CloseClient)


def test_what_the_user_still_says_is_answered_first_but_not_for_ever() -> None:
    script = calling("a")
    script.see(ev.EndAsked("a", "done"))
    answered(script)
    script.see(ev.SpeechStarted("item_user"))
    script.see(dropped(("item_2", 500, 400)), response_done("resp_2", status="cancelled"))
    assert not only(script.see(ev.Tick(), after_s=5.0), cmd.CloseClient)
    assert only(script.see(ev.Tick(), after_s=LATEST_S), cmd.CloseClient)


@pytest.mark.parametrize("mode", ["streaming", "final"])
def test_what_an_external_voice_has_to_say_is_heard_though_the_response_has_ended(mode: str) -> None:
    rules = SpeechRules(mode)  # type: ignore[arg-type]
    script = Script(SessionConfig(voice="elevenlabs:v1"), DeviceOptions(output=PCM16_24K), speech=rules).ready()
    script.see(ev.VoiceOpened(), ev.ResponseCreated("resp_1"), response_done("resp_1", call("a")))
    script.see(ev.EndAsked("a", "done"), returned("a"), ev.ResponseCreated("resp_2"))
    words = ev.TextDelta("resp_2", "item_2", 0, "Good bye. ", spoken=False)
    asked = script.see(words, response_done("resp_2"))
    [context_id] = {one.context_id for one in asked if isinstance(one, cmd.SpeakText | cmd.SpeakWhole)}
    speech = SpeechAudio(context_id, 1000 * MS_BYTES)
    assert not only(script.see(ev.Tick(), speech, after_s=2.0), cmd.CloseClient), "it speaks when it can"
    assert not only(script.see(ev.Tick(), speech, after_s=1.5), cmd.CloseClient)
    script.see(ev.VoiceFinished(context_id), ev.Playback("item_2", 1000))
    assert not only(script.see(ev.Tick(), after_s=0.9), cmd.CloseClient)
    assert only(script.see(ev.Playback("item_2", 2000), after_s=0.1), cmd.CloseClient)


def test_only_a_running_call_may_end_the_session() -> None:
    script = calling("a")
    script.see(ev.EndAsked("b", "forged"))
    answered(script)
    script.see(response_done("resp_2"), ev.EndAsked("a", "too late"))
    assert not only(script.see(ev.Playback("item_2", 1000), ev.Tick(), after_s=5.0), cmd.CloseClient)


def test_a_barge_in_ends_the_calls_that_are_made_for_it_after_the_client_fell_silent() -> None:
    tools = (ToolSpec("clock", "", {}, cancel_on_interrupt=True), ToolSpec("save", "", {}))
    script = Script(SessionConfig(tools=tools)).ready()
    script.speaks()
    script.see(response_done("resp_1", call("a"), call("b", name="save")))
    commands = script.see(ev.SpeechStarted("item_user"))
    assert kinds(commands) == ["TellSpeech", "DropAudio", "CancelTool"]
    assert only(commands, cmd.CancelTool) == [cmd.CancelTool("a")]
    assert kinds(script.see(returned("a", '{"ok":false}', "cancelled"))) == ["TellTool", "CreateItem"]
    assert only(script.see(ev.Interrupt()), cmd.CancelTool) == []


def test_a_result_for_the_client_is_shown_to_it_alone() -> None:
    script = calling("a", config=SessionConfig(tools=(ToolSpec("clock", "", {}),)))
    result = ev.ToolReturned("a", "done", "It is on the screen.", 5, for_client='{"rows":[1,2]}')
    told, item = script.see(result)[:2]
    assert isinstance(told, cmd.TellTool)
    assert told.output == '{"rows":[1,2]}'
    assert isinstance(item, cmd.CreateItem)
    assert item.item.text == "It is on the screen."
