"""An external voice as the core sees it: which context speaks, what was heard, what the history says."""

import pytest

from audio.formats import AudioFormat
from relay.session.common.model import Alignment, DeviceOptions, Item, SessionConfig, TtsOptions, TurnDetection
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.tts.alignment import AlignedText, TtsUtterance
from relay.session.tts.stream import MAX_CONTEXTS, STALL_TIMEOUT_S
from tests.support.device_session_harness import DeviceSessionHarness, done, kinds, microphone, only, playout_cleared
from tests.support.media import OutputAudio, SpeechAudio

PCM24K = AudioFormat("pcm16", 24_000)
TEXT = "One two three. "


def harness(mode: str = "streaming", fallback: str | None = None, output: AudioFormat = PCM24K) -> DeviceSessionHarness:
    config = SessionConfig(voice="elevenlabs:v1", turn=TurnDetection())
    options = DeviceOptions(output=output)
    return DeviceSessionHarness(config, options, speech=TtsOptions(mode, fallback)).ready()  # type: ignore[arg-type]


def aligned(text: str, ms: int) -> Alignment:
    step = ms // len(text)
    return Alignment(tuple(text), tuple(n * step for n in range(len(text))), tuple(step for _ in text))


def sound(context: str, text: str = "", ms: int = 1000, times: Alignment | None = None) -> SpeechAudio:
    return SpeechAudio(context, ms * 48, times or (aligned(text, ms) if text else None))


def words(text: str, response: str = "resp_1", item: str = "item_1") -> ev.TextDelta:
    return ev.TextDelta(response, item, 0, text, spoken=False)


def answer(
    session: DeviceSessionHarness, text: str, response: str = "resp_1", item: str = "item_1"
) -> list[cmd.Command]:
    """The model writes `text` in a response that goes on."""
    added = ev.ItemAdded(Item(item, "message", "assistant"), "item_user")
    return session.feed(ev.ResponseCreated(response), added, words(text, response, item))


def end(response: str = "resp_1", item: str = "item_1", status: str = "completed") -> ev.ResponseDone:
    return done(response, Item(item, "message", "assistant"), status=status)


def context_of(commands: list[cmd.Command]) -> str:
    return only(commands, cmd.SynthesizeSentence)[0].context_id  # type: ignore[attr-defined,no-any-return]


# -- what was heard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("played_ms", "heard"),
    [(0, ""), (200, ""), (299, ""), (300, "One"), (650, "One"), (700, "One two"), (1399, "One two"), (1400, TEXT)],
)
def test_the_heard_text_at_any_position(played_ms: int, heard: str) -> None:
    spoken = AlignedText()
    spoken.add(TEXT)
    spoken.align(aligned(TEXT, 1500), 0)
    assert spoken.heard_text(played_ms, 1500, is_audio_complete=False).rstrip() == heard.rstrip()


def test_times_count_from_the_beginning_of_their_chunk() -> None:
    spoken = AlignedText()
    spoken.add("One. Two.")
    spoken.align(aligned("One. ", 500), 0)
    spoken.align(aligned("Two. ", 500), 500)
    assert spoken.heard_text(450, 1000, is_audio_complete=False) == "One."
    assert spoken.heard_text(850, 1000, is_audio_complete=False) == "One."
    assert spoken.heard_text(900, 1000, is_audio_complete=False) == "One. Two."


def test_without_times_the_text_is_heard_in_proportion() -> None:
    spoken = AlignedText()
    spoken.add("aaa bbb ccc ddd")
    assert spoken.heard_text(500, 1000, is_audio_complete=True) == "aaa bbb"
    assert spoken.heard_text(1000, 1000, is_audio_complete=True) == "aaa bbb ccc ddd"


def test_times_of_another_text_are_ignored() -> None:
    spoken = AlignedText()
    spoken.add("It is 5 o'clock.")
    spoken.align(aligned("It is five o'clock.", 1900), 0)
    assert spoken.aligned_chars is None
    assert spoken.heard_text(500, 1900, is_audio_complete=True) == "It is"


def test_what_is_heard_of_several_items_is_split_by_item() -> None:
    utterance = TtsUtterance("resp_1", "item_1", 0)
    utterance.add("item_1", 0, "One.")
    utterance.add("item_2", 0, "Two.")
    assert utterance.unsent_sentences == ["One."]
    assert utterance.heard_by_item("One.\nTw") == [("item_1", "One.", "One."), ("item_2", "Two.", "Tw")]


