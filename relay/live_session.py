"""One session at run time: the only place where the rules, the languages and the sockets meet.

`feed` is a plain synchronous call: an event goes to the core, and the commands that come back are carried out before
it returns. What happens meanwhile (the outbox's answers, a tool that fails at once) waits in a deque, so that the core
sees one event at a time and in order; a queue of asyncio's would cost a task switch per frame.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, assert_never, cast

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.events import Forwarded
from relay.core.redact import redact
from relay.peers.frames import MessageListener
from relay.peers.outbox import Outbox
from relay.peers.upstream import UpstreamRefusal, UpstreamSocket
from relay.wire.append import forwarded
from relay.wire.device import DeviceCodec
from relay.wire.realtime import RealtimeCodec

CLOSE_TIMEOUT_S = 5.0
MAX_UNSENT_UPSTREAM_BYTES = 1024 * 1024
"""Some 16 s of audio: what an upstream that does not read may hold up; more is left out."""
UPSTREAM_STUCK_S = 10.0

_log = logging.getLogger("relay.session")

_HOT = (Forwarded, ev.TextDelta)
"""What comes many times a second, and moves no deadline forward."""

Tap = Callable[[ev.Event, float, Sequence[cmd.Command] | None], None]
"""Sees every event with its time and the commands it led to, None if our own code failed at it and the exception is
being handled; `Forwarded.raw` is valid during the call only."""


def both(one: Tap | None, other: Tap | None) -> Tap | None:
    """One tap for two listeners, either of which may be missing."""
    if one is None or other is None:
        return one or other

    def tap(event: ev.Event, now: float, commands: Sequence[cmd.Command] | None) -> None:
        one(event, now, commands)
        other(event, now, commands)

    return tap


class Tools(Protocol):
    """What a session needs of the tools: run one, and always get exactly one return."""

    def run(
        self, command: cmd.RunTool, progress: Callable[[ev.ToolProgressed], None]
    ) -> Coroutine[Any, Any, ev.ToolReturned]:
        """Run a tool to its end; never raises but for cancellation."""


class LiveSession:
    """Joins one client's socket, one upstream and the tools by the rules of `core`."""

    def __init__(
        self,
        core: DeviceSession,
        client: MessageListener,
        upstream_codec: RealtimeCodec,
        dial: Callable[[UpstreamSocket], Awaitable[None]],
        tools: Tools,
        *,
        clock: Callable[[], float] | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.core = core
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._tap = tap
        self._client = client
        self._client_codec = DeviceCodec(core.options)
        self._outbox = Outbox(client, self._client_codec, core.options, self.feed, self._clock)
        self._upstream = UpstreamSocket()
        self._upstream_codec = upstream_codec
        self._encode_audio = upstream_codec.encode_audio
        self._decode = upstream_codec.decode
        self._dial = dial
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: deque[ev.Event] = deque()
        self._busy = False
        self._crashed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = self._loop.create_future()
        client.on_text = self._client_text
        client.on_binary = self._client_binary
        client.on_closed = self._client_closed
        self._upstream.on_text = self._upstream_text
        self._upstream.on_closed = self._upstream_closed
        self._upstream.on_writable = self._upstream_writable
        self._dropped_bytes = 0
        self._stuck_timer: asyncio.TimerHandle | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial, live until the client is gone, and leave nothing behind, in bounded time."""
        self._spawn(self._connect())
        self._arm()
        try:
            await self._closed
        finally:
            self._outbox.stop()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._stuck_timer is not None:
                self._stuck_timer.cancel()
                self._stuck_timer = None
            self._upstream.close(1000)
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    async def _connect(self) -> None:
        try:
            await self._dial(self._upstream)
        except UpstreamRefusal as refusal:
            self.feed(ev.UpstreamRefused(refusal.status, str(refusal), refusal.retryable))
        else:
            self.feed(ev.UpstreamOpened())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # Not a TaskGroup: a task that fails must not take the session's other tasks with it.
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of session %s failed", self.core.session_id, exc_info=task.exception())
            self.feed(ev.Crashed("task"))

    # -- sockets to events --------------------------------------------------------------------------------------------

    def _client_binary(self, frame: memoryview) -> None:
        core, codec = self.core, self._client_codec
        n_bytes = len(frame)
        if core.streaming_in and codec.passes_up and not (n_bytes & 1 or codec.aligner.carry) and n_bytes:
            # The short way of what `feed` does with microphone audio in a running session: count it, pass it on.
            core.turns.input_bytes += n_bytes
            if self._tap is not None:
                event = forwarded(("input_audio", "", n_bytes, frame, "", 0))
                self._tap(event, self._clock(), (event,))
            if self._upstream.is_writable:
                self._upstream.send_text(self._encode_audio(frame))
            else:
                self._append(frame)
            return
        audio = self._client_codec.decode_audio(frame)
        if audio is not None:
            self.feed(audio)

    def _client_text(self, frame: memoryview) -> None:
        self.feed(self._client_codec.decode_text(frame))

    def _client_closed(self, code: int, reason: str) -> None:
        self.feed(ev.ClientClosed(code, reason))
        if not self._closed.done():
            self._closed.set_result(None)

    def _upstream_text(self, frame: memoryview) -> None:
        event = self._decode(frame)
        if type(event) in _HOT and self.core.streaming_out and not self._busy:
            # The short way of what `feed` does with more of a clip, or of a text, that is under way.
            now = self._clock()
            if type(event) is Forwarded:
                if self.core.turns.more_audio(event, now):
                    if self._tap is not None:
                        self._tap(event, now, (event,))
                    self._outbox.play(event, now)
                    return
            elif self.core.turns.more_text(cast(ev.TextDelta, event), now):
                if self._tap is not None:
                    self._tap(event, now, (cmd.TellText(cast(ev.TextDelta, event).text),))
                self._client.send_text(self._client_codec.encode_text(cast(ev.TextDelta, event).text))
                return
        self.feed(event)

    def _upstream_closed(self, code: int, reason: str) -> None:
        self.feed(ev.UpstreamClosed(code, redact(reason)))

    # -- the one writer of state --------------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> None:
        """Let something happen to the session. Never raises: a failure of ours ends this session alone.

        Written flat: at twenty sessions every Python call of an audio frame costs as much as the frame's base64.
        """
        pending = self._pending
        if self._busy:
            pending.append(event)
            return
        self._busy = True
        hot = True
        while True:
            try:
                now = self._clock()
                try:
                    commands = self.core.handle(event, now)
                except Exception:
                    if self._tap is not None:
                        self._tap(event, now, None)
                    raise
                if self._tap is not None:
                    self._tap(event, now, commands)
                for command in commands:
                    if type(command) is not Forwarded:
                        self._carry_out(command)
                    elif command.kind == "output_audio":
                        self._outbox.play(command, now)
                    else:
                        self._append(command.raw)
            except Exception:
                self._failed(event)
            hot = hot and type(event) in _HOT
            if not pending:
                break
            event = pending.popleft()
        self._busy = False
        if not hot:
            self._arm()

    def _failed(self, event: ev.Event) -> None:
        _log.exception("session %s failed while handling %s", self.core.session_id, type(event).__name__)
        if self._crashed:
            self._client.abort()
        else:
            self._crashed = True
            self._pending.append(ev.Crashed(type(event).__name__))

    def _append(self, raw: Chunk) -> None:
        codec = self._client_codec
        samples = raw if codec.passes_up else codec.to_upstream(raw)
        upstream = self._upstream
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNSENT_UPSTREAM_BYTES:
            self._dropped_bytes += len(samples)
            if self._dropped_bytes == len(samples):  # told once, until the upstream reads again
                self.feed(ev.UpstreamStuck(self._dropped_bytes))
        elif samples:
            upstream.send_text(self._encode_audio(samples))

    def _upstream_writable(self, is_writable: bool) -> None:
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        if is_writable:
            self._dropped_bytes = 0
        elif not self._closed.done():
            self._stuck_timer = self._loop.call_later(UPSTREAM_STUCK_S, self._upstream_stuck)

    def _upstream_stuck(self) -> None:
        self._stuck_timer = None
        self.feed(ev.UpstreamStuck(self._dropped_bytes, final=True))

    def _carry_out(self, command: cmd.Command) -> None:
        kind = type(command)
        if kind in cmd.CLIENT_MESSAGES:
            self._outbox.tell(cast(cmd.ClientMessage, command))
        elif kind in cmd.UPSTREAM_COMMANDS:
            self._upstream.send_text(self._upstream_codec.encode(cast(cmd.UpstreamCommand, command)))
        elif kind in cmd.PLAY_COMMANDS:
            self._play(cast(cmd.PlayCommand, command))
        else:
            self._manage(cast(cmd.ManageCommand, command))

    def _manage(self, command: cmd.ManageCommand) -> None:
        match command:
            case cmd.CloseUpstream():
                self._upstream.close(1000)
            case cmd.RunTool():
                self._spawn(self._run_tool(command))
            case cmd.CancelTools():
                for task in self._tasks:
                    task.cancel()
            case cmd.CloseClient(code, reason):
                self._outbox.close(code, reason)
            case _:
                assert_never(command)

    def _play(self, command: cmd.PlayCommand) -> None:
        match command:
            case cmd.PlayStart():
                self._outbox.start(command)
            case cmd.PlayEnd():
                self._outbox.end(command)
            case cmd.DropAudio():
                self._outbox.drop()
            case cmd.SyncPlayhead(item_id, played_ms):
                self._outbox.sync(item_id, played_ms)
            case cmd.UseOptions(options):
                self._outbox.use(options)
            case _:
                assert_never(command)

    async def _run_tool(self, command: cmd.RunTool) -> None:
        self.feed(await self._tools.run(command, self.feed))

    # -- time ---------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline = self.core.deadline
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        # A deadline that moves away leaves the timer alone: it fires early, and is set again then.
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(deadline - self._clock(), 0.001), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed(ev.Tick())
