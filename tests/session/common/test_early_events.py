"""What a client says too early is kept in order with its place in the audio, and bounded (D5)."""

from relay.core import events as ev
from relay.session.common.early_events import MAX_EVENTS, MAX_TYPED, EarlyEvents


def test_everything_comes_back_in_order_and_once() -> None:
    early = EarlyEvents[ev.Event]()
    assert early.add(ev.UserText("hello"), 640)
    assert early.add(ev.Clear(), 640)
    assert early.add(ev.Commit(), 1280)
    assert early.take() == [(640, ev.UserText("hello")), (640, ev.Clear()), (1280, ev.Commit())]
    assert early.take() == []


def test_too_many_events_are_refused_and_none_is_lost() -> None:
    early = EarlyEvents[ev.Event]()
    assert all(early.add(ev.Interrupt(), n) for n in range(MAX_EVENTS))
    assert not early.add(ev.Commit(), MAX_EVENTS)
    assert not early.add(ev.UserText("one too many"), MAX_EVENTS)
    assert early.take() == [(n, ev.Interrupt()) for n in range(MAX_EVENTS)]
    assert early.add(ev.UserText("room again"), MAX_EVENTS)
    assert early.take() == [(MAX_EVENTS, ev.UserText("room again"))]


def test_typed_turns_are_bounded_more_closely_for_they_can_be_long() -> None:
    early = EarlyEvents[ev.Event]()
    assert all(early.add(ev.UserText("x" * 32_768), 0) for _ in range(MAX_TYPED))
    assert not early.add(ev.UserText("one too many"), 0)
    assert early.add(ev.Commit(), 0)
    assert early.take() == [(0, ev.UserText("x" * 32_768))] * MAX_TYPED + [(0, ev.Commit())]
    assert all(early.add(ev.UserText("room again"), 0) for _ in range(MAX_TYPED))
