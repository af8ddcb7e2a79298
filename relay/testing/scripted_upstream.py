"""A scripted upstream for tests, also for users' tests: a Realtime endpoint on a real socket, driven by the test.

    async with ScriptedUpstream() as upstream:          # point RELAY_UPSTREAM at upstream.url
        session = await upstream.accept()
        await session.configure()                       # session.created, session.update, session.updated
        await session.emit({"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 0})
        truncate = await session.expect("conversation.item.truncate")

It can fail as a real endpoint does, with the faults of `relay local --fault` (see `relay.testing.faults`): from the
start, or from one moment on. With a `FakeClock`, delays elapse only when the test advances it:

    clock = FakeClock()
    async with ScriptedUpstream(faults="429=2#1, late-done=5000", clock=clock) as upstream:
        ...                                             # the first connection is refused with Retry-After: 2
        session = await upstream.accept()
        await session.configure()
        await session.respond()                         # its response.done is not sent yet
        clock.advance(5)                                # now it is
        await session.misbehave("drop=1011")
"""

import asyncio
import base64
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from relay.json_types import JsonObject
from relay.testing.fake_clock import FakeClock
from relay.testing.faults import FaultInjector, FaultScript, FaultSpec, handshake_fault, parse_faults

EXPECT_TIMEOUT_S = 10.0
MAX_KEPT_EVENTS = 10_000


