"""Tool calls in flight: each gets exactly one output, and those of one response get one follow-up response (D4).

The complete calls of a response form a `Batch`. A call leaves it with its first output; a later output is never sent.
When the last one has left, the relay owes the upstream a `response.create` (`owes_response`). Any response that begins
afterwards includes the outputs, whoever asked for it, and settles that.

When the user begins a new turn, running calls go on and their outputs are delivered, but they force no response: their
batch is `quiet`. The same `call_id` never runs twice. `rounds` counts responses in a row that call tools; at
`MAX_TOOL_ROUNDS` the next response must do without. The count begins again when the user goes on.

The rules of both kinds of sessions write here; the slot (`relay.core.response`) decides when an owed response may be
requested. The tools themselves run outside of the rules.
"""

from dataclasses import dataclass, field

from relay.core.bounded import RecentSet
from relay.core.values import Item

MAX_KNOWN_CALLS = 4096
MAX_TOOL_ROUNDS = 8
"""Responses in a row that only call tools; the next one must answer without."""


@dataclass(slots=True)
class Batch:
    """The calls of one response that have no output yet. `quiet`: the user went on, no answer is to be forced."""

    response_id: str
    open_calls: dict[str, str] = field(default_factory=dict)
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """What a tool's return means: the tool's name, and whether the user went on meanwhile."""

    name: str
    quiet: bool


class ToolCalls:
    """Which calls run, and whether the relay owes the model's end a `response.create`."""

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

    def begin(self, response_id: str, calls: list[Item], *, quiet: bool = False) -> list[Item]:
        """Take up the complete calls of a response. Returns those to run: no call_id runs twice."""
        batch = Batch(response_id, quiet=quiet)
        fresh = []
        for call in calls:
            if call.call_id and call.call_id not in self._seen:
                self._seen.add(call.call_id)
                batch.open_calls[call.call_id] = call.name or ""
                fresh.append(call)
        if fresh:
            self._batches.append(batch)
            self.rounds += 1
        return fresh

    def returned(self, call_id: str) -> Returned | None:
        """A call ended. None if it is not (or no longer) waited for: a second output is never sent."""
        for batch in self._batches:
            if call_id in batch.open_calls:
                name = batch.open_calls.pop(call_id)
                if not batch.open_calls:
                    self._batches.remove(batch)
                    self.owes_response = self.owes_response or not batch.quiet
                return Returned(name, batch.quiet)
        return None

    def give_up(self, call_id: str) -> None:
        """A call that is not run after all: nothing is waited for, no response is owed for it."""
        for batch in self._batches:
            if batch.open_calls.pop(call_id, None) is not None and not batch.open_calls:
                self._batches.remove(batch)
                return

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
        self.rounds = 0
        for batch in self._batches:
            batch.quiet = True

    def owe_response(self, *, owed: bool) -> None:
        """The response that was to speak about outputs was refused and is owed again, or it is owed no more."""
        self.owes_response = owed

    def response_created(self) -> None:
        """Any response that begins after the outputs landed speaks about them: nothing is owed any more."""
        self.owes_response = False

    def is_known(self, call_id: str) -> bool:
        """Whether a call of that id was ever taken up, as far back as `MAX_KNOWN_CALLS`."""
        return call_id in self._seen
