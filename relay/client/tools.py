"""Client tools: functions of the client that the model may call."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.client.events import MAX_ID_CHARS, ToolCallEvent
from relay.errors import ToolError
from relay.escaping import escape_controls
from relay.json_types import JsonObject
from relay.toolkit.running.threads import DaemonThreads

log = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 60 * 1024
"""A relay closes the connection (1009) for a message of more than 64 KiB."""
MAX_ERROR_CHARS = 4096
TOO_MANY_CALLS = "Too many calls at once; try again after the others."

_threads = DaemonThreads(64)
"""For the tools of all clients: those that never return keep their thread, and delay neither others nor the exit."""


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function that the model may call; `parameters` is the JSON Schema of its arguments.

    `run` is called with the arguments by name, in a thread unless it is a coroutine function, and returns any JSON
    value. The model gets the text of a ToolError, but only the type of any other exception. Without `run` the program
    must answer each `ToolCallEvent` itself.
    """

    name: str
    run: Callable[..., Any] | None = None
    description: str = ""
    parameters: JsonObject = field(default_factory=lambda: {"type": "object", "properties": {}})
    timeout_ms: int | None = None

    def definition(self) -> JsonObject:
        """Return the definition of the tool for `hello`."""
        definition = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return definition if self.timeout_ms is None else {**definition, "timeoutMs": self.timeout_ms}


async def run_tool(run: Callable[..., Any], call: ToolCallEvent) -> tuple[Any, str]:
    """Run a call; returns its output and "", or None and an error message.

    The call is abandoned after its `timeout_ms`, because the relay ignores later results.
    """
    try:
        async with asyncio.timeout(call.timeout_ms / 1000):
            output = await _call(run, call)
        n_bytes = len(orjson.dumps(output))
        if n_bytes > MAX_OUTPUT_BYTES:
            log.error("tool result too long name=%s n_bytes=%d", call.name, n_bytes)
            return None, f"{call.name} failed: its result is longer than {MAX_OUTPUT_BYTES // 1024} KiB"
    except ToolError as error:
        text = str(error).strip().encode(errors="replace").decode()
        return None, text[:MAX_ERROR_CHARS] or f"{call.name} failed."
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise
        log.exception("tool failed name=%s call_id=%s", call.name, escape_controls(call.call_id[:MAX_ID_CHARS]))
        return None, f"{call.name} failed: {type(error).__name__}"
    return output, ""


def _is_being_cancelled() -> bool:
    """Whether the current task is cancelled, rather than something that a tool waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _call(run: Callable[..., Any], call: ToolCallEvent) -> Any:
    if inspect.iscoroutinefunction(run):
        return await run(**call.arguments)

    def work() -> tuple[Any, BaseException | None]:
        try:
            return run(**call.arguments), None
        except BaseException as error:  # raised again in the event loop
            return None, error

    thread = _threads.submit(work, call.name)
    if thread is None:
        raise ToolError(TOO_MANY_CALLS)
    output, error = await thread
    if error is not None:
        raise error
    return await output if inspect.isawaitable(output) else output
