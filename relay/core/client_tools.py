"""Tools that a client brings: announced in its hello, run by the client, with a deadline for each call (D4).

`merge` joins the client's tools with the server's. On equal names the client's wins, unless the server's is protected;
the names that were refused are reported to the client.

A call is open from `begin` until its result, its deadline or the end of the session. Arguments that are no JSON object,
lack a required member or are too long fail at once, without the client. A result that comes after the deadline is
ignored, for the upstream has had its output by then. Whatever happens becomes one `ToolReturned`, the same event as
that of a server tool, so that only one way leads on from there. Results are cut to `MAX_OUTPUT_BYTES`, with a note.
"""

import json
from dataclasses import dataclass, replace

import orjson

from relay.core.events import ToolResult, ToolReturned
from relay.core.values import Item, ToolSpec, ToolStatus

MAX_OUTPUT_BYTES = 16 * 1024
MAX_ARGUMENT_CHARS = 32_768
"""What a device may be asked with in one message."""
CUT_NOTE = " … (cut: the result was longer than the relay passes on)"


@dataclass(frozen=True, slots=True)
class OpenCall:
    """One call that the client works on."""

    asked_at: float
    timeout_ms: int

    @property
    def due_at(self) -> float:
        """When the client is late."""
        return self.asked_at + self.timeout_ms / 1000


def merge(server: tuple[ToolSpec, ...], client: tuple[ToolSpec, ...]) -> tuple[tuple[ToolSpec, ...], list[str]]:
    """Both ends' tools, the client's first on equal names, and the client's that a protected one keeps out."""
    protected = {tool.name for tool in server if tool.protected}
    refused = [tool.name for tool in client if tool.name in protected]
    brought = {tool.name: replace(tool, of_client=True, shown=True) for tool in client if tool.name not in protected}
    return (*(tool for tool in server if tool.name not in brought), *brought.values()), refused


class ClientCalls:
    """The calls that wait for the client; what comes of each is one `ToolReturned`."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, OpenCall] = {}

    @property
    def deadline(self) -> float | None:
        """When the next call runs out of time."""
        return min((call.due_at for call in self._open.values()), default=None)

    def begin(self, call: Item, tool: ToolSpec, now: float) -> ToolReturned | None:
        """Wait for the client's result; at once a failure if the arguments are nothing that it could be asked with."""
        wrong = _what_is_wrong(call.arguments or "{}", tool)
        if wrong is not None:
            return _failed(call.call_id or "", "invalid_arguments", wrong, 0)
        self._open[call.call_id or ""] = OpenCall(now, tool.timeout_ms)
        return None

    def result(self, event: ToolResult, now: float) -> ToolReturned | None:
        """The client's answer; None if the call is not, or no longer, waited for."""
        call = self._open.pop(event.call_id, None)
        if call is None:
            return None
        ms = round((now - call.asked_at) * 1000)
        if event.failed:
            return _failed(event.call_id, "client_error", event.output, ms)
        return ToolReturned(event.call_id, "done", _bounded(event.output), ms)

    def due(self, now: float) -> list[ToolReturned]:
        """The calls whose time is up."""
        late = [(call_id, call) for call_id, call in self._open.items() if now >= call.due_at]
        for call_id, _ in late:
            del self._open[call_id]
        text = "The client did not answer within {} ms."
        return [
            _failed(call_id, "timeout", text.format(call.timeout_ms), round((now - call.asked_at) * 1000))
            for call_id, call in late
        ]


def _what_is_wrong(arguments: str, tool: ToolSpec) -> str | None:
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


def _failed(call_id: str, error: str, message: str, ms: int) -> ToolReturned:
    status: ToolStatus = "timeout" if error == "timeout" else "failed"
    body = {"ok": False, "error": error, "message": message[:1000], "retryable": error != "client_error"}
    return ToolReturned(call_id, status, json.dumps(body, ensure_ascii=False), ms)


def _bounded(output: str) -> str:
    raw = output.encode(errors="replace")
    if len(raw) <= MAX_OUTPUT_BYTES:
        return output
    return raw[: MAX_OUTPUT_BYTES - len(CUT_NOTE.encode())].decode(errors="ignore") + CUT_NOTE
