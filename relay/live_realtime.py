"""A Realtime client's session at run time: its rules, the codec and the two sockets.

An end that does not read holds the other one back, by TCP: nothing is dropped and nothing piles up. One that reads
nothing for `STUCK_S` ends the session.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, assert_never

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.events import Forwarded
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.limits import LEAST_APPEND_BYTES, message_cost, realtime_bytes_allowance, realtime_event_allowance
from relay.core.realtime_events import ClientBabbled, ClientSaid, PassDown, RealtimeCommand, TellClient, TellUpstream
from relay.core.realtime_session import RealtimeSession
from relay.core.redact import redact
from relay.live_base import LiveBase, Tap, Tools
from relay.peers.frames import LONG_BYTES, MessageListener
from relay.peers.passage import RealtimeClientSocket, RealtimeUpstreamSocket
from relay.peers.throttle import ReadThrottle
from relay.peers.upstream import UpstreamRefusal, UpstreamSocket
from relay.wire.front import FrontCodec

STUCK_S = 10.0
MAX_EARLY_FRAMES = 64
_OTHER_END = "the other end does not read"
LOOK_S = 0.5
"""How often is looked whether a client that waits for the dial is still there."""


class LiveRealtime(LiveBase[RealtimeSession]):
    """Joins one Realtime client's socket, one upstream and the tools by the rules of `core`.

    `dial_first` connects the upstream before the client is accepted, so that a refusal can be an HTTP status; what the
    upstream says until `run` is kept.
    """

    _hot: ClassVar[tuple[type, ...]] = (Forwarded,)

    def __init__(
        self,
        core: RealtimeSession,
        client: RealtimeClientSocket,
        codec: FrontCodec,
        dial: Callable[[UpstreamSocket], Awaitable[None]],
        tools: Tools,
        *,
        clock: Callable[[], float] | None = None,
        tap: Tap | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        self._way_up, self._way_down = client, RealtimeUpstreamSocket()
        super().__init__(core, client, dial, tools, clock=clock, tap=tap, upstream=self._way_down, secrets=secrets)
        self._codec = codec
        self._is_dialled = False
        self._early: list[bytes | ev.UpstreamClosed] = []
        self._client_stuck_timer: asyncio.TimerHandle | None = None
        self._throttle = ReadThrottle(
            client,
            realtime_bytes_allowance(self._clock()),
            LEAST_APPEND_BYTES,
            realtime_event_allowance(self._clock()),
            self.feed,
            self._clock,
        )
        client.waiting_bytes = lambda: 0 if self._upstream.is_writable else self._upstream.unsent_bytes
        client.on_stalled = lambda: self.feed(ev.MessageStalled())
        client.on_text = self._client_text
        client.on_binary = self._client_binary
        client.on_writable = self._client_writable
        self._upstream.on_text = self._paced.take

    # -- life ---------------------------------------------------------------------------------------------------------

    async def dial_first(self, client_is_gone: Callable[[], bool]) -> None:
        """Connect the upstream now. Raises UpstreamRefusal, also for a client that leaves in the meantime."""

        def check() -> None:
            if client_is_gone():
                raise UpstreamRefusal("The client has left.", None, retryable=False)

        check()
        self._upstream.on_text = self._keep_text
        self._upstream.on_closed = self._keep_close
        dialling = self._loop.create_task(_as_coroutine(self._dial(self._upstream)))
        try:
            while not dialling.done():
                await asyncio.wait({dialling}, timeout=LOOK_S)
                check()
            await dialling
        finally:
            dialling.cancel()
        self._is_dialled = True

    def give_up(self) -> None:
        """Let go of an upstream that was dialled for a client that left before it was accepted."""
        self._upstream.close(1000)

    def _begin(self) -> None:
        if not self._is_dialled:
            super()._begin()
            return
        self._upstream.on_text = self._paced.take
        self._upstream.on_closed = self._paced.take_end
        self.feed(ev.UpstreamOpened())
        early, self._early = self._early, []
        for one in early:
            if isinstance(one, bytes):
                self._upstream_text(memoryview(one))
            else:
                self.feed(one)

    def _stop(self) -> None:
        self._throttle.stop()
        self._stop_stuck_timer()

    def _stop_stuck_timer(self) -> None:
        if self._client_stuck_timer is not None:
            self._client_stuck_timer.cancel()
            self._client_stuck_timer = None

    def _keep_text(self, frame: memoryview) -> None:
        if len(self._early) < MAX_EARLY_FRAMES:
            self._early.append(bytes(frame))
        else:
            self._upstream.close(1009, "too much before the session began")

    def _keep_close(self, code: int, reason: str) -> None:
        self._early.append(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    # -- sockets to events --------------------------------------------------------------------------------------------

    def feed(self, event: Any) -> None:
        """Let something happen to the session; see `LiveBase.feed`."""
        self._close_passages()
        super().feed(event)
        self._open_passages()

    def _close_passages(self) -> None:
        self._way_up.close_passage()
        self._way_down.close_passage()
        self._count_passed()
        if self._way_down.has_passed:
            self._way_down.has_passed = False
            self.core.turns.heard = True

    def _open_passages(self) -> None:
        """Let usual audio go on unseen, if the session runs as usual and nobody records it."""
        if self._busy or self._tap is not None:
            return
        left_bytes = int(self._throttle.audio.left)
        if self.core.streaming_up and left_bytes > 0:
            self._way_up.open_for(left_bytes, LEAST_APPEND_BYTES, self._upstream)
        if self.core.streaming_down and self._codec.passes_down:
            self._way_down.open_passage(self._client)

    def _count_passed(self) -> None:
        passed_bytes = self._way_up.take_passed_bytes()
        if passed_bytes:
            self._throttle.audio.left -= passed_bytes
            self.core.heard_client(self._clock())

    def _client_text(self, frame: memoryview) -> None:
        self._count_passed()
        self._throttle.take(len(frame))
        event = self._codec.decode_client(frame)
        if not isinstance(event, Forwarded):
            self._count_event(event)
        self.feed(event)

    def _count_event(self, event: ClientSaid | ClientBabbled) -> None:
        cost = message_cost(event.n_members) if isinstance(event, ClientSaid) else 1
        if cost > 1 or not (isinstance(event, ClientSaid) and event.is_append):
            self._throttle.message(cost)

    def _client_binary(self, frame: memoryview) -> None:
        self._throttle.take(len(frame))
        self._throttle.message()
        self.feed(self._codec.binary())

    def _upstream_text(self, frame: memoryview) -> None:
        for event in self._codec.decode_upstream(frame, read_all=not self.core.streaming_down):
            self.feed(event)

    # -- commands to sockets ------------------------------------------------------------------------------------------

    def _carry_out(self, command: RealtimeCommand, now: float) -> None:
        match command:
            case Forwarded():
                _send(self._upstream, [command.raw])
            case PassDown():
                _send(self._client, self._codec.pass_down(command.raw))
            case TellClient():
                _send(self._client, self._codec.to_client(command.body))
            case TellUpstream():
                _send(self._upstream, self._codec.to_upstream(command.body))
            case cmd.RunTool():
                self._spawn(self._run_tool(command))
            case cmd.CancelTool(call_id):
                self._tools.cancel(call_id)
            case cmd.CancelTools():
                self._cancel_tasks()
            case cmd.CloseClient():
                self._client.close(command.code, command.reason)
            case cmd.CloseUpstream():
                self._upstream.close(1000)
            case _:
                assert_never(command)

    # -- ends that do not read ----------------------------------------------------------------------------------------

    def _client_writable(self, is_writable: bool) -> None:
        self._stop_stuck_timer()
        if self._closed.done():
            return
        if is_writable:
            self._upstream.resume_reading(_OTHER_END)
        else:
            self._upstream.pause_reading(_OTHER_END)
            self._client_stuck_timer = self._loop.call_later(STUCK_S, self._client_stuck)

    def _client_stuck(self) -> None:
        self._client_stuck_timer = None
        self.feed(ev.ClientStuck(self._client.unsent_bytes))
        self._client.abort()  # a close frame would wait behind what is not read

    def _upstream_writable(self, is_writable: bool) -> None:
        super()._upstream_writable(is_writable)
        if self._closed.done():
            return
        if is_writable:
            self._client.recount()
            self._client.resume_reading(_OTHER_END)
        else:
            self._client.pause_reading(_OTHER_END)


def _send(socket: MessageListener, messages: Sequence[Chunk]) -> None:
    for message in messages:
        if len(message) > LONG_BYTES:
            socket.send_long_text(message)
        else:
            socket.send_text(message)


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
