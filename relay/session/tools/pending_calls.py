"""Tool calls in flight: each gets exactly one output, and those of one response get one follow-up response (D4).

`accept` decides which calls of a response are run; the others get an output at once that says why not. Those that run
form a `CallBatch`. A call leaves it with its first output; a later output is never sent.
When the last one has left, the relay owes the upstream a `response.create` (`owes_response`). Any response that begins
afterwards includes the outputs, whoever asked for it, and settles that.

When the user begins a new turn, running calls go on and their outputs are delivered, but they force no response: their
batch is `quiet`. The same `call_id` never runs twice. `rounds` counts responses in a row that call tools; at
`MAX_TOOL_ROUNDS` the next response must do without. The count begins again when the user goes on.

The rules of both kinds of sessions write here; the slot (`relay.session.common.response_slot`) decides when an owed
response may be requested. The tools themselves run outside of the rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from relay.session.common.bounded_set import BoundedSet
from relay.session.common.model import Item

MAX_KNOWN_CALLS = 4096
MAX_TOOL_ROUNDS = 8
"""Responses in a row that only call tools; the next one must answer without."""
MAX_RUNNING_CALLS = 32
"""Of one session at a time."""
TOO_MANY_AT_ONCE = '{"ok":false,"error":"too_many_calls","message":"Too many calls at once: wait for some to end."}'
TOO_MANY_CALLS = '{"ok":false,"error":"too_many_calls","message":"Too many calls in a row: answer the user first."}'
CANCELLED_CALL = '{"ok":false,"error":"cancelled","message":"The response was interrupted, so this was not run."}'


@dataclass(slots=True)
class CallBatch:
    """The calls of one response that have no output yet. `suppress_follow_up`: the user went on, no answer is to be
    forced.
    """

    response_id: str
    pending_calls: dict[str, str]
    """The name of each one's tool, by its id."""
    suppress_follow_up: bool


class AcceptedCalls(NamedTuple):
    """What becomes of the calls of a response."""

    to_run: list[Item]
    refused: list[tuple[str, str]]
    """Call ids, each with its output."""


class PendingToolCalls:
    __slots__ = ("_batches", "_known_ids", "consecutive_rounds", "is_follow_up_due")

    def __init__(self) -> None:
        self._batches: list[CallBatch] = []
        self._known_ids = BoundedSet(MAX_KNOWN_CALLS)
        self.is_follow_up_due = False
        self.consecutive_rounds = 0

    @property
    def expects_follow_up(self) -> bool:
        """Whether a response is owed now, or will be once the running calls return."""
        return self.is_follow_up_due or any(not batch.suppress_follow_up for batch in self._batches)

    @property
    def n_running(self) -> int:
        """How many calls have no output yet."""
        return sum(len(batch.pending_calls) for batch in self._batches)

    @property
    def at_round_limit(self) -> bool:
        """Whether the model has called tools so often in a row that the next response must do without."""
        return self.consecutive_rounds >= MAX_TOOL_ROUNDS

    def accept(
        self, response_id: str, output: Iterable[Item], status: str = "completed", *, suppress_follow_up: bool = False
    ) -> AcceptedCalls:
        """Take up the function calls in the `output` of a response; `suppress_follow_up`: their outputs force no
        answer.
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
        """A call ended; returns its tool. None if it is not (or no longer) waited for: no second output is sent."""
        for batch in self._batches:
            if call_id in batch.pending_calls:
                name = batch.pending_calls.pop(call_id)
                if not batch.pending_calls:
                    self._batches.remove(batch)
                    self.is_follow_up_due = self.is_follow_up_due or not batch.suppress_follow_up
                return name
        return None

    def tool_name(self, call_id: str) -> str | None:
        """The tool of a running call."""
        return next((b.pending_calls[call_id] for b in self._batches if call_id in b.pending_calls), None)

    def pending_responses(self) -> list[str]:
        """The responses whose calls do not all have an output yet."""
        return [batch.response_id for batch in self._batches]

    def pending_calls(self) -> list[tuple[str, str]]:
        """The calls that have no output yet, as (call_id, name)."""
        return [call for batch in self._batches for call in batch.pending_calls.items()]

    def user_turn_started(self) -> None:
        """The user began a new turn: outputs still to come are delivered, but force no answer."""
        self.reset_rounds()
        for batch in self._batches:
            batch.suppress_follow_up = True

    def reset_rounds(self) -> None:
        """The user has said something: the model may call tools again."""
        self.consecutive_rounds = 0

    def set_follow_up_due(self) -> None:
        """The response that was requested did not come: it is owed again."""
        self.is_follow_up_due = True

    def clear_follow_up(self) -> None:
        """No response is owed any more: any that begins after the outputs landed speaks about them."""
        self.is_follow_up_due = False

    def is_known(self, call_id: str) -> bool:
        """Whether a call of that id was ever taken up, as far back as `MAX_KNOWN_CALLS`."""
        return call_id in self._known_ids
