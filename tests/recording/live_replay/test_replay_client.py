"""A recording against a live relay: a failure there is part of the comparison."""

from pathlib import Path

import pytest

from relay.client import ConnectError
from relay.recording.live_replay.comparison import Comparison
from relay.recording.live_replay.replay_client import replay_against
from relay.recording.live_replay.replay_server import ReplayServer
from relay.recording.store.layout import RecordingError
from relay.session.common.model import Item
from relay.session.device import events as ev
from tests.support.scripted_recordings import TimedInput, make_recording, microphone_audio, model_audio


async def against_itself(folder: Path, tmp_path: Path, speed: float = 8.0) -> Comparison:
    async with ReplayServer(folder, 0, None, lambda _: None) as upstream:
        return await replay_against(folder, upstream.url, speed, tmp_path)


def story(end: ev.Event) -> list[TimedInput]:
    """A turn with a response and a late transcript, then a second one in which `end` happens."""
    return sorted(
        [
            (0.0, ev.UpstreamOpened()), (0.1, ev.SessionCreated()), (0.2, ev.SessionUpdated(500)),
            *((0.3 + n / 10, microphone_audio(100)) for n in range(40)),
            (0.6, ev.SpeechStarted("item_u", 200)), (1.2, ev.SpeechStopped("item_u", 800)),
            (1.2, ev.InputCommitted("item_u")), (1.3, ev.ResponseCreated("resp_1")),
            (1.3, ev.ItemAdded(Item("item_a", "message", "assistant"))),
            (1.4, ev.TextDelta("resp_1", "item_a", 0, "Once.", True)), (1.4, model_audio(300)),
            (1.4, ev.TextDone("resp_1", "item_a", 0, "Once.", True)), (1.5, ev.ResponseDone("resp_1", "completed")),
            (1.9, ev.UserTranscript("item_u", "tell a story", True)),
            (3.0, ev.SpeechStarted("item_v", 2600)), (3.3, end), (4.4, ev.ClientClosed(1000)),
        ],
        key=lambda message: message[0],
    )  # fmt: skip


async def test_words_that_come_behind_the_answer_are_waited_for(tmp_path: Path) -> None:
    folder = make_recording(tmp_path, story(ev.SpeechStopped("item_v", 2900)))
    comparison = await against_itself(folder, tmp_path)
    assert [turn.user for turn in comparison.live] == ["tell a story", ""]
    assert comparison.differences(["user", "assistant", "tools", "arguments"]) == []


@pytest.mark.parametrize("code", [1000, 1011, 1006])
async def test_a_model_that_hangs_up_in_the_middle_is_a_note(code: int, tmp_path: Path) -> None:
    folder = make_recording(tmp_path, story(ev.UpstreamClosed(code, "that was all")))
    comparison = await against_itself(folder, tmp_path)
    assert comparison.differences(["user", "assistant", "tools", "arguments"]) == []
    assert comparison.notes[-1].startswith("the relay closed the connection (1011): ")
    assert comparison.notes[-1].endswith(", in turn 2 of 2")


async def test_a_relay_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    with pytest.raises(ConnectError, match="nothing listens there"):
        await replay_against(folder, "ws://127.0.0.1:9/", 1.0, None)
    with pytest.raises(RecordingError, match="no such folder"):
        await replay_against(folder, "ws://127.0.0.1:9/", 1.0, tmp_path / "nowhere")
