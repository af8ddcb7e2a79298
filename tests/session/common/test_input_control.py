"""What a client says too early is kept in order with its place in the audio, and bounded (D5)."""

from relay.session.common.input_control import MAX_EARLY_EVENTS, MAX_EARLY_TEXTS, InputControl
from relay.session.device import events as ev


def held() -> InputControl[ev.Event]:
    return InputControl(lambda command: None)


def released(early: InputControl[ev.Event]) -> list[tuple[int | None, ev.Event]]:
    """All that waited, each event with its position in the audio."""
    return [(early.position_bytes, event) for event in early.release()]


def test_everything_comes_back_in_order_and_once() -> None:
    early = held()
    assert early.hold(ev.UserText("hello"), 640)
    assert early.hold(ev.Clear(), 640)
    assert early.hold(ev.Commit(), 1280)
    assert released(early) == [(640, ev.UserText("hello")), (640, ev.Clear()), (1280, ev.Commit())]
    assert released(early) == []


def test_too_many_events_are_refused_and_none_is_lost() -> None:
    early = held()
    assert all(early.hold(ev.Interrupt(), n) for n in range(MAX_EARLY_EVENTS))
    assert not early.hold(ev.Commit(), MAX_EARLY_EVENTS)
    assert not early.hold(ev.UserText("one too many"), MAX_EARLY_EVENTS)
    assert released(early) == [(n, ev.Interrupt()) for n in range(MAX_EARLY_EVENTS)]
    assert early.hold(ev.UserText("room again"), MAX_EARLY_EVENTS)
    assert released(early) == [(MAX_EARLY_EVENTS, ev.UserText("room again"))]


def test_typed_turns_are_bounded_more_closely_for_they_can_be_long() -> None:
    early = held()
    assert all(early.hold(ev.UserText("x" * 32_768), 0) for _ in range(MAX_EARLY_TEXTS))
    assert not early.hold(ev.UserText("one too many"), 0)
    assert early.hold(ev.Commit(), 0)
    assert released(early) == [(0, ev.UserText("x" * 32_768))] * MAX_EARLY_TEXTS + [(0, ev.Commit())]
    assert all(early.hold(ev.UserText("room again"), 0) for _ in range(MAX_EARLY_TEXTS))
