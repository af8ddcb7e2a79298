"""What a Realtime client sees of the conversation: everything but the calls of server tools and their outputs.

A rule takes an event of the upstream's and returns it as the client sees it, the same object if nothing is changed, or
None to keep it back; on the way it tells the turns what they have to know.
"""

from collections.abc import Callable, Mapping
from typing import Any

from relay.core.hidden import HiddenItems
from relay.core.realtime_turns import RealtimeTurns
from relay.core.server_parts import ServerParts
from relay.core.values import Item


class ClientView:
    """The view of one session's client."""

    def __init__(self, parts: ServerParts, hidden: HiddenItems, turns: RealtimeTurns) -> None:
        self._parts = parts
        self._hidden = hidden
        self._turns = turns

    def shown(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """An event as the client sees it, or None."""
        kind = body.get("type")
        rule = SHOWN.get(kind) if isinstance(kind, str) else None
        return self._any(body, now) if rule is None else rule(self, body, now)

    def _any(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """Events of which only matters what they are about."""
        about_hidden = self._hidden.is_hidden(body.get("item_id"))
        if about_hidden or (self._parts.hides_tools and self._hidden.is_servers_call(body.get("call_id"))):
            return None
        return self._settings(self._parts.shown_error(body) if "error" in body else body)

    def _settings(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event with the session and the response that it tells as the client may see them, whatever its type."""
        for name, show in (("session", self._parts.shown), ("response", self._parts.shown_response)):
            told = body.get(name)
            shown = show(told) if isinstance(told, Mapping) else told
            body = body if shown is told else {**body, name: shown}
        return body

    def _item(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        item = body.get("item")
        if not isinstance(item, Mapping):
            return body
        item_id, previous = item.get("id"), body.get("previous_item_id")
        if isinstance(item_id, str) and not body["type"].endswith("retrieved"):
            self._hidden.added(item_id, previous if isinstance(previous, str) else None)
        if self._hides(item):
            return None
        shown = self._hidden.shown_previous(previous)
        return body if shown is previous else {**body, "previous_item_id": shown}

    def _hides(self, item: Mapping[str, Any], response_id: Any = None) -> bool:
        """Whether an item is none of the client's business; notes it if so."""
        kind, item_id = item.get("type"), item.get("id")
        if self._hidden.is_hidden(item_id):
            return True
        if kind == "function_call":
            if not self._claims(item, response_id):
                return False
        elif kind != "function_call_output" or not self._hidden.is_servers_call(item.get("call_id")):
            return False
        if self._parts.hides_tools:
            self._hidden.hide(item_id)
            return True
        return False

    def _claims(self, item: Mapping[str, Any], response_id: Any) -> bool:
        """Whether a call is the server's; notes whose it is. A `call_id` stays with whom it went to first (D4).

        A further call by the same id is no call: one of the server's is hidden with the first, and one of a server's
        tool by a client's id is hidden and never run, for that id has its one output from the client.
        """
        item_id, call_id = item.get("id"), item.get("call_id")
        if self._hidden.is_clients(item_id):
            return False
        if response_id is None and self._hidden.was_expected(call_id):
            self._hidden.leave_to_client(item_id, call_id)
            return False
        if self._hidden.is_servers_call(call_id):
            return True
        if not self._is_servers(item, response_id):
            self._hidden.leave_to_client(item_id, call_id)
            return False
        if not self._hidden.is_clients_call(call_id):
            self._hidden.note_call(call_id)
        return True

    def _is_servers(self, item: Mapping[str, Any], response_id: Any) -> bool:
        """Whether the relay runs a call: said where the response is known, and kept for where it is not."""
        if self._turns.is_out_of_band(response_id):
            return False
        # An item of the conversation does not say of which response it is: it can be told before the output is.
        response_id = self._turns.slot.response_id if response_id is None else response_id
        return self._parts.runs(_text(item.get("name")), self._turns.shadows(response_id))

    def _deleted(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        item_id = body.get("item_id")
        if isinstance(item_id, str):
            self._hidden.deleted(item_id)
        return self._any(body, now)

    def _committed(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        self._turns.user_went_on()
        previous = body.get("previous_item_id")
        shown = self._hidden.shown_previous(previous)
        return body if shown is previous else {**body, "previous_item_id": shown}

    def _output_item(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        item = body.get("item")
        response_id = body.get("response_id")
        if isinstance(item, Mapping) and self._hides(item, response_id):
            self._hidden.hide_output(response_id, body.get("output_index"))
            return None
        return body

    def _response_created(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        response = body.get("response")
        if not isinstance(response, Mapping):
            return body
        self._turns.response_created(response)
        return self._settings(body)

    def _response_done(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        response = body.get("response")
        if not isinstance(response, Mapping) or not isinstance(response.get("id"), str):
            return body
        response_id, output = response["id"], response.get("output")
        items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
        visible = [item for item in items if not self._hides(item, response_id)]
        calls = [item for item in items if item.get("type") == "function_call"]
        ours = [item for item in calls if self._hidden.is_servers_call(item.get("call_id"))]
        shown = self._parts.shown_response(response)
        if len(visible) < len(items):
            shown = {**shown, "output": visible}
        status = response.get("status")
        self._hidden.ended(response_id)
        self._turns.response_done(
            response_id,
            status if isinstance(status, str) else "failed",
            [_call(item) for item in ours],
            mixed=any(_is_clients_call(item, self._hidden) for item in visible),
            now=now,
        )
        return body if shown is response else {**body, "response": shown}

    def _speech_started(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        self._turns.speech_started(now)
        return body

    def _speech_stopped(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        self._turns.speech_stopped(now)
        return body

    def _cleared(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        self._turns.input_cleared(now)
        return body


def _is_clients_call(item: Mapping[str, Any], hidden: HiddenItems) -> bool:
    return item.get("type") == "function_call" and not hidden.is_servers_call(item.get("call_id"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _call(item: Mapping[str, Any]) -> Item:
    return Item(
        id=_text(item.get("id")) or "",
        kind="function_call",
        status=_text(item.get("status")),
        call_id=_text(item.get("call_id")),
        name=_text(item.get("name")),
        arguments=_text(item.get("arguments")),
    )


_V = ClientView
SHOWN: dict[str, Callable[[ClientView, Mapping[str, Any], float], Mapping[str, Any] | None]] = {
    "conversation.item.added": _V._item,
    "conversation.item.created": _V._item,
    "conversation.item.done": _V._item,
    "conversation.item.retrieved": _V._item,
    "conversation.item.deleted": _V._deleted,
    "input_audio_buffer.committed": _V._committed,
    "input_audio_buffer.speech_started": _V._speech_started,
    "input_audio_buffer.speech_stopped": _V._speech_stopped,
    "input_audio_buffer.cleared": _V._cleared,
    "response.created": _V._response_created,
    "response.output_item.added": _V._output_item,
    "response.output_item.done": _V._output_item,
    "response.done": _V._response_done,
}
"""What is looked into; of all else only matters whether it is about a hidden item."""
