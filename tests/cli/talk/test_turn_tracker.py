import json
from typing import Any

import pytest

from relay.cli.talk.turn_tracker import LINGER_S, NO_SPEECH_S, SETTLE_S, TAIL_S, TurnTracker
from relay.client import AudioEvent
from relay.client.events import parse_event


class Timeline:
    """Feeds messages to a turn whose input ends at 10 s; each step is at a time of its own."""

    def __init__(self, *, spoken: bool = True) -> None:
        self.turn = TurnTracker(spoken=spoken, input_ends_at=10.0, timeout_s=60)

    def event(self, at: float, name: str, **fields: Any) -> None:
        self.take({"type": "event", "name": name, **fields}, at)

    def say(self, at: float, kind: str, **fields: Any) -> None:
        self.take({"type": kind, **fields}, at)

    def take(self, message: dict[str, Any], at: float) -> None:
        self.turn.feed(parse_event(json.dumps(message)), at)

    def words(self, at: float, item_id: str) -> None:
        self.say(at, "transcript", role="assistant", itemId=item_id, order=2, text="Yes.", final=True)

    def sound(self, at: float, until: float, item_id: str) -> None:
        self.say(at, "audioStart", itemId=item_id)
        self.turn.feed(AudioEvent(data=bytes(640), item_id=item_id), at)
        self.say(until, "audioEnd", itemId=item_id, totalMs=500)

    def speech(self, start: float, end: float) -> None:
        self.event(start, "AISpeechDetected")
        self.event(end, "AISpeechEnded")
        self.say(end, "transcript", role="user", itemId="u", order=1, text="Well?", final=True)

    def response(self, start: float, end: float, *, status: str = "completed", more: bool = False) -> None:
        self.event(start, "AIResponseStart")
        self.event(end, "AIResponseEnd", finalText="Yes.", status=status, more=more)

    def state(self, at: float) -> str:
        return self.turn.verdict(at).state


def test_a_spoken_turn() -> None:
    line = Timeline()
    line.speech(5.0, 10.5)
    assert line.state(10.6) == "wait"
    line.words(11.0, "a")
    line.response(10.8, 11.0)
    assert line.state(11.0) == "wait"  # its sound has not come yet
    line.sound(11.1, 12.0, "a")
    line.say(12.0, "latency", totalMs=400)
    assert line.state(12.0) == "over"


def test_the_end_of_a_response_may_overtake_its_sound() -> None:
    line = Timeline(spoken=False)
    line.say(10.0, "audioStart", itemId="a")
    line.words(10.1, "a")
    line.response(10.0, 10.2)
    assert line.state(10.2) == "wait"
    line.say(14.0, "audioEnd", itemId="a", totalMs=4000)
    line.say(14.0, "latency", totalMs=400)
    assert line.state(14.0) == "over"


def test_a_follow_up_whose_sound_stands_in_line_behind_the_preamble_is_awaited() -> None:
    line = Timeline(spoken=False)
    line.event(10.0, "AIResponseStart")
    line.say(10.0, "audioStart", itemId="preamble")
    line.words(10.1, "preamble")
    line.event(10.2, "AIResponseEnd", finalText="One moment.", status="completed", more=True)
    line.event(10.3, "AIResponseStart")
    line.words(10.4, "answer")
    line.event(10.5, "AIResponseEnd", finalText="Yes.", status="completed", more=False)
    line.say(12.0, "audioEnd", itemId="preamble", totalMs=2000)
    assert line.state(12.0) == "wait"
    line.sound(12.1, 13.0, "answer")
    line.say(13.0, "latency", totalMs=400)
    assert line.state(13.0) == "over"


def test_more_means_that_a_follow_up_comes() -> None:
    line = Timeline(spoken=False)
    line.response(10.0, 11.0, more=True)
    assert line.state(20.0) == "wait"
    line.response(21.0, 22.0)
    assert line.state(22.0 + SETTLE_S) == "over"


def test_an_answer_in_text_alone_is_over_when_no_sound_comes() -> None:
    line = Timeline(spoken=False)
    line.words(10.5, "a")
    line.response(10.2, 10.6)
    assert line.turn.verdict(10.6).until == pytest.approx(10.6 + SETTLE_S)
    assert line.state(10.6 + SETTLE_S) == "over"


def test_speech_into_an_answer_starts_another_turn() -> None:
    line = Timeline()
    line.speech(2.0, 3.0)
    line.event(3.1, "AIResponseStart")
    line.say(3.2, "audioStart", itemId="a")
    line.event(9.5, "AISpeechDetected")
    line.say(9.5, "interrupted", itemId="a", playedMs=900, heardText="On")
    line.event(9.6, "AIResponseEnd", finalText="On", status="cancelled", more=False)
    assert line.state(30.0) == "wait"
    line.event(10.4, "AISpeechEnded")
    assert line.state(30.0) == "wait"
    line.response(10.5, 11.0)
    line.sound(11.0, 12.0, "b")
    assert line.state(12.0) == "wait"  # for what the user said, which is on its way
    line.say(12.1, "transcript", role="user", itemId="u", order=3, text="Stop.", final=True)
    line.say(12.2, "latency", totalMs=3)
    assert line.state(12.2) == "over"


def test_an_answer_before_the_end_of_the_file_is_not_the_end() -> None:
    line = Timeline()
    line.speech(1.0, 2.0)
    line.response(2.0, 3.0)
    line.sound(2.5, 4.0, "a")
    line.say(4.0, "latency", totalMs=3)
    assert line.turn.verdict(5.0).until == pytest.approx(10.0 + TAIL_S)
    assert line.state(10.0 + TAIL_S) == "over"


def test_transcript_and_latency_are_awaited_but_not_for_ever() -> None:
    line = Timeline()
    line.event(8.0, "AISpeechDetected")
    line.event(10.0, "AISpeechEnded")
    line.response(10.5, 12.0)
    line.sound(10.5, 12.0, "a")
    assert line.turn.verdict(12.0).until == pytest.approx(12.0 + LINGER_S)
    assert line.state(12.0 + LINGER_S) == "over"


def test_a_file_without_speech() -> None:
    line = Timeline()
    assert line.turn.verdict(3.0).until == 10.0
    assert line.turn.verdict(10.0).until == 10.0 + NO_SPEECH_S
    assert line.state(10.0 + NO_SPEECH_S) == "no_speech"


def test_an_answer_to_unannounced_speech_counts() -> None:
    line = Timeline()
    line.event(9.0, "AIResponseStart")
    assert line.state(30.0) == "wait"
    line.event(30.0, "AIResponseEnd", finalText="", status="completed", more=False)
    assert line.state(30.1) == "over"


def test_silence_of_the_relay_is_not_awaited_for_ever() -> None:
    line = Timeline()
    line.speech(5.0, 10.5)
    assert line.turn.verdict(11.0).until == 70.5
    line.say(40.0, "tool", callId="c", name="slow", status="progress", ms=1)
    assert line.state(71.0) == "wait"
    assert line.state(100.0) == "timeout"


def test_messages_of_strange_shape_are_harmless() -> None:
    line = Timeline(spoken=False)
    for message in ({}, {"type": 1}, {"type": "event"}, {"type": "transcript"}, {"type": "audioEnd", "itemId": [1]}):
        line.take(message, 10.0)
    for n in range(5000):
        line.say(10.0, "audioStart", itemId=f"{n}")
        line.say(10.0, "audioEnd", itemId=f"{n}")
    assert len(line.turn._items_with_audio) <= 1024
    assert line.state(10.0) == "wait"
