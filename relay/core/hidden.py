"""The items that a Realtime client must see no trace of: the calls of server tools, and their outputs.

Keeps the conversation's order as the upstream tells it, so that `previous_item_id` can be translated both ways: what a
client is told is the nearest item before it that it can see, and what it asks to put behind such an item goes behind
the hidden ones that follow it. Only conversations with hidden items need any of it, yet the order is kept from the
start: beyond `MAX_ORDERED` items the oldest are forgotten, and an id that is not known is passed on as it is.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from relay.core.bounded import RecentSet
from relay.json_types import JsonObject

MAX_ORDERED = 10_000
MAX_RESPONSES = 64
MAX_IDS = 4096


class HiddenItems:
    """Which items are hidden, where all stand, and which outputs of a response are left out."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._known: set[str] = set()
        self._items = RecentSet(MAX_IDS)
        self._calls = RecentSet(MAX_IDS)
        self._clients = RecentSet(MAX_IDS)
        self._clients_calls = RecentSet(MAX_IDS)
        self._expected = RecentSet(MAX_IDS)
        self.outputs: OrderedDict[str, set[int]] = OrderedDict()
        """The hidden outputs of responses that are under way."""

    def hide(self, item_id: Any) -> None:
        """From here on the client does not see this item."""
        if isinstance(item_id, str):
            self._items.add(item_id)

    def note_call(self, call_id: Any) -> None:
        """From here on this call is the server's to answer."""
        if isinstance(call_id, str):
            self._calls.add(call_id)

    def is_hidden(self, item_id: Any) -> bool:
        """Whether an item id is one that the client must not see."""
        return isinstance(item_id, str) and item_id in self._items

    def leave_to_client(self, item_id: Any, call_id: Any) -> None:
        """This call is the client's to answer, and stays so whatever is said of it later."""
        if isinstance(item_id, str):
            self._clients.add(item_id)
        if isinstance(call_id, str):
            self._clients_calls.add(call_id)

    def expect_call(self, call_id: str) -> None:
        """The client puts a call of its own into the conversation, whatever its name: it comes back by this id."""
        self._expected.add(call_id)
        self._clients_calls.add(call_id)

    def was_expected(self, call_id: Any) -> bool:
        """Whether a call is the one that the client has put there; asked once, for a second one is another call."""
        if not isinstance(call_id, str) or call_id not in self._expected:
            return False
        del self._expected[call_id]
        return True

    def is_clients(self, item_id: Any) -> bool:
        """Whether a call was found to be the client's."""
        return isinstance(item_id, str) and item_id in self._clients

    def is_clients_call(self, call_id: Any) -> bool:
        """Whether a call is one that the client answers."""
        return isinstance(call_id, str) and call_id in self._clients_calls

    def is_servers_call(self, call_id: Any) -> bool:
        """Whether a call is one that the server answers."""
        return isinstance(call_id, str) and call_id in self._calls

    # -- order --------------------------------------------------------------------------------------------------------

    def added(self, item_id: str, previous_item_id: str | None) -> None:
        """An item has its place: behind another one, or at the head; a known one stays where it is."""
        order, known = self._order, self._known
        if item_id in known:
            return
        if previous_item_id is None:
            order.insert(0, item_id)
        elif order and order[-1] != previous_item_id and previous_item_id in known:
            order.insert(order.index(previous_item_id) + 1, item_id)
        else:
            order.append(item_id)
        known.add(item_id)
        if len(order) > MAX_ORDERED:
            known.discard(order.pop(0))

    def deleted(self, item_id: str) -> None:
        """An item is gone."""
        if item_id in self._known:
            self._known.discard(item_id)
            self._order.remove(item_id)

    def shown_previous(self, item_id: Any) -> Any:
        """The nearest item that the client can see, at or before this one; None if there is none."""
        if not self.is_hidden(item_id):
            return item_id
        if item_id not in self._known:
            return None
        for index in range(self._order.index(item_id) - 1, -1, -1):
            if self._order[index] not in self._items:
                return self._order[index]
        return None

    def real_previous(self, item_id: Any) -> Any:
        """What a client's `previous_item_id` means upstream: the end of the hidden items that follow that item."""
        if not self._items or not isinstance(item_id, str) or item_id not in self._known:
            return item_id
        last = item_id
        for following in self._order[self._order.index(item_id) + 1 :]:
            if following not in self._items:
                break
            last = following
        return last

    # -- outputs of a response ----------------------------------------------------------------------------------------

    def hide_output(self, response_id: Any, output_index: Any) -> None:
        """An output of a response is hidden: those behind it move up, so that the client sees no gap."""
        if isinstance(response_id, str) and type(output_index) is int:
            self.outputs.setdefault(response_id, set()).add(output_index)
            if len(self.outputs) > MAX_RESPONSES:
                self.outputs.popitem(last=False)

    def ended(self, response_id: str) -> None:
        """A response is over: no more of its outputs come."""
        self.outputs.pop(response_id, None)

    def renumbered(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event with its `output_index` as the client counts; the same object if that is what it has."""
        response_id, index = event.get("response_id"), event.get("output_index")
        hidden = self.outputs.get(response_id) if isinstance(response_id, str) else None
        if not hidden or type(index) is not int:
            return event
        moved = sum(1 for other in hidden if other < index)
        changed: JsonObject = {**event, "output_index": index - moved}
        return changed if moved else event
