"""Tool calls in flight: each gets exactly one output, and those of one response get one follow-up response (D4).

`accept` decides which calls of a response are run; the others get an output at once that says why not. Those that run
form a `Batch`. A call leaves it with its first output; a later output is never sent.
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

from relay.session.common.bounded_set import RecentSet
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
class Batch:
    """The calls of one response that have no output yet. `quiet`: the user went on, no answer is to be forced."""

    response_id: str
    open_calls: dict[str, str]
    """The name of each one's tool, by its id."""
    quiet: bool


class Accepted(NamedTuple):
    """What becomes of the calls of a response."""

    to_run: list[Item]
    refused: list[tuple[str, str]]
    """Call ids, each with its output."""


class ToolCalls:
    __slots__ = ("_batches", "_seen", "owes_response", "rounds")

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._seen = RecentSet(MAX_KNOWN_CALLS)
        self.owes_response = False
        self.rounds = 0

    @property
    def owes_follow_up(self) -> bool:
        """Whether a response is owed now, or will be once the running calls return."""
        return self.owes_response or any(not batch.quiet for batch in self._batches)

    @property
    def running(self) -> int:
        """How many calls have no output yet."""
        return sum(len(batch.open_calls) for batch in self._batches)

    @property
    def at_round_limit(self) -> bool:
        """Whether the model has called tools so often in a row that the next response must do without."""
        return self.rounds >= MAX_TOOL_ROUNDS

    def accept(
        self, response_id: str, output: Iterable[Item], status: str = "completed", *, quiet: bool = False
    ) -> Accepted:
        """Take up the function calls in the `output` of a response; `quiet`: their outputs force no answer."""
        fresh = []
        for item in output:
            is_call = item.kind == "function_call" and item.status in (None, "completed")
            if is_call and item.call_id and item.call_id not in self._seen:
                self._seen.add(item.call_id)
                fresh.append(item)
        refusal, n_run = TOO_MANY_CALLS if self.at_round_limit else CANCELLED_CALL, 0
        if status == "completed" and not self.at_round_limit:
            refusal, n_run = TOO_MANY_AT_ONCE, max(0, MAX_RUNNING_CALLS - self.running)
        to_run = fresh[:n_run]
        if to_run:
            open_calls = {call.call_id or "": call.name or "" for call in to_run}
            self._batches.append(Batch(response_id, open_calls, quiet))
        if fresh:
            self.rounds += 1
        return Accepted(to_run, [(call.call_id or "", refusal) for call in fresh[n_run:]])

    def returned(self, call_id: str) -> str | None:
        """A call ended; returns its tool. None if it is not (or no longer) waited for: no second output is sent."""
        for batch in self._batches:
            if call_id in batch.open_calls:
                name = batch.open_calls.pop(call_id)
                if not batch.open_calls:
                    self._batches.remove(batch)
                    self.owes_response = self.owes_response or not batch.quiet
                return name
        return None

    def name_of(self, call_id: str) -> str | None:
        """The tool of a running call."""
        return next((b.open_calls[call_id] for b in self._batches if call_id in b.open_calls), None)

    def open_responses(self) -> list[str]:
        """The responses whose calls do not all have an output yet."""
        return [batch.response_id for batch in self._batches]

    def open_calls(self) -> list[tuple[str, str]]:
        """The calls that have no output yet, as (call_id, name)."""
        return [call for batch in self._batches for call in batch.open_calls.items()]

    def user_went_on(self) -> None:
        """The user began a new turn: outputs still to come are delivered, but force no answer."""
        self.count_rounds_anew()
        for batch in self._batches:
            batch.quiet = True

    def count_rounds_anew(self) -> None:
        """The user has said something: the model may call tools again."""
        self.rounds = 0

    def owe_response(self) -> None:
        """The response that was requested did not come: it is owed again."""
        self.owes_response = True

    def owe_nothing(self) -> None:
        """No response is owed any more: any that begins after the outputs landed speaks about them."""
        self.owes_response = False

    def is_known(self, call_id: str) -> bool:
        """Whether a call of that id was ever taken up, as far back as `MAX_KNOWN_CALLS`."""
        return call_id in self._seen
