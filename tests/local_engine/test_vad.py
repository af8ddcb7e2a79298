import pytest

from audio.files import read_audio
from relay.local_engine.vad import FRAME_BYTES, SpeechProbability, TurnDetector, TurnRules
from tests.local_engine.engine_stage import SAMPLES


def feed(detector: TurnDetector, pattern: str) -> dict[int, str]:
    """What happened at which frame; x is speech, . is silence, - is in between."""
    probabilities = {"x": 0.9, ".": 0.0, "-": 0.4}
    events = {index: detector.feed(probabilities[mark]) for index, mark in enumerate(pattern)}
    return {index: event for index, event in events.items() if event}


def test_a_click_starts_no_turn():
    assert feed(TurnDetector(TurnRules()), "..x..x...") == {}


def test_a_turn_lasts_until_the_pause_is_long_enough():
    detector = TurnDetector(TurnRules(silence_ms=96))
    assert feed(detector, ".xxx.x..xx...") == {2: "started", 12: "stopped"}
    assert feed(detector, ".xx") == {2: "started"}


def test_what_is_almost_speech_keeps_a_turn_going_but_starts_none():
    assert feed(TurnDetector(TurnRules(silence_ms=64)), "---xx---..") == {4: "started", 9: "stopped"}


@pytest.mark.parametrize(
    ("turn_detection", "rules"),
    [
        (None, TurnRules()),
        ({"type": "semantic_vad", "eagerness": "high"}, TurnRules(silence_ms=300)),
        (
            {"type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 100, "silence_duration_ms": 200},
            TurnRules(0.7, 100, 200),
        ),
    ],
)
def test_rules_of_a_session(turn_detection: dict[str, object] | None, rules: TurnRules):
    assert TurnRules.of(turn_detection) == rules


def test_speech_is_told_from_silence():
    pcm = read_audio(SAMPLES / "time-in-tokyo.flac", 16_000)
    model = SpeechProbability()
    frames = [pcm[start : start + FRAME_BYTES] for start in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES)]
    probabilities = [model.of(frame) for frame in frames]
    assert probabilities[0] == 0
    assert max(probabilities) > 0.9
