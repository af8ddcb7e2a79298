"""One response at a time, requested by a client that owns its turns, or by the relay after server tools (D3, D4).

    client's response.create ──► queued ──┐
                                          ├──slot is free──► response.create to the upstream ──► response
    outputs of server tools ───► due ─────┘

`request_due_response` sends the next request when the slot is free, the client's before the relay's. Only one client
request is queued. Another one is rejected as the API rejects it, with its `event_id`, so that no SDK waits for ever.
Once all outputs of a response are sent, a follow-up is due, but not while the user speaks.

In a mixed response the model also called tools of the client. The client then requests the next response, which waits
for the server's outputs. A response is abandoned if a request waits for its end and the upstream sends neither
events nor audio for the stall timeout. Out-of-band responses take no slot.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.limits import ALREADY_ACTIVE_ERROR, STALL_TIMEOUT_S
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import Item
from relay.session.common.response_slot import ResponseSlot, SlotState
from relay.session.common.turn_timers import TurnTimers
from relay.session.device.commands import CancelTool, RunTool
from relay.session.realtime.command_buffer import CommandBuffer
from relay.session.realtime.events import SendToUpstream
from relay.session.realtime.open_requests import OpenRequests, ResponseRequest
from relay.session.tools.pending_calls import PendingToolCalls

MAX_TRACKED_RESPONSES = 64
"""Active responses whose request is remembered; the oldest is forgotten."""
MAX_MIXED_RESPONSES = 64
"""Mixed responses that are remembered. The client's request no longer waits for the outputs of an older one."""

_FOLLOW_UP_SETTINGS = ("instructions", "tools", "output_modalities", "audio", "max_output_tokens", "reasoning")
"""Not `tool_choice`, which would call the tool again, nor `metadata`, which identifies the client's responses."""


