"""What a running tool may do to its session: end it, be ended by a barge-in, keep its result from the model."""

import pytest

from audio.formats import PCM16_24K
from relay.session.common.graceful_end import MAX_DELAY_S
from relay.session.common.model import DeviceOptions, SessionConfig, ToolSpec, TtsOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_session_harness import (
    MS_BYTES,
    DeviceSessionHarness,
    call,
    kinds,
    only,
    playout_cleared,
    tool_finished,
)
from tests.support.device_session_harness import done as response_done
from tests.support.media import SpeechAudio


def calling(*call_ids: str, config: SessionConfig | None = None) -> DeviceSessionHarness:
    """The model has called tools, and they run."""
    harness = DeviceSessionHarness(config).ready()
    harness.feed(ev.ResponseCreated("resp_1"), response_done("resp_1", *[call(call_id) for call_id in call_ids]))
    return harness


def answered(harness: DeviceSessionHarness, ms: int = 1000) -> None:
    """The tool returns, and the model has answered with `ms` of audio."""
    [create] = only(harness.feed(tool_finished("a")), cmd.CreateResponse)
    harness.feed(ev.ResponseCreated("resp_2", request_id=create.event_id))
    harness.model_speaks("resp_2", "item_2", ms=ms)
    harness.feed(ev.OutputAudioDone("resp_2", "item_2", 0))


def test_the_session_ends_once_the_answer_was_heard() -> None:
    harness = calling("a")
    assert harness.feed(ev.EndSessionRequested("a", "the user said goodbye")) == []
    answered(harness)
    harness.feed(response_done("resp_2"))
    assert not only(harness.feed(ev.Playback("item_2", 500), after_s=0.5), cmd.CloseClient)
    commands = harness.feed(ev.Playback("item_2", 1000), after_s=0.1)
    assert only(commands, cmd.SendGoodbye) == [cmd.SendGoodbye("the user said goodbye")]
    assert only(commands, cmd.CloseClient) == [cmd.CloseClient(1000, "the user said goodbye")]


def test_a_client_that_acknowledges_nothing_has_the_time_to_play_it() -> None:
    harness = calling("a")
    harness.feed(ev.EndSessionRequested("a", "done"))
    answered(harness, ms=2000)
    harness.feed(response_done("resp_2"))
    assert not only(harness.feed(ev.DeadlineReached(), after_s=1.9), cmd.CloseClient)
    assert harness.session.deadline is not None
    assert only(harness.feed(ev.DeadlineReached(), after_s=0.5), cmd.CloseClient)


def test_further_speech_is_answered_first_but_not_forever() -> None:
    harness = calling("a")
    harness.feed(ev.EndSessionRequested("a", "done"))
    answered(harness)
    harness.feed(ev.SpeechStarted("item_user"))
    harness.feed(playout_cleared(("item_2", 500, 400)), response_done("resp_2", status="cancelled"))
    assert not only(harness.feed(ev.DeadlineReached(), after_s=5.0), cmd.CloseClient)
    assert only(harness.feed(ev.DeadlineReached(), after_s=MAX_DELAY_S), cmd.CloseClient)


@pytest.mark.parametrize("mode", ["streaming", "final"])
def test_what_an_external_voice_has_left_to_speak_is_played_though_the_response_has_ended(mode: str) -> None:
    rules = TtsOptions(mode)  # type: ignore[arg-type]
    harness = DeviceSessionHarness(
        SessionConfig(voice="elevenlabs:v1"), DeviceOptions(output=PCM16_24K), speech=rules
    ).ready()
    harness.feed(ev.TtsConnected(), ev.ResponseCreated("resp_1"), response_done("resp_1", call("a")))
    harness.feed(ev.EndSessionRequested("a", "done"), tool_finished("a"), ev.ResponseCreated("resp_2"))
    words = ev.TextDelta("resp_2", "item_2", 0, "Good bye. ", spoken=False)
    commands = harness.feed(words, response_done("resp_2"))
    [context_id] = {
        command.context_id for command in commands if isinstance(command, cmd.SynthesizeSentence | cmd.SynthesizeText)
    }
    speech = SpeechAudio(context_id, 1000 * MS_BYTES)
    assert not only(harness.feed(ev.DeadlineReached(), speech, after_s=2.0), cmd.CloseClient), "it speaks when it can"
    assert not only(harness.feed(ev.DeadlineReached(), speech, after_s=1.5), cmd.CloseClient)
    harness.feed(ev.TtsContextDone(context_id), ev.Playback("item_2", 1000))
    assert not only(harness.feed(ev.DeadlineReached(), after_s=0.9), cmd.CloseClient)
    assert only(harness.feed(ev.Playback("item_2", 2000), after_s=0.1), cmd.CloseClient)


def test_only_a_running_call_may_end_the_session() -> None:
    harness = calling("a")
    harness.feed(ev.EndSessionRequested("b", "forged"))
    answered(harness)
    harness.feed(response_done("resp_2"), ev.EndSessionRequested("a", "too late"))
    assert not only(harness.feed(ev.Playback("item_2", 1000), ev.DeadlineReached(), after_s=5.0), cmd.CloseClient)


def test_a_barge_in_ends_the_calls_that_are_made_for_it_after_the_playout_is_cleared() -> None:
    tools = (ToolSpec("clock", "", {}, cancel_on_interrupt=True), ToolSpec("save", "", {}))
    harness = DeviceSessionHarness(SessionConfig(tools=tools)).ready()
    harness.model_speaks()
    harness.feed(response_done("resp_1", call("a"), call("b", name="save")))
    commands = harness.feed(ev.SpeechStarted("item_user"))
    assert kinds(commands) == ["SendSpeechState", "ClearPlayout", "CancelTool"]
    assert only(commands, cmd.CancelTool) == [cmd.CancelTool("a")]
    assert kinds(harness.feed(tool_finished("a", '{"ok":false}', "cancelled"))) == ["SendToolStatus", "CreateItem"]
    assert only(harness.feed(ev.Interrupt()), cmd.CancelTool) == []


def test_a_result_for_the_client_is_shown_to_it_alone() -> None:
    harness = calling("a", config=SessionConfig(tools=(ToolSpec("clock", "", {}),)))
    result = ev.ToolCallFinished("a", "done", "It is on the screen.", 5, client_output='{"rows":[1,2]}')
    status, item = harness.feed(result)[:2]
    assert isinstance(status, cmd.SendToolStatus)
    assert status.output == '{"rows":[1,2]}'
    assert isinstance(item, cmd.CreateItem)
    assert item.item.text == "It is on the screen."
