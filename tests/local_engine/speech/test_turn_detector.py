import pytest

from relay.local_engine.speech.turn_detector import Completeness, EndpointingDelays, TurnDetector, TurnDetectorOptions


def feed(detector: TurnDetector, pattern: str) -> dict[int, str]:
    """Return the events by frame; x is speech, . is silence, - is in between."""
    probabilities = {"x": 0.9, ".": 0.0, "-": 0.4}
    events = {index: detector.feed(probabilities[mark]) for index, mark in enumerate(pattern)}
    return {index: event for index, event in events.items() if event}


def test_a_click_starts_no_turn():
    assert feed(TurnDetector(TurnDetectorOptions()), "..x..x...") == {}


def test_a_turn_lasts_until_the_pause_is_long_enough():
    detector = TurnDetector(TurnDetectorOptions(silence_ms=96))
    assert feed(detector, ".xxx.x..xx...") == {2: "started", 12: "stopped"}
    assert feed(detector, ".xx") == {2: "started"}


def test_borderline_frames_continue_a_turn_but_start_none():
    assert feed(TurnDetector(TurnDetectorOptions(silence_ms=64)), "---xx---..") == {4: "started", 9: "stopped"}


@pytest.mark.parametrize(
    ("turn_detection", "options"),
    [
        (None, TurnDetectorOptions()),
        (
            {"type": "semantic_vad", "eagerness": "high"},
            TurnDetectorOptions(silence_ms=300, endpointing=EndpointingDelays(complete_ms=192, unfinished_ms=2000)),
        ),
        (
            {"type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 100, "silence_duration_ms": 200},
            TurnDetectorOptions(0.7, 100, 200),
        ),
    ],
)
def test_options_of_a_session(turn_detection: dict[str, object] | None, options: TurnDetectorOptions):
    assert TurnDetectorOptions.from_turn_detection(turn_detection) == options


PATIENT = TurnDetectorOptions(silence_ms=160, endpointing=EndpointingDelays(complete_ms=96, unfinished_ms=320))


@pytest.mark.parametrize(("completeness", "frames"), [("complete", 3), ("unknown", 5), ("unfinished", 10)])
def test_a_semantic_vad_waits_by_the_completeness_of_the_words(completeness: Completeness, frames: int):
    detector = TurnDetector(PATIENT)
    assert feed(detector, "xx..") == {1: "started", 3: "paused"}
    detector.apply_completeness(completeness)
    assert feed(detector, "." * 12) == {frames - 3: "stopped"}


def test_completeness_is_valid_until_the_user_continues():
    detector = TurnDetector(PATIENT)
    feed(detector, "xx..")
    detector.apply_completeness("unfinished")
    assert feed(detector, "....x....") == {6: "paused"}
    assert feed(detector, ".") == {0: "stopped"}


def test_late_completeness_is_ignored():
    detector = TurnDetector(PATIENT)
    assert feed(detector, "xx.....") == {1: "started", 3: "paused", 6: "stopped"}
    detector.apply_completeness("unfinished")
    assert feed(detector, "xx.....") == {1: "started", 3: "paused", 6: "stopped"}
