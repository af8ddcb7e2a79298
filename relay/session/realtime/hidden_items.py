"""The items that a Realtime client does not see: the calls of server tools, and their outputs.

Three things are kept. First, whose each call is, by item id and by `call_id`, so that a call keeps its owner whatever
comes later. Second, the order of the conversation as the upstream reports it, so that `previous_item_id` can be
translated both ways. Downwards it becomes the nearest visible item before it; upwards, an item goes after the hidden
ones that follow the item named. Third, the hidden outputs of active responses, so that `output_index` has no gaps.
The order is kept from the start, because any item may become hidden. Beyond `MAX_ORDERED_ITEMS` items the oldest are
forgotten, and an unknown id passes as it is.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet

MAX_ORDERED_ITEMS = 10_000
MAX_RESPONSES = 64
MAX_IDS = 4096


class IdSet(BoundedSet):
    """The newest ids of a kind, as events of any shape name them: what is no text is not among them."""

    def __init__(self) -> None:
        super().__init__(MAX_IDS)

    def add(self, member: Any) -> None:
        """Remember an id; the oldest one goes when the set is full."""
        if isinstance(member, str):
            super().add(member)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and super().__contains__(member)


class HiddenItems:
    def __init__(self) -> None:
        self.item_ids = IdSet()
        """The items that the client does not see."""
        self.server_call_ids = IdSet()
        """The `call_id`s of calls that the server answers."""
        self.client_call_ids = IdSet()
        """The `call_id`s of calls that the client answers."""
        self.client_item_ids = IdSet()
        """The items of calls that the client answers."""
        self.output_indexes: OrderedDict[str, set[int]] = OrderedDict()
        """The hidden outputs of responses that are under way."""
        self._expected = IdSet()
        self._order: list[str] = []
        self._ordered_ids: set[str] = set()

    def assign_to_client(self, item_id: Any, call_id: Any) -> None:
        """This call is the client's to answer, and stays so whatever comes later."""
        self.client_item_ids.add(item_id)
        self.client_call_ids.add(call_id)

    def expect_client_call(self, call_id: Any) -> None:
        """The client creates a call of its own, whatever its name: the upstream sends it back with this id."""
        self._expected.add(call_id)
        self.client_call_ids.add(call_id)

    def pop_expected_call(self, call_id: Any) -> bool:
        """Whether a call is one that the client created; True once, because a second one is another call."""
        was_expected = call_id in self._expected
        if was_expected:
            del self._expected[call_id]
        return was_expected

    # -- order --------------------------------------------------------------------------------------------------------

    def insert(self, item_id: str, previous_item_id: str | None) -> None:
        """An item has its place: after another one, or at the head. A known item keeps its place."""
        order, known = self._order, self._ordered_ids
        if item_id in known:
            return
        if previous_item_id is None:
            order.insert(0, item_id)
        elif order and order[-1] != previous_item_id and previous_item_id in known:
            order.insert(order.index(previous_item_id) + 1, item_id)
        else:
            order.append(item_id)
        known.add(item_id)
        if len(order) > MAX_ORDERED_ITEMS:
            known.discard(order.pop(0))

    def remove(self, item_id: str) -> None:
        """An item is gone."""
        if item_id in self._ordered_ids:
            self._ordered_ids.discard(item_id)
            self._order.remove(item_id)

    def to_client_previous(self, item_id: Any) -> Any:
        """The nearest item that the client can see, at or before this one; None if there is none."""
        if item_id not in self.item_ids:
            return item_id
        if item_id not in self._ordered_ids:
            return None
        before = self._order[: self._order.index(item_id)]
        return next((other for other in reversed(before) if other not in self.item_ids), None)

    def to_upstream_previous(self, item_id: Any) -> Any:
        """What a client's `previous_item_id` means upstream: the end of the hidden items that follow that item."""
        if not self.item_ids or not isinstance(item_id, str) or item_id not in self._ordered_ids:
            return item_id
        following = self._order[self._order.index(item_id) + 1 :]
        hidden = list(takewhile(self.item_ids.__contains__, following))
        return hidden[-1] if hidden else item_id

    # -- outputs of a response ----------------------------------------------------------------------------------------

    def hide_output(self, response_id: Any, output_index: Any) -> None:
        """An output of a response is hidden: later ones move up, so that the client sees no gap."""
        if isinstance(response_id, str) and type(output_index) is int:
            self.output_indexes.setdefault(response_id, set()).add(output_index)
            if len(self.output_indexes) > MAX_RESPONSES:
                self.output_indexes.popitem(last=False)

    def renumber_output_index(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event with its `output_index` as the client counts; the same object if that is what it has."""
        response_id, index = event.get("response_id"), event.get("output_index")
        hidden = self.output_indexes.get(response_id) if isinstance(response_id, str) else None
        if not hidden or type(index) is not int:
            return event
        moved = sum(1 for other in hidden if other < index)
        changed: JsonObject = {**event, "output_index": index - moved}
        return changed if moved else event
