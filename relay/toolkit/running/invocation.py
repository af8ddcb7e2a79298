"""The steps of one tool call: bind its arguments, call the function, wait for its output. No step raises."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from relay.toolkit.context import ToolContext
from relay.toolkit.registry import Tool
from relay.toolkit.running.navai_payload import NavaiPayload, bind_payload
from relay.toolkit.running.results import ToolOutput, exception_output, failure_output
from relay.toolkit.schema.signature import BoundArguments
from relay.toolkit.schema.validation_errors import InvalidArguments

log = logging.getLogger(__name__)

StartCall = Callable[[], ToolOutput | Awaitable[object]]
EncodeResult = Callable[[object], ToolOutput]


def bind_arguments(tool: Tool, arguments: str | NavaiPayload, context: ToolContext) -> BoundArguments | ToolOutput:
    """Bind the arguments of a call; returns the failure if they are not valid."""
    try:
        if isinstance(arguments, NavaiPayload):
            return bind_payload(tool.signature, arguments.value, context)
        return tool.signature.bind(arguments, context)
    except InvalidArguments as error:
        return failure_output(error.code, str(error))
    except BaseException as error:  # the validators of a tool may raise anything
        return exception_output(tool.name, error)


def call_function(tool: Tool, bound: BoundArguments, encode: EncodeResult) -> ToolOutput | Awaitable[object]:
    """Call the function, in a thread or on the loop; returns the output, or an awaitable for it.

    Encodes the result here, so that the loop does not encode large results of threads.
    """
    try:
        value = tool.function(*bound.args, **bound.kwargs)
        return value if inspect.isawaitable(value) else encode(value)
    except BaseException as error:  # SystemExit of a tool must not stop the server
        return exception_output(tool.name, error)


async def await_output(tool: Tool, source: Any, encode: EncodeResult) -> ToolOutput:
    """Wait for the output of a call; `source` is the future of a thread, or the function that starts an async tool."""
    if isinstance(source, asyncio.Future):
        try:
            first = await asyncio.shield(source)
        except asyncio.CancelledError:
            source.add_done_callback(partial(_discard_late_result, tool.name))
            raise
    else:
        first = source()
    if isinstance(first, ToolOutput):
        return first
    try:
        return encode(await first)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # SystemExit and KeyboardInterrupt in a task would stop the loop
        return exception_output(tool.name, error)


def _discard_late_result(name: str, thread: "asyncio.Future[ToolOutput | Awaitable[object]]") -> None:
    """Discard the result of a thread whose call already has an output."""
    log.info("tool %s returned late, its result was discarded", name)
    if not thread.cancelled() and inspect.iscoroutine(awaitable := thread.result()):
        awaitable.close()
