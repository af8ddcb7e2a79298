"""What the model calls in a session whose turns are the relay's: which tools run, and the one output each call gets."""

from collections.abc import Callable

from relay.core import events as ev
from relay.core.client_tools import ClientCalls
from relay.core.commands import CancelTool, Command, CreateItem, RunTool, TellTool, TellToolCall
from relay.core.tool_calls import ToolCalls
from relay.core.values import Item, ToolSpec

MAX_RUNNING_CALLS = 32
"""Of one session at a time; the answer to more is that they are too many."""
MAX_SHOWN_CHARS = 32_768
"""Longer arguments are not shown to the client."""
TOO_MANY_AT_ONCE = '{"ok":false,"error":"too_many_calls","message":"Too many calls at once: wait for some to end."}'
TOO_MANY_CALLS = '{"ok":false,"error":"too_many_calls","message":"Too many calls in a row: answer the user first."}'
UNKNOWN_TOOL = '{"ok":false,"error":"unknown_tool","message":"There is no tool of this name."}'
CANCELLED_CALL = '{"ok":false,"error":"cancelled","message":"The response was interrupted, so this was not run."}'


class ToolTurns:
    """The tool calls of one session (D4); commands go to `emit`, ids come from `next_id`, and `specs` are the tools.

    Only server tools that `offers` knows are run; of calls of others the client is not told.
    """

    def __init__(
        self,
        specs: tuple[ToolSpec, ...],
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
        offers: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.specs = specs
        self._offers = offers
        self.calls = ToolCalls()
        self._of_client = ClientCalls()
        self._emit = emit
        self._next_id = next_id

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        return self._of_client.deadline

    def tick(self, now: float) -> None:
        """Answer the calls that the client is late with."""
        for late in self._of_client.due(now):
            self.returned(late)

    def take(self, event: ev.ResponseDone, *, interrupted: bool) -> list[Item]:
        """Take up the calls of a response that ended. Returns those to run; the others have their output already."""
        complete = [
            item
            for item in event.output
            if item.kind == "function_call" and item.call_id and item.status in (None, "completed")
        ]
        too_many = self.calls.at_round_limit
        fresh = self.calls.begin(event.response_id, complete, quiet=interrupted)
        refusal, n_run = TOO_MANY_CALLS if too_many else CANCELLED_CALL, 0
        if event.status == "completed" and not too_many:
            refusal, n_run = TOO_MANY_AT_ONCE, max(0, MAX_RUNNING_CALLS - (self.calls.running - len(fresh)))
        # They came whole, but the response did not, or the model calls on and on: never run, yet never without output.
        for call in fresh[n_run:]:
            self.calls.give_up(call.call_id or "")
            self._output(call.call_id or "", refusal)
        return fresh[:n_run]

    def run(self, call: Item, now: float) -> None:
        """Have a call carried out, by the relay or by the client."""
        call_id, name = call.call_id or "", call.name or ""
        spec = self._spec(name)
        if self._is_hidden(name):
            self.returned(ev.ToolReturned(call_id, "failed", UNKNOWN_TOOL, 0))
            return
        shown = call.arguments if spec and spec.shown and len(call.arguments or "") <= MAX_SHOWN_CHARS else None
        self._emit(TellTool(call_id, name, "started", 0, arguments=shown))
        if spec is None or not spec.of_client:
            self._emit(RunTool(call_id, name, call.arguments or ""))
            return
        refused = self._of_client.begin(call, spec, now)
        if refused is None:
            self._emit(TellToolCall(call_id, name, call.arguments or "{}", spec.timeout_ms))
        else:
            self.returned(refused)

    def client_result(self, event: ev.ToolResult, now: float) -> bool:
        """The client ran a tool of its own. Returns False if no such call was ever made; a late one is ignored."""
        returned = self._of_client.result(event, now)
        if returned is not None:
            self.returned(returned)
        return returned is not None or self.calls.is_known(event.call_id)

    def returned(self, event: ev.ToolReturned) -> None:
        """A call ended: its one output goes upstream, and the client is told what it may see."""
        returned = self.calls.returned(event.call_id)
        if returned is None:
            return
        if not self._is_hidden(returned.name):
            self._tell(event, returned.name)
        self._output(event.call_id, event.output)

    def _tell(self, event: ev.ToolReturned, name: str) -> None:
        spec = self._spec(name)
        shown = spec is not None and spec.shown
        self._emit(
            TellTool(
                event.call_id,
                name,
                event.status,
                event.ms,
                arguments=event.arguments if shown else None,
                output=event.for_client or (event.output if shown else None),
            )
        )

    def progressed(self, event: ev.ToolProgressed) -> None:
        """A running tool has a word for the user."""
        name = self.calls.name_of(event.call_id)
        if name is not None:
            self._emit(TellTool(event.call_id, name, "progress", event.ms, text=event.text))

    def cancel_interrupted(self) -> None:
        """The user interrupts: other calls go on, those of tools made for that end."""
        for call_id, name in self.calls.open_calls():
            spec = self._spec(name)
            if spec is not None and spec.cancel_on_interrupt and not spec.of_client:
                self._emit(CancelTool(call_id))

    def _is_hidden(self, name: str) -> bool:
        """Whether there is no such tool for this session, whatever the relay has."""
        spec = self._spec(name)
        return (spec is None or not spec.of_client) and not self._offers(name)

    def _spec(self, name: str) -> ToolSpec | None:
        return next((tool for tool in self.specs if tool.name == name), None)

    def _output(self, call_id: str, output: str) -> None:
        item = Item(id="", kind="function_call_output", call_id=call_id, text=output)
        self._emit(CreateItem(item, self._next_id()))