@dataclass(slots=True)
class ResponseQueue:
    """One session's response slot and the requests waiting for it; `timers` say when a follow-up may be requested."""

    _command_buffer: CommandBuffer
    _cancellable: Collection[str]
    """Tools whose calls are cancelled on barge-in."""
    _timers: TurnTimers
    _ledger: MediaLedger
    calls: PendingToolCalls = field(default_factory=PendingToolCalls)
    """Calls of server tools."""
    slot: ResponseSlot = field(default_factory=ResponseSlot)
    open_requests: OpenRequests = field(default_factory=OpenRequests)
    stall_deadline: float | None = None
    """When the active response is abandoned; None while no request waits for its end."""
    _upstream_was_active: bool = False
    """Whether the upstream has sent an event since a request began to wait."""
    _waiting_since: float = 0.0
    _waiting_request: ResponseRequest | None = None
    _requested_by_client: ResponseRequest | None = None
    _relay_request_id: str | None = None
    _tool_call_request: ResponseRequest | None = None  # the client's request for the last response that called tools
    _responses_with_client_calls: BoundedSet = field(default_factory=lambda: BoundedSet(MAX_MIXED_RESPONSES))
    _awaits_client_request: bool = False
    _requests: OrderedDict[str, ResponseRequest] = field(default_factory=OrderedDict)

    # -- requests -----------------------------------------------------------------------------------------------------

    @property
    def has_pending_work(self) -> bool:
        """Whether a response is active or due, or will be: requested by the client, or after a running tool."""
        is_busy = self._waiting_request is not None or not self.slot.is_free
        return is_busy or self._awaits_client_request or self.calls.is_follow_up_due or self.calls.n_running > 0

    def request_due_response(self, now: float) -> None:
        """Request the next response, if the slot is free."""
        if self.slot.is_free:
            self.stall_deadline = None
            self._request_next()
        is_follow_up_requested = self.slot.request_id is not None and self.slot.request_id == self._relay_request_id
        is_waiting = self._waiting_request is not None or (self.calls.is_follow_up_due and not is_follow_up_requested)
        if is_waiting and not self.slot.is_free and self.stall_deadline is None:
            self._upstream_was_active = False
            self._waiting_since, self.stall_deadline = now, now + STALL_TIMEOUT_S

    def on_deadline(self, now: float) -> None:
        """Abandon a stalled response and send a request that is due."""
        if self.stall_deadline is not None and now >= self.stall_deadline:
            self.stall_deadline = None
            was_active = self._upstream_was_active or self._ledger.last_output_at > self._waiting_since
            if not was_active and not self.slot.is_free:
                self.slot.abandon()  # the upstream decides whether it accepts the next request
        self.request_due_response(now)

    def _request_next(self) -> None:
        timers = self._timers
        if self._waiting_request is not None:
            if not any(
                response_id in self._responses_with_client_calls for response_id in self.calls.pending_responses()
            ):
                request, self._waiting_request = self._waiting_request, None
                self._relay_request_id = None
                self._command_buffer.add(SendToUpstream(request.body))
                self._on_requested(request.event_id, request.settings.get("metadata"), request)
        elif self.calls.is_follow_up_due and not timers.is_user_speaking and not timers.is_retry_pending:
            settings = self._follow_up_settings()
            members = {"response": settings} if settings else {}
            self._relay_request_id = self._command_buffer.send_relay_event("response.create", **members)
            self._on_requested(self._relay_request_id, None, self._tool_call_request)

    def _follow_up_settings(self) -> JsonObject:
        settings = self._tool_call_request.settings if self._tool_call_request is not None else {}
        follow_up = {key: settings[key] for key in _FOLLOW_UP_SETTINGS if key in settings}
        return {**follow_up, "tool_choice": "none"} if self.calls.at_round_limit else follow_up

    def _on_requested(self, event_id: str, metadata: Any, client_request: ResponseRequest | None) -> None:
        self.slot.request(event_id)
        self.open_requests.add(event_id, metadata)
        self._requested_by_client = client_request

    # -- the client ---------------------------------------------------------------------------------------------------

    def request_response(self, request: ResponseRequest, now: float) -> None:
        """Send the client's request now if the slot is free, otherwise after the active response."""
        if request.settings.get("conversation") == "none":
            self.open_requests.add(request.event_id, request.settings.get("metadata"), out_of_band=True)
            self._command_buffer.add(SendToUpstream(request.body))
        elif self._waiting_request is not None:
            problem = "Another response.create is waiting for the active response to end."
            self._command_buffer.send_rejection(request.event_id, ALREADY_ACTIVE_ERROR, problem)
        else:
            self._waiting_request = request
            self.request_due_response(now)

    def cancel(self) -> None:
        """Cancel the active response for the client, and with it the requests that are queued or due."""
        self._drop_pending_responses()
        self._cancel_calls()
        if self._waiting_request is not None:
            request, self._waiting_request = self._waiting_request, None
            problem = "The response was cancelled before it started."
            self._command_buffer.send_rejection(request.event_id, ALREADY_ACTIVE_ERROR, problem)
        self.slot.cancel()

    def on_interruption(self) -> None:
        """Handle a barge-in: a follow-up that was requested is cancelled as soon as it is created (D2.5)."""
        self._cancel_calls()
        if self._relay_request_id is not None and self.slot.state is SlotState.REQUESTED:
            self.slot.cancel()

    # -- server tools -------------------------------------------------------------------------------------------------

    def accept_calls(
        self,
        response_id: str,
        status: str,
        calls: Sequence[Item],
        cause: ResponseRequest | None,
        *,
        has_client_calls: bool,
    ) -> None:
        """Run the server tools that a finished response called; `has_client_calls`: it also called tools of the client.

        `cause` is the client's request for that response. While the user speaks, the outputs lead to no follow-up.
        """
        self._tool_call_request = cause
        self._awaits_client_request = self._awaits_client_request or has_client_calls
        suppress_follow_up = has_client_calls or self._timers.is_user_speaking
        accepted_calls = self.calls.accept(response_id, calls, status, suppress_follow_up=suppress_follow_up)
        if accepted_calls.to_run and has_client_calls:
            self._responses_with_client_calls.add(response_id)
        for call in accepted_calls.to_run:
            self._command_buffer.add(RunTool(call.call_id or "", call.name or "", call.arguments or ""))
        for call_id, output in accepted_calls.refused:
            self._send_output(call_id, output)

    def on_tool_finished(self, call_id: str, output: str, now: float) -> None:
        """Send the output of a server tool, unless the call has one already."""
        if self.calls.finish(call_id) is not None:
            self._send_output(call_id, output)
            self.request_due_response(now)

    def _send_output(self, call_id: str, output: str) -> None:
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        self._command_buffer.send_relay_event("conversation.item.create", item=item)

    def _cancel_calls(self) -> None:
        """Suppress the follow-ups of pending calls for a new turn, and cancel calls of `_cancellable` tools."""
        self.calls.on_user_turn_started()
        for call_id, name in self.calls.pending_calls():
            if name in self._cancellable:
                self._command_buffer.add(CancelTool(call_id))

    def _drop_pending_responses(self) -> None:
        self._awaits_client_request = False
        self.calls.clear_follow_up()

    # -- the upstream -------------------------------------------------------------------------------------------------

    def on_upstream_activity(self) -> None:
        """Restart the stall timeout: the upstream has sent an event."""
        self._upstream_was_active = True

    def on_response_created(self, response_id: str, response: Mapping[str, Any], *, may_be_unrequested: bool) -> None:
        """Handle `response.created`. The response covers everything that was due, unless it is out-of-band.

        `may_be_unrequested`: the upstream may create responses automatically.
        """
        if self.open_requests.match_created(response, may_be_unrequested):
            return
        was_requested = self.slot.request_id is not None
        is_cancelled = self.slot.on_created(response_id, None)
        self._timers.clear_retry()
        if was_requested and self._requested_by_client is not None:
            self._requests[response_id] = self._requested_by_client
            if len(self._requests) > MAX_TRACKED_RESPONSES:
                self._requests.popitem(last=False)
        if is_cancelled:
            self._command_buffer.send_relay_event("response.cancel", response_id=response_id)
        else:
            self._timers.clear_speech()
            self._drop_pending_responses()

    def on_response_done(self, response_id: str) -> ResponseRequest | None:
        """Handle `response.done`. Returns the client's request for the response, None if there was none.

        The caller accepts its calls first, and then calls `request_due_response`.
        """
        self.slot.on_done(response_id, None)
        return self._requests.pop(response_id, None)

    def on_request_refused(self, event_id: str, code: Any, now: float) -> None:
        """Handle an event that the upstream refused, perhaps a `response.create`."""
        if self.open_requests.remove_refused(event_id) or not self.slot.on_refused(event_id):
            return
        if event_id == self._relay_request_id:
            self._relay_request_id = None
            if code == ALREADY_ACTIVE_ERROR:  # requested again, unless a later response covers it
                self.calls.set_follow_up_due()
                if self.slot.is_free:
                    self._timers.schedule_retry(now)
                else:
                    self._timers.clear_retry()
        self.request_due_response(now)

    def client_tool_names(self, response_id: Any) -> frozenset[str] | None:
        """Return the function tools that the client set for one response; None: the session's tools apply."""
        request = self._requests.get(response_id) if isinstance(response_id, str) else None
        return request.tool_names if request is not None else None
