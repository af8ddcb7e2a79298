"""One response at a time, for a client that owns its turns and a relay that owes follow-ups (D3, D4).

The slot decides when a response is asked for, not whether: a client's `response.create` waits here while another
response is under way, or while the server's share of a mixed response still runs. Only one waits; a further one is
refused as the API would, with its `event_id`, so that no SDK waits for ever.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core.bounded import RecentSet
from relay.core.commands import CancelTool, RunTool
from relay.core.open_requests import OpenRequests
from relay.core.realtime_events import Obj, RealtimeCommand, TellUpstream
from relay.core.response import ResponseSlot, SlotState
from relay.core.tool_calls import ToolCalls
from relay.core.values import Item
from relay.session.common.limits import MAX_SPEECH_S, REFUSED_RETRY_S, RESPONSE_AFTER_SPEECH_S, STALL_S
from relay.session.common.media_ledger import MediaLedger
from relay.session.tools.acceptance import CANCELLED_CALL, TOO_MANY_CALLS

MAX_OUT_OF_BAND = 64
MAX_RESPONSES = 64
_KEPT = ("instructions", "tools", "output_modalities", "audio", "max_output_tokens", "reasoning")
"""Not `tool_choice`, which would call the tool again, nor `metadata`, which tells the client's own responses apart."""
BUSY = "conversation_already_has_active_response"


@dataclass(frozen=True, slots=True)
class Create:
    """A client's `response.create`; `names`: the function tools it brings along, None if it goes by the session's."""

    body: Obj
    event_id: str
    names: frozenset[str] | None = None

    @property
    def metadata(self) -> Any:
        """What the client knows its response by."""
        response = self.body.get("response")
        return response.get("metadata") if isinstance(response, Mapping) else None

    @property
    def overrides(self) -> Obj:
        """What a follow-up to this response keeps of its settings."""
        response = self.body.get("response")
        return {key: response[key] for key in _KEPT if key in response} if isinstance(response, Mapping) else {}


