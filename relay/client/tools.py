"""Client tools: functions of the client that the model may call."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.client.events import ToolCallEvent
from relay.errors import ToolError
from relay.json_types import JsonObject

log = logging.getLogger(__name__)


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
            if inspect.iscoroutinefunction(run):
                output = await run(**call.arguments)
            else:
                output = await asyncio.to_thread(run, **call.arguments)
        orjson.dumps(output)
    except ToolError as error:
        return None, str(error).strip() or f"{call.name} failed."
    except Exception as error:
        log.exception("tool failed name=%s call_id=%s", call.name, call.call_id)
        return None, f"{call.name} failed: {type(error).__name__}"
    return output, ""
