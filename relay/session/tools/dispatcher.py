"""Dispatches the model's function calls in a device session; each call gets exactly one output (D4).

    response.done ──accept──► calls to run ──start──► the relay (`RunTool`) or the client (`SendToolCall`)
                       └────► refused: output at once              │
                                    output upstream ◄──finish──────┘

`PendingToolCalls` decides which calls are run. A call of the relay's own tools runs as a task, and ends with
`ToolCallFinished`. A call of a client's tool waits for the client's `toolResult`, or for its timeout. Either way one
`function_call_output` goes upstream, and the client is sent the status of the call. A server tool that the policy does
not offer counts as unknown, and the client is sent nothing about it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from relay.session.common.model import Item, ToolSpec
from relay.session.device.commands import Command, CreateItem, SendToolCall, SendToolStatus
from relay.session.device.events import ToolResult
from relay.session.device.upstream_events import ResponseDone
from relay.session.tools.client_calls import ClientToolCalls
from relay.session.tools.commands import CancelTool, RunTool
from relay.session.tools.events import ToolCallFinished, ToolCallProgress
from relay.session.tools.pending_calls import PendingToolCalls

MAX_VISIBLE_CHARS = 32_768
"""Longer arguments are not sent to the client with the status of a call."""
UNKNOWN_TOOL = '{"ok":false,"error":"unknown_tool","message":"There is no tool of this name."}'


@dataclass(slots=True)
class ToolDispatcher:
    """The function calls of one session. Commands go to `_emit`, ids come from `_next_id`."""

    _specs: tuple[ToolSpec, ...]
    _offers_tool: Callable[[str], bool]
    """Whether a server tool of that name may be run."""
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    calls: PendingToolCalls = field(default_factory=PendingToolCalls)
    _client_calls: ClientToolCalls = field(default_factory=ClientToolCalls)

    def set_tools(self, specs: tuple[ToolSpec, ...]) -> None:
        """Set the active tools of the session."""
        self._specs = specs

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `tick`; None if no call awaits the client."""
        return self._client_calls.deadline

    def tick(self, now: float) -> None:
        """Finish the calls for which the client is overdue."""
        for failure in self._client_calls.take_overdue(now):
            self.finish(failure)

    def accept(self, event: ResponseDone, *, suppress_follow_up: bool) -> list[Item]:
        """Accept the calls of a response, and send the outputs of those that are refused. Returns the calls to run.

        `suppress_follow_up`: their outputs require no follow-up response.
        """
        accepted_calls = self.calls.accept(
            event.response_id, event.output, event.status, suppress_follow_up=suppress_follow_up
        )
        for call_id, output in accepted_calls.refused:
            self._send_output(call_id, output)
        return accepted_calls.to_run

    def start(self, call: Item, now: float) -> None:
        """Start a call, on the relay or on the client."""
        call_id, name = call.call_id or "", call.name or ""
        spec = self._spec(name)
        if self._is_hidden(name):
            self.finish(ToolCallFinished(call_id, "failed", UNKNOWN_TOOL, 0))
            return
        is_visible = spec is not None and spec.visible_to_client and len(call.arguments or "") <= MAX_VISIBLE_CHARS
        self._emit(SendToolStatus(call_id, name, "started", 0, arguments=call.arguments if is_visible else None))
        if spec is None or not spec.runs_on_client:
            self._emit(RunTool(call_id, name, call.arguments or ""))
            return
        failure = self._client_calls.start(call, spec, now)
        if failure is None:
            self._emit(SendToolCall(call_id, name, call.arguments or "{}", spec.timeout_ms))
        else:
            self.finish(failure)

    def on_client_tool_result(self, event: ToolResult, now: float) -> bool:
        """Handle the result of a tool that the client ran. Returns False if the call id is unknown."""
        finished_call = self._client_calls.on_result(event, now)
        if finished_call is not None:
            self.finish(finished_call)
        return finished_call is not None or self.calls.is_known(event.call_id)

    def finish(self, event: ToolCallFinished) -> None:
        """Finish a call: send its one output upstream, and to the client what is visible to it."""
        name = self.calls.finish(event.call_id)
        if name is None:
            return
        if not self._is_hidden(name):
            spec = self._spec(name)
            is_visible = spec is not None and spec.visible_to_client
            arguments = event.arguments if is_visible else None
            output = event.client_output or (event.output if is_visible else None)
            self._emit(SendToolStatus(event.call_id, name, event.status, event.ms, arguments=arguments, output=output))
        self._send_output(event.call_id, event.output)

    def send_progress(self, event: ToolCallProgress) -> None:
        """Send the client a progress text of a running tool."""
        name = self.calls.tool_name(event.call_id)
        if name is not None:
            self._emit(SendToolStatus(event.call_id, name, "progress", event.ms, text=event.text))

    def cancel_interrupted(self) -> None:
        """Cancel the running calls of tools that have `cancel_on_interrupt`: the user interrupts."""
        for call_id, name in self.calls.pending_calls():
            spec = self._spec(name)
            if spec is not None and spec.cancel_on_interrupt and not spec.runs_on_client:
                self._emit(CancelTool(call_id))

    def _is_hidden(self, name: str) -> bool:
        """Return whether the session has no such tool, even if the relay has one."""
        spec = self._spec(name)
        return (spec is None or not spec.runs_on_client) and not self._offers_tool(name)

    def _spec(self, name: str) -> ToolSpec | None:
        return next((tool for tool in self._specs if tool.name == name), None)

    def _send_output(self, call_id: str, output: str) -> None:
        item = Item(id="", kind="function_call_output", call_id=call_id, text=output)
        self._emit(CreateItem(item, self._next_id()))
