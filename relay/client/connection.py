"""A session with a relay: `connect`, and the client that it yields.

The client reads its socket only in `recv`, which iteration calls. So a program must read events: only then does the
client run tools, track playback and apply new formats. Buffers are bounded. At 16 unread messages TCP backpressure
stops the relay, which closes the session with 4003 after a while. Sending waits while more than 32 KiB are unsent.
Reading waits while the answers to many tool calls are unsent.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Self, TypedDict, Unpack

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from audio.formats import PCM16_16K, AudioFormat
from relay.client.errors import ClosedError, ConnectError, ProtocolError
from relay.client.events import (
    AudioEndEvent,
    AudioEvent,
    AudioStartEvent,
    ConnectedEvent,
    ErrorEvent,
    GoodbyeEvent,
    InterruptedEvent,
    ReadyEvent,
    RelayEvent,
    ToolCallEvent,
    parse_event,
)
from relay.client.handshake import MAX_MESSAGE_BYTES, open_socket, parse_url
from relay.client.playback import PlaybackTracker
from relay.client.tools import TOO_MANY_CALLS, FunctionTool, run_tool
from relay.json_types import JsonObject
from relay.session.device.turn_metrics import camel_case

MAX_AUDIO_MESSAGE_BYTES = 32 * 1024
MAX_EARLY_EVENTS = 256
"""The limit of events that `connect` keeps until the session is ready; a relay sends a few."""
MAX_RUNNING_TOOLS = 32
"""The limit of concurrent tool calls; a further call is answered with an error. It is the relay's limit too."""
MAX_UNANSWERED_CALLS = 64
"""The limit of calls without a sent answer; at the limit nothing more is read."""
PLAYBACK_POLL_S = 0.05
CLOSE_TIMEOUT_S = 2.0
"""The connection is cut if the relay has not read what was sent, and closed, by then."""
_OUR_CLOSES = frozenset({CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG})
"""Codes with which the WebSocket library closes because of what the relay sent."""


class SessionOptions(TypedDict, total=False):
    """The fields of `hello`, all optional; the relay has defaults.

    The default formats are 16 kHz PCM16. `max_ahead_ms` limits the audio that the relay sends ahead of playback; None
    means no limit.
    """

    input_format: AudioFormat
    output_format: AudioFormat
    voice: str
    instructions: str
    language: str
    turn: Literal["server_vad", "semantic_vad", "manual"]
    duplex: Literal["full", "half"]
    max_ahead_ms: float | None
    consent: bool


