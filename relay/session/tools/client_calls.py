"""The function tools of a device client: their merge with the server's tools, and the calls that the client runs."""

import json
from dataclasses import replace
from typing import NamedTuple

import orjson

from relay.session.common.model import Item, ToolSpec, ToolStatus
from relay.session.device.events import ToolResult
from relay.session.tools.events import ToolCallFinished

MAX_OUTPUT_BYTES = 16 * 1024
MAX_ARGUMENT_CHARS = 32_768
"""The longest arguments that a client is sent in one message."""
TRUNCATION_NOTE = " … (cut: the result was longer than the relay passes on)"


class PendingClientCall(NamedTuple):
    """A call that awaits the client's result."""

    started_at: float
    timeout_ms: int

    @property
    def deadline(self) -> float:
        """When the call times out."""
        return self.started_at + self.timeout_ms / 1000


def merge_tools(server: tuple[ToolSpec, ...], client: tuple[ToolSpec, ...]) -> tuple[tuple[ToolSpec, ...], list[str]]:
    """Merge both sides' tools. A client's tool replaces a server tool of the same name, unless that is protected.

    Returns the tools, and the names of the client's tools that were refused.
    """
    protected_names = {tool.name for tool in server if tool.protected}
    refused_names = [tool.name for tool in client if tool.name in protected_names]
    client_tools = {
        tool.name: replace(tool, runs_on_client=True, visible_to_client=True)
        for tool in client
        if tool.name not in protected_names
    }
    return (*(tool for tool in server if tool.name not in client_tools), *client_tools.values()), refused_names


class ClientToolCalls:
    """The calls that await the client's result; each ends in one `ToolCallFinished`.

    Arguments that are not a JSON object, lack a required member or are too long fail at once, without the client. A
    result that comes after the deadline is ignored, because the upstream has had an output by then.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[str, PendingClientCall] = {}

    @property
    def deadline(self) -> float | None:
        """The time at which the next call times out; None if no call is pending."""
        return min((call.deadline for call in self._pending.values()), default=None)

    def start(self, call: Item, tool: ToolSpec, now: float) -> ToolCallFinished | None:
        """Start to wait for the client's result. Returns a failure at once if the arguments are invalid."""
        error = _argument_error(call.arguments or "{}", tool)
        if error is not None:
            return _failed_call(call.call_id or "", "invalid_arguments", error, 0)
        self._pending[call.call_id or ""] = PendingClientCall(now, tool.timeout_ms)
        return None

    def on_result(self, event: ToolResult, now: float) -> ToolCallFinished | None:
        """Return the client's result as a finished call; None if the call is not pending (any more)."""
        call = self._pending.pop(event.call_id, None)
        if call is None:
            return None
        ms = round((now - call.started_at) * 1000)
        if event.failed:
            return _failed_call(event.call_id, "client_error", event.output, ms)
        return ToolCallFinished(event.call_id, "done", _truncate_output(event.output), ms)

    def take_overdue(self, now: float) -> list[ToolCallFinished]:
        """Remove the calls that have timed out, and return them as failures."""
        overdue = [(call_id, call) for call_id, call in self._pending.items() if now >= call.deadline]
        for call_id, _ in overdue:
            del self._pending[call_id]
        text = "The client did not answer within {} ms."
        return [
            _failed_call(call_id, "timeout", text.format(call.timeout_ms), round((now - call.started_at) * 1000))
            for call_id, call in overdue
        ]


def _argument_error(arguments: str, tool: ToolSpec) -> str | None:
    if len(arguments) > MAX_ARGUMENT_CHARS:
        return f"The arguments are longer than {MAX_ARGUMENT_CHARS} characters."
    try:
        members = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return "The arguments are not JSON."
    if not isinstance(members, dict):
        return "The arguments must be a JSON object."
    required_names = tool.parameters.get("required", ())
    missing = (
        [str(name) for name in required_names if name not in members]
        if isinstance(required_names, list | tuple)
        else []
    )
    return f"Missing: {', '.join(missing)}." if missing else None


def _failed_call(call_id: str, error: str, message: str, ms: int) -> ToolCallFinished:
    status: ToolStatus = "timeout" if error == "timeout" else "failed"
    body = {"ok": False, "error": error, "message": message[:1000], "retryable": error != "client_error"}
    return ToolCallFinished(call_id, status, json.dumps(body, ensure_ascii=False), ms)


def _truncate_output(output: str) -> str:
    raw = output.encode(errors="replace")
    if len(raw) <= MAX_OUTPUT_BYTES:
        return output
    return raw[: MAX_OUTPUT_BYTES - len(TRUNCATION_NOTE.encode())].decode(errors="ignore") + TRUNCATION_NOTE
