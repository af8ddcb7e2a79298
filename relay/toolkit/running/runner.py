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

from relay.toolkit.context import ProgressRelay, ToolContext
from relay.toolkit.registry import Audience, Tool, ToolRegistry
from relay.toolkit.running.navai_payload import bind_payload
from relay.toolkit.running.results import MIN_RESULT_BYTES, Reply, failure, json_result, raised, result
from relay.toolkit.running.threads import DaemonThreads
from relay.toolkit.schema.signature import Bound
from relay.toolkit.schema.validation_errors import InvalidArguments

log = logging.getLogger(__name__)

MAX_NAMES_SHOWN = 100

Begin = Callable[[], Reply | Awaitable[object]]
Encode = Callable[[object], Reply]

_STOPPED: dict[str, str] = {"cancelled": "The call was cancelled.", "shutdown": "The server is shutting down."}
StopReason = Literal["cancelled", "shutdown"]


MAX_HTTP_RESULT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Payload:
    """Arguments as a NAVAI frontend sends them; see `relay.toolkit.running.navai_payload`."""

    value: object


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as it came: `arguments` is the JSON text of the model, unread, or the payload of an HTTP request."""

    call_id: str
    name: str
    arguments: str | Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult(Reply):
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
        self._stops: dict[tuple[str, str], asyncio.Future[StopReason]] = {}
        """The calls under way; a result here ends one early."""
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._running: Counter[str] = Counter()
        self._redact = redact
        self._closed = False

    @property
    def threads_in_use(self) -> int:
        """Threads that have not returned yet, those of calls that timed out included."""
        return self._threads.running

    async def run(
        self,
        call: ToolCall,
        context: ToolContext,
        *,
        audience: Audience = "model",
        offers: Callable[[str], bool] | None = None,
    ) -> ToolResult:
        """Runs one call; every failure is an output, nothing is raised.

        The exception is the caller's own cancellation, which ends the tool and goes on upwards. A tool not
        exposed to `audience`, or that `offers` refuses by its name, does not exist for the caller. The tool's
        context is `context` with the id of this call.
        """
        started = time.monotonic()
        context = replace(context, call_id=call.call_id)
        tool = self._registry.get(call.name)
        if tool is None or audience not in tool.expose or (offers is not None and not offers(tool.name)):
            reply, arguments = self._unknown(call.name, audience, offers), None
        else:
            reply, arguments = await self._answer(tool, call, context, audience)
        reply = self._without_secrets(reply, call.name)
        ms = round((time.monotonic() - started) * 1000)
        whose = f"of session {context.session_id}" if context.session_id else "over HTTP"
        log.info("tool %.64r %s: %s in %d ms", call.name, whose, reply.status, ms)
        told = reply.output, reply.status, reply.code, reply.message, reply.for_client
        return ToolResult(*told, ms=ms, arguments=arguments)

    def _without_secrets(self, reply: Reply, name: str) -> Reply:
        """Neither a client nor the model, which would say it aloud, is to learn a secret of the relay's from a tool."""
        output, message = self._redact(reply.output), self._redact(reply.message)
        for_client = None if reply.for_client is None else self._redact(reply.for_client)
        if (output, message, for_client) == (reply.output, reply.message, reply.for_client):
            return reply
        log.warning("the output of tool %.64r held a secret of the relay's, which was taken out", name)
        return replace(reply, output=output, message=message, for_client=for_client)

    def cancel(self, session_id: str, call_id: str | None = None) -> int:
        """Ends the calls of a session, or one of them, with the status "cancelled"; returns how many.

        `run` returns at the next turn of the loop. A thread cannot be ended: its result is dropped.
        """
        ended = 0
        for (session, number), stop in self._stops.items():
            if session == session_id and call_id in (None, number):
                _end(stop, "cancelled")
                ended += 1
        return ended

    async def close(self, timeout_s: float) -> None:
        """Refuses new calls, ends the running ones, and gives their tools up to `timeout_s` to finish."""
        self._closed = True
        for stop in self._stops.values():
            _end(stop, "shutdown")  # each run then cancels its tool, once: a second time would break its clean-up
        waiting: set[asyncio.Future[Any]] = {*self._tasks, *self._threads.pending}
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        for task in [one for one in self._tasks if not one.done()]:
            log.error("%s ignores its cancellation and is left behind", task.get_name())
            # The end of asyncio.run waits for every task it knows, however long one refuses to go.
            asyncio.tasks._unregister_task(task)
        if self.threads_in_use:
            log.warning("%d tool threads have not returned and are left behind", self.threads_in_use)

    async def _answer(
        self, tool: Tool, call: ToolCall, context: ToolContext, audience: Audience
    ) -> tuple[Reply, dict[str, Any] | None]:
        encode: Encode = partial(result, max_bytes=self._max_result_bytes)
        if audience == "http":
            encode = partial(json_result, max_bytes=MAX_HTTP_RESULT_BYTES)
        progress = ProgressRelay(context.on_progress)
        bound = _bind(tool, call.arguments, replace(context, on_progress=progress.report))
        if isinstance(bound, Reply):
            return bound, None
        key = (context.session_id, call.call_id)
        if self._closed:
            return failure("shutdown", _STOPPED["shutdown"]), bound.arguments
        if key in self._stops:
            return failure("duplicate_call", "A call with this id is running already."), bound.arguments
        try:
            return await self._carry_out(tool, partial(_begin, tool, bound, encode), encode, key), bound.arguments
        finally:
            progress.close()

    async def _carry_out(self, tool: Tool, begin: Begin, encode: Encode, key: tuple[str, str]) -> Reply:
        task = self._start(tool, begin, encode)
        if task is None:
            return failure("busy", "Too many tools are running. Try again in a moment.")
        stop = self._stops[key] = asyncio.get_running_loop().create_future()
        either: set[asyncio.Future[Any]] = {task, stop}
        try:
            # Not asyncio.timeout: it would wait for a tool that swallows its cancellation.
            await asyncio.wait(either, timeout=tool.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._stops[key]
            finished = task.done()
            task.cancel()
        if finished and not task.cancelled():
            return task.result()
        if stop.done():
            reason = stop.result()
            return failure(reason, _STOPPED[reason])
        if finished:
            return failure("cancelled", "The tool cancelled itself.")
        log.warning("tool %s gave no answer within %g s", tool.name, tool.timeout_s)
        return failure("timeout", f"The tool gave no answer within {tool.timeout_s:g} seconds.")

    def _start(self, tool: Tool, begin: Begin, encode: Encode) -> asyncio.Task[Reply] | None:
        if len(self._tasks) >= self._max_tasks or self._running[tool.name] >= (tool.concurrency or math.inf):
            return None
        thread: asyncio.Future[Reply | Awaitable[object]] | None = None
        if not tool.is_async:
            thread = self._threads.submit(begin, tool.name)
            if thread is None:
                return None
        work = _work(tool, begin if thread is None else thread, encode)
        task = asyncio.get_running_loop().create_task(work, name=f"tool {tool.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._count(tool.name, {task} if thread is None else {task, thread})
        return task

    def _count(self, name: str, parts: set[asyncio.Future[Any]]) -> None:
        """A call counts as running until all its parts have ended, a thread that was given up included."""
        self._running[name] += 1
        left = set(parts)

        def ended(part: asyncio.Future[Any]) -> None:
            left.discard(part)
            if not left:
                self._running[name] -= 1

        for part in parts:
            part.add_done_callback(ended)

    def _unknown(self, name: str, audience: Audience, offers: Callable[[str], bool] | None) -> Reply:
        known = [one.name for one in self._registry.exposed_to(audience) if offers is None or offers(one.name)]
        names = ", ".join(known[:MAX_NAMES_SHOWN]) or "none"
        return failure("unknown_tool", f'There is no tool "{name[:64]}". The tools are: {names}.')


def _end(stop: asyncio.Future[StopReason], reason: StopReason) -> None:
    if not stop.done():
        stop.set_result(reason)


def _bind(tool: Tool, arguments: str | Payload, context: ToolContext) -> Bound | Reply:
    try:
        if isinstance(arguments, Payload):
            return bind_payload(tool.signature, arguments.value, context)
        return tool.signature.bind(arguments, context)
    except InvalidArguments as error:
        return failure(error.code, str(error))
    except BaseException as error:  # a validator is the tool's own code and may raise anything
        return raised(tool.name, error)


def _begin(tool: Tool, bound: Bound, encode: Encode) -> Reply | Awaitable[object]:
    """Calls the function, in a thread or on the loop: gives the reply, or what is still to be awaited.

    Results are encoded here, so that a large one from a thread costs the loop nothing.
    """
    try:
        value = tool.function(*bound.args, **bound.kwargs)
        return value if inspect.isawaitable(value) else encode(value)
    except BaseException as error:  # SystemExit in a tool is a failed tool, not the end of the server
        return raised(tool.name, error)


async def _work(tool: Tool, source: Any, encode: Encode) -> Reply:
    """The whole of one call as a task: `source` is the future of a thread, or the start of an async tool."""
    if isinstance(source, asyncio.Future):
        try:
            first = await asyncio.shield(source)
        except asyncio.CancelledError:
            source.add_done_callback(partial(_drop_late, tool.name))
            raise
    else:
        first = source()
    if isinstance(first, Reply):
        return first
    try:
        return encode(await first)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # asyncio lets SystemExit and KeyboardInterrupt of a task end the loop
        return raised(tool.name, error)


def _drop_late(name: str, thread: "asyncio.Future[Reply | Awaitable[object]]") -> None:
    """A thread returned after its call was given up: the call has had its one output."""
    log.info("tool %s returned late; the result is dropped", name)
    if not thread.cancelled() and inspect.iscoroutine(late := thread.result()):
        late.close()