class RealtimeTurns:
    """The responses of one session. `refuse(event_id, code, message)` answers a create that cannot be had.

    `cancellable` names the tools whose running calls end when the user interrupts.
    """

    def __init__(
        self,
        emit: Callable[[RealtimeCommand], None],
        next_id: Callable[[], str],
        refuse: Callable[[str, str, str], None],
        ledger: MediaLedger,
        cancellable: Collection[str] = (),
    ) -> None:
        self._ledger = ledger
        self.slot = ResponseSlot()
        self.calls = ToolCalls()
        self.upstream_creates = True
        """Whether a spoken turn is answered without being asked: the session's turn detection says so."""
        self.upstream_has_idle_timeout = False
        """Whether responses begin unasked when nobody speaks: its idle timeout says so."""
        self.heard = False
        """Whether the upstream has sent an event since this was last looked at."""
        self._emit = emit
        self._next_id = next_id
        self._refuse = refuse
        self._cancellable = cancellable
        self._waiting: Create | None = None
        self._asked: Create | None = None
        self._mixed = RecentSet(MAX_RESPONSES)
        self._client_owes = False
        self._out_of_band = RecentSet(MAX_OUT_OF_BAND)
        self._requests = OpenRequests()
        self._own_request: str | None = None
        self._overrides: OrderedDict[str, Create] = OrderedDict()
        self._follows: Create | None = None
        self._user_speaking = False
        self._speech_ends_by = 0.0
        self._retry_at: float | None = None
        self._stalls_at: float | None = None
        self._waits_since = 0.0

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        speech = self._speech_ends_by if self._user_speaking else None
        return min((time for time in (speech, self._retry_at, self._stalls_at) if time is not None), default=None)

    @property
    def is_owed(self) -> bool:
        """Whether somebody speaks, or something is under way or due that will make the model speak."""
        waits = self._waiting is not None or self._user_speaking or self._client_owes
        return waits or not self.slot.is_free or self.calls.owes_response or self.calls.running > 0

    def tick(self, now: float) -> None:
        """Do what has become due."""
        if self._user_speaking and now >= self._speech_ends_by:
            self._user_speaking = False
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
        if self._stalls_at is not None and now >= self._stalls_at:
            self._stalls_at = None
            has_heard = self.heard or self._ledger.output_at > self._waits_since
            if not has_heard and not self.slot.is_free:
                self.slot.give_up()  # somebody waits for an end that does not come: let the upstream judge the next one
        self.settle(now)

    def settle(self, now: float) -> None:
        """Ask for the response that is due, if the slot is free."""
        if self.slot.is_free:
            self._stalls_at = None
            if self._waiting is not None:
                if not self._is_held:
                    self._ask(self._waiting)
                    self._waiting = None
            elif self.calls.owes_response and not self._user_speaking and self._retry_at is None:
                self._ask_follow_up()
        asks_already = self.slot.request_id is not None and self.slot.request_id == self._own_request
        waits = self._waiting is not None or (self.calls.owes_response and not asks_already)
        if waits and not self.slot.is_free and self._stalls_at is None:
            self.heard = False
            self._waits_since, self._stalls_at = now, now + STALL_S

    @property
    def _is_held(self) -> bool:
        """Whether outputs of the server's calls are still to come that the client's next response must speak about."""
        return any(response_id in self._mixed for response_id in self.calls.open_responses())

    def _ask(self, create: Create) -> None:
        self.slot.request(create.event_id)
        self._asked, self._own_request = create, None
        self._requests.add(create.event_id, create.metadata)
        self._emit(TellUpstream(create.body))

    def _ask_follow_up(self) -> None:
        request_id = self._next_id()
        self.slot.request(request_id)
        self._asked, self._own_request = self._follows, request_id
        self._requests.add(request_id, None)
        settings = self._follows.overrides if self._follows is not None else {}
        if self.calls.at_round_limit:
            settings["tool_choice"] = "none"
        body: Obj = {"type": "response.create", "event_id": request_id}
        self._emit(TellUpstream({**body, "response": settings} if settings else body))

    # -- the client ---------------------------------------------------------------------------------------------------

    def create(self, create: Create, now: float) -> None:
        """The client asks for a response: now if it can be had, else after the one under way."""
        response = create.body.get("response")
        if isinstance(response, Mapping) and response.get("conversation") == "none":
            self._requests.add(create.event_id, create.metadata, out_of_band=True)
            self._emit(TellUpstream(create.body))
        elif self._waiting is not None:
            self._refuse(create.event_id, BUSY, "Another response.create is waiting for the active response to end.")
        else:
            self._waiting = create
            self.settle(now)

    def cancel(self, response_id: Any) -> None:
        """The client wants an end of the response: what was asked for before this is not wanted any more either."""
        if response_id is not None and response_id != self.slot.response_id:
            return  # another one, such as one outside the conversation
        self.calls.user_went_on()
        self.calls.owes_response = self._client_owes = False
        self._cancel_tools()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._refuse(waiting.event_id, BUSY, "response.cancel came before this response could be started.")
        self.slot.cancel()

    def user_went_on(self) -> None:
        """The client has added something to answer: the tool rounds are counted anew."""
        self.calls.rounds = 0

    # -- the upstream -------------------------------------------------------------------------------------------------

    def speech_started(self, now: float) -> None:
        """The user speaks: what a tool returns from here on is delivered without a forced answer."""
        self._user_speaking = True
        self._speech_ends_by = now + MAX_SPEECH_S
        self.calls.user_went_on()
        self._cancel_tools()
        if self._own_request is not None and self.slot.state is SlotState.REQUESTED:
            self.slot.cancel()  # asked for before the barge-in, not yet begun: cancelled when it appears (D2.5)

    def speech_stopped(self, now: float) -> None:
        """The user's speech is over; the upstream's own answer covers what is owed, if one comes soon."""
        self._speech_ends_by = now + RESPONSE_AFTER_SPEECH_S
        self._user_speaking = self.upstream_creates
        self.settle(now)

    def input_cleared(self, now: float) -> None:
        """There is no turn of the user any more."""
        self._user_speaking = False
        self.settle(now)

    def response_created(self, response: Mapping[str, Any]) -> None:
        """A response began, asked for or not; it covers every output that has landed (D4)."""
        response_id = response.get("id")
        if not isinstance(response_id, str):
            return
        if self._requests.begins_out_of_band(response, self.upstream_creates or self.upstream_has_idle_timeout):
            self._out_of_band.add(response_id)
            return
        was_requested = self.slot.request_id is not None
        doomed = self.slot.created(response_id, None)
        self._retry_at = None
        if was_requested and self._asked is not None:
            self._overrides[response_id] = self._asked
            if len(self._overrides) > MAX_RESPONSES:
                self._overrides.popitem(last=False)
        if doomed:
            self._emit(
                TellUpstream({"type": "response.cancel", "event_id": self._next_id(), "response_id": response_id})
            )
            return
        self._user_speaking = self._client_owes = False
        self.calls.response_created()

    def response_done(self, response_id: str, status: str, calls: Sequence[Item], *, mixed: bool, now: float) -> None:
        """A response ended: run the server's `calls` if it completed; `mixed`: the client has calls in it as well."""
        self.slot.done(response_id, None)
        create = self._overrides.pop(response_id, None)
        if response_id not in self._out_of_band:
            if calls:
                self._follows = create
                self._client_owes = self._client_owes or mixed
            self._take_calls(response_id, status, calls, mixed=mixed)
        self.settle(now)

    def _take_calls(self, response_id: str, status: str, calls: Sequence[Item], *, mixed: bool) -> None:
        too_many = self.calls.at_round_limit
        complete = [call for call in calls if call.status in (None, "completed")]
        fresh = self.calls.begin(response_id, complete, quiet=mixed or self._user_speaking)
        for call in fresh:
            call_id = call.call_id or ""
            if status == "completed" and not too_many:
                if mixed:
                    self._mixed.add(response_id)
                self._emit(RunTool(call_id, call.name or "", call.arguments or ""))
            else:  # never run, yet never without output
                self.calls.give_up(call_id)
                self._output(call_id, TOO_MANY_CALLS if too_many else CANCELLED_CALL)

    def request_refused(self, event_id: str, code: Any, now: float) -> bool:
        """An error that answers a `response.create`. Returns whether it was one of the relay's own."""
        own = event_id == self._own_request
        if self._requests.refused(event_id):
            return False
        if not self.slot.refused(event_id):
            return own
        if own:
            self._own_request = None
            if code == BUSY:  # asked for again, unless a response that begins after this one covers it
                self.calls.owes_response = True
                self._retry_at = now + REFUSED_RETRY_S if self.slot.is_free else None
        self.settle(now)
        return own

    # -- tools --------------------------------------------------------------------------------------------------------

    def tool_returned(self, call_id: str, output: str, now: float) -> None:
        """A server tool ended: its one output goes up, and once all of them are in a response is due."""
        if self.calls.returned(call_id) is not None:
            self._output(call_id, output)
            self.settle(now)

    def _cancel_tools(self) -> None:
        """The user interrupts: other calls go on, those of tools made for that end."""
        for call_id, name in self.calls.open_calls():
            if name in self._cancellable:
                self._emit(CancelTool(call_id))

    def _output(self, call_id: str, output: str) -> None:
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        self._emit(TellUpstream({"type": "conversation.item.create", "event_id": self._next_id(), "item": item}))

    # -- looking ------------------------------------------------------------------------------------------------------

    def is_out_of_band(self, response_id: Any) -> bool:
        """Whether a response stands outside the conversation."""
        return isinstance(response_id, str) and response_id in self._out_of_band

    def shadows(self, response_id: Any) -> frozenset[str] | None:
        """The function tools that the client brought along for one response; None if it goes by the session's."""
        create = self._overrides.get(response_id) if isinstance(response_id, str) else None
        return create.names if create is not None else None
