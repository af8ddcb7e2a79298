"""The responses of a device session: which one is active, whether one is due, and whose output is discarded (D3, D4).

`ResponseSlot` knows the active response. One is due when a turn of the user's is to be answered (`want`), or tool
outputs are to be spoken about (`ToolCalls.owes_response`); any response that begins covers both. A request that was
refused because another response was active is made again: after that one's end, or `REFUSED_RETRY_S` later if none is
known. A response from which nothing has come for `STALL_S` is given up. Output of a response that was cancelled or
given up may still come, and is discarded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from relay.session.common.bounded_set import RecentSet
from relay.session.common.limits import ALREADY_ACTIVE, STALL_S
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import Usage
from relay.session.common.response_slot import ResponseSlot
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import events as ev
from relay.session.device.commands import CancelResponse, Command, CreateResponse, TellUsage
from relay.session.tools.pending_calls import ToolCalls

MAX_DISCARDED = 64


@dataclass(slots=True)
class Responses:
    """Slot, requests and ends of responses; commands go to `_emit`, ids come from `_next_id`."""

    _calls: ToolCalls
    _timers: TurnTimers
    _ledger: MediaLedger
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    slot: ResponseSlot = field(default_factory=ResponseSlot)
    discarded: RecentSet = field(default_factory=lambda: RecentSet(MAX_DISCARDED))
    """Responses whose output is not to be heard any more."""
    usage: Usage = field(default_factory=Usage)
    """The sum of all responses."""
    _billed: RecentSet = field(default_factory=lambda: RecentSet(MAX_DISCARDED))
    _is_wanted: bool = False
    _requested_for: tuple[bool, bool] = (False, False)
    _event_at: float = 0.0

    def upstream_sent(self, now: float) -> None:
        """The upstream sent an event."""
        self._event_at = now

    @property
    def last_upstream_at(self) -> float:
        """When the upstream last sent an event or audio, or was last asked for a response."""
        return max(self._event_at, self._ledger.output_at)

    @property
    def deadline(self) -> float | None:
        """When the active response has stalled; None if there is none."""
        return None if self.slot.is_free else self.last_upstream_at + STALL_S

    @property
    def is_due(self) -> bool:
        """Whether one is to be requested as soon as it may."""
        return self._is_wanted or self._calls.owes_response

    @property
    def is_owed(self) -> bool:
        """Whether one is active, due, or will be due when the running calls have returned."""
        return not self.slot.is_free or not self.is_turn_next

    @property
    def is_turn_next(self) -> bool:
        """Whether another turn of the user's may go upstream: all that came before it is answered."""
        return not self._is_wanted and not self._calls.owes_follow_up

    def want(self) -> None:
        """A turn of the user's is to be answered."""
        self._is_wanted = True

    def drop_due(self) -> None:
        """Nothing is to be answered any more."""
        self._is_wanted = False
        self._calls.owe_nothing()

    def request(self, now: float) -> None:
        """Request the response that is due; the slot must be free."""
        request_id = self._next_id()
        self.slot.request(request_id)
        self._requested_for = (self._is_wanted, self._calls.owes_response)
        self._event_at = now
        self._emit(CreateResponse(request_id, allow_tools=not self._calls.at_round_limit))

    def refused(self, event: ev.UpstreamError, now: float) -> Literal["not_ours", "again", "failed"]:
        """An error came. If it refuses our request: whether that is made again, or has failed."""
        if event.event_id is None or not self.slot.refused(event.event_id):
            return "not_ours"
        if event.code != ALREADY_ACTIVE:
            self.drop_due()
            return "failed"
        # Another response is active: ours is requested again after its end, unless one that begins then covers it.
        if self.slot.is_free:
            self._timers.retry_later(now)
        elif not self._timers.is_user_speaking:
            was_wanted, was_owed = self._requested_for
            self._is_wanted = self._is_wanted or was_wanted
            if was_owed:
                self._calls.owe_response()
        return "again"

    def created(self, event: ev.ResponseCreated) -> bool:
        """A response began, ours or the upstream's own. Returns False if it was given up before, and is cancelled."""
        self._timers.retry_over()
        is_doomed = self.slot.created(event.response_id, event.request_id)
        self._billed.pop(event.response_id, None)
        if is_doomed:
            self.give_up(event.response_id)
            return False
        self._timers.speech_over()
        self._is_wanted = False
        self._calls.owe_nothing()
        return True

    def done(self, event: ev.ResponseDone) -> bool:
        """A response ended. Returns whether it was the one of the slot."""
        self._timers.retry_over()
        if event.status == "failed":
            self._calls.owe_nothing()  # the follow-up that failed is not tried again
        return self.slot.done(event.response_id, event.request_id)

    def is_quiet(self, response_id: str) -> bool:
        """Whether the calls of a response force no response: the user has begun a new turn."""
        return response_id in self.discarded or self._timers.is_user_speaking

    def count_usage(self, event: ev.ResponseDone) -> None:
        """Count what a response cost; an end that comes twice costs once (D11)."""
        if event.usage != Usage() and event.response_id not in self._billed:
            self._billed.add(event.response_id)
            self.usage += event.usage
            self._emit(TellUsage(event.usage))

    def silence(self) -> tuple[str | None, str | None]:
        """Discard what is active from here on. Returns its id, and the id to cancel; None where there is none."""
        active_id = self.slot.response_id
        if active_id is not None:
            self.discarded.add(active_id)
        return active_id, self.slot.cancel()

    def give_up_stalled(self) -> str | None:
        """Nothing came of the active response for `STALL_S`. Returns its id, if it had one."""
        self.drop_due()
        return self.slot.give_up()

    def give_up(self, response_id: str) -> None:
        """Cancel a response, and discard what still comes of it."""
        self.discarded.add(response_id)
        self.cancel(response_id)

    def cancel(self, response_id: str) -> None:
        """Ask the upstream to stop a response, always by its id (D2.2)."""
        self._emit(CancelResponse(response_id, self._next_id()))
