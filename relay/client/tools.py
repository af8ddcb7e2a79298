"""Functions that a client lends to the model."""

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
    """A function that the client lends to the model; `parameters` is the JSON Schema of its arguments.

    `run` is called with the arguments by name, in a thread unless it is a coroutine function, and returns any JSON
    value. The text of a ToolError is sent to the model; of any other exception only the type. Without `run` the program
    answers each `ToolCallEvent` itself.
    """

    name: str
    run: Callable[..., Any] | None = None
    description: str = ""
    parameters: JsonObject = field(default_factory=lambda: {"type": "object", "properties": {}})
    timeout_ms: int | None = None

    def definition(self) -> JsonObject:
        """The tool as `hello` announces it."""
        definition = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return definition if self.timeout_ms is None else {**definition, "timeoutMs": self.timeout_ms}


async def run_tool(run: Callable[..., Any], call: ToolCallEvent) -> tuple[Any, str]:
    """Return the output of a call, or None and the sentence that says why there is none.

    The call is abandoned after its `timeout_ms`: the relay ignores later results.
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
