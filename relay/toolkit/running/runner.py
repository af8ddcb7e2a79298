"""Runs one tool call to exactly one output, whatever the model sent and whatever the tool does (D4).

Async tools are tasks of their own, blocking ones run in daemon threads; neither holds up the session, another
tool, or the end of the process. Nothing is queued: beyond the bounds a call is answered "busy" at once.
"""

import asyncio
import inspect
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from relay.toolkit.context import ProgressReporter, ToolContext
from relay.toolkit.registry import Audience, Tool, ToolRegistry
from relay.toolkit.running.navai_payload import bind_payload
from relay.toolkit.running.results import (
    MIN_RESULT_BYTES,
    ToolOutput,
    encode_http_result,
    encode_result,
    exception_output,
    failure_output,
)
from relay.toolkit.running.threads import DaemonThreads
from relay.toolkit.schema.signature import BoundArguments
from relay.toolkit.schema.validation_errors import InvalidArguments

log = logging.getLogger(__name__)

MAX_LISTED_NAMES = 100

StartCall = Callable[[], ToolOutput | Awaitable[object]]
EncodeResult = Callable[[object], ToolOutput]

_STOP_MESSAGES: dict[str, str] = {"cancelled": "The call was cancelled.", "shutdown": "The server is shutting down."}
StopReason = Literal["cancelled", "shutdown"]