# -- speaking ---------------------------------------------------------------------------------------------------------


def test_a_session_asks_for_text_and_has_the_voice_ready() -> None:
    session = DeviceSessionHarness(
        SessionConfig(voice="elevenlabs:v1"), DeviceOptions(output=PCM24K), speech=TtsOptions()
    )
    commands = session.feed(ev.UpstreamOpened(), ev.SessionCreated())
    assert only(commands, cmd.ConfigureSession)[0].config.external_voice == "v1"  # type: ignore[attr-defined]
    assert cmd.ConnectTts("v1", PCM24K) in session.feed(ev.SessionUpdated())


def test_no_voice_speaks_before_the_upstream_has_taken_the_configuration() -> None:
    session = DeviceSessionHarness(SessionConfig(voice="elevenlabs:v1"), speech=TtsOptions())
    session.feed(ev.UpstreamOpened(), ev.SessionCreated())
    assert kinds(session.feed(ev.SpeechStarted("item_u"))) == ["SendSpeechState"]
    assert kinds(session.feed(ev.DeadlineReached(), after_s=20.0)) == [
        "SendError",
        "CloseClient",
        "CancelAllTools",
        "CloseUpstream",
    ]


def test_a_voice_requested_while_connecting_is_used_from_then_on() -> None:
    session = DeviceSessionHarness(speech=TtsOptions())
    session.feed(ev.Hello(("voice",), voice="elevenlabs:v1"), ev.UpstreamOpened(), ev.SessionCreated())
    assert only(session.feed(ev.DeadlineReached(), after_s=20.0), cmd.DisconnectTts)


def test_the_audio_is_the_items_and_ends_with_the_context() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    commands = answer(session, "One. Two")
    assert kinds(commands)[-3:] == ["SynthesizeSentence", "SendAudioStart", "SendTextDelta"]
    context = context_of(commands)
    [forwarded] = session.feed(sound(context, "One. ", 400))
    assert forwarded == OutputAudio("", "item_1", 0, 400 * 48)
    ended = session.feed(end())
    assert [type(c) for c in ended if type(c) in cmd.TTS_COMMANDS] == [cmd.SynthesizeSentence, cmd.FinishTtsContext]
    session.feed(sound(context, "Two ", 400))
    assert session.feed(ev.TtsContextDone(context)) == [cmd.SendAudioEnd("item_1", 0, 800)]


def test_a_response_that_waits_for_the_one_before_is_not_over_before_its_audio_is_announced() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    first = context_of(answer(session, "Let me see. ") + session.feed(end()))
    held = answer(session, "It is ten. ", "resp_2", "item_2") + session.feed(end("resp_2", "item_2"))
    assert not only(held, cmd.SynthesizeSentence), "one context speaks at a time"
    assert not only(held, cmd.SendResponseEnd)
    session.feed(sound(first, "Let me see. ", 500))
    after = kinds(session.feed(ev.TtsContextDone(first)))
    assert after == ["SendAudioEnd", "SendAudioStart", "SendResponseEnd", "SynthesizeSentence", "FinishTtsContext"]


def test_final_mode_waits_for_all_of_the_text() -> None:
    session = harness("final")
    assert not only(answer(session, "One. Two. "), cmd.SynthesizeText)
    [commands] = only(session.feed(end()), cmd.SynthesizeText)
    assert commands.text == "One. Two."  # type: ignore[attr-defined]


def test_no_more_than_five_contexts_are_ever_open() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    contexts = []
    for n in range(MAX_CONTEXTS):
        contexts.append(context_of(answer(session, TEXT + "And", f"resp_{n}", f"item_{n}")))
        assert cmd.CancelTtsContext(contexts[-1]) in session.feed(
            ev.Interrupt(), playout_cleared(), end(f"resp_{n}", f"item_{n}")
        )
    waiting = answer(session, TEXT + "And", "resp_x", "item_x")
    assert not only(waiting, cmd.SynthesizeSentence)
    session.feed(ev.TtsContextDone(contexts[0]))
    assert only(session.feed(words(" more. And", "resp_x", "item_x")), cmd.SynthesizeSentence)


# -- barge-in ---------------------------------------------------------------------------------------------------------


