"""For tests, ours and yours: an upstream that does what the test says, over a real socket.

    async with ScriptedUpstream() as upstream:          # point RELAY_UPSTREAM at upstream.url
        session = await upstream.accept()
        await session.configure()                       # session.created, session.update, session.updated
        await session.emit({"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 0})
        truncate = await session.expect("conversation.item.truncate")

It can fail as a real endpoint does, by the same faults as `relay local --fault` (see `relay.testing.faults`): all of
the time, or from one moment on. With a clock of the test's own, what is late is late by that clock:

    clock = FakeClock()
    async with ScriptedUpstream(faults="429=2#1, late-done=5000", clock=clock) as upstream:
        ...                                             # the first connection is refused with Retry-After: 2
        session = await upstream.accept()
        await session.configure()
        await session.respond()                         # its response.done does not come yet
        clock.advance(5)                                # now it does
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
from relay.testing.faults import FaultInjector, FaultScript, FaultSpec, handshake_fault, parse_faults

EXPECT_TIMEOUT_S = 10.0
MAX_KEPT_EVENTS = 10_000


class FakeClock:
    """A clock that stands still until it is told; `sleep` ends when enough time has been told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self.now]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self.now]
        for _, sleeper in sorted(due, key=lambda entry: entry[0]):
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time has passed on this clock."""
        if seconds > 0:
            wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers.append((self.now + seconds, wake))
            await wake


class ScriptedSession:
    """One connection of a relay, seen from the model's end."""

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
        """The request's headers."""
        request = self.connection.request
        return dict(request.headers.raw_items()) if request else {}

    async def emit(self, *events: JsonObject) -> None:
        """Send events; an `event_id` is added where there is none."""
        for event in events:
            await self._injector.send({"event_id": f"event_{next(self._numbers)}"} | event)

    async def misbehave(self, faults: str) -> None:
        """Faults from now on, as `relay.testing.faults` writes them; one without a point strikes at once."""
        await self._injector.add_faults(parse_faults(faults))

    async def emit_raw(self, text: str | bytes) -> None:
        """Send a message as it is, however wrong."""
        await self.connection.send(text)

    async def expect(self, kind: str, timeout_s: float = EXPECT_TIMEOUT_S) -> JsonObject:
        """The next event of that type; those of other types before it stay in `seen`, and are not waited for again."""
        async with asyncio.timeout(timeout_s), self._changed:
            while True:
                while self._n_expected < len(self.seen):
                    event = self.seen[self._n_expected]
                    self._n_expected += 1
                    if event.get("type") == kind:
                        return event
                if self.closed.is_set():
                    raise AssertionError(f"the relay hung up before it sent {kind}; it sent {self.types()}")
                await self._changed.wait()

    async def expect_audio(self, n_bytes: int, timeout_s: float = EXPECT_TIMEOUT_S) -> bytes:
        """Wait until that much audio has been appended in all, and return it."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.audio) >= n_bytes or self.closed.is_set())
        return bytes(self.audio)

    def types(self) -> list[str]:
        """The types of all events so far, in order; audio is not among them."""
        return [str(event.get("type")) for event in self.seen]

    async def configure(self, **session: Any) -> JsonObject:
        """Introduce the session, take its configuration and confirm it. Returns the `session.update`."""
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
        """Answer with words and `ms` of a quiet ramp, in the order of the real one; `finish` ends the response."""
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
        """End a response."""
        usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        response = {"id": response_id, "status": status, "output": output, "usage": usage, "metadata": metadata}
        await self.emit({"type": "response.done", "response": response})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Hang up."""
        await self.connection.close(code, reason)

    async def _send(self, text: str) -> None:
        with contextlib.suppress(ConnectionClosed):  # a relay that has gone is no trouble
            await self.connection.send(text)

    async def read(self) -> None:
        """Take what the relay sends until it hangs up."""
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
            pass  # how it ended stands in `connection.close_code`
        finally:
            await self._injector.stop()
            async with self._changed:
                self.closed.set()
                self._changed.notify_all()


class ScriptedUpstream:
    """A Realtime endpoint on a free loopback port.

    `refuse` may answer a handshake with an HTTP response. `faults` (see `relay.testing.faults`) are what every
    connection suffers from; what of them takes time takes it by `clock`. Raises ConfigError if they are written wrong.
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
        """Where it listens."""
        assert self._server is not None, "enter the context first"
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/v1/realtime"

    async def accept(self, timeout_s: float = EXPECT_TIMEOUT_S) -> ScriptedSession:
        """The next connection."""
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
        door = handshake_fault(self._faults, self.handshakes)
        await self._sleep(door.delay_s)
        if door.status is None:
            answer = None if self._refuse is None else self._refuse(connection, request)
            return await answer if isinstance(answer, Awaitable) else answer
        if door.status == 0:
            connection.transport.abort()
        response = connection.respond(door.status or 500, orjson.dumps(door.body).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        for name, value in door.headers:
            response.headers[name] = value
        return response

    async def _handle(self, connection: ServerConnection) -> None:
        session = ScriptedSession(connection, self._faults, self._sleep)
        self._sessions.put_nowait(session)
        await session.read()
