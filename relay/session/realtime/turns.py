"""The turns of a Realtime session: what the events of client and upstream mean for the responses.

The client owns its turns; the relay adds responses only for the server's tools. This module interprets the events of
both sides. `ResponseQueue` requests responses and runs tools; `TurnTimers` know whether the user speaks.

A barge-in cancels the calls of tools with `cancel_on_interrupt`, and later outputs lead to no follow-up. Every response
covers all outputs sent before it. The calls of a response are accepted when it is done: server tools run, and the
client answers the calls of its own tools.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.session.common.model import Item
from relay.session.common.turn_timers import TurnTimers
from relay.session.realtime.configuration import ActiveSettings
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.response_queue import ResponseQueue

_CALL_FIELDS = ("id", "status", "call_id", "name", "arguments")


@dataclass(slots=True)
class RealtimeTurns:
    """The turns of one session; `settings` says whether the upstream creates responses."""

    _settings: ActiveSettings
    _hidden_items: HiddenItems
    timers: TurnTimers
    queue: ResponseQueue

    @property
    def has_pending_work(self) -> bool:
        """Whether the user speaks, or a response or tool is running or due."""
        return self.timers.is_user_speaking or self.queue.has_pending_work

    def on_deadline(self, now: float) -> None:
        """Handle expired timers."""
        self.timers.tick(now)
        self.queue.on_deadline(now)

    def on_client_event(self, event: Mapping[str, Any]) -> None:
        """Handle a client event that was sent to the upstream."""
        event_type, item = event["type"], event.get("item")
        if event_type == "response.cancel" and event.get("response_id") in (None, self.queue.slot.response_id):
            self.queue.cancel()
        elif event_type == "conversation.item.create" and isinstance(item, Mapping) and item.get("role") == "user":
            self.queue.calls.reset_rounds()

    def on_server_event(self, event: Mapping[str, Any], now: float) -> None:
        """Handle an upstream event, after the rewriter: hidden items in it are known."""
        self.queue.on_upstream_activity()
        match event:
            case {"type": "input_audio_buffer.committed"}:
                self.queue.calls.reset_rounds()
            case {"type": "input_audio_buffer.speech_started"}:
                self.timers.on_speech_started(now)
                self.queue.on_interruption()
            case {"type": "input_audio_buffer.speech_stopped"}:
                self.timers.on_speech_stopped(now, awaits_response=self._settings.creates_responses)
                self.queue.request_due_response(now)
            case {"type": "input_audio_buffer.cleared"}:
                self.timers.clear_speech()
                self.queue.request_due_response(now)
            case {"type": "response.created", "response": {"id": str(response_id)} as response}:
                may_be_unrequested = self._settings.creates_responses or self._settings.has_idle_timeout
                self.queue.on_response_created(response_id, response, may_be_unrequested=may_be_unrequested)
            case {"type": "response.done", "response": {"id": str(response_id)} as response}:
                self._on_response_done(response_id, response, now)
            case {"type": "error", "error": {"event_id": str(event_id)} as error}:
                self.queue.on_request_refused(event_id, error.get("code"), now)

    def _on_response_done(self, response_id: str, response: Mapping[str, Any], now: float) -> None:
        request, status = self.queue.on_response_done(response_id), response.get("status")
        if not self.queue.open_requests.is_out_of_band(response_id):
            hidden = self._hidden_items
            items = _function_calls(response.get("output"))
            client_calls = [item for item in items if item.get("call_id") not in hidden.server_call_ids]
            server_calls = [_decode_call(item) for item in items if item.get("call_id") in hidden.server_call_ids]
            if server_calls:
                has_client_calls = any(
                    item.get("id") not in hidden.item_ids for item in client_calls
                )  # visible to the client
                status = status if isinstance(status, str) else "failed"
                self.queue.accept_calls(response_id, status, server_calls, request, has_client_calls=has_client_calls)
        self.queue.request_due_response(now)


def _function_calls(output: Any) -> list[Mapping[str, Any]]:
    items = output if isinstance(output, list) else []
    return [item for item in items if isinstance(item, Mapping) and item.get("type") == "function_call"]


def _decode_call(item: Mapping[str, Any]) -> Item:
    fields = {name: item[name] for name in _CALL_FIELDS if isinstance(item.get(name), str)}
    return Item(kind="function_call", **{"id": "", **fields})
