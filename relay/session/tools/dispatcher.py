"""The model's function calls in a device session: who runs each, and the one output that each gets (D4).

    response.done ──take──► to run ──run──► the relay (`RunTool`) or the client (`SendToolCall`)
                       └──► refused: output at once                │
                                    output upstream ◄──returned────┘

`PendingToolCalls` decides which calls are run. A call of the relay's own tools runs as a task, and returns as
`ToolCallFinished`. A call of a client's tool waits for the client's `toolResult`, or for its timeout. Either way
exactly one `function_call_output` goes upstream, and the client is sent how the call goes. A server tool that the
policy does not offer counts as unknown, and the client is sent nothing about it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson

from relay.session.common.model import Item, ToolSpec, ToolStatus
from relay.session.device import events as ev
from relay.session.device.commands import CancelTool, Command, CreateItem, RunTool, SendToolCall, SendToolStatus
from relay.session.tools.pending_calls import PendingToolCalls

MAX_OUTPUT_BYTES = 16 * 1024
MAX_ARGUMENT_CHARS = 32_768
"""What a device may be asked with in one message."""
TRUNCATION_NOTE = " … (cut: the result was longer than the relay passes on)"

MAX_VISIBLE_CHARS = 32_768
"""Longer arguments are not shown to the client."""
UNKNOWN_TOOL = '{"ok":false,"error":"unknown_tool","message":"There is no tool of this name."}'


class PendingClientCall(NamedTuple):
    """One call that the client works on."""

    started_at: float
    timeout_ms: int

    @property
    def deadline(self) -> float:
        """When the client is late."""
        return self.started_at + self.timeout_ms / 1000


def merge_tools(server: tuple[ToolSpec, ...], client: tuple[ToolSpec, ...]) -> tuple[tuple[ToolSpec, ...], list[str]]:
    """Both ends' tools, the client's on equal names, and the names that a protected tool of the server's keeps out."""
    protected = {tool.name for tool in server if tool.protected}
    refused = [tool.name for tool in client if tool.name in protected]
    brought = {
        tool.name: replace(tool, runs_on_client=True, visible_to_client=True)
        for tool in client
        if tool.name not in protected
    }
    return (*(tool for tool in server if tool.name not in brought), *brought.values()), refused


class ClientToolCalls:
    """The calls that wait for the client; whatever happens to each becomes one `ToolCallFinished`.

    Arguments that are no JSON object, lack a required member or are too long fail at once, without the client. A result
    that comes after the deadline is ignored, for the upstream has had its output by then.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[str, PendingClientCall] = {}

    @property
    def deadline(self) -> float | None:
        """When the next call runs out of time."""
        return min((call.deadline for call in self._pending.values()), default=None)

    def start(self, call: Item, tool: ToolSpec, now: float) -> ev.ToolCallFinished | None:
        """Wait for the client's result; at once a failure if the arguments are nothing that it could be asked with."""
        wrong = _argument_error(call.arguments or "{}", tool)
        if wrong is not None:
            return _failed(call.call_id or "", "invalid_arguments", wrong, 0)
        self._pending[call.call_id or ""] = PendingClientCall(now, tool.timeout_ms)
        return None

    def result(self, event: ev.ToolResult, now: float) -> ev.ToolCallFinished | None:
        """The client's answer; None if the call is not, or no longer, waited for."""
        call = self._pending.pop(event.call_id, None)
        if call is None:
            return None
        ms = round((now - call.started_at) * 1000)
        if event.failed:
            return _failed(event.call_id, "client_error", event.output, ms)
        return ev.ToolCallFinished(event.call_id, "done", _bounded(event.output), ms)

    def take_overdue(self, now: float) -> list[ev.ToolCallFinished]:
        """The calls whose time is up."""
        late = [(call_id, call) for call_id, call in self._pending.items() if now >= call.deadline]
        for call_id, _ in late:
            del self._pending[call_id]
        text = "The client did not answer within {} ms."
        return [
            _failed(call_id, "timeout", text.format(call.timeout_ms), round((now - call.started_at) * 1000))
            for call_id, call in late
        ]


