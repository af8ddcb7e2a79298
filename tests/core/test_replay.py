"""A journal through the rules again: the same, and where it is not, the line and what led to it."""

import pytest

from relay.core import device_session, turns
from relay.core import events as ev
from relay.core.journal_lines import Happened, event_line, read_line
from relay.core.policy import Principal
from relay.core.replay import Beginning, Difference, Rerun, first_difference, new_session
from relay.core.values import DeviceOptions, SessionConfig
from tests.support.tapes import T0, conversation

BEGINNING = Beginning("rs_1", SessionConfig(), DeviceOptions(), Principal(), T0)
Lines = list[tuple[int, Happened, ev.Event]]


def journal() -> Lines:
    session = new_session(BEGINNING)
    lines: Lines = []
    for number, (after_s, event) in enumerate(conversation(), 1):
        commands = session.handle(event, T0 + after_s)
        line = read_line(event_line(event, T0 + after_s, commands))
        assert isinstance(line, Happened)
        lines.append((number, line, event))
    return lines


def test_the_same_rules_do_the_same() -> None:
    assert first_difference(BEGINNING, journal()) is None


def test_another_rule_is_found_with_the_lines_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = journal()
    monkeypatch.setattr(turns, "LATENCY_WAIT_S", 0.1)  # a tick tells the latency that an acknowledgement told before
    monkeypatch.setattr(turns.Turns, "acknowledged", lambda *_: "ok")
    found = first_difference(BEGINNING, lines)
    assert isinstance(found, Difference)
    assert "Playback" in found.event
    assert any("TellLatency" in str(one) for one in found.recorded)
    assert not any("TellLatency" in str(one) for one in found.today)
    assert [near.number for near in found.before] == [found.number - 3, found.number - 2, found.number - 1]


def test_another_setting_is_a_difference_too() -> None:
    other = Beginning("rs_1", SessionConfig(voice="cedar"), DeviceOptions(), Principal(), T0)
    found = first_difference(other, journal())
    assert found is not None
    assert found.number == 2
    assert "cedar" in str(found.today)


def test_a_failure_of_ours_is_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = read_line(event_line(ev.Tick(), T0, None, "KeyError: 'x'"))
    assert isinstance(failed, Happened)
    found = Rerun(BEGINNING).step(1, failed, ev.Tick())
    assert found is not None
    assert "raised KeyError" in str(found.recorded[0])

    def fail(*_: object) -> None:
        raise KeyError("y")

    monkeypatch.setattr(device_session.DeviceSession, "_tick", fail)
    assert Rerun(BEGINNING).step(1, failed, ev.Tick()) is None
    calm = read_line(event_line(ev.Tick(), T0, ()))
    assert isinstance(calm, Happened)
    found = Rerun(BEGINNING).step(1, calm, ev.Tick())
    assert found is not None
    assert "raised KeyError" in str(found.today[0])