class ScriptedSession:
    """One connection of a relay, as the upstream sees it."""

    def __init__(
        self,
        connection: ServerConnection,
        faults: Iterable[FaultSpec] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.connection = connection
        self._injector = FaultInjector(FaultScript(faults), self._send, self.close, connection.transport.abort, sleep)
        self.seen: list[JsonObject] = []
        self.audio = bytearray()
        self.closed = asyncio.Event()
        self._n_expected = 0
        self._changed = asyncio.Condition()
        self._numbers = itertools.count(1)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the handshake request."""
        request = self.connection.request
        return dict(request.headers.raw_items()) if request else {}

    async def emit(self, *events: JsonObject) -> None:
        """Send events; an `event_id` is added to those without one."""
        for event in events:
            await self._injector.send({"event_id": f"event_{next(self._numbers)}"} | event)

    async def misbehave(self, faults: str) -> None:
        """Inject faults from now on (see `relay.testing.faults`); a fault without a point is triggered immediately."""
        await self._injector.add_faults(parse_faults(faults))

    async def emit_raw(self, text: str | bytes) -> None:
        """Send a message unchanged, even if it is invalid."""
        await self.connection.send(text)

    async def expect(self, kind: str, timeout_s: float = EXPECT_TIMEOUT_S) -> JsonObject:
        """Wait for the next event of that type; events of other types before it are skipped but stay in `seen`."""
        async with asyncio.timeout(timeout_s), self._changed:
            while True:
                while self._n_expected < len(self.seen):
                    event = self.seen[self._n_expected]
                    self._n_expected += 1
                    if event.get("type") == kind:
                        return event
                if self.closed.is_set():
                    raise AssertionError(f"The relay closed the connection before {kind}; it sent {self.types()}")
                await self._changed.wait()

    async def expect_audio(self, n_bytes: int, timeout_s: float = EXPECT_TIMEOUT_S) -> bytes:
        """Wait until `n_bytes` of audio have been appended in total; returns all audio."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.audio) >= n_bytes or self.closed.is_set())
        return bytes(self.audio)

    def types(self) -> list[str]:
        """Return the types of all events so far, in order, without appended audio."""
        return [str(event.get("type")) for event in self.seen]

    async def configure(self, **session: Any) -> JsonObject:
        """Send `session.created`, wait for the `session.update` and confirm it. Returns the `session.update`."""
        await self.emit({"type": "session.created", "session": {"type": "realtime", "model": "scripted"} | session})
        update = await self.expect("session.update")
        await self.emit({"type": "session.updated", "session": update["session"]})
        return update

    async def respond(
        self,
        text: str = "Hello there.",
        ms: int = 200,
        *,
        response_id: str = "resp_1",
        item_id: str = "item_1",
        metadata: JsonObject | None = None,
        finish: bool = True,
    ) -> None:
        """Respond with a transcript and `ms` of audio (a quiet ramp), in OpenAI's order; `finish` ends the response."""
        part = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        item = {"id": item_id, "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        await self.emit(
            {"type": "response.created", "response": {"id": response_id, "metadata": metadata, "output": []}},
            {"type": "response.output_item.added", "response_id": response_id, "output_index": 0, "item": item},
            {"type": "conversation.item.added", "previous_item_id": None, "item": item},
            {"type": "response.output_audio_transcript.delta", "delta": text, **part},
        )
        pcm = b"".join((n % 1000).to_bytes(2, "little", signed=True) for n in range(24 * ms))
        for start in range(0, len(pcm), 4800):
            delta = base64.b64encode(pcm[start : start + 4800]).decode()
            await self.emit({"type": "response.output_audio.delta", "delta": delta, **part})
        if finish:
            await self.emit(
                {"type": "response.output_audio.done", **part},
                {"type": "response.output_audio_transcript.done", "transcript": text, **part},
            )
            await self.done(response_id, [item | {"status": "completed"}], metadata=metadata)

    async def call(
        self, *calls: tuple[str, str, JsonObject], response_id: str = "resp_1", status: str = "completed"
    ) -> None:
        """Respond with function calls: (call_id, name, arguments)."""
        output = [
            {
                "id": f"item_{call_id}",
                "type": "function_call",
                "status": "completed",
                "call_id": call_id,
                "name": name,
                "arguments": orjson.dumps(arguments).decode(),
            }
            for call_id, name, arguments in calls
        ]
        await self.emit({"type": "response.created", "response": {"id": response_id, "output": []}})
        await self.done(response_id, output, status=status)

    async def done(
        self,
        response_id: str,
        output: list[JsonObject],
        *,
        status: str = "completed",
        metadata: JsonObject | None = None,
    ) -> None:
        """End a response: send `response.done`."""
        usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        response = {"id": response_id, "status": status, "output": output, "usage": usage, "metadata": metadata}
        await self.emit({"type": "response.done", "response": response})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection."""
        await self.connection.close(code, reason)

    async def _send(self, text: str) -> None:
        with contextlib.suppress(ConnectionClosed):  # the relay may have disconnected already
            await self.connection.send(text)

    async def read(self) -> None:
        """Collect what the relay sends until it closes the connection."""
        try:
            async for message in self.connection:
                event: JsonObject = orjson.loads(message)
                async with self._changed:
                    if event.get("type") == "input_audio_buffer.append":
                        self.audio += base64.b64decode(event["audio"])
                    elif len(self.seen) < MAX_KEPT_EVENTS:
                        self.seen.append(event)
                    self._changed.notify_all()
        except ConnectionClosed:
            pass  # see `connection.close_code`
        finally:
            await self._injector.stop()
            async with self._changed:
                self.closed.set()
                self._changed.notify_all()


class ScriptedUpstream:
    """A Realtime endpoint on a free loopback port.

    `refuse` may answer a handshake with an HTTP response. `faults` (see `relay.testing.faults`) apply to every
    connection; their delays are measured by `clock`. Raises ConfigError if their syntax is invalid.
    """

    def __init__(
        self,
        refuse: Callable[[ServerConnection, Request], Response | Awaitable[Response | None] | None] | None = None,
        *,
        faults: str = "",
        clock: FakeClock | None = None,
    ) -> None:
        self._refuse = refuse
        self._faults = parse_faults(faults)
        self._sleep = asyncio.sleep if clock is None else clock.sleep
        self._server: Server | None = None
        self._sessions: asyncio.Queue[ScriptedSession] = asyncio.Queue()
        self.handshakes = 0

    @property
    def url(self) -> str:
        """The WebSocket URL of the endpoint."""
        assert self._server is not None, "enter the context first"
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/v1/realtime"

    async def accept(self, timeout_s: float = EXPECT_TIMEOUT_S) -> ScriptedSession:
        """Wait for the next connection."""
        async with asyncio.timeout(timeout_s):
            return await self._sessions.get()

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle, "127.0.0.1", 0, process_request=self._process_request, max_size=None, compression=None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        fault = handshake_fault(self._faults, self.handshakes)
        await self._sleep(fault.delay_s)
        if fault.status is None:
            refusal = None if self._refuse is None else self._refuse(connection, request)
            return await refusal if isinstance(refusal, Awaitable) else refusal
        if fault.status == 0:
            connection.transport.abort()
        response = connection.respond(fault.status or 500, orjson.dumps(fault.body).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        for name, value in fault.headers:
            response.headers[name] = value
        return response

    async def _handle(self, connection: ServerConnection) -> None:
        session = ScriptedSession(connection, self._faults, self._sleep)
        self._sessions.put_nowait(session)
        await session.read()
