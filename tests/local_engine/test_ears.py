from typing import Any

import pytest

from audio.files import read_audio
from audio.g711 import alaw_encode, ulaw_encode
from audio.resample import resample
from relay.local_engine.asr import RecogniserPool
from relay.local_engine.ears import Ears, Started, Stopped
from relay.local_engine.grammar import Grammar
from tests.local_engine.engine_stage import SAMPLES, TOOLS

POOL = RecogniserPool()
GRAMMAR = Grammar(TOOLS)
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
SENTENCE = read_audio(SAMPLES / "roll-two-dice.flac", 24_000)


def ears(turn_detection: dict[str, Any] | None = SERVER_VAD, input_format: str = "audio/pcm") -> Ears:
    made = Ears(POOL)
    made.configure(input_format, turn_detection, GRAMMAR)
    return made


def hear(listener: Ears, audio: bytes, chunk_bytes: int = 4800) -> list[Started | Stopped]:
    events: list[Started | Stopped] = []
    for start in range(0, len(audio), chunk_bytes):
        events += [event for event in listener.hear(audio[start : start + chunk_bytes]) if event is not None]
    return events


def words(listener: Ears, clip: bytes | None = None) -> str | None:
    work = listener.finish() if clip is None else listener.clip(clip)
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: str | None = end.value
            return result


def test_a_turn_in_the_stream():
    listener = ears()
    started, stopped = hear(listener, bytes(48_000) + SENTENCE + bytes(48 * 700))
    assert isinstance(started, Started)
    assert isinstance(stopped, Stopped)
    assert 800 <= started.start_ms <= 1200  # the sample begins with 200 ms of silence, the prefix is 300 ms
    length_ms = len(SENTENCE) / 48
    assert length_ms - 100 <= stopped.end_ms - 1000 - 500 <= length_ms + 100
    assert words(listener) == "roll two dice"


@pytest.mark.parametrize("chunk_bytes", [1, 961, 4801, 1_000_000])
def test_any_chunking_gives_the_same(chunk_bytes: int):
    audio = SENTENCE + bytes(48 * 700)
    whole, chunked = ears(), ears()
    assert hear(whole, audio) == hear(chunked, audio, chunk_bytes)
    assert words(whole) == words(chunked) == "roll two dice"


@pytest.mark.parametrize(("input_format", "encode"), [("audio/pcmu", ulaw_encode), ("audio/pcma", alaw_encode)])
def test_telephone_formats(input_format: str, encode: Any):
    listener = ears(input_format=input_format)
    audio = encode(resample(SENTENCE + bytes(48 * 700), 24_000, 8_000))
    assert len(hear(listener, audio, 160)) == 2
    assert words(listener) == "roll two dice"


def test_without_turn_detection_nothing_is_reported_but_all_is_heard():
    listener = ears(None)
    assert hear(listener, bytes(48_000) + SENTENCE) == []
    assert words(listener) == "roll two dice"
    assert words(listener) == ""


def test_a_pause_does_not_end_a_turn_that_is_the_clients():
    listener = ears(None)
    hear(listener, SENTENCE + bytes(48 * 1500) + bytes(48_000))
    assert words(listener) == "roll two dice"


def test_forgetting():
    listener = ears()
    hear(listener, SENTENCE)
    listener.forget()
    assert hear(listener, bytes(48 * 1000)) == []
    assert words(listener) == ""


def test_times_go_on_over_turns():
    listener = ears()
    audio = SENTENCE + bytes(48 * 700)
    _, first_end = hear(listener, audio)
    words(listener)
    second_start, _ = hear(listener, audio)
    assert isinstance(first_end, Stopped)
    assert isinstance(second_start, Started)
    assert second_start.start_ms >= first_end.end_ms


def test_new_rules_in_the_middle_of_a_turn():
    listener = ears()
    assert len(hear(listener, SENTENCE)) == 1
    listener.configure("audio/pcm", SERVER_VAD | {"silence_duration_ms": 200}, GRAMMAR)
    [stopped] = hear(listener, bytes(48 * 300))
    assert isinstance(stopped, Stopped)
    assert words(listener) == "roll two dice"


def test_from_turn_detection_to_push_to_talk_in_the_middle_of_a_turn():
    listener = ears()
    hear(listener, SENTENCE)
    listener.configure("audio/pcm", None, GRAMMAR)
    assert hear(listener, bytes(48 * 900)) == []
    assert words(listener) == "roll two dice"


def test_a_clip_apart_from_the_stream():
    assert words(ears(), SENTENCE) == "roll two dice"
    assert words(ears(), b"\0") is None
