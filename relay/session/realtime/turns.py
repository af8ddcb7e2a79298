"""The turns of a Realtime session: what the events of both sides mean for the responses.

The client owns its turns, and the relay adds responses only for the server's tools. This module reads the events of
both sides and hands on what they mean. `ResponseQueue` requests responses and runs tools, and `TurnTimers` know whether
the user speaks. A barge-in cancels the calls of tools that are made for that, and outputs that come later
force no answer. Every response that begins covers all outputs that were sent before. The calls of a response are taken
up when it ends: those of the server's tools run, and those of the client's tools are left to the client.
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
    """The turns of one session; `hidden` knows which calls are the server's, `active` who begins responses."""

    _settings: ActiveSettings
    _hidden: HiddenItems
    timers: TurnTimers
    queue: ResponseQueue

    @property
    def has_pending_work(self) -> bool:
        """Whether the user speaks, or something is under way or due that makes the model speak."""
        return self.timers.is_user_speaking or self.queue.has_pending_work

    def on_deadline(self, now: float) -> None:
        """Do what has become due."""
        self.timers.tick(now)
        self.queue.on_deadline(now)

    def on_client_event(self, event: Mapping[str, Any]) -> None:
        """An event of the client's went to the upstream."""
        kind, item = event["type"], event.get("item")
        if kind == "response.cancel" and event.get("response_id") in (None, self.queue.slot.response_id):
            self.queue.cancel()
        elif kind == "conversation.item.create" and isinstance(item, Mapping) and item.get("role") == "user":
            self.queue.calls.reset_rounds()

    def on_server_event(self, event: Mapping[str, Any], now: float) -> None:
        """The upstream has sent an event, and it is known which of its items are hidden."""
        self.queue.on_upstream_activity()
        match event:
            case {"type": "input_audio_buffer.committed"}:
                self.queue.calls.reset_rounds()
            case {"type": "input_audio_buffer.speech_started"}:
                self.timers.speech_started(now)
                self.queue.on_interruption()
            case {"type": "input_audio_buffer.speech_stopped"}:
                self.timers.speech_stopped(now, awaits_response=self._settings.creates_responses)
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
            hidden = self._hidden
            items = _function_calls(response.get("output"))
            others = [item for item in items if item.get("call_id") not in hidden.server_call_ids]
            calls = [_call(item) for item in items if item.get("call_id") in hidden.server_call_ids]
            if calls:
                mixed = any(
                    item.get("id") not in hidden.item_ids for item in others
                )  # the client sees and answers those
                status = status if isinstance(status, str) else "failed"
                self.queue.accept_calls(response_id, status, calls, request, mixed=mixed)
        self.queue.request_due_response(now)


def _function_calls(output: Any) -> list[Mapping[str, Any]]:
    items = output if isinstance(output, list) else []
    return [item for item in items if isinstance(item, Mapping) and item.get("type") == "function_call"]


def _call(item: Mapping[str, Any]) -> Item:
    texts = {name: item[name] for name in _CALL_FIELDS if isinstance(item.get(name), str)}
    return Item(kind="function_call", **{"id": "", **texts})
