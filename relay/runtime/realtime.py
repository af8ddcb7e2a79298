"""A Realtime client's session at run time: its rules, the codec and the two sockets.

    client ──► RealtimeUplink ──► audio to the upstream; everything else is an event for the rules
    client ◄── RealtimeDownlink ◄── upstream: deltas go on at once; everything else is an event

The codec makes events of messages, and messages of commands; it knows the dialects of both ends. The upstream may be
dialled before there is a client (`dial_first`). What it sends until `run` is kept, up to `MAX_EARLY_MESSAGES`.

An end that does not read holds the other one back, by TCP: nothing is dropped and nothing piles up. One that reads
nothing for `timers.MAX_STALL_S` ends the session.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from relay.protocols.openai.proxy import ProxyCodec
from relay.runtime.base import Observer, SessionRuntime, ToolExecutor
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
from relay.session.realtime.events import (
    ForwardToClient,
    RealtimeClientEvent,
    RealtimeCommand,
    SendToClient,
    SendToUpstream,
)
from relay.session.realtime.session import RealtimeSession
from relay.transport.read_limiter import ReadLimiter
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection
from relay.transport.websocket import WebSocketConnection

MAX_EARLY_MESSAGES = 64
_PEER_NOT_READING = "the other end does not read"
CLIENT_CHECK_INTERVAL_S = 0.5
"""How often a client that waits for the dial is checked to be still there."""


class RealtimeRuntime(SessionRuntime[RealtimeSession]):
    """Joins one Realtime client's socket, one upstream and the tools by the rules of `core`.

    `connect_upstream_first` connects the upstream before the client is accepted, so that a refusal can be an HTTP
    status; what the upstream says until `run` is kept.
    """

    _uplink: RealtimeUplink

    def __init__(
        self,
        core: RealtimeSession,
        client: WebSocketConnection,
        codec: ProxyCodec,
        dial: Callable[[UpstreamConnection], Awaitable[None]],
        tools: ToolExecutor,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        super().__init__(core, client, dial, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets)
        self._codec = codec
        self._is_dialled = False
        self._early_messages: list[bytes | ev.UpstreamClosed] = []
        self._client_stall = StallWatch(client, self._on_client_stalled)
        self._read_limiter = ReadLimiter(
            client,
            realtime_bytes_allowance(self._clock()),
            MIN_APPEND_BYTES,
            realtime_event_allowance(self._clock()),
            self.dispatch,
            self._clock,
        )
        self._uplink = RealtimeUplink(
            core.ledger, self.upstream, self._read_limiter, self._clock, recorder, self._on_client_message
        )
        self._downlink = RealtimeDownlink(core, client, codec, self._clock, self.dispatch, recorder)
        self._paced_reader.on_message = self._downlink.receive
        client.unforwarded_bytes = lambda: 0 if self.upstream.is_writable else self.upstream.unsent_bytes
        client.on_message_stalled = lambda: self.dispatch(ev.ClientMessageStalled())
        client.on_text = self._uplink.receive
        client.on_binary = self._on_client_binary
        client.on_writable = self._on_client_writable

    async def connect_upstream_first(self, client_is_gone: Callable[[], bool]) -> None:
        """Connect the upstream now. Raises UpstreamRefusal, also for a client that leaves in the meantime."""

        def check() -> None:
            if client_is_gone():
                raise UpstreamConnectError("The client has left.", None, retryable=False)

        check()
        self.upstream.on_text, self.upstream.on_closed = self._hold_text, self._hold_close
        dialling = asyncio.ensure_future(self._dial(self.upstream))
        try:
            while not dialling.done():
                await asyncio.wait({dialling}, timeout=CLIENT_CHECK_INTERVAL_S)
                check()
            await dialling
        finally:
            dialling.cancel()
        self._is_dialled = True

    def abandon(self) -> None:
        """Let go of an upstream that was dialled for a client that left before it was accepted."""
        self.upstream.close(CloseCode.NORMAL_CLOSURE)

    def _begin(self) -> None:
        if not self._is_dialled:
            super()._begin()
            return
        self.upstream.on_text, self.upstream.on_closed = self._paced_reader.feed, self._paced_reader.feed_close
        self.dispatch(ev.UpstreamOpened())
        early, self._early_messages = self._early_messages, []
        for message in early:
            if isinstance(message, bytes):
                self._downlink.receive(message)
            else:
                self.dispatch(message)

    def _stop(self) -> None:
        self._read_limiter.stop()
        self._client_stall.stop()

    def _hold_text(self, message: bytes) -> None:
        if len(self._early_messages) < MAX_EARLY_MESSAGES:
            self._early_messages.append(message)
        else:
            self.upstream.close(CloseCode.MESSAGE_TOO_BIG, "too much before the session began")

    def _hold_close(self, code: int, reason: str) -> None:
        self._early_messages.append(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    # -- sockets to events --------------------------------------------------------------------------------------------

    def _on_client_message(self, message: bytes) -> None:
        event = self._codec.decode_client(message)
        cost = message_cost(event.n_members) if isinstance(event, RealtimeClientEvent) else 1
        if cost > 1 or not (isinstance(event, RealtimeClientEvent) and event.is_append):
            self._read_limiter.count_message(cost)
        self.dispatch(event)

    def _on_client_binary(self, message: bytes) -> None:
        self._read_limiter.count_bytes(len(message))
        self._read_limiter.count_message()
        self.dispatch(self._codec.reject_binary())

    # -- commands to sockets ------------------------------------------------------------------------------------------

    def _execute(self, command: RealtimeCommand, now: float) -> None:
        match command:
            case ForwardToClient():
                for message in self._codec.forward(command.raw):
                    self.client.send_text_any_size(message)
            case SendToClient():
                for message in self._codec.encode_for_client(command.body):
                    self.client.send_text_any_size(message)
            case SendToUpstream():
                for message in self._codec.encode_for_upstream(command.body):
                    self.upstream.send_text_any_size(message)
            case cmd.SetInputGate() | cmd.ReleaseInput():
                self._uplink.execute(command)
            case cmd.CloseClient():
                self.client.close(command.code, command.reason)
            case cmd.CloseUpstream() | cmd.RunTool() | cmd.CancelTool() | cmd.CancelAllTools():
                self._execute_common(command)
            case _:
                assert_never(command)

    # -- ends that do not read ----------------------------------------------------------------------------------------

    def _on_client_writable(self, is_writable: bool) -> None:
        if self._closed.done():
            return
        self._client_stall.set_writable(is_writable)
        if is_writable:
            self.upstream.resume_reading(_PEER_NOT_READING)
        else:
            self.upstream.pause_reading(_PEER_NOT_READING)

    def _on_client_stalled(self, unsent_bytes: int) -> None:
        self.dispatch(ev.ClientBackpressure(unsent_bytes))
        self.client.abort()  # a close frame would wait behind what the client does not read

    def _on_upstream_writable(self, is_writable: bool) -> None:
        super()._on_upstream_writable(is_writable)
        if self._closed.done():
            return
        if is_writable:
            self.client.update_read_budget()
            self.client.resume_reading(_PEER_NOT_READING)
        else:
            self.client.pause_reading(_PEER_NOT_READING)
