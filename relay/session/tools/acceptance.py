"""Which calls of a response are run (D4).

Each call of a response gets exactly one output, and no call id runs twice. Calls of a response that did not complete,
calls after `MAX_TOOL_ROUNDS` responses in a row that only call tools, and calls beyond `MAX_RUNNING_CALLS` at a time
are not run. Their output says why, so that the model is not left waiting.
"""

from collections.abc import Iterable
from typing import NamedTuple

from relay.core.tool_calls import ToolCalls
from relay.core.values import Item

MAX_RUNNING_CALLS = 32
"""Of one session at a time."""
TOO_MANY_AT_ONCE = '{"ok":false,"error":"too_many_calls","message":"Too many calls at once: wait for some to end."}'
TOO_MANY_CALLS = '{"ok":false,"error":"too_many_calls","message":"Too many calls in a row: answer the user first."}'
CANCELLED_CALL = '{"ok":false,"error":"cancelled","message":"The response was interrupted, so this was not run."}'


class Accepted(NamedTuple):
    """What becomes of the calls of a response."""

    to_run: list[Item]
    refused: list[tuple[str, str]]
    """Call ids, each with its output."""


def accept(calls: ToolCalls, response_id: str, output: Iterable[Item], status: str, *, quiet: bool) -> Accepted:
    """Take up the function calls in the `output` of a response; `quiet`: their outputs force no answer."""
    complete = [
        item for item in output if item.kind == "function_call" and item.call_id and item.status in (None, "completed")
    ]
    is_over_rounds = calls.at_round_limit
    fresh = calls.begin(response_id, complete, quiet=quiet)
    refusal, n_run = TOO_MANY_CALLS if is_over_rounds else CANCELLED_CALL, 0
    if status == "completed" and not is_over_rounds:
        refusal, n_run = TOO_MANY_AT_ONCE, max(0, MAX_RUNNING_CALLS - (calls.running - len(fresh)))
    refused = [(call.call_id or "", refusal) for call in fresh[n_run:]]
    for call_id, _ in refused:
        calls.give_up(call_id)
    return Accepted(fresh[:n_run], refused)
