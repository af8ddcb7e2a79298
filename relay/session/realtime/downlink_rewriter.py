"""Rewrites upstream events for a Realtime client, hiding calls of server tools and their outputs.

A rule takes an event and returns the client's version of it: the same object, a changed copy, or None if the event is
hidden. The table at the end lists the event types with a rule of their own; these rules also
decide who owns each call. Any other event is hidden if it refers to a hidden item, and its session and response lose
the server's overlay.

An error about an event of the relay's own is counted but not shown, because the client did not send that event (D7). If
the relay only added the id to a client event, the error is shown without the id. What an event means for the turns is
decided afterwards, in `turns`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.json_types import JsonEvent
from relay.session.common.limits import RELAY_EVENT_ID_PREFIX, IgnoredCounts
from relay.session.common.server_overlay import ServerOverlay
from relay.session.realtime.command_buffer import CommandBuffer
from relay.session.realtime.configuration import ClientTools
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.response_queue import ResponseQueue


@dataclass(slots=True)
class ServerEventRewriter:
    """Rewrites one session's server events; `queue` has the tools of each response, `out` the ids of the relay."""

    _overlay: ServerOverlay
    _hidden_items: HiddenItems
    _queue: ResponseQueue
    _client_tools: ClientTools
    _command_buffer: CommandBuffer
    _ignored_counts: IgnoredCounts

    def rewrite(self, body: JsonEvent) -> JsonEvent | None:
        """Return the event as the client sees it, or None if it is hidden."""
        event_type = body.get("type")
        rule = _RULES.get(event_type) if isinstance(event_type, str) else None
        rewritten = self._hide_or_strip(body) if rule is None else rule(self, body)
        if rewritten is None or not self._hidden_items.output_indexes:
            return rewritten
        return self._hidden_items.renumber_output_index(rewritten)

    def _hide_or_strip(self, body: JsonEvent) -> JsonEvent | None:
        """Hide the event if it refers to something hidden."""
        is_hidden = body.get("item_id") in self._hidden_items.item_ids
        if is_hidden or (self._overlay.hides_tools and body.get("call_id") in self._hidden_items.server_call_ids):
            return None
        return self._strip_overlay(self._overlay.strip_error(body) if "error" in body else body)

    def _strip_overlay(self, body: JsonEvent) -> JsonEvent:
        """Strip the server's overlay from the session and the response in an event of any type."""
        for name, strip in (("session", self._overlay.strip_session), ("response", self._overlay.strip_response)):
            original = body.get(name)
            stripped = strip(original) if isinstance(original, Mapping) else original
            body = body if stripped is original else {**body, name: stripped}
        return body

    def _on_item(self, body: JsonEvent) -> JsonEvent | None:
        item = body.get("item")
        if not isinstance(item, Mapping):
            return body
        item_id, previous = item.get("id"), body.get("previous_item_id")
        if isinstance(item_id, str) and not body["type"].endswith("retrieved"):
            self._hidden_items.insert(item_id, previous if isinstance(previous, str) else None)
        return None if self._is_item_hidden(item) else self._translate_previous(body)

    def _translate_previous(self, body: JsonEvent) -> JsonEvent:
        previous = body.get("previous_item_id")
        visible = self._hidden_items.to_client_previous(previous)
        return body if visible is previous else {**body, "previous_item_id": visible}

    def _on_item_deleted(self, body: JsonEvent) -> JsonEvent | None:
        item_id = body.get("item_id")
        if isinstance(item_id, str):
            self._hidden_items.remove(item_id)
        return self._hide_or_strip(body)

    def _on_output_item(self, body: JsonEvent) -> JsonEvent | None:
        item, response_id = body.get("item"), body.get("response_id")
        if isinstance(item, Mapping) and self._is_item_hidden(item, response_id):
            self._hidden_items.hide_output(response_id, body.get("output_index"))
            return None
        return body

    def _on_response_done(self, body: JsonEvent) -> JsonEvent:
        response = body.get("response")
        if not isinstance(response, Mapping) or not isinstance(response.get("id"), str):
            return body
        response_id, output = response["id"], response.get("output")
        items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
        visible = [item for item in items if not self._is_item_hidden(item, response_id)]
        self._hidden_items.output_indexes.pop(response_id, None)
        stripped = self._overlay.strip_response(response)
        if len(visible) < len(items):
            stripped = {**stripped, "output": visible}
        return body if stripped is response else {**body, "response": stripped}

    def _on_error(self, body: JsonEvent) -> JsonEvent | None:
        error = body.get("error")
        event_id = error.get("event_id") if isinstance(error, Mapping) else None
        if not isinstance(error, Mapping) or not isinstance(event_id, str):
            return self._overlay.strip_error(body)
        names = self._client_tools.reject_update(event_id)
        if self._command_buffer.is_synthetic_id(event_id):
            body = {**body, "error": {**error, "event_id": None}}
        elif event_id.startswith(RELAY_EVENT_ID_PREFIX):
            self._ignored_counts.count(f"error {error.get('code')!s:.60}")
            return None
        return self._overlay.strip_error(body, names)

    # -- owners of items ----------------------------------------------------------------------------------------------

    def _is_item_hidden(self, item: JsonEvent, response_id: Any = None) -> bool:
        """Return whether an item is hidden from the client, and remember it if so."""
        item_type, item_id = item.get("type"), item.get("id")
        if item_id in self._hidden_items.item_ids:
            return True
        if item_type == "function_call":
            if not self._assign_owner(item, response_id):
                return False
        elif item_type != "function_call_output" or item.get("call_id") not in self._hidden_items.server_call_ids:
            return False
        if self._overlay.hides_tools:
            self._hidden_items.item_ids.add(item_id)
            return True
        return False

    def _assign_owner(self, item: JsonEvent, response_id: Any) -> bool:
        """Return whether a call belongs to the server, and remember its owner. A `call_id` keeps its first owner (D4).

        A second call with the same id is not a new call. If the id is the server's, it is hidden like the first. If it
        is the client's, a call of a server tool is hidden and never run: the client sends the one output for that id.
        """
        item_id, call_id = item.get("id"), item.get("call_id")
        if item_id in self._hidden_items.client_item_ids:
            return False
        if response_id is None and self._hidden_items.pop_expected_call(call_id):
            self._hidden_items.assign_to_client(item_id, call_id)
            return False
        if call_id in self._hidden_items.server_call_ids:
            return True
        if not self._is_server_call(item, response_id):
            self._hidden_items.assign_to_client(item_id, call_id)
            return False
        if call_id not in self._hidden_items.client_call_ids:
            self._hidden_items.server_call_ids.add(call_id)
        return True

    def _is_server_call(self, item: JsonEvent, response_id: Any) -> bool:
        if self._queue.open_requests.is_out_of_band(response_id):
            return False
        # A conversation item does not name its response, and may come before the output item.
        response_id = self._queue.slot.response_id if response_id is None else response_id
        return self._overlay.is_server_tool(item.get("name"), self._queue.client_tool_names(response_id))


_R = ServerEventRewriter
_RULES: dict[str, Callable[[ServerEventRewriter, JsonEvent], JsonEvent | None]] = {
    "conversation.item.added": _R._on_item,
    "conversation.item.created": _R._on_item,
    "conversation.item.done": _R._on_item,
    "conversation.item.retrieved": _R._on_item,
    "conversation.item.deleted": _R._on_item_deleted,
    "input_audio_buffer.committed": _R._translate_previous,
    "response.output_item.added": _R._on_output_item,
    "response.output_item.done": _R._on_output_item,
    "response.done": _R._on_response_done,
    "error": _R._on_error,
}
"""Event types that need more than a check for hidden items."""
