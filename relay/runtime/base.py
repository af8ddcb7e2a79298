"""What every session is at run time, whatever its client speaks: one writer, tasks, a timer, an upstream.

`dispatch` is a plain synchronous call: an event goes to the rules, and the commands that come back are carried out
before it returns. What happens meanwhile (the playout's answers, a tool that fails at once) waits in a deque, so that
the rules see one event at a time and in order. Audio is no event: `relay.runtime.uplink` and `downlink`.
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
from relay.session.common.life import SessionState
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.policy import Principal
from relay.session.common.redact import redact
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.transport.read_limiter import PacedReader
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection
from relay.transport.websocket import WebSocketConnection

CLOSE_TIMEOUT_S = 5.0
MAX_REASON_CHARS = 200
"""Of a close in the log; a close frame has room for 123 bytes."""

_log = logging.getLogger("relay.session")

Observer = Callable[[Any, float, Sequence[Any] | None], None]
"""Sees every event with its time and the commands it led to; None if our own code failed at it and the exception is
being handled."""


CommonCommand = cmd.CloseUpstream | cmd.RunTool | cmd.CancelTool | cmd.CancelAllTools
"""What is carried out in the same way in every session."""


class ToolExecutor(Protocol):
    """What a session needs of the tools: run one, and always get exactly one return."""

    def run(
        self, command: cmd.RunTool, report: Callable[[ev.ToolCallProgress | ev.EndSessionRequested], None]
    ) -> Coroutine[Any, Any, ev.ToolCallFinished]:
        """Run a tool to its end; never raises but for cancellation. `report` takes its events meanwhile."""

    def cancel(self, call_id: str) -> None:
        """End a running call: it returns as "cancelled"."""


class SessionCore(Protocol):
    """The rules of one session: an event in, commands out; `deadline` says when a `DeadlineReached` is wanted."""

    session_id: str
    principal: Principal
    ledger: MediaLedger
    state: SessionState

    @property
    def ignored(self) -> Mapping[str, int]:
        """What was ignored, and how often."""

    @property
    def deadline(self) -> float | None:
        """When a `DeadlineReached` is wanted; None when nothing is waited for."""

    def handle(self, event: Any, now: float) -> Sequence[Any]:
        """Take one event at `now` and say what is to be done, in order."""


CoreT = TypeVar("CoreT", bound=SessionCore)


class SessionRuntime(Generic[CoreT]):
    """Joins the sockets `client` and `upstream` and the tools by the rules of `core`."""

    _uplink: Uplink
    _opened: ev.UpstreamOpened | ev.SessionCreated = ev.UpstreamOpened()

    def __init__(
        self,
        core: CoreT,
        client: WebSocketConnection,
        dial: Callable[[UpstreamConnection], Awaitable[None]],
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
        recorded = recorder.record_event if recorder is not None else None
        self._observers = [observe for observe in (observer, recorded) if observe is not None]
        self.client = client
        self.upstream = UpstreamConnection()
        self._upstream_stall = StallWatch(self.upstream, self._on_upstream_stalled)
        self._dial = dial
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: deque[Any] = deque()
        self._busy = False
        self._crashed = False
        self._alarm = Alarm(self._on_deadline, self._clock)
        self._client_close = ("1006", "")
        """How the client's connection ended; 1006 also where there was none."""
        self._closed = self._loop.create_future()
        self._paced_reader = PacedReader(self.upstream, self._on_upstream_closed, self._clock)
        client.on_closed = self._on_client_closed
        client.on_internal_error = self.upstream.on_internal_error = self._on_callback_failure
        self.upstream.on_text, self.upstream.on_closed = self._paced_reader.feed, self._paced_reader.feed_close
        self.upstream.on_writable = self._on_upstream_writable

    async def run(self) -> None:
        """Dial, live until the client is gone, and leave nothing behind, in bounded time."""
        self._begin()
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

    def _begin(self) -> None:
        self._spawn(self._connect())

    def _stop(self) -> None:
        """End what the session has besides its tasks and timers."""

    async def _connect(self) -> None:
        try:
            await self._dial(self.upstream)
        except UpstreamConnectError as refusal:
            self.dispatch(ev.UpstreamRefused(refusal.status, self._secrets.redact(str(refusal)), refusal.retryable))
        else:
            self.dispatch(self._opened)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # Not a TaskGroup: a task that fails must not take the session's other tasks with it.
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of session %s failed", self.core.session_id, exc_info=task.exception())
            self.dispatch(ev.InternalFailure("task"))

    def _on_client_closed(self, code: int, reason: str) -> None:
        self._client_close = (str(code), reason)
        self.dispatch(ev.ClientClosed(code, reason))
        if not self._closed.done():
            self._closed.set_result(None)

    def _on_upstream_closed(self, code: int, reason: str) -> None:
        self.dispatch(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    def on_handshake_refused(self, http_status: int, reason: str) -> None:
        """The client never had a connection: its request was answered with a status."""
        self._client_close = (f"HTTP {http_status}", reason)

    @property
    def close_summary(self) -> str:
        """How the session ended, for the log: code and reason of the close, and what was ignored meanwhile."""
        code, reason = self._client_close
        if code == "1006" and not reason:
            reason = "the connection broke without a close frame"
        ignored = ", ".join(f"{escape_controls(kind)} ×{n}" for kind, n in self.core.ignored.items())
        parts = (code, escape_controls(redact(reason, MAX_REASON_CHARS)), f"(ignored: {ignored})" if ignored else "")
        return " ".join(part for part in parts if part)

    # -- the one writer of state --------------------------------------------------------------------------------------

    def dispatch(self, event: Any) -> None:
        """Let something happen to the session. Never raises: a failure of ours ends this session alone."""
        if self._busy:
            self._pending.append(event)
            return
        self._busy = True
        # Words come several a second, and only put deadlines off: those that are not for an external voice.
        moves_a_deadline = type(event) is not ev.TextDelta or not event.spoken
        self._handle(event)
        while self._pending:
            moves_a_deadline = True
            self._handle(self._pending.popleft())
        self._busy = False
        if moves_a_deadline:
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
        if self._crashed:  # and the rules could not end it in peace
            self.client.abort()
        else:
            self._end_after_failure(type(event).__name__)

    def _on_callback_failure(self) -> None:
        """Code failed at a message before the rules saw it, or at audio; the exception is being handled."""
        if not self._crashed:
            self._end_after_failure("message")

    def _end_after_failure(self, at: str) -> None:
        """End the session for an exception that is being handled; what fails after the first is not logged."""
        _log.exception("session %s failed while handling %s", self.core.session_id, at)
        self._crashed = True
        self.dispatch(ev.InternalFailure(at))

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

    # -- an upstream that does not read -------------------------------------------------------------------------------

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
