"""One response at a time, requested by a client that owns its turns or by the relay after server tools (D3, D4).

    client's response.create ──► waits ──┐
                                         ├──slot is free──► response.create to the upstream ──► response
    outputs of server tools ───► due ────┘

`settle` requests what comes next when the slot is free, the client's request first. Only one request of the client's
waits; a further one is refused as the API refuses it, with its `event_id`, so that no SDK waits for ever. Once all
outputs of a response are sent, a follow-up is due, though not while the user speaks. In a mixed response the model
called tools of the client as well: then the client requests the next one, which waits for the server's outputs. A
response on which the upstream falls silent is given up when somebody waits for its end, and nothing has come for
`STALL_TIMEOUT_S`: no event to the rules, no audio by the ledger. Responses outside the conversation take no slot.
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
from relay.session.realtime.events import SendToUpstream
from relay.session.realtime.open_requests import OpenRequests, ResponseRequest
from relay.session.realtime.outgoing import CommandBuffer
from relay.session.tools.pending_calls import PendingToolCalls

MAX_TRACKED_RESPONSES = 64
"""Responses whose request is remembered while they are active; the oldest is forgotten."""
MAX_MIXED_RESPONSES = 64
"""Mixed responses that are remembered; the client's request no longer waits for the outputs of an older one."""

_FOLLOW_UP_SETTINGS = ("instructions", "tools", "output_modalities", "audio", "max_output_tokens", "reasoning")
"""Not `tool_choice`, which would call the tool again, nor `metadata`, which tells the client's own responses apart."""


