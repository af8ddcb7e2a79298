"""A Realtime client's session at run time: its rules, the codec and the two sockets.

    client ──► RealtimeUplink ──► audio to the upstream; all else is dispatched as events
    client ◄── RealtimeDownlink ◄── upstream: deltas are forwarded; all else is dispatched as events

The codec decodes messages to events and encodes commands; it knows the dialects of both sides. The upstream may be
connected before there is a client (`connect_upstream_first`). Its messages until `run` are held, up to
`MAX_EARLY_MESSAGES`.

If one side does not read, reading from the other is paused (TCP backpressure): nothing is dropped and nothing piles up.
A side that reads nothing for `timers.MAX_STALL_S` ends the session.
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
_PEER_NOT_READING = "peer does not read"
CLIENT_CHECK_INTERVAL_S = 0.5
"""How often the relay checks that a client waiting for the upstream is still connected."""


class RealtimeRuntime(SessionRuntime[RealtimeSession]):
    """Connects one Realtime client's socket, one upstream and the tools with the rules in `core`.

    With `connect_upstream_first` the upstream is connected before the client is accepted, so that a refusal can be an
    HTTP status. Upstream messages until `run` are held.
    """

    _uplink: RealtimeUplink

    def __init__(
        self,
        core: RealtimeSession,
        client: WebSocketConnection,
        codec: ProxyCodec,
        connect_upstream: Callable[[UpstreamConnection], Awaitable[None]],
        tools: ToolExecutor,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        super().__init__(
            core, client, connect_upstream, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets
        )
        self._codec = codec
        self._is_upstream_connected = False
        self._early_messages: list[bytes | ev.UpstreamClosed] = []
        self._client_stall = StallWatch(client, self._on_client_stalled)
        now = self._clock()
        allowances = (realtime_bytes_allowance(now), MIN_APPEND_BYTES, realtime_event_allowance(now))
        self._read_limiter = ReadLimiter(client, *allowances, self.dispatch, self._clock)
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
        """Connect to the upstream now. Raises UpstreamConnectError, also if the client leaves meanwhile."""

        def check() -> None:
            if client_is_gone():
                raise UpstreamConnectError("The client disconnected.", None, retryable=False)

        check()
        self.upstream.on_text, self.upstream.on_closed = self._hold_text, self._hold_close
        connecting = asyncio.ensure_future(self._connect_upstream(self.upstream))
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=CLIENT_CHECK_INTERVAL_S)
                check()
            await connecting
        finally:
            connecting.cancel()
        self._is_upstream_connected = True

    def abandon(self) -> None:
        """Close the upstream of a client that disconnected before it was accepted."""
        self.upstream.close(CloseCode.NORMAL_CLOSURE)

    def _start(self) -> None:
        if not self._is_upstream_connected:
            super()._start()
            return
        self.upstream.on_text, self.upstream.on_closed = self._paced_reader.feed, self._paced_reader.feed_close
        self.dispatch(ev.UpstreamOpened())
        early_messages, self._early_messages = self._early_messages, []
        for message in early_messages:
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
            self.upstream.close(CloseCode.MESSAGE_TOO_BIG, "too many messages before the session started")

    def _hold_close(self, code: int, reason: str) -> None:
        self._early_messages.append(ev.UpstreamClosed(code, redact(self._secrets.redact_truncated(reason))))

    # -- client messages ----------------------------------------------------------------------------------------------

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

    # -- commands -----------------------------------------------------------------------------------------------------

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

    # -- backpressure -------------------------------------------------------------------------------------------------

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
        self.client.abort()  # a close frame would be queued after the unread data

    def _on_upstream_writable(self, is_writable: bool) -> None:
        super()._on_upstream_writable(is_writable)
        if self._closed.done():
            return
        if is_writable:
            self.client.update_read_budget()
            self.client.resume_reading(_PEER_NOT_READING)
        else:
            self.client.pause_reading(_PEER_NOT_READING)