MAX_HTTP_RESULT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NavaiPayload:
    """Arguments as a NAVAI frontend sends them; see `relay.toolkit.running.navai_payload`."""

    value: object


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as it came: `arguments` is the JSON text of the model, unread, or the payload of an HTTP request."""

    call_id: str
    name: str
    arguments: str | NavaiPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome(ToolOutput):
    """How a call ended, and how long it took; `arguments` None where they did not fit."""

    ms: int
    arguments: dict[str, Any] | None


class ToolRunner:
    """Runs the tools of a registry for any number of sessions of one event loop.

    `max_threads` blocking tools and `max_tasks` calls in all run at a time, calls that were given up but
    still linger included; one more is answered "busy". A result over `max_result_bytes` of UTF-8 is cut with
    a note.
    """

    def __init__(
        self,
        registry: ToolRegistry,
        *,
        max_threads: int = 64,
        max_tasks: int = 256,
        max_result_bytes: int = 16_384,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` takes the relay's secrets out of every output."""
        if max_result_bytes < MIN_RESULT_BYTES:
            raise ValueError(f"max_result_bytes must be at least {MIN_RESULT_BYTES}")
        self._registry = registry
        self._threads = DaemonThreads(max_threads)
        self._max_tasks = max_tasks
        self._max_result_bytes = max_result_bytes
        self._stop_requests: dict[tuple[str, str], asyncio.Future[StopReason]] = {}
        """The calls under way; a result here ends one early."""
        self._tasks: set[asyncio.Task[ToolOutput]] = set()
        self._running: Counter[str] = Counter()
        self._redact = redact
        self._closed = False

    @property
    def threads_in_use(self) -> int:
        """Threads that have not returned yet, those of calls that timed out included."""
        return self._threads.slots_in_use

    async def run(
        self,
        call: ToolCall,
        context: ToolContext,
        *,
        audience: Audience = "model",
        is_offered: Callable[[str], bool] | None = None,
    ) -> ToolOutcome:
        """Runs one call; every failure is an output, nothing is raised.

        The exception is the caller's own cancellation, which ends the tool and goes on upwards. A tool not
        exposed to `audience`, or that `is_offered` refuses by its name, does not exist for the caller. The tool's
        context is `context` with the id of this call.
        """
        started = time.monotonic()
        context = replace(context, call_id=call.call_id)
        tool = self._registry.get(call.name)
        if tool is None or audience not in tool.expose or (is_offered is not None and not is_offered(tool.name)):
            reply, arguments = self._unknown_tool_output(call.name, audience, is_offered), None
        else:
            reply, arguments = await self._run_tool(tool, call, context, audience)
        reply = self._redact_secrets(reply, call.name)
        ms = round((time.monotonic() - started) * 1000)
        whose = f"of session {context.session_id}" if context.session_id else "over HTTP"
        log.info("tool %.64r %s: %s in %d ms", call.name, whose, reply.status, ms)
        told = reply.output, reply.status, reply.code, reply.message, reply.client_output
        return ToolOutcome(*told, ms=ms, arguments=arguments)

    def _redact_secrets(self, reply: ToolOutput, name: str) -> ToolOutput:
        """Neither a client nor the model, which would say it aloud, is to learn a secret of the relay's from a tool."""
        output, message = self._redact(reply.output), self._redact(reply.message)
        for_client = None if reply.client_output is None else self._redact(reply.client_output)
        if (output, message, for_client) == (reply.output, reply.message, reply.client_output):
            return reply
        log.warning("the output of tool %.64r held a secret of the relay's, which was taken out", name)
        return replace(reply, output=output, message=message, client_output=for_client)

    def cancel(self, session_id: str, call_id: str | None = None) -> int:
        """Ends the calls of a session, or one of them, with the status "cancelled"; returns how many.

        `run` returns at the next turn of the loop. A thread cannot be ended: its result is dropped.
        """
        ended = 0
        for (session, number), stop in self._stop_requests.items():
            if session == session_id and call_id in (None, number):
                _request_stop(stop, "cancelled")
                ended += 1
        return ended

    async def close(self, timeout_s: float) -> None:
        """Refuses new calls, ends the running ones, and gives their tools up to `timeout_s` to finish."""
        self._closed = True
        for stop in self._stop_requests.values():
            _request_stop(
                stop, "shutdown"
            )  # each run then cancels its tool, once: a second time would break its clean-up
        waiting: set[asyncio.Future[Any]] = {*self._tasks, *self._threads.pending}
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        for task in [one for one in self._tasks if not one.done()]:
            log.error("%s ignores its cancellation and is left behind", task.get_name())
            # The end of asyncio.run waits for every task it knows, however long one refuses to go.
            asyncio.tasks._unregister_task(task)
        if self.threads_in_use:
            log.warning("%d tool threads have not returned and are left behind", self.threads_in_use)

    async def _run_tool(
        self, tool: Tool, call: ToolCall, context: ToolContext, audience: Audience
    ) -> tuple[ToolOutput, dict[str, Any] | None]:
        encode: EncodeResult = partial(encode_result, max_bytes=self._max_result_bytes)
        if audience == "http":
            encode = partial(encode_http_result, max_bytes=MAX_HTTP_RESULT_BYTES)
        progress = ProgressReporter(context.on_progress)
        bound = _bind(tool, call.arguments, replace(context, on_progress=progress.report))
        if isinstance(bound, ToolOutput):
            return bound, None
        key = (context.session_id, call.call_id)
        if self._closed:
            return failure_output("shutdown", _STOP_MESSAGES["shutdown"]), bound.arguments
        if key in self._stop_requests:
            return failure_output("duplicate_call", "A call with this id is running already."), bound.arguments
        try:
            return await self._run_bound(
                tool, partial(_call_function, tool, bound, encode), encode, key
            ), bound.arguments
        finally:
            progress.close()

    async def _run_bound(self, tool: Tool, begin: StartCall, encode: EncodeResult, key: tuple[str, str]) -> ToolOutput:
        task = self._start_call(tool, begin, encode)
        if task is None:
            return failure_output("busy", "Too many tools are running. Try again in a moment.")
        stop = self._stop_requests[key] = asyncio.get_running_loop().create_future()
        either: set[asyncio.Future[Any]] = {task, stop}
        try:
            # Not asyncio.timeout: it would wait for a tool that swallows its cancellation.
            await asyncio.wait(either, timeout=tool.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._stop_requests[key]
            finished = task.done()
            task.cancel()
        if finished and not task.cancelled():
            return task.result()
        if stop.done():
            reason = stop.result()
            return failure_output(reason, _STOP_MESSAGES[reason])
        if finished:
            return failure_output("cancelled", "The tool cancelled itself.")
        log.warning("tool %s gave no answer within %g s", tool.name, tool.timeout_s)
        return failure_output("timeout", f"The tool gave no answer within {tool.timeout_s:g} seconds.")

    def _start_call(self, tool: Tool, begin: StartCall, encode: EncodeResult) -> asyncio.Task[ToolOutput] | None:
        if len(self._tasks) >= self._max_tasks or self._running[tool.name] >= (tool.concurrency or math.inf):
            return None
        thread: asyncio.Future[ToolOutput | Awaitable[object]] | None = None
        if not tool.is_async:
            thread = self._threads.submit(begin, tool.name)
            if thread is None:
                return None
        work = _await_output(tool, begin if thread is None else thread, encode)
        task = asyncio.get_running_loop().create_task(work, name=f"tool {tool.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count_running(tool.name, {task} if thread is None else {task, thread})
        return task

    def _count_running(self, name: str, parts: set[asyncio.Future[Any]]) -> None:
        """A call counts as running until all its parts have ended, a thread that was given up included."""
        self._running[name] += 1
        left = set(parts)

        def ended(part: asyncio.Future[Any]) -> None:
            left.discard(part)
            if not left:
                self._running[name] -= 1

        for part in parts:
            part.add_done_callback(ended)

    def _unknown_tool_output(
        self, name: str, audience: Audience, is_offered: Callable[[str], bool] | None
    ) -> ToolOutput:
        known = [one.name for one in self._registry.exposed_to(audience) if is_offered is None or is_offered(one.name)]
        names = ", ".join(known[:MAX_LISTED_NAMES]) or "none"
        return failure_output("unknown_tool", f'There is no tool "{name[:64]}". The tools are: {names}.')


def _request_stop(stop: asyncio.Future[StopReason], reason: StopReason) -> None:
    if not stop.done():
        stop.set_result(reason)


def _bind(tool: Tool, arguments: str | NavaiPayload, context: ToolContext) -> BoundArguments | ToolOutput:
    try:
        if isinstance(arguments, NavaiPayload):
            return bind_payload(tool.signature, arguments.value, context)
        return tool.signature.bind(arguments, context)
    except InvalidArguments as error:
        return failure_output(error.code, str(error))
    except BaseException as error:  # a validator is the tool's own code and may raise anything
        return exception_output(tool.name, error)


def _call_function(tool: Tool, bound: BoundArguments, encode: EncodeResult) -> ToolOutput | Awaitable[object]:
    """Calls the function, in a thread or on the loop: gives the reply, or what is still to be awaited.

    Results are encoded here, so that a large one from a thread costs the loop nothing.
    """
    try:
        value = tool.function(*bound.args, **bound.kwargs)
        return value if inspect.isawaitable(value) else encode(value)
    except BaseException as error:  # SystemExit in a tool is a failed tool, not the end of the server
        return exception_output(tool.name, error)


async def _await_output(tool: Tool, source: Any, encode: EncodeResult) -> ToolOutput:
    """The whole of one call as a task: `source` is the future of a thread, or the start of an async tool."""
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
    except BaseException as error:  # asyncio lets SystemExit and KeyboardInterrupt of a task end the loop
        return exception_output(tool.name, error)


def _discard_late_result(name: str, thread: "asyncio.Future[ToolOutput | Awaitable[object]]") -> None:
    """A thread returned after its call was given up: the call has had its one output."""
    log.info("tool %s returned late; the result is dropped", name)
    if not thread.cancelled() and inspect.iscoroutine(late := thread.result()):
        late.close()
