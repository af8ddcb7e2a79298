"""The runtime that all sessions share: one writer of state, tasks, a timer, the upstream connection.

`dispatch` is synchronous: the rules handle the event, and their commands are executed before it returns. Events that
occur meanwhile, such as playout's, wait in a deque: the rules see one event at a time, in order. Audio is not an event:
see `relay.runtime.uplink` and `relay.runtime.downlink`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, assert_never

from relay.escaping import escape_controls
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.timers import Alarm, StallWatch
from relay.runtime.uplink import Uplink
from relay.session.common.close_codes import CloseCode
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.policy import Principal
from relay.session.common.redact import redact
from relay.session.common.session_state import SessionState
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.transport.read_limiter import PacedReader
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection
from relay.transport.websocket import WebSocketConnection

CLOSE_TIMEOUT_S = 5.0
MAX_REASON_CHARS = 200
"""Length of a close reason in the log; a close frame has room for 123 bytes."""

_log = logging.getLogger("relay.session")

Observer = Callable[[Any, float, Sequence[Any] | None], None]
"""Called with every event, its time and the resulting commands; None instead of commands if the rules raised."""


CommonCommand = cmd.CloseUpstream | cmd.RunTool | cmd.CancelTool | cmd.CancelAllTools
"""Commands that every session executes in the same way."""


class ToolExecutor(Protocol):
    """Runs the tools of a session; every run returns exactly one result."""

    def run(
        self, command: cmd.RunTool, report: Callable[[ev.ToolCallProgress | ev.EndSessionRequested], None]
    ) -> Coroutine[Any, Any, ev.ToolCallFinished]:
        """Run a tool to its end; raises nothing but CancelledError. `report` is called with its events meanwhile."""

    def cancel(self, call_id: str) -> None:
        """Cancel a running call: it returns with status "cancelled"."""


class SessionCore(Protocol):
    """The rules of one session: an event in, commands out."""

    session_id: str
    principal: Principal
    ledger: MediaLedger
    state: SessionState

    @property
    def ignored(self) -> Mapping[str, int]:
        """The number of ignored events, by kind."""

    @property
    def deadline(self) -> float | None:
        """The time at which `DeadlineReached` must be dispatched; None if no timer is running."""

    def handle(self, event: Any, now: float) -> Sequence[Any]:
        """Handle one event at `now` and return the resulting commands in order."""


CoreT = TypeVar("CoreT", bound=SessionCore)


class SessionRuntime(Generic[CoreT]):
    """Connects the sockets `client` and `upstream` and the tools with the rules in `core`."""

    _uplink: Uplink
    _opened_event: ev.UpstreamOpened | ev.SessionCreated = ev.UpstreamOpened()

    def __init__(
        self,
        core: CoreT,
        client: WebSocketConnection,
        connect_upstream: Callable[[UpstreamConnection], Awaitable[None]],
        tools: ToolExecutor,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        self._secrets = secrets
        self.core = core
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        record_event = recorder.record_event if recorder is not None else None
        self._observers = [observe for observe in (observer, record_event) if observe is not None]
        self.client = client
        self.upstream = UpstreamConnection()
        self._upstream_stall = StallWatch(self.upstream, self._on_upstream_stalled)
        self._connect_upstream = connect_upstream
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: deque[Any] = deque()
        self._is_dispatching = False
        self._has_failed = False
        self._alarm = Alarm(self._on_deadline, self._clock)
        self._client_close = ("1006", "")
        """How the client's connection was closed: code and reason. 1006 also if there never was a connection."""
        self._closed = self._loop.create_future()
        self._paced_reader = PacedReader(self.upstream, self._on_upstream_closed, self._clock)
        client.on_closed = self._on_client_closed
        client.on_internal_error = self.upstream.on_internal_error = self._on_callback_failure
        self.upstream.on_text, self.upstream.on_closed = self._paced_reader.feed, self._paced_reader.feed_close
        self.upstream.on_writable = self._on_upstream_writable

    async def run(self) -> None:
        """Connect to the upstream, run until the client is gone, then release everything in bounded time."""
        self._start()
        self._set_alarm()
        try:
            await self._closed
        finally:
            self._stop()
            self._paced_reader.stop()
            self._upstream_stall.stop()
            self._alarm.stop()
            self.upstream.close(CloseCode.NORMAL_CLOSURE)
            self._cancel_tasks()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    def _start(self) -> None:
        self._spawn(self._connect())

    def _stop(self) -> None:
        """Stop everything of the session but its tasks and timers."""

    async def _connect(self) -> None:
        try:
            await self._connect_upstream(self.upstream)
        except UpstreamConnectError as refusal:
            self.dispatch(ev.UpstreamRefused(refusal.status, self._secrets.redact(str(refusal)), refusal.retryable))
        else:
            self.dispatch(self._opened_event)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # Not a TaskGroup: a failing task must not cancel the session's other tasks.
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("session failed: session=%s at=task", self.core.session_id, exc_info=task.exception())
            self.dispatch(ev.InternalFailure("task"))

    def _on_client_closed(self, code: int, reason: str) -> None:
        self._client_close = (str(code), reason)
        self.dispatch(ev.ClientClosed(code, reason))
        if not self._closed.done():
            self._closed.set_result(None)

    def _on_upstream_closed(self, code: int, reason: str) -> None:
        self.dispatch(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    def on_handshake_refused(self, http_status: int, reason: str) -> None:
        """Record that the client's opening handshake was answered with an HTTP status instead of a connection."""
        self._client_close = (f"HTTP {http_status}", reason)

    @property
    def close_summary(self) -> str:
        """Summarize the end of the session for the log: close code and reason, and counts of ignored events."""
        code, reason = self._client_close
        if code == "1006" and not reason:
            reason = "connection lost without a close frame"
        ignored = ", ".join(f"{escape_controls(kind)} ×{count}" for kind, count in self.core.ignored.items())
        parts = (code, escape_controls(redact(reason, MAX_REASON_CHARS)), f"(ignored: {ignored})" if ignored else "")
        return " ".join(part for part in parts if part)

    # -- the only writer of state -------------------------------------------------------------------------------------

    def dispatch(self, event: Any) -> None:
        """Handle one event. Never raises: an internal failure ends this session only."""
        if self._is_dispatching:
            self._pending.append(event)
            return
        self._is_dispatching = True
        # Transcript deltas come several times a second and only postpone deadlines, unless external TTS speaks them.
        may_move_deadline = type(event) is not ev.TextDelta or not event.spoken
        self._handle(event)
        while self._pending:
            may_move_deadline = True
            self._handle(self._pending.popleft())
        self._is_dispatching = False
        if may_move_deadline:
            self._set_alarm()

    def _handle(self, event: Any) -> None:
        now = self._clock()
        try:
            try:
                commands = self.core.handle(event, now)
            except Exception:
                for observe in self._observers:
                    observe(event, now, None)
                raise
            for observe in self._observers:
                observe(event, now, commands)
            for command in commands:
                self._execute(command, now)
        except Exception:
            self._on_event_failure(event)

    def _on_event_failure(self, event: Any) -> None:
        if self._has_failed:  # the rules could not end the session cleanly
            self.client.abort()
        else:
            self._end_after_failure(type(event).__name__)

    def _on_callback_failure(self) -> None:
        """Handle an exception in a socket callback, before the rules saw the event. Call it in the `except` block."""
        if not self._has_failed:
            self._end_after_failure("message")

    def _end_after_failure(self, where: str) -> None:
        """End the session because of the exception being handled; only the first one is logged."""
        _log.exception("session failed: session=%s at=%s", self.core.session_id, where)
        self._has_failed = True
        self.dispatch(ev.InternalFailure(where))

    def _execute(self, command: Any, now: float) -> None:
        raise NotImplementedError

    def _execute_common(self, command: CommonCommand) -> None:
        match command:
            case cmd.CloseUpstream():
                self.upstream.close(CloseCode.NORMAL_CLOSURE)
            case cmd.RunTool():
                self._spawn(self._run_tool(command))
            case cmd.CancelTool(call_id):
                self._tools.cancel(call_id)
            case cmd.CancelAllTools():
                self._cancel_tasks()
            case _:
                assert_never(command)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run_tool(self, command: cmd.RunTool) -> None:
        self.dispatch(await self._tools.run(command, self.dispatch))

    # -- upstream backpressure ----------------------------------------------------------------------------------------

    def _on_upstream_writable(self, is_writable: bool) -> None:
        self._uplink.set_writable(is_writable)
        if not self._closed.done():
            self._upstream_stall.set_writable(is_writable)

    def _on_upstream_stalled(self, _unsent_bytes: int) -> None:
        self.dispatch(ev.UpstreamBackpressure(self._uplink.dropped_bytes, fatal=True))

    def _set_alarm(self) -> None:
        deadline = self.core.deadline
        if deadline is not None:
            self._alarm.set(deadline)

    def _on_deadline(self) -> None:
        self.dispatch(ev.DeadlineReached())
