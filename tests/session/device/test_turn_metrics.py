"""The metrics of a turn: measured between marks, and written in one file."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from relay.session.device.turn_metrics import (
    ACK_WAIT_S,
    EXAMPLE_TURNS,
    METRICS,
    TOTAL_METRIC,
    TurnMetric,
    TurnMetrics,
    TurnTimer,
    format_latency,
    latency_steps,
)

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "relay" / "session" / "device" / "turn_metrics.py"
DERIVED = {
    "relay/web/console/turn-metrics.js": r".*",
    "relay/protocols/device/schema.json": r'\n    "latency": \{.*?\n    \}',
    "docs/device-protocol.md": r"<!-- begin of latency.*?<!-- end of latency",
}
"""What scripts/regenerate writes: the file, and the part of it."""

# -- one place --------------------------------------------------------------------------------------------------------


def written_by_people() -> dict[str, str]:
    """The source files, without derived ones, and without the one that declares the metrics."""
    suffixes = (".py", ".js", ".html", ".json", ".md", ".c", "")
    paths = [path for folder in ("audio", "relay", "scripts", "tools") for path in (ROOT / folder).rglob("*")]
    paths = [path for path in paths if path.is_file() and path.suffix in suffixes]
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths if path != SOURCE}
    return {name: re.sub(DERIVED.get(name, "$^"), "", text, flags=re.DOTALL) for name, text in texts.items()}


@pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if metric is not TOTAL_METRIC], ids=lambda metric: metric.name
)
def test_no_other_source_file_names_a_metric(metric: TurnMetric) -> None:
    """But for the total, a name that other messages have as well."""
    name = re.compile(rf"\b({metric.wire_name}|{metric.name})\b")
    label = re.compile(rf"""["'`>]({metric.label}|{metric.client_label})["'`<]""")
    texts = written_by_people()
    assert [file for file, text in texts.items() if name.search(text) or label.search(text)] == []


def test_the_derived_parts_name_every_metric() -> None:
    for name, part in DERIVED.items():
        [derived] = re.findall(part, (ROOT / name).read_text("utf-8"), re.DOTALL)[:1]
        assert [metric.wire_name for metric in METRICS if metric.wire_name not in derived] == []


def test_every_metric_is_in_an_example() -> None:
    assert {name for example in EXAMPLE_TURNS for name in example.to_wire()} == {metric.wire_name for metric in METRICS}


def test_a_metric_has_names_of_its_own() -> None:
    for names in zip(*((metric.wire_name, metric.name, metric.label) for metric in METRICS), strict=True):
        assert len(set(names)) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_described(metric: TurnMetric) -> None:
    assert metric.description.endswith(".")
    assert metric.part_of in ("", *(metric.name for metric in METRICS))


# -- as messages and as text ------------------------------------------------------------------------------------------

PLAIN, VOICED = EXAMPLE_TURNS


def test_what_did_not_happen_is_null_or_left_out() -> None:
    assert replace(PLAIN, first_played_ms=None).to_wire() == {
        "speechStoppedMs": 512, "firstDeltaMs": 154, "firstByteMs": 0, "firstPlayedMs": None, "totalMs": 669,
    }  # fmt: skip


def test_parts_are_shown_in_place_of_their_whole() -> None:
    steps = [(metric.wire_name, ms) for metric, ms in latency_steps(VOICED.to_wire())]
    assert steps == [
        ("speechStoppedMs", 512),
        ("firstTextMs", 148),
        ("voiceMs", 293),
        ("firstByteMs", 0),
        ("bargeInMs", 384),
    ]


def test_the_steps_as_text_are_for_those_at_the_client_or_for_others() -> None:
    begin = "speech end noticed +512 ms, first audio from the model +154 ms, "
    assert format_latency(PLAIN.to_wire()) == begin + "to the client +0 ms, played +3 ms"
    assert format_latency(PLAIN.to_wire(), at_client=True) == begin + "first audio here +0 ms, first played +3 ms"


def test_what_does_not_add_up_with_the_others_has_no_sign() -> None:
    assert format_latency(VOICED.to_wire()).endswith("to the client +0 ms, barge-in to silence 384 ms")


# -- the timer --------------------------------------------------------------------------------------------------------


def answered() -> TurnTimer:
    """A turn whose answer began to go to the client at 10.21."""
    timer = TurnTimer()
    timer.on_turn_ended(9.5, 10.0)
    timer.on_audio_received("item_1", 10.2)
    timer.on_audio_sent("item_1", 10.21)
    return timer


def test_a_turn_is_reported_when_the_client_acknowledges_playback() -> None:
    timer = answered()
    assert timer.on_playback_acknowledged("item_0", 200, 10.5) is None
    assert timer.on_playback_acknowledged("item_1", 0, 10.5) is None
    assert timer.on_playback_acknowledged("item_1", 200, 10.5) == TurnMetrics("item_1", 500, 200, 10, 90, 710)
    assert timer.on_playback_acknowledged("item_1", 300, 10.6) is None
    assert timer.deadline is None


def test_a_turn_is_reported_without_an_acknowledgement_after_a_while() -> None:
    timer = answered()
    assert timer.deadline == 10.21 + ACK_WAIT_S
    assert timer.tick(10.9) is None
    assert timer.tick(10.21 + ACK_WAIT_S) == TurnMetrics("item_1", 500, 200, 10, None, 710)
    assert timer.tick(20.0) is None


def test_only_the_first_audio_and_text_of_a_turn_count() -> None:
    timer = TurnTimer()
    timer.on_turn_ended(10.0)
    for later_s in (0.0, 1.0):
        timer.on_text_received(10.1 + later_s)
        timer.on_audio_received(f"item_{later_s}", 10.3 + later_s)
        timer.on_audio_sent(f"item_{later_s}", 10.31 + later_s)
    assert timer.report() == TurnMetrics("item_0.0", None, 300, 10, None, 310, first_text_ms=100, voice_ms=200)


def test_a_turn_of_which_no_audio_was_sent_is_not_reported() -> None:
    timer = TurnTimer()
    timer.on_audio_received("item_0", 9.0)  # no turn is measured
    assert timer.report() is None
    timer.on_turn_ended(10.0)
    timer.on_audio_received("item_1", 10.2)
    assert timer.report() is None


def test_a_new_turn_has_no_marks_of_the_one_before() -> None:
    timer = answered()
    timer.on_turn_ended(12.0)
    timer.on_audio_sent("item_1", 12.1)
    assert timer.deadline is None


def reported(timer: TurnTimer, now: float) -> TurnMetrics | None:
    timer.on_audio_received("item_2", now)
    timer.on_audio_sent("item_2", now)
    return timer.report()


def test_a_barge_in_belongs_to_the_turn_that_it_begins() -> None:
    timer = answered()
    timer.on_speech_started(10.3)
    timer.on_interrupted_sent(10.7)
    timer.on_interrupted_sent(10.9)
    assert timer.on_playback_acknowledged("item_1", 200, 10.8) == TurnMetrics("item_1", 500, 200, 10, 390, 710)
    timer.on_turn_ended(11.5, 12.0)
    assert reported(timer, 12.1) == TurnMetrics("item_2", 500, 100, 0, None, 600, barge_in_ms=400)
    timer.on_turn_ended(13.5, 14.0)
    assert reported(timer, 14.1) == TurnMetrics("item_2", 500, 100, 0, None, 600)


@pytest.mark.parametrize("at", [None, 10.8])
def test_a_later_speech_takes_the_place_of_one_that_interrupted(at: float | None) -> None:
    timer = answered()
    timer.on_speech_started(10.3)
    timer.on_interrupted_sent(10.7)
    timer.on_speech_started(at)
    timer.on_turn_ended(11.5, 12.0)
    assert reported(timer, 12.1) == TurnMetrics("item_2", 500, 100, 0, None, 600)


def test_a_typed_turn_has_no_barge_in() -> None:
    timer = answered()
    timer.on_speech_started(10.3)
    timer.on_interrupted_sent(10.7)
    timer.on_turn_ended(12.0)
    assert reported(timer, 12.1) == TurnMetrics("item_2", None, 100, 0, None, 100)
