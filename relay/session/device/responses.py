"""The responses of a device session: which one is active, whether one is due, and which are discarded (D3, D4).

`ResponseSlot` knows the active response. A response is due when a turn of the user is to be answered (`mark_due`), or
when tool outputs need a follow-up (`PendingToolCalls.is_follow_up_due`). Any response that begins covers both.

A request that was refused because another response was active is repeated: after the end of that response, or
`RETRY_DELAY_S` later if the relay knows of none. A response that sends nothing for `STALL_TIMEOUT_S` is abandoned. A
cancelled or abandoned response may still send output, which is discarded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from relay.session.common.bounded_set import BoundedSet
from relay.session.common.limits import ALREADY_ACTIVE_ERROR, STALL_TIMEOUT_S
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import Usage
from relay.session.common.response_slot import ResponseSlot
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import events as ev
from relay.session.device.commands import CancelResponse, Command, CreateResponse, SendUsage
from relay.session.tools.pending_calls import PendingToolCalls

MAX_DISCARDED_RESPONSES = 64


@dataclass(slots=True)
class Responses:
    """Requests, begin and end of responses. Commands go to `_emit`, ids come from `_next_id`."""

    _calls: PendingToolCalls
    _timers: TurnTimers
    _ledger: MediaLedger
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    slot: ResponseSlot = field(default_factory=ResponseSlot)
    discarded: BoundedSet = field(default_factory=lambda: BoundedSet(MAX_DISCARDED_RESPONSES))
    """Responses whose output is discarded."""
    usage: Usage = field(default_factory=Usage)
    """The total of all responses."""
    _counted_usage: BoundedSet = field(default_factory=lambda: BoundedSet(MAX_DISCARDED_RESPONSES))
    _is_turn_due: bool = False
    _requested_for: tuple[bool, bool] = (False, False)
    _last_event_at: float = 0.0

    def note_upstream_event(self, now: float) -> None:
        """Record the time of an upstream event."""
        self._last_event_at = now

    @property
    def last_upstream_at(self) -> float:
        """The time of the last upstream event, output audio or request for a response."""
        return max(self._last_event_at, self._ledger.last_output_at)

    @property
    def deadline(self) -> float | None:
        """The time at which the active response counts as stalled; None without one."""
        return None if self.slot.is_free else self.last_upstream_at + STALL_TIMEOUT_S

    @property
    def is_due(self) -> bool:
        """Whether a response is to be requested as soon as possible."""
        return self._is_turn_due or self._calls.is_follow_up_due

    @property
    def is_pending(self) -> bool:
        """Whether a response is active, due, or will be due when the running tool calls finish."""
        return not self.slot.is_free or not self.can_start_turn

    @property
    def can_start_turn(self) -> bool:
        """Whether the next typed turn may be sent: everything before it is answered."""
        return not self._is_turn_due and not self._calls.expects_follow_up

    def mark_due(self) -> None:
        """Record that a turn of the user needs a response."""
        self._is_turn_due = True

    def cancel_due(self) -> None:
        """Cancel all responses that are due."""
        self._is_turn_due = False
        self._calls.clear_follow_up()

    def request(self, now: float) -> None:
        """Request the due response; the slot must be free."""
        request_id = self._next_id()
        self.slot.request(request_id)
        self._requested_for = (self._is_turn_due, self._calls.is_follow_up_due)
        self._last_event_at = now
        self._emit(CreateResponse(request_id, allow_tools=not self._calls.at_round_limit))

    def on_upstream_error(self, event: ev.UpstreamErrorEvent, now: float) -> Literal["unrelated", "retry", "failed"]:
        """Handle an upstream error. Returns "unrelated" unless it refuses our request, else whether it is retried."""
        if event.event_id is None or not self.slot.on_refused(event.event_id):
            return "unrelated"
        if event.code != ALREADY_ACTIVE_ERROR:
            self.cancel_due()
            return "failed"
        # Another response is active. The request is repeated after its end, unless a new response covers it.
        if self.slot.is_free:
            self._timers.schedule_retry(now)
        elif not self._timers.is_user_speaking:
            was_turn_due, was_follow_up_due = self._requested_for
            self._is_turn_due = self._is_turn_due or was_turn_due
            if was_follow_up_due:
                self._calls.set_follow_up_due()
        return "retry"

    def on_created(self, event: ev.ResponseCreated) -> bool:
        """Handle the start of a response, requested or not. Returns False if it was cancelled already."""
        self._timers.clear_retry()
        must_cancel = self.slot.on_created(event.response_id, event.request_id)
        self._counted_usage.pop(event.response_id, None)
        if must_cancel:
            self.abandon(event.response_id)
            return False
        self._timers.clear_speech()
        self._is_turn_due = False
        self._calls.clear_follow_up()
        return True

    def on_done(self, event: ev.ResponseDone) -> bool:
        """Handle the end of a response. Returns whether it was the active one."""
        self._timers.clear_retry()
        if event.status == "failed":
            self._calls.clear_follow_up()  # a failed follow-up is not repeated
        return self.slot.on_done(event.response_id, event.request_id)

    def suppresses_follow_up(self, response_id: str) -> bool:
        """Return whether the tool calls of a response need no follow-up, because the user has begun a new turn."""
        return response_id in self.discarded or self._timers.is_user_speaking

    def count_usage(self, event: ev.ResponseDone) -> None:
        """Count the usage of a response once, even if its end comes twice (D11)."""
        if event.usage != Usage() and event.response_id not in self._counted_usage:
            self._counted_usage.add(event.response_id)
            self.usage += event.usage
            self._emit(SendUsage(event.usage))

    def discard_active(self) -> tuple[str | None, str | None]:
        """Discard output of the active response from here on. Returns its id and the id to cancel, if any."""
        active_id = self.slot.response_id
        if active_id is not None:
            self.discarded.add(active_id)
        return active_id, self.slot.cancel()

    def abandon_stalled(self) -> str | None:
        """Free the slot from the stalled response, and cancel what is due. Returns its id, if it had one."""
        self.cancel_due()
        return self.slot.abandon()

    def abandon(self, response_id: str) -> None:
        """Cancel a response and discard its further output."""
        self.discarded.add(response_id)
        self.cancel(response_id)

    def cancel(self, response_id: str) -> None:
        """Cancel a response upstream, always by its id (D2.2)."""
        self._emit(CancelResponse(response_id, self._next_id()))
