"""The items that a Realtime client does not see: calls of server tools, and their outputs.

Three things are tracked:

- The owner of each call, by item id and by `call_id`. The owner of a call never changes.
- The order of the conversation as the upstream reports it, to translate `previous_item_id`. Towards the client it
  becomes the nearest visible item before it. Towards the upstream, hidden items that follow it are skipped.
- The hidden outputs of active responses, so that the client sees an `output_index` without gaps.

The order is tracked from the start, because any item may become hidden. Beyond `MAX_ORDERED_ITEMS` the oldest are
forgotten, and an unknown id is forwarded unchanged.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet

MAX_ORDERED_ITEMS = 10_000
MAX_TRACKED_RESPONSES = 64
MAX_IDS = 4096


class IdSet(BoundedSet):
    """The newest ids of one kind. It accepts members of any JSON type; only strings are added."""

    def __init__(self) -> None:
        super().__init__(MAX_IDS)

    def add(self, member: Any) -> None:
        """Add an id; the oldest is dropped when the set is full."""
        if isinstance(member, str):
            super().add(member)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and super().__contains__(member)


class HiddenItems:
    """The hidden items of one session, the owners of its calls, and the order of its conversation."""

    def __init__(self) -> None:
        self.item_ids = IdSet()
        """Items hidden from the client."""
        self.server_call_ids = IdSet()
        """`call_id`s of calls that the server answers."""
        self.client_call_ids = IdSet()
        """`call_id`s of calls that the client answers."""
        self.client_item_ids = IdSet()
        """Items of calls that the client answers."""
        self.output_indexes: OrderedDict[str, set[int]] = OrderedDict()
        """Indexes of hidden outputs, by active response."""
        self._expected_call_ids = IdSet()
        self._order: list[str] = []
        self._ordered_ids: set[str] = set()

    def assign_to_client(self, item_id: Any, call_id: Any) -> None:
        """Make the client the permanent owner of this call."""
        self.client_item_ids.add(item_id)
        self.client_call_ids.add(call_id)

    def expect_client_call(self, call_id: Any) -> None:
        """Remember that the client created a function call item: the upstream will send it back with this id."""
        self._expected_call_ids.add(call_id)
        self.client_call_ids.add(call_id)

    def pop_expected_call(self, call_id: Any) -> bool:
        """Return whether the client created this call. True only once: a second one is another call."""
        was_expected = call_id in self._expected_call_ids
        if was_expected:
            del self._expected_call_ids[call_id]
        return was_expected

    # -- order of the conversation ------------------------------------------------------------------------------------

    def insert(self, item_id: str, previous_item_id: str | None) -> None:
        """Insert an item after another one, or at the head. A known item keeps its position."""
        order, ordered_ids = self._order, self._ordered_ids
        if item_id in ordered_ids:
            return
        if previous_item_id is None:
            order.insert(0, item_id)
        elif order and order[-1] != previous_item_id and previous_item_id in ordered_ids:
            order.insert(order.index(previous_item_id) + 1, item_id)
        else:
            order.append(item_id)
        ordered_ids.add(item_id)
        if len(order) > MAX_ORDERED_ITEMS:
            ordered_ids.discard(order.pop(0))

    def remove(self, item_id: str) -> None:
        """Remove an item."""
        if item_id in self._ordered_ids:
            self._ordered_ids.discard(item_id)
            self._order.remove(item_id)

    def to_client_previous(self, item_id: Any) -> Any:
        """Return the nearest visible item at or before this one, None if there is none."""
        if item_id not in self.item_ids:
            return item_id
        if item_id not in self._ordered_ids:
            return None
        before = self._order[: self._order.index(item_id)]
        return next((candidate for candidate in reversed(before) if candidate not in self.item_ids), None)

    def to_upstream_previous(self, item_id: Any) -> Any:
        """Return the upstream's id for a client's `previous_item_id`: the last of the hidden items that follow it."""
        if not self.item_ids or not isinstance(item_id, str) or item_id not in self._ordered_ids:
            return item_id
        following = self._order[self._order.index(item_id) + 1 :]
        hidden_ids = list(takewhile(self.item_ids.__contains__, following))
        return hidden_ids[-1] if hidden_ids else item_id

    # -- outputs of a response ----------------------------------------------------------------------------------------

    def hide_output(self, response_id: Any, output_index: Any) -> None:
        """Hide one output of a response; the client's indexes of later outputs shift down."""
        if isinstance(response_id, str) and type(output_index) is int:
            self.output_indexes.setdefault(response_id, set()).add(output_index)
            if len(self.output_indexes) > MAX_TRACKED_RESPONSES:
                self.output_indexes.popitem(last=False)

    def renumber_output_index(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the event with the client's `output_index`; the same object if it does not change."""
        response_id, index = event.get("response_id"), event.get("output_index")
        hidden = self.output_indexes.get(response_id) if isinstance(response_id, str) else None
        if not hidden or type(index) is not int:
            return event
        offset = sum(1 for hidden_index in hidden if hidden_index < index)
        changed: JsonObject = {**event, "output_index": index - offset}
        return changed if offset else event