def test_a_barge_in_stops_the_client_closes_the_context_and_waits_for_the_response() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, "One two three. Four"))
    session.feed(sound(context, "One two three. ", 1500))
    at_once = session.feed(ev.SpeechStarted("item_v"))
    assert kinds(at_once) == ["SendSpeechState", "ClearPlayout", "CancelTtsContext"]
    commands = session.feed(playout_cleared(("item_1", 1500, 750)))
    assert kinds(commands) == ["SendInterrupted", "CancelResponse"]
    assert commands[0].heard_text == "One two"  # type: ignore[attr-defined]
    assert session.feed(sound(context, "late", 500), words("late")) == []
    settled = session.feed(ev.SpeechStopped("item_v"), ev.InputCommitted("item_v"), end(status="cancelled"))
    in_order = [c for c in kinds(settled) if c in ("DeleteItem", "CreateItem", "CreateResponse")]
    assert in_order == ["DeleteItem", "CreateItem", "CreateResponse"]
    [created] = only(settled, cmd.CreateItem)
    assert (created.item.text, created.after) == ("One two", "item_user")  # type: ignore[attr-defined]


def test_after_the_response_the_history_is_corrected_at_once() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, TEXT) + session.feed(end()))
    session.feed(sound(context, TEXT, 1500), ev.TtsContextDone(context))
    session.feed(ev.SpeechStarted("item_v"))
    assert kinds(session.feed(playout_cleared(("item_1", 1500, 750)))) == [
        "SendInterrupted",
        "DeleteItem",
        "CreateItem",
    ]


def test_what_was_heard_to_its_end_stays_and_what_was_not_heard_at_all_goes() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, TEXT) + session.feed(end()))
    session.feed(sound(context, TEXT, 1500), ev.TtsContextDone(context))
    assert kinds(session.feed(ev.SpeechStarted("item_v"), playout_cleared())) == ["SendSpeechState", "ClearPlayout"]
    answer(session, TEXT, "resp_2", "item_2")
    gone = session.feed(
        ev.SpeechStarted("item_w"), playout_cleared(("item_2", 0, 0)), end("resp_2", "item_2", "cancelled")
    )
    assert only(gone, cmd.DeleteItem) == [cmd.DeleteItem("item_2", only(gone, cmd.DeleteItem)[0].event_id)]  # type: ignore[attr-defined]
    assert not only(gone, cmd.CreateItem)


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_is_reported_once_a_turn_and_ends_the_part() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, "One. Two"))
    session.feed(sound(context, "One. ", 300))
    commands = session.feed(ev.TtsFailed("Gone.", "1006"), words(" three. Four"), end())
    assert [c.code for c in only(commands, cmd.SendError)] == ["voice_failed"]  # type: ignore[attr-defined]
    assert cmd.SendAudioEnd("item_1", 0, 300) in commands
    assert [c.text for c in only(commands, cmd.SendTextDelta)] == [" three. Four"]  # type: ignore[attr-defined]
    again = answer(session, "Five. Six", "resp_2", "item_2")
    assert not only(again, cmd.SendError)


def test_a_connection_lost_before_any_audio_is_retried_once() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    answer(session, "One. Two")
    assert kinds(session.feed(ev.TtsFailed("Gone.", "1006"))) == ["DisconnectTts", "ConnectTts"]
    assert [c.text for c in only(session.feed(ev.TtsConnected()), cmd.SynthesizeSentence)] == ["One. "]  # type: ignore[attr-defined]
    assert only(session.feed(ev.TtsFailed("Gone.", "1006")), cmd.SendError)


def test_a_voice_that_stalls_is_abandoned() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    answer(session, "One. Two")
    assert session.session.deadline == STALL_TIMEOUT_S
    commands = session.feed(ev.DeadlineReached(), after_s=STALL_TIMEOUT_S)
    assert [c.code for c in only(commands, cmd.SendError)] == ["voice_failed"]  # type: ignore[attr-defined]
    assert only(commands, cmd.DisconnectTts)


def test_a_context_without_new_text_is_kept_open() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, "One. Two"))
    session.feed(sound(context, "One. ", 300))
    assert session.feed(ev.DeadlineReached(), after_s=10.0) == [cmd.KeepTtsContextAlive(context)]


def test_a_missing_confirmation_is_not_waited_for_when_all_audio_came() -> None:
    session = harness()
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, TEXT) + session.feed(end()))
    session.feed(sound(context, TEXT, 1500))
    commands = session.feed(ev.DeadlineReached(), after_s=STALL_TIMEOUT_S)
    assert commands == [cmd.SendAudioEnd("item_1", 0, 1500)]


