"""The response slot: the table of D3, pair by pair."""

import itertools

import pytest

from relay.session.common.response_slot import TRANSITIONS, ResponseSlot, SlotInput, SlotState


def test_every_pair_is_in_the_table_but_a_request_while_the_slot_is_taken() -> None:
    pairs = set(itertools.product(SlotState, SlotInput))
    missing = pairs - TRANSITIONS.keys()
    assert missing == {(state, SlotInput.REQUEST) for state in SlotState if state is not SlotState.FREE}


def test_a_request_holds_the_slot_before_the_response_exists() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert not slot.is_free
    with pytest.raises(KeyError):
        slot.request("relay_2")


def test_a_response_goes_from_request_to_done() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert slot.on_created("resp_1", "relay_1") is False
    assert slot.state is SlotState.ACTIVE
    assert slot.on_done("resp_1", "relay_1") is True
    assert slot.is_free


def test_a_response_of_the_upstreams_own_takes_the_slot() -> None:
    slot = ResponseSlot()
    slot.on_created("resp_vad", None)
    assert not slot.is_free
    assert slot.on_done("resp_vad", None)
    assert slot.is_free


def test_a_refusal_frees_the_slot_only_for_the_request_it_answers() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert slot.on_refused("relay_0") is False
    assert slot.state is SlotState.REQUESTED
    assert slot.on_refused("relay_1") is True
    assert slot.is_free


def test_a_cancel_before_a_response_exists_cancels_it_when_it_is_created() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert slot.cancel() is None, "there is no id to cancel by yet"
    assert slot.on_created("resp_1", "relay_1") is True
    assert slot.state is SlotState.CANCELLING
    assert slot.on_done("resp_1", "relay_1")
    assert slot.is_free


def test_another_response_while_ours_is_requested_keeps_our_request_open() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert slot.on_created("resp_vad", "somebody_else") is False
    assert slot.request_id == "relay_1"
    assert slot.on_done("resp_vad", None)
    assert not slot.is_free, "our request has had no answer"
    assert slot.on_refused("relay_1")
    assert slot.is_free


def test_cancelling_waits_for_done_before_the_slot_is_free() -> None:
    slot = ResponseSlot()
    slot.on_created("resp_1", None)
    assert slot.cancel() == "resp_1"
    assert slot.cancel() is None, "it is asked for once"
    assert not slot.is_free
    assert slot.on_done("resp_1", None)
    assert slot.is_free


def test_the_end_of_an_unknown_response_changes_nothing() -> None:
    slot = ResponseSlot()
    slot.on_created("resp_1", None)
    assert slot.on_done("resp_0", None) is False
    assert slot.response_id == "resp_1"


def test_a_response_that_ends_without_having_begun_frees_our_request() -> None:
    slot = ResponseSlot()
    slot.request("relay_1")
    assert slot.on_done("resp_1", "relay_1") is True
    assert slot.is_free
