"""Pending tool calls: each gets exactly one output, and those of one response get one follow-up response (D4).

`accept` decides which calls of a response are run; the others get an output at once that gives the reason. The calls
that run form a `CallBatch`. A call leaves it with its first output; a later output is never sent.

When the last call has left, a follow-up response is due (`is_follow_up_due`). Any response that begins afterwards
includes the outputs and is the follow-up, no matter who requested it.

When the user begins a new turn, running calls go on and their outputs are delivered, but they require no follow-up:
their batch has `suppress_follow_up`. The same `call_id` never runs twice. `consecutive_rounds` counts responses in a
row that call tools. From `MAX_TOOL_ROUNDS` on, the next response may call none. The count restarts with the user's next
turn.

The rules of both kinds of sessions write here; the slot (`relay.session.common.response_slot`) decides when a due
response may be requested. The tools themselves run outside of the rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from relay.session.common.bounded_set import BoundedSet
from relay.session.common.model import Item

MAX_KNOWN_CALLS = 4096
MAX_TOOL_ROUNDS = 8
"""Responses in a row that call tools; the next one may call none."""
MAX_RUNNING_CALLS = 32
"""The limit for one session."""
TOO_MANY_AT_ONCE = '{"ok":false,"error":"too_many_calls","message":"Too many calls at once: wait for some to end."}'
TOO_MANY_CALLS = '{"ok":false,"error":"too_many_calls","message":"Too many calls in a row: answer the user first."}'
CANCELLED_CALL = '{"ok":false,"error":"cancelled","message":"The response was interrupted, so this was not run."}'


@dataclass(slots=True)
class CallBatch:
    """The calls of one response that have no output yet. `suppress_follow_up`: they require no follow-up response."""

    response_id: str
    pending_calls: dict[str, str]
    """Call ids, each with the name of its tool."""
    suppress_follow_up: bool


class AcceptedCalls(NamedTuple):
    """The calls of a response: those to run, and those that are refused."""

    to_run: list[Item]
    refused: list[tuple[str, str]]
    """Call ids, each with the output to send."""


class PendingToolCalls:
    """The pending tool calls of one session, in batches."""

    __slots__ = ("_batches", "_known_ids", "consecutive_rounds", "is_follow_up_due")

    def __init__(self) -> None:
        self._batches: list[CallBatch] = []
        self._known_ids = BoundedSet(MAX_KNOWN_CALLS)
        self.is_follow_up_due = False
        self.consecutive_rounds = 0

    @property
    def expects_follow_up(self) -> bool:
        """Whether a follow-up is due now, or will be when the running calls finish."""
        return self.is_follow_up_due or any(not batch.suppress_follow_up for batch in self._batches)

    @property
    def n_running(self) -> int:
        """The number of calls without an output."""
        return sum(len(batch.pending_calls) for batch in self._batches)

    @property
    def at_round_limit(self) -> bool:
        """Whether the next response may call no tools."""
        return self.consecutive_rounds >= MAX_TOOL_ROUNDS

    def accept(
        self, response_id: str, output: Iterable[Item], status: str = "completed", *, suppress_follow_up: bool = False
    ) -> AcceptedCalls:
        """Accept the function calls in the `output` of a response.

        `suppress_follow_up`: their outputs require no follow-up response.
        """
        fresh = []
        for item in output:
            is_call = item.kind == "function_call" and item.status in (None, "completed")
            if is_call and item.call_id and item.call_id not in self._known_ids:
                self._known_ids.add(item.call_id)
                fresh.append(item)
        refusal, n_run = TOO_MANY_CALLS if self.at_round_limit else CANCELLED_CALL, 0
        if status == "completed" and not self.at_round_limit:
            refusal, n_run = TOO_MANY_AT_ONCE, max(0, MAX_RUNNING_CALLS - self.n_running)
        to_run = fresh[:n_run]
        if to_run:
            open_calls = {call.call_id or "": call.name or "" for call in to_run}
            self._batches.append(CallBatch(response_id, open_calls, suppress_follow_up))
        if fresh:
            self.consecutive_rounds += 1
        return AcceptedCalls(to_run, [(call.call_id or "", refusal) for call in fresh[n_run:]])

    def finish(self, call_id: str) -> str | None:
        """Finish a call. Returns the name of its tool; None if the call is not pending: then do not send its output."""
        for batch in self._batches:
            if call_id in batch.pending_calls:
                name = batch.pending_calls.pop(call_id)
                if not batch.pending_calls:
                    self._batches.remove(batch)
                    self.is_follow_up_due = self.is_follow_up_due or not batch.suppress_follow_up
                return name
        return None

    def tool_name(self, call_id: str) -> str | None:
        """Return the name of the tool of a pending call; None if the call is not pending."""
        return next((batch.pending_calls[call_id] for batch in self._batches if call_id in batch.pending_calls), None)

    def pending_responses(self) -> list[str]:
        """Return the ids of the responses with pending calls."""
        return [batch.response_id for batch in self._batches]

    def pending_calls(self) -> list[tuple[str, str]]:
        """Return the pending calls, as (call_id, name)."""
        return [call for batch in self._batches for call in batch.pending_calls.items()]

    def on_user_turn_started(self) -> None:
        """Suppress the follow-ups of pending calls: the user began a new turn."""
        self.reset_rounds()
        for batch in self._batches:
            batch.suppress_follow_up = True

    def reset_rounds(self) -> None:
        """Allow the model to call tools again: the user has taken a turn."""
        self.consecutive_rounds = 0

    def set_follow_up_due(self) -> None:
        """Request the follow-up again: the requested response did not come."""
        self.is_follow_up_due = True

    def clear_follow_up(self) -> None:
        """Cancel a due follow-up, for example because another response includes the outputs."""
        self.is_follow_up_due = False

    def is_known(self, call_id: str) -> bool:
        """Return whether a call with this id is among the last `MAX_KNOWN_CALLS` accepted ones."""
        return call_id in self._known_ids
