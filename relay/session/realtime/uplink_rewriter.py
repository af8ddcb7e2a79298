"""Rewrites a Realtime client's events for the upstream, as its policy allows.

First the policy's tables are applied, then the rules in the table at the end. Server instructions and tools are merged
into events that would replace them. Positions after hidden items are translated. An event about a hidden item is
rejected as if the item did not exist. A `response.create` becomes a `ResponseRequest`, which is queued. The other
direction is `downlink_rewriter`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.server_overlay import ServerOverlay, function_names
from relay.session.realtime.command_buffer import CommandBuffer
from relay.session.realtime.configuration import ActiveSettings, ClientTools
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.open_requests import ResponseRequest
from relay.session.realtime.policy_table import PolicyViolation, apply_policy


@dataclass(slots=True)
class ClientEventRewriter:
    """Rewrites one session's client events; `hidden` and `client_tools` are updated by them."""

    _overlay: ServerOverlay
    _hidden_items: HiddenItems
    _client_tools: ClientTools
    _settings: ActiveSettings
    _command_buffer: CommandBuffer

    def rewrite(self, event: Mapping[str, Any]) -> JsonObject | ResponseRequest:
        """Return the event for the upstream. Raises PolicyViolation."""
        body = apply_policy(self._drop_active_model(event), self._overlay.policy)
        rule = _RULES.get(body["type"])
        return body if rule is None else rule(self, body)

    def _drop_active_model(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Drop a `model` that is active already: SDKs repeat it, by the client's name or the upstream's.

        The policy need not allow the client to choose that name, and the upstream might reject it.
        """
        session = event.get("session")
        if event["type"] != "session.update" or not isinstance(session, Mapping):
            return event
        if not self._settings.is_active_model(session.get("model")):
            return event
        return {**event, "session": {key: value for key, value in session.items() if key != "model"}}

    # -- rules --------------------------------------------------------------------------------------------------------

    def _session_update(self, body: JsonObject) -> JsonObject:
        session = body.get("session")
        if isinstance(session, dict):
            self._check_names(session, "session")
            body = self._command_buffer.ensure_event_id(body)
            self._client_tools.record_update(body["event_id"], session)
            self._overlay.merge(session)
        return body

    def _item_create(self, body: JsonObject) -> JsonObject:
        item = body.get("item")
        if isinstance(item, Mapping):
            self._check_item(item, "item")
            if item.get("type") == "function_call":
                body["item"] = self._ensure_call_id(item)
        previous = body.get("previous_item_id")
        if previous in self._hidden_items.item_ids:
            raise _item_not_found(previous, "previous_item_id", "item_create_invalid_previous_item_id")
        if previous is not None:
            body["previous_item_id"] = self._hidden_items.to_upstream_previous(previous)
        return body

    def _check_item(self, item: Mapping[str, Any], path: str) -> None:
        item_type = item.get("type")
        if (
            item_type in ("function_call", "function_call_output")
            and item.get("call_id") in self._hidden_items.server_call_ids
        ):
            message = "No function call of the client has this call_id."
            raise PolicyViolation(message, f"{path}.call_id", "invalid_value")
        if item.get("id") in self._hidden_items.item_ids:
            raise _item_not_found(item.get("id"), f"{path}.id", "invalid_value")
        for name in ("content", "output"):
            parts = item.get(name)
            for index, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, Mapping) and part.get("id") in self._hidden_items.item_ids:
                    raise _item_not_found(part["id"], f"{path}.{name}[{index}].id", "invalid_value")

    def _ensure_call_id(self, item: Mapping[str, Any]) -> JsonObject:
        """Return a function call created by the client, with a `call_id`. It belongs to the client and is never run.

        It is recognized by its `call_id` when the upstream sends it back. The relay adds one if the client set none.
        """
        call_id = item.get("call_id") or f"call_{self._command_buffer.new_client_visible_id()}"
        self._hidden_items.expect_client_call(call_id)
        return {**item, "call_id": call_id}

    def _check_names(self, settings: JsonObject, path: str) -> None:
        violations = self._overlay.remove_reserved_names(settings, path)
        if violations:
            raise violations[0]

    def _check_item_id(self, body: JsonObject) -> JsonObject:
        """Delete, retrieve and truncate: to the client, a hidden item does not exist."""
        if body.get("item_id") in self._hidden_items.item_ids:
            verb = body["type"].rpartition(".")[2]
            raise _item_not_found(body["item_id"], "item_id", f"item_{verb}_invalid_item_id")
        return body

    def _response_create(self, body: JsonObject) -> ResponseRequest:
        body = self._command_buffer.ensure_event_id(body)
        response = body.get("response")
        names = None
        if isinstance(response, dict):
            inputs = response.get("input")
            for index, item in enumerate(inputs if isinstance(inputs, list) else ()):
                if isinstance(item, Mapping):
                    self._check_item(item, f"response.input[{index}]")
            self._check_names(response, "response")
            self._client_tools.remember_names(body["event_id"], response.get("tools"))
            names = function_names(response["tools"]) if response.get("tools") is not None else None
            self._merge_response(response)
        return ResponseRequest(body, body["event_id"], names)

    def _merge_response(self, response: JsonObject) -> None:
        # SDKs write null for the session's own, which include the server's overlay.
        for name, server_value in (("instructions", self._overlay.policy.instructions), ("tools", self._overlay.tools)):
            if server_value and name in response and response[name] is None:
                del response[name]
        if response.get("conversation") != "none":
            self._overlay.merge(response)
            return
        # Out-of-band responses get no server tools: their outputs would go into the conversation.
        if "instructions" in response:
            response["instructions"] = self._overlay.policy.combine_instructions(response["instructions"])
        if self._overlay.tools and response.get("tools") is None:
            response["tools"] = self._client_tools.tools


def _item_not_found(item_id: Any, param: str, code: str) -> PolicyViolation:
    return PolicyViolation(f"Item with item_id '{str(item_id)[:80]}' not found.", param, code)


_R = ClientEventRewriter
_RULES: dict[str, Callable[[ClientEventRewriter, JsonObject], JsonObject | ResponseRequest]] = {
    "session.update": _R._session_update,
    "conversation.item.create": _R._item_create,
    "conversation.item.delete": _R._check_item_id,
    "conversation.item.retrieve": _R._check_item_id,
    "conversation.item.truncate": _R._check_item_id,
    "response.create": _R._response_create,
}
"""Event types that are changed or checked further after the policy's tables."""