@dataclass(slots=True)
class ToolDispatcher:
    """The function calls of one session; commands go to `_emit`, ids come from `_next_id`."""

    _specs: tuple[ToolSpec, ...]
    """The session's tools."""
    _offers_tool: Callable[[str], bool]
    """Whether a server tool of that name may be run."""
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    calls: PendingToolCalls = field(default_factory=PendingToolCalls)
    _client_calls: ClientToolCalls = field(default_factory=ClientToolCalls)

    def set_tools(self, specs: tuple[ToolSpec, ...]) -> None:
        """Other tools are active."""
        self._specs = specs

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        return self._client_calls.deadline

    def tick(self, now: float) -> None:
        """Answer the calls that the client is late with."""
        for late in self._client_calls.take_overdue(now):
            self.finish(late)

    def accept(self, event: ev.ResponseDone, *, suppress_follow_up: bool) -> list[Item]:
        """Take up the calls of a response that ended, and answer those that are not run. Returns those to run.

        `suppress_follow_up`: their outputs force no answer.
        """
        accepted = self.calls.accept(
            event.response_id, event.output, event.status, suppress_follow_up=suppress_follow_up
        )
        for call_id, output in accepted.refused:
            self._output(call_id, output)
        return accepted.to_run

    def start(self, call: Item, now: float) -> None:
        """Have a call carried out, by the relay or by the client."""
        call_id, name = call.call_id or "", call.name or ""
        spec = self._spec(name)
        if self._is_hidden(name):
            self.finish(ev.ToolCallFinished(call_id, "failed", UNKNOWN_TOOL, 0))
            return
        shown = (
            call.arguments
            if spec and spec.visible_to_client and len(call.arguments or "") <= MAX_VISIBLE_CHARS
            else None
        )
        self._emit(SendToolStatus(call_id, name, "started", 0, arguments=shown))
        if spec is None or not spec.runs_on_client:
            self._emit(RunTool(call_id, name, call.arguments or ""))
            return
        refused = self._client_calls.start(call, spec, now)
        if refused is None:
            self._emit(SendToolCall(call_id, name, call.arguments or "{}", spec.timeout_ms))
        else:
            self.finish(refused)

    def client_tool_result(self, event: ev.ToolResult, now: float) -> bool:
        """The client ran a tool of its own. Returns False if no such call was ever made; a late one is ignored."""
        returned = self._client_calls.result(event, now)
        if returned is not None:
            self.finish(returned)
        return returned is not None or self.calls.is_known(event.call_id)

    def finish(self, event: ev.ToolCallFinished) -> None:
        """A call ended: its one output goes upstream, and the client is sent what it may see."""
        name = self.calls.finish(event.call_id)
        if name is None:
            return
        if not self._is_hidden(name):
            spec = self._spec(name)
            shown = spec is not None and spec.visible_to_client
            arguments = event.arguments if shown else None
            output = event.client_output or (event.output if shown else None)
            self._emit(SendToolStatus(event.call_id, name, event.status, event.ms, arguments=arguments, output=output))
        self._output(event.call_id, event.output)

    def progress(self, event: ev.ToolCallProgress) -> None:
        """A running tool has a text for the user."""
        name = self.calls.tool_name(event.call_id)
        if name is not None:
            self._emit(SendToolStatus(event.call_id, name, "progress", event.ms, text=event.text))

    def cancel_interrupted(self) -> None:
        """The user interrupts: cancel the calls of tools that are made for that; others go on."""
        for call_id, name in self.calls.pending_calls():
            spec = self._spec(name)
            if spec is not None and spec.cancel_on_interrupt and not spec.runs_on_client:
                self._emit(CancelTool(call_id))

    def _is_hidden(self, name: str) -> bool:
        """Whether there is no such tool for this session, whatever the relay has."""
        spec = self._spec(name)
        return (spec is None or not spec.runs_on_client) and not self._offers_tool(name)

    def _spec(self, name: str) -> ToolSpec | None:
        return next((tool for tool in self._specs if tool.name == name), None)

    def _output(self, call_id: str, output: str) -> None:
        item = Item(id="", kind="function_call_output", call_id=call_id, text=output)
        self._emit(CreateItem(item, self._next_id()))


def _argument_error(arguments: str, tool: ToolSpec) -> str | None:
    if len(arguments) > MAX_ARGUMENT_CHARS:
        return f"The arguments are longer than {MAX_ARGUMENT_CHARS} characters."
    try:
        given = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return "The arguments are not JSON."
    if not isinstance(given, dict):
        return "The arguments must be a JSON object."
    required = tool.parameters.get("required", ())
    missing = [str(name) for name in required if name not in given] if isinstance(required, list | tuple) else []
    return f"Missing: {', '.join(missing)}." if missing else None


def _failed(call_id: str, error: str, message: str, ms: int) -> ev.ToolCallFinished:
    status: ToolStatus = "timeout" if error == "timeout" else "failed"
    body = {"ok": False, "error": error, "message": message[:1000], "retryable": error != "client_error"}
    return ev.ToolCallFinished(call_id, status, json.dumps(body, ensure_ascii=False), ms)


def _bounded(output: str) -> str:
    raw = output.encode(errors="replace")
    if len(raw) <= MAX_OUTPUT_BYTES:
        return output
    return raw[: MAX_OUTPUT_BYTES - len(TRUNCATION_NOTE.encode())].decode(errors="ignore") + TRUNCATION_NOTE