class RelayClient:
    """An open session, created by `connect`. Iterate over it for its events.

    `address` is the relay's URL without its query. Every method that sends raises ClosedError once the connection is
    closed.
    """

    def __init__(
        self, socket: ClientConnection, address: str, tools: Sequence[FunctionTool], playback: PlaybackTracker | None
    ) -> None:
        self.address = address
        self.session_id = ""
        self.input_format = self.output_format = PCM16_16K
        self._socket = socket
        self._tools = {tool.name: tool.run for tool in tools if tool.run is not None}
        self._playback = playback
        self._unread: deque[RelayEvent] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._item_id = ""
        self._last_error: ErrorEvent | None = None
        self._last_reason = ""
        self._received_bytes = 0
        self._is_closing = False
        if playback is not None:
            playback.reset()
        self._reporter = None if playback is None else asyncio.create_task(self._report_playback(playback))

    def __aiter__(self) -> Self:
        """Iterate over the events until `close` is called."""
        return self

    async def __anext__(self) -> RelayEvent:
        """Return the next event. Raises ClosedError if the relay or the network ended the session."""
        try:
            return await self.recv()
        except ClosedError:
            if self._is_closing:
                raise StopAsyncIteration from None
            raise

    async def recv(self) -> RelayEvent:
        """Return the next event. Cancellation loses no event. Raises ClosedError or ProtocolError.

        A second concurrent call raises RuntimeError.
        """
        return self._unread.popleft() if self._unread else await self._receive()

    # -- to the relay -------------------------------------------------------------------------------------------------

    async def send_audio(self, data: bytes) -> None:
        """Send microphone audio in `input_format`, of any length. Send silence too: VAD needs a continuous stream."""
        for start in range(0, len(data), MAX_AUDIO_MESSAGE_BYTES):
            await self._write(data[start : start + MAX_AUDIO_MESSAGE_BYTES])

    async def send_text(self, text: str) -> None:
        """Send a typed turn; it waits while another turn is active."""
        await self.send({"type": "text", "text": text})

    async def commit(self) -> None:
        """End the user's turn, if the session's `turn` is `manual`."""
        await self.send({"type": "commit"})

    async def clear(self) -> None:
        """Discard the audio since the last commit, if the session's `turn` is `manual`."""
        await self.send({"type": "clear"})

    async def interrupt(self) -> None:
        """Stop the answer that is played."""
        await self.send({"type": "interrupt"})

    async def send_consent(self, granted: bool) -> None:
        """Report whether the user agrees to be recorded; False ends and deletes a recording."""
        await self.send({"type": "consent", "granted": granted})

    async def send_playback(self, item_id: str, played_ms: int) -> None:
        """Acknowledge the playback position of an item. `connect(playback=…)` does so automatically."""
        await self.send({"type": "playback", "itemId": item_id, "playedMs": played_ms})

    async def send_tool_result(self, call_id: str, output: Any) -> None:
        """Send the output of a tool call, a JSON value."""
        await self.send({"type": "toolResult", "callId": call_id, "output": output})

    async def send_tool_error(self, call_id: str, message: str) -> None:
        """Report that a tool call failed; `message` is a sentence for the model."""
        await self.send({"type": "toolResult", "callId": call_id, "error": message})

    async def send(self, message: JsonObject) -> None:
        """Send any message of the device protocol."""
        await self._write(orjson.dumps(message).decode())

    async def close(self) -> None:
        """End the session: send `bye`, and wait for the connection to close."""
        self._is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                with suppress(ClosedError):
                    await self.send({"type": "bye"})
                await self._socket.close()
        except TimeoutError:  # it does not read, so that neither the `bye` nor the close frame leaves
            self._socket.transport.abort()
            await self._socket.wait_closed()

    # -- internal -----------------------------------------------------------------------------------------------------

    async def _write(self, message: str | bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise self._closed_error(error) from error

    async def _receive(self) -> RelayEvent:
        while len(self._calls) >= MAX_UNANSWERED_CALLS:
            await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
        try:
            message = await self._socket.recv()
            self._received_bytes += len(message)
            if isinstance(message, str):
                event = parse_event(message)
            else:
                event = AudioEvent(data=message, item_id=self._item_id)
        except ConnectionClosed as error:
            raise self._closed_error(error) from error
        except ValueError as error:
            raise ProtocolError(f"the relay announced an audio format that does not exist: {error}") from error
        self._handle(event)
        if self._playback is not None:
            self._playback.observe(event)
        return event

    def _handle(self, event: RelayEvent) -> None:
        match event:
            case ConnectedEvent():
                self.session_id = event.session_id
                self.input_format, self.output_format = event.input_format, event.output_format
            case ReadyEvent():
                self.input_format, self.output_format = event.input_format, event.output_format
            case AudioStartEvent(item_id=item_id):
                self._item_id = item_id
            case AudioEndEvent() | InterruptedEvent():
                self._item_id = ""
            case ErrorEvent():
                self._last_error, self._last_reason = event, event.message[:1000]
            case GoodbyeEvent(reason=reason):
                self._last_reason = reason[:1000]
            case ToolCallEvent(name=name) if name in self._tools:
                is_full = len(self._calls) >= MAX_RUNNING_TOOLS
                task = asyncio.create_task(self._answer(event, None if is_full else self._tools[name]))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _wait_ready(self, timeout_s: float, *, has_hello: bool) -> None:
        """Receive events until the session is ready, and keep them for `recv`."""
        missing: set[type[RelayEvent]] = {ConnectedEvent, ReadyEvent} if has_hello else {ConnectedEvent}
        max_mib = MAX_MESSAGE_BYTES // 1024**2
        try:
            async with asyncio.timeout(timeout_s):
                while missing:
                    event = await self._receive()
                    if len(self._unread) >= MAX_EARLY_EVENTS:
                        raise ProtocolError(f"the relay sent {MAX_EARLY_EVENTS} events, but the session is not ready")
                    if self._received_bytes > MAX_MESSAGE_BYTES:
                        raise ProtocolError(f"the relay sent more than {max_mib} MiB, but the session is not ready")
                    self._unread.append(event)
                    missing.discard(type(event))
                    if isinstance(event, ErrorEvent) and event.code == "hello_refused":
                        raise ProtocolError(f"the relay refused the options of the session: {event.message}")
        except TimeoutError:
            detail = f": {self._last_reason}" if self._last_reason else ""
            raise ConnectError(f"the relay was not ready within {timeout_s:g} s{detail}") from None

    async def _answer(self, call: ToolCallEvent, run: Callable[..., Any] | None) -> None:
        output, error = (None, TOO_MANY_CALLS) if run is None else await run_tool(run, call)
        with suppress(ClosedError):
            await (self.send_tool_error(call.call_id, error) if error else self.send_tool_result(call.call_id, output))

    async def _report_playback(self, playback: PlaybackTracker) -> None:
        with suppress(ClosedError):
            while True:
                for item_id, played_ms in playback.reports():
                    await self.send_playback(item_id, played_ms)
                await asyncio.sleep(PLAYBACK_POLL_S)

    async def _stop(self) -> None:
        """Cancel the client's tasks, and close the connection, without `bye` if it is still open."""
        tasks = [*self._calls, *([self._reporter] if self._reporter else [])]
        for task in tasks:
            task.cancel()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._socket.close()
            if tasks:  # a tool may refuse to be cancelled
                await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        finally:
            self._socket.transport.abort()

    def _closed_error(self, error: ConnectionClosed) -> ClosedError:
        if self._is_closing:
            code, reason = (int(error.rcvd.code), error.rcvd.reason) if error.rcvd else (1006, "")
            return ClosedError("the connection is closed", code, reason, self._last_error)
        if error.sent is not None and not error.rcvd_then_sent and error.sent.code in _OUR_CLOSES:
            code, reason = int(error.sent.code), error.sent.reason
            text = f"the relay sent what the protocol does not allow ({code}): {reason}"
            return ClosedError(text, code, reason, self._last_error)
        if error.rcvd is None:
            detail = f"; the relay's last error: {self._last_reason}" if self._last_reason else ""
            return ClosedError(f"the connection was lost{detail}", 1006, "", self._last_error)
        code, reason = int(error.rcvd.code), error.rcvd.reason
        cause = self._last_reason or reason or "no reason given"
        return ClosedError(f"the relay closed the connection ({code}): {cause}", code, reason, self._last_error)


@asynccontextmanager
async def connect(
    url: str,
    *,
    key: str | None = None,
    tools: Sequence[FunctionTool] = (),
    playback: PlaybackTracker | None = None,
    open_timeout_s: float = 10.0,
    ready_timeout_s: float | None = 30.0,
    ssl_context: ssl.SSLContext | None = None,
    **options: Unpack[SessionOptions],
) -> AsyncIterator[RelayClient]:
    """Open a session with the relay at `url` (ws, wss, http or https); it ends with the context.

    `key` is by default RELAY_KEY of the environment; "" means no key. With `ready_timeout_s=None`, `connect` does not
    wait until the session is ready, which `ConnectedEvent` then reports. Raises InvalidURL, ConnectError,
    ProtocolError or ClosedError.
    """
    if unknown := options.keys() - SessionOptions.__annotations__.keys():
        raise TypeError(f"connect() has no argument {', '.join(map(repr, sorted(unknown)))}")
    target = parse_url(url)
    hello = _hello(options, tools)
    socket = await open_socket(target, key, open_timeout_s, ssl_context)
    client = RelayClient(socket, target.address, tools, playback)
    try:
        if hello:
            await client.send(hello)
        if ready_timeout_s is not None:
            await client._wait_ready(ready_timeout_s, has_hello=bool(hello))
        yield client
        await client.close()
    finally:
        await client._stop()


def _hello(options: SessionOptions, tools: Sequence[FunctionTool]) -> JsonObject:
    """Return the `hello` message for these options; empty if there are none."""
    hello: JsonObject = {camel_case(name): value for name, value in options.items()}
    for name in ("input", "output"):
        audio_format = hello.pop(f"{name}Format", None)
        if audio_format is not None:
            if not isinstance(audio_format, AudioFormat):
                raise TypeError(f"{name}_format must be an AudioFormat, such as audio.formats.PCM16_24K")
            hello[name] = {"format": audio_format.encoding, "rate": audio_format.rate_hz}
    if tools:
        hello["tools"] = [tool.definition() for tool in tools]
    return {"type": "hello", "v": 1, **hello} if hello else {}
