"""A Realtime client's session at run time: its rules, the codec and the two sockets.

    client ──► RealtimeUplink ──► audio to the upstream; everything else is an event for the rules
    client ◄── RealtimeDownlink ◄── upstream: deltas go on at once; everything else is an event

The codec makes events of messages, and messages of commands; it knows the dialects of both ends. The upstream may be
dialled before there is a client (`dial_first`). What it sends until `run` is kept, up to `MAX_EARLY_FRAMES`.

An end that does not read holds the other one back, by TCP: nothing is dropped and nothing piles up. One that reads
nothing for `timers.MAX_STALL_S` ends the session.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from relay.protocols.openai.proxy import FrontCodec
from relay.runtime.base import Observer, SessionRuntime, Tools
from relay.runtime.downlink import RealtimeDownlink
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.timers import StallWatch
from relay.runtime.uplink import RealtimeUplink
from relay.session.common.close_codes import CloseCode
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.read_allowance import (
    MIN_APPEND_BYTES,
    message_cost,
    realtime_bytes_allowance,
    realtime_event_allowance,
)
from relay.session.common.redact import redact
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import ClientSaid, PassDown, RealtimeCommand, TellClient, TellUpstream
from relay.session.realtime.session import RealtimeSession
from relay.transport.read_limiter import ReadLimiter
from relay.transport.upstream import UpstreamRefusal, UpstreamSocket
from relay.transport.websocket import MessageListener

MAX_EARLY_FRAMES = 64
_OTHER_END = "the other end does not read"
LOOK_S = 0.5
"""How often a client that waits for the dial is checked to be still there."""


class RealtimeRuntime(SessionRuntime[RealtimeSession]):
    """Joins one Realtime client's socket, one upstream and the tools by the rules of `core`.

    `dial_first` connects the upstream before the client is accepted, so that a refusal can be an HTTP status; what the
    upstream says until `run` is kept.
    """

    _uplink: RealtimeUplink

    def __init__(
        self,
        core: RealtimeSession,
        client: MessageListener,
        codec: FrontCodec,
        dial: Callable[[UpstreamSocket], Awaitable[None]],
        tools: Tools,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        super().__init__(core, client, dial, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets)
        self._codec = codec
        self._is_dialled = False
        self._early: list[bytes | ev.UpstreamClosed] = []
        self._client_stall = StallWatch(client, self._client_stalled)
        self._throttle = ReadLimiter(
            client,
            realtime_bytes_allowance(self._clock()),
            MIN_APPEND_BYTES,
            realtime_event_allowance(self._clock()),
            self.dispatch,
            self._clock,
        )
        self._uplink = RealtimeUplink(
            core.ledger, self.upstream, self._throttle, self._clock, recorder, self._client_event
        )
        self._downlink = RealtimeDownlink(core, client, codec, self._clock, self.dispatch, recorder)
        self._paced.handle = self._downlink.take
        client.waiting_bytes = lambda: 0 if self.upstream.is_writable else self.upstream.unsent_bytes
        client.on_stalled = lambda: self.dispatch(ev.ClientMessageStalled())
        client.on_text = self._uplink.take
        client.on_binary = self._client_binary
        client.on_writable = self._client_writable

    async def dial_first(self, client_is_gone: Callable[[], bool]) -> None:
        """Connect the upstream now. Raises UpstreamRefusal, also for a client that leaves in the meantime."""

        def check() -> None:
            if client_is_gone():
                raise UpstreamRefusal("The client has left.", None, retryable=False)

        check()
        self.upstream.on_text, self.upstream.on_closed = self._keep_text, self._keep_close
        dialling = asyncio.ensure_future(self._dial(self.upstream))
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
        self.upstream.close(CloseCode.NORMAL_CLOSURE)

    def _begin(self) -> None:
        if not self._is_dialled:
            super()._begin()
            return
        self.upstream.on_text, self.upstream.on_closed = self._paced.take, self._paced.take_end
        self.dispatch(ev.UpstreamOpened())
        early, self._early = self._early, []
        for message in early:
            if isinstance(message, bytes):
                self._downlink.take(message)
            else:
                self.dispatch(message)

    def _stop(self) -> None:
        self._throttle.stop()
        self._client_stall.stop()

    def _keep_text(self, message: bytes) -> None:
        if len(self._early) < MAX_EARLY_FRAMES:
            self._early.append(message)
        else:
            self.upstream.close(CloseCode.MESSAGE_TOO_BIG, "too much before the session began")

    def _keep_close(self, code: int, reason: str) -> None:
        self._early.append(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    # -- sockets to events --------------------------------------------------------------------------------------------

    def _client_event(self, message: bytes) -> None:
        event = self._codec.decode_client(message)
        cost = message_cost(event.n_members) if isinstance(event, ClientSaid) else 1
        if cost > 1 or not (isinstance(event, ClientSaid) and event.is_append):
            self._throttle.message(cost)
        self.dispatch(event)

    def _client_binary(self, message: bytes) -> None:
        self._throttle.take(len(message))
        self._throttle.message()
        self.dispatch(self._codec.binary())

    # -- commands to sockets ------------------------------------------------------------------------------------------

    def _execute(self, command: RealtimeCommand, now: float) -> None:
        match command:
            case PassDown():
                for message in self._codec.pass_down(command.raw):
                    self.client.send_whole_text(message)
            case TellClient():
                for message in self._codec.to_client(command.body):
                    self.client.send_whole_text(message)
            case TellUpstream():
                for message in self._codec.to_upstream(command.body):
                    self.upstream.send_whole_text(message)
            case cmd.SetInputGate() | cmd.ReleaseInput():
                self._uplink.execute(command)
            case cmd.CloseClient():
                self.client.close(command.code, command.reason)
            case cmd.CloseUpstream() | cmd.RunTool() | cmd.CancelTool() | cmd.CancelAllTools():
                self._manage(command)
            case _:
                assert_never(command)

    # -- ends that do not read ----------------------------------------------------------------------------------------

    def _client_writable(self, is_writable: bool) -> None:
        if self._closed.done():
            return
        self._client_stall.set_writable(is_writable)
        if is_writable:
            self.upstream.resume_reading(_OTHER_END)
        else:
            self.upstream.pause_reading(_OTHER_END)

    def _client_stalled(self, unsent_bytes: int) -> None:
        self.dispatch(ev.ClientBackpressure(unsent_bytes))
        self.client.abort()  # a close frame would wait behind what the client does not read

    def _upstream_writable(self, is_writable: bool) -> None:
        super()._upstream_writable(is_writable)
        if self._closed.done():
            return
        if is_writable:
            self.client.recount()
            self.client.resume_reading(_OTHER_END)
        else:
            self.client.pause_reading(_OTHER_END)