def test_after_a_failure_the_model_speaks_from_the_next_response_on() -> None:
    session = harness(fallback="marin")
    session.feed(ev.TtsConnected())
    answer(session, "One. Two")
    session.feed(ev.TtsFailed("No.", "quota_exceeded", retryable=False))
    commands = session.feed(end())
    assert [c for c in kinds(commands) if c in ("ApplyOptions", "ConfigureSession")] == [
        "ApplyOptions",
        "ConfigureSession",
    ]
    config = only(commands, cmd.ConfigureSession)[0].config  # type: ignore[attr-defined]
    assert (config.external_voice, config.voice) == (None, "marin")
    session.feed(ev.UserText("and?"))
    ready = session.feed(ev.SessionUpdated())
    assert kinds(ready) == ["DisconnectTts", "SendReady", "CreateItem", "CreateResponse"]


def test_a_turn_that_is_held_while_the_model_takes_over_can_be_committed() -> None:
    config = SessionConfig(voice="elevenlabs:v1", turn=TurnDetection("manual"))
    session = DeviceSessionHarness(config, speech=TtsOptions(fallback_voice="marin")).ready()
    session.feed(ev.TtsConnected())
    answer(session, "One. Two")
    session.feed(ev.TtsFailed("No.", "quota_exceeded", retryable=False), microphone(200), ev.Commit())
    assert only(session.feed(end()), cmd.ConfigureSession)
    session.feed(microphone(200), ev.InputCommitted("item_user"), ev.Commit())
    commands = session.feed(ev.SessionUpdated())
    assert len(only(commands, cmd.CommitInput)) == 1
    assert not only(commands, cmd.SendError)


def test_a_barge_in_does_not_make_the_failure_forgotten() -> None:
    session = harness(fallback="marin")
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, "One. Two"))
    session.feed(sound(context, "One. ", 300), ev.TtsFailed("Gone.", "1006"))
    session.feed(ev.SpeechStarted("item_v"), playout_cleared(("item_1", 300, 300)))
    commands = session.feed(ev.SpeechStopped("item_v"), ev.InputCommitted("item_v"), end(status="cancelled"))
    assert not only(commands, cmd.CreateResponse), "the answer is commands for in the model's own voice"
    assert only(commands, cmd.ConfigureSession)[0].config.voice == "marin"  # type: ignore[attr-defined]
    assert only(session.feed(ev.SessionUpdated()), cmd.CreateResponse)


def test_what_an_external_voice_said_can_still_be_truncated_when_the_model_speaks_itself() -> None:
    session = harness(fallback="marin")
    session.feed(ev.TtsConnected())
    context = context_of(answer(session, TEXT + "And"))
    session.feed(sound(context, TEXT, 1500), end())
    session.feed(sound(context, "And ", 300), ev.TtsContextDone(context), ev.UserText("go on"))
    answer(session, "Four. Five", "resp_2", "item_2")
    session.feed(ev.TtsFailed("No.", "quota_exceeded", retryable=False), end("resp_2", "item_2"), ev.SessionUpdated())
    commands = session.feed(ev.Interrupt(), playout_cleared(("item_1", 1800, 750)))
    assert only(commands, cmd.SendInterrupted)[0].heard_text == "One two"  # type: ignore[attr-defined]
    assert cmd.DeleteItem("item_1", only(commands, cmd.DeleteItem)[0].event_id) in commands  # type: ignore[attr-defined]
    assert only(commands, cmd.CreateItem)[0].item.text == "One two"  # type: ignore[attr-defined]


def test_a_refused_fallback_to_the_model_keeps_the_external_voice_active() -> None:
    session = harness(fallback="marin")
    session.feed(ev.TtsConnected())
    answer(session, "One. Two")
    session.feed(ev.TtsFailed("No.", "quota_exceeded", retryable=False))
    [update] = only(session.feed(end()), cmd.ConfigureSession)
    commands = session.feed(ev.UpstreamErrorEvent("invalid_value", "No such voice.", event_id=update.event_id))  # type: ignore[attr-defined]
    assert [error.code for error in only(commands, cmd.SendError)] == ["hello_refused"]  # type: ignore[attr-defined]
    assert not only(commands, cmd.ConfigureSession), "it is not commands over and over"
    assert only(session.feed(ev.UserText("and?")), cmd.CreateResponse)