@dataclass(slots=True)
class ResponseQueue:
    """The response slot of one session and what waits for it; `timers` say when a follow-up may be requested."""

    _out: CommandBuffer
    _cancellable: Collection[str]
    """The tools whose calls a barge-in cancels."""
    _timers: TurnTimers
    _ledger: MediaLedger
    calls: PendingToolCalls = field(default_factory=PendingToolCalls)
    """Those of the server's tools."""
    slot: ResponseSlot = field(default_factory=ResponseSlot)
    open_requests: OpenRequests = field(default_factory=OpenRequests)
    stall_deadline: float | None = None
    """When a response is given up; None while nobody waits for its end."""
    _upstream_was_active: bool = False
    """Whether the upstream has sent an event since somebody began to wait."""
    _waiting_since: float = 0.0
    _waiting_request: ResponseRequest | None = None
    _requested_by_client: ResponseRequest | None = None
    _relay_request_id: str | None = None
    _tool_call_request: ResponseRequest | None = (
        None  # the client's request for the response that called the tools last
    )
    _mixed: BoundedSet = field(default_factory=lambda: BoundedSet(MAX_MIXED_RESPONSES))
    _awaits_client_request: bool = False
    _requests: OrderedDict[str, ResponseRequest] = field(default_factory=OrderedDict)

    # -- what comes next ----------------------------------------------------------------------------------------------

    @property
    def has_pending_work(self) -> bool:
        """Whether a response is active or due, or will be: from the client, or when a tool returns."""
        is_busy = self._waiting_request is not None or not self.slot.is_free
        return is_busy or self._awaits_client_request or self.calls.is_follow_up_due or self.calls.n_running > 0

    def request_due_response(self, now: float) -> None:
        """Request the response that comes next, if the slot is free."""
        if self.slot.is_free:
            self.stall_deadline = None
            self._request_next()
        asks_already = self.slot.request_id is not None and self.slot.request_id == self._relay_request_id
        waits = self._waiting_request is not None or (self.calls.is_follow_up_due and not asks_already)
        if waits and not self.slot.is_free and self.stall_deadline is None:
            self._upstream_was_active = False
            self._waiting_since, self.stall_deadline = now, now + STALL_TIMEOUT_S

    def on_deadline(self, now: float) -> None:
        """Do what has become due."""
        if self.stall_deadline is not None and now >= self.stall_deadline:
            self.stall_deadline = None
            has_heard = self._upstream_was_active or self._ledger.last_output_at > self._waiting_since
            if not has_heard and not self.slot.is_free:
                self.slot.abandon()  # the upstream itself accepts or refuses the next request
        self.request_due_response(now)

    def _request_next(self) -> None:
        timers = self._timers
        if self._waiting_request is not None:
            if not any(response_id in self._mixed for response_id in self.calls.pending_responses()):
                request, self._waiting_request = self._waiting_request, None
                self._relay_request_id = None
                self._out.add(SendToUpstream(request.body))
                self._on_requested(request.event_id, request.settings.get("metadata"), request)
        elif self.calls.is_follow_up_due and not timers.is_user_speaking and not timers.is_retry_pending:
            settings = self._follow_up_settings()
            self._relay_request_id = self._out.send_relay_event(
                "response.create", **({"response": settings} if settings else {})
            )
            self._on_requested(self._relay_request_id, None, self._tool_call_request)

    def _follow_up_settings(self) -> JsonObject:
        settings = self._tool_call_request.settings if self._tool_call_request is not None else {}
        kept = {key: settings[key] for key in _FOLLOW_UP_SETTINGS if key in settings}
        return {**kept, "tool_choice": "none"} if self.calls.at_round_limit else kept

    def _on_requested(self, event_id: str, metadata: Any, asked: ResponseRequest | None) -> None:
        self.slot.request(event_id)
        self.open_requests.add(event_id, metadata)
        self._requested_by_client = asked

    # -- the client ---------------------------------------------------------------------------------------------------

    def request_response(self, request: ResponseRequest, now: float) -> None:
        """The client requests a response: now if the slot is free, otherwise after the active one."""
        if request.settings.get("conversation") == "none":
            self.open_requests.add(request.event_id, request.settings.get("metadata"), out_of_band=True)
            self._out.add(SendToUpstream(request.body))
        elif self._waiting_request is not None:
            text = "Another response.create is waiting for the active response to end."
            self._out.send_rejection(request.event_id, ALREADY_ACTIVE_ERROR, text)
        else:
            self._waiting_request = request
            self.request_due_response(now)

    def cancel(self) -> None:
        """The client cancels the active response, and with it what was requested before or is due."""
        self._drop_pending_responses()
        self._cancel_calls()
        if self._waiting_request is not None:
            waiting, self._waiting_request = self._waiting_request, None
            text = "response.cancel came before this response could be started."
            self._out.send_rejection(waiting.event_id, ALREADY_ACTIVE_ERROR, text)
        self.slot.cancel()

    def on_interruption(self) -> None:
        """The user interrupts: a follow-up that is requested and has not begun is cancelled when it begins (D2.5)."""
        self._cancel_calls()
        if self._relay_request_id is not None and self.slot.state is SlotState.REQUESTED:
            self.slot.cancel()

    # -- calls of server tools ----------------------------------------------------------------------------------------

    def accept_calls(
        self, response_id: str, status: str, calls: Sequence[Item], cause: ResponseRequest | None, *, mixed: bool
    ) -> None:
        """A response ended that called server tools; `mixed`: it also called tools of the client.

        `cause` is the client's request for it. While the user speaks, the outputs force no answer.
        """
        self._tool_call_request = cause
        self._awaits_client_request = self._awaits_client_request or mixed
        accepted = self.calls.accept(
            response_id, calls, status, suppress_follow_up=mixed or self._timers.is_user_speaking
        )
        if accepted.to_run and mixed:
            self._mixed.add(response_id)
        for call in accepted.to_run:
            self._out.add(RunTool(call.call_id or "", call.name or "", call.arguments or ""))
        for call_id, output in accepted.refused:
            self._send_output(call_id, output)

    def on_tool_finished(self, call_id: str, output: str, now: float) -> None:
        """A server tool ended: its output is sent, unless the call has one."""
        if self.calls.finish(call_id) is not None:
            self._send_output(call_id, output)
            self.request_due_response(now)

    def _send_output(self, call_id: str, output: str) -> None:
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        self._out.send_relay_event("conversation.item.create", item=item)

    def _cancel_calls(self) -> None:
        """The user goes on: outputs still to come force no answer, and calls of `_cancellable` tools are cancelled."""
        self.calls.user_turn_started()
        for call_id, name in self.calls.pending_calls():
            if name in self._cancellable:
                self._out.add(CancelTool(call_id))

    def _drop_pending_responses(self) -> None:
        self._awaits_client_request = False
        self.calls.clear_follow_up()

    # -- the upstream -------------------------------------------------------------------------------------------------

    def on_upstream_activity(self) -> None:
        """The upstream has sent an event: it is not silent."""
        self._upstream_was_active = True

    def on_response_created(self, response_id: str, response: Mapping[str, Any], *, may_be_unrequested: bool) -> None:
        """A response began, which covers what was due, unless it is outside the conversation.

        `may_be_unrequested`: the upstream may begin responses by itself.
        """
        if self.open_requests.match_created(response, may_be_unrequested):
            return
        was_requested = self.slot.request_id is not None
        is_doomed = self.slot.created(response_id, None)
        self._timers.clear_retry()
        if was_requested and self._requested_by_client is not None:
            self._requests[response_id] = self._requested_by_client
            if len(self._requests) > MAX_TRACKED_RESPONSES:
                self._requests.popitem(last=False)
        if is_doomed:
            self._out.send_relay_event("response.cancel", response_id=response_id)
        else:
            self._timers.clear_speech()
            self._drop_pending_responses()

    def on_response_done(self, response_id: str) -> ResponseRequest | None:
        """A response ended; `request_due_response` is to be called once its calls are taken up. Returns the client's
        request.
        """
        self.slot.done(response_id, None)
        return self._requests.pop(response_id, None)

    def on_request_refused(self, event_id: str, code: Any, now: float) -> None:
        """The upstream has refused an event, which may be a request for a response."""
        if self.open_requests.remove_refused(event_id) or not self.slot.refused(event_id):
            return
        if event_id == self._relay_request_id:
            self._relay_request_id = None
            if code == ALREADY_ACTIVE_ERROR:  # requested again, unless a response that begins later covers it
                self.calls.set_follow_up_due()
                if self.slot.is_free:
                    self._timers.schedule_retry(now)
                else:
                    self._timers.clear_retry()
        self.request_due_response(now)

    def client_tool_names(self, response_id: Any) -> frozenset[str] | None:
        """The function tools that the client gave for one response; None if the session's are meant."""
        request = self._requests.get(response_id) if isinstance(response_id, str) else None
        return request.tool_names if request is not None else None
