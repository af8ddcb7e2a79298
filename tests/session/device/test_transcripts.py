"""What a device client is sent of a user's speech that could not be transcribed."""

import pytest

from relay.session.common.limits import MAX_FAULTS
from relay.session.common.policy import Policy, Principal, RealtimePolicy
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_session_harness import DeviceSessionHarness, kinds, only


@pytest.mark.parametrize(
    ("reason", "shown"), [("too quiet", "too quiet"), ("", "The upstream gave no reason.")], ids=["reason", "none"]
)
def test_a_failed_transcription_is_reported_and_the_session_goes_on(reason: str, shown: str) -> None:
    harness = DeviceSessionHarness().ready()
    harness.feed(ev.SpeechStarted("item_user"), ev.SpeechStopped("item_user", 900), ev.InputCommitted("item_user"))
    commands = harness.feed(ev.UserTranscriptFailed("item_user", reason))
    assert commands == [cmd.SendError("transcription_failed", f"There is no transcript of item_user: {shown}")]
    assert kinds(harness.model_speaks()) == ["SendResponseStart", "SendTextDelta", "SendAudioStart", "OutputAudio"]


def test_failed_transcriptions_are_not_faults_of_the_client() -> None:
    harness = DeviceSessionHarness().ready()
    commands = harness.feed(*[ev.UserTranscriptFailed(f"item_{n}", "too quiet") for n in range(MAX_FAULTS + 1)])
    assert not only(commands, cmd.CloseClient)


def test_the_reason_shows_nothing_of_the_servers_instructions() -> None:
    policy = Policy("kiosk", realtime=RealtimePolicy(instructions="You are the voice of the museum."))
    harness = DeviceSessionHarness(principal=Principal("kiosk-1", policy)).ready()
    reason = "Could not use 'You are the voice of the museum.' as a prompt"
    [error] = harness.feed(ev.UserTranscriptFailed("item_user", reason))
    assert "museum" not in error.message
