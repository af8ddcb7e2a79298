"""Runs tool calls; each call has exactly one output, whatever the model sends and the tool does (D4).

Async tools run in tasks, blocking tools in daemon threads. Neither delays the session, another tool, or the exit of the
process. Nothing is queued: a call over the limits fails as "busy" at once.
"""

import asyncio
import dataclasses
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
from relay.toolkit.running.invocation import EncodeResult, StartCall, await_output, bind_arguments, call_function
from relay.toolkit.running.navai_payload import NavaiPayload
from relay.toolkit.running.results import (
    MIN_RESULT_BYTES,
    ToolOutput,
    encode_http_result,
    encode_result,
    failure_output,
)
from relay.toolkit.running.threads import DaemonThreads

log = logging.getLogger(__name__)

MAX_LISTED_NAMES = 100

_STOP_MESSAGES: dict[str, str] = {"cancelled": "The call was cancelled.", "shutdown": "The server is shutting down."}
StopReason = Literal["cancelled", "shutdown"]

MAX_HTTP_RESULT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A received call: `arguments` is the unparsed JSON of the model, or the payload of an HTTP request."""

    call_id: str
    name: str
    arguments: str | NavaiPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutcome(ToolOutput):
    """The output of a call and its duration; `arguments` is None if they were invalid."""

    ms: int
    arguments: dict[str, Any] | None


class ToolRunner:
    """Runs the tools of a registry for any number of sessions on one event loop.

    At most `max_threads` blocking tools and `max_tasks` calls in all run at a time, abandoned calls that still run
    included; further calls fail as "busy". A result over `max_result_bytes` of UTF-8 is truncated with a note.
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
        """`redact` removes the relay's secrets from every output."""
        if max_result_bytes < MIN_RESULT_BYTES:
            raise ValueError(f"max_result_bytes must be at least {MIN_RESULT_BYTES}")
        self._registry = registry
        self._threads = DaemonThreads(max_threads)
        self._max_tasks = max_tasks
        self._max_result_bytes = max_result_bytes
        self._stop_requests: dict[tuple[str, str], asyncio.Future[StopReason]] = {}
        """The running calls by session and call id; setting a future stops its call."""
        self._tasks: set[asyncio.Task[ToolOutput]] = set()
        self._running: Counter[str] = Counter()
        self._redact = redact
        self._closed = False

    @property
    def threads_in_use(self) -> int:
        """The number of threads that still run, those of abandoned calls included."""
        return self._threads.slots_in_use

    async def run(
        self,
        call: ToolCall,
        context: ToolContext,
        *,
        audience: Audience = "model",
        is_offered: Callable[[str], bool] | None = None,
    ) -> ToolOutcome:
        """Run one call. Raises nothing but CancelledError: every failure is an output.

        Cancelling the caller cancels the tool. A tool that is not exposed to `audience`, or that `is_offered` rejects
        by name, is unknown to the caller. The tool's context is `context` with the id of this call.
        """
        started_at = time.monotonic()
        context = replace(context, call_id=call.call_id)
        tool = self._registry.get(call.name)
        if tool is None or audience not in tool.expose or (is_offered is not None and not is_offered(tool.name)):
            output, arguments = self._unknown_tool_output(call.name, audience, is_offered), None
        else:
            output, arguments = await self._run_tool(tool, call, context, audience)
        output = self._redact_secrets(output, call.name)
        ms = round((time.monotonic() - started_at) * 1000)
        session = context.session_id or "http"
        log.info("tool call: tool=%.64r session=%s status=%s ms=%d", call.name, session, output.status, ms)
        fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        return ToolOutcome(**fields, ms=ms, arguments=arguments)

    def _redact_secrets(self, output: ToolOutput, name: str) -> ToolOutput:
        """Remove the relay's secrets; neither a client nor the model may learn them from a tool."""
        text, message = self._redact(output.output), self._redact(output.message)
        client_output = None if output.client_output is None else self._redact(output.client_output)
        if (text, message, client_output) == (output.output, output.message, output.client_output):
            return output
        log.warning("tool %.64r: redacted a secret of the relay in its output", name)
        return replace(output, output=text, message=message, client_output=client_output)

    def cancel(self, session_id: str, call_id: str | None = None) -> int:
        """Cancel one call of a session, or all of them; returns how many.

        `run` returns in the next iteration of the loop, with the status "cancelled". A thread cannot be stopped: its
        result is discarded.
        """
        stops = [
            stop
            for (call_session_id, running_id), stop in self._stop_requests.items()
            if call_session_id == session_id and call_id in (None, running_id)
        ]
        for stop in stops:
            _request_stop(stop, "cancelled")
        return len(stops)

    async def close(self, timeout_s: float) -> None:
        """Refuse new calls, stop the running calls, and wait up to `timeout_s` for their tools."""
        self._closed = True
        for stop in self._stop_requests.values():
            # `run` then cancels the tool, exactly once: a second cancellation would interrupt its clean-up.
            _request_stop(stop, "shutdown")
        unfinished: set[asyncio.Future[Any]] = {*self._tasks, *self._threads.pending}
        if unfinished:
            await asyncio.wait(unfinished, timeout=timeout_s)
        for task in [task for task in self._tasks if not task.done()]:
            log.error("%s ignores its cancellation and was abandoned", task.get_name())
            # asyncio.run waits at its end for every registered task, without a timeout.
            asyncio.tasks._unregister_task(task)
        if self.threads_in_use:
            log.warning("%d tool threads still run and were abandoned", self.threads_in_use)

    async def _run_tool(
        self, tool: Tool, call: ToolCall, context: ToolContext, audience: Audience
    ) -> tuple[ToolOutput, dict[str, Any] | None]:
        encode: EncodeResult = partial(encode_result, max_bytes=self._max_result_bytes)
        if audience == "http":
            encode = partial(encode_http_result, max_bytes=MAX_HTTP_RESULT_BYTES)
        progress = ProgressReporter(context.on_progress)
        bound = bind_arguments(tool, call.arguments, replace(context, on_progress=progress.report))
        if isinstance(bound, ToolOutput):
            return bound, None
        key = (context.session_id, call.call_id)
        if self._closed:
            return failure_output("shutdown", _STOP_MESSAGES["shutdown"]), bound.arguments
        if key in self._stop_requests:
            return failure_output("duplicate_call", "A call with this id is already running."), bound.arguments
        try:
            start = partial(call_function, tool, bound, encode)
            return await self._run_until_done(tool, start, encode, key), bound.arguments
        finally:
            progress.close()

    async def _run_until_done(
        self, tool: Tool, start: StartCall, encode: EncodeResult, key: tuple[str, str]
    ) -> ToolOutput:
        task = self._start_call(tool, start, encode)
        if task is None:
            return failure_output("busy", "Too many tools are running. Try again in a moment.")
        stop = self._stop_requests[key] = asyncio.get_running_loop().create_future()
        awaited: set[asyncio.Future[Any]] = {task, stop}
        try:
            # Not asyncio.timeout: it would wait for a tool that swallows its cancellation.
            await asyncio.wait(awaited, timeout=tool.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._stop_requests[key]
            is_done = task.done()
            task.cancel()
        if is_done and not task.cancelled():
            return task.result()
        if stop.done():
            reason = stop.result()
            return failure_output(reason, _STOP_MESSAGES[reason])
        if is_done:
            return failure_output("cancelled", "The tool cancelled itself.")
        log.warning("tool %s timed out after %g s", tool.name, tool.timeout_s)
        return failure_output("timeout", f"The tool did not answer within {tool.timeout_s:g} s.")

    def _start_call(self, tool: Tool, start: StartCall, encode: EncodeResult) -> asyncio.Task[ToolOutput] | None:
        if len(self._tasks) >= self._max_tasks or self._running[tool.name] >= (tool.concurrency or math.inf):
            return None
        thread: asyncio.Future[ToolOutput | Awaitable[object]] | None = None
        if not tool.is_async:
            thread = self._threads.submit(start, tool.name)
            if thread is None:
                return None
        work = await_output(tool, start if thread is None else thread, encode)
        task = asyncio.get_running_loop().create_task(work, name=f"tool {tool.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count_running(tool.name, {task} if thread is None else {task, thread})
        return task

    def _count_running(self, name: str, parts: set[asyncio.Future[Any]]) -> None:
        """Count a call as running until all its parts have ended, an abandoned thread included."""
        self._running[name] += 1
        unfinished = set(parts)

        def on_done(part: asyncio.Future[Any]) -> None:
            unfinished.discard(part)
            if not unfinished:
                self._running[name] -= 1

        for part in parts:
            part.add_done_callback(on_done)

    def _unknown_tool_output(
        self, name: str, audience: Audience, is_offered: Callable[[str], bool] | None
    ) -> ToolOutput:
        exposed_names = [tool.name for tool in self._registry.exposed_to(audience)]
        known_names = [name for name in exposed_names if is_offered is None or is_offered(name)]
        names = ", ".join(known_names[:MAX_LISTED_NAMES]) or "none"
        return failure_output("unknown_tool", f'There is no tool "{name[:64]}". The tools are: {names}.')


def _request_stop(stop: asyncio.Future[StopReason], reason: StopReason) -> None:
    if not stop.done():
        stop.set_result(reason)
