"""A fast fake upstream, controlled by the first bytes of the client's audio.

Ordinary audio is echoed immediately as audio of one long response, which measures the round trip through the relay.
"""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MARK_BYTES = 4
END, LOTS, CALL, BARGE = b"!end", b"!lot", b"!cal", b"!bar"
"""Marks: end the response with its transcript; send six minutes of audio at once; call a tool; barge in."""
TRANSCRIPT = "one two three four five six seven eight nine ten"
LOTS_S = 360
_SECOND = base64.b64encode(bytes(48_000))

Obj = dict[str, Any]


class UpstreamSession:
    """One connection of the relay."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._response = self._item = ""

    async def run(self) -> None:
        """Send `session.created`, and answer until the relay closes the connection."""
        try:
            await self.send({"type": "session.created", "session": {"type": "realtime"}})
            async for message in self._connection:
                await self._take(orjson.loads(message))
        except ConnectionClosed:
            pass

    async def send(self, *events: Obj) -> None:
        for event in events:
            head = {"type": event["type"], "event_id": f"event_{next(self._numbers)}"}
            await self._connection.send(orjson.dumps(head | event).decode(), text=True)

    async def configure(self, session: Obj) -> None:
        """Accept a configuration unchanged."""
        await self.send({"type": "session.updated", "session": session})

    async def _take(self, event: Obj) -> None:
        match event["type"]:
            case "session.update":
                await self.configure(event["session"])
            case "input_audio_buffer.append":
                await self._handle_audio(base64.b64decode(event["audio"]))
            case "conversation.item.create" if event["item"]["type"] == "message":
                item = event["item"] | {"id": f"item_{next(self._numbers)}"}
                await self.send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
            case "response.create" if self._response:
                code = "conversation_already_has_active_response"
                error = {"code": code, "message": "one at a time", "event_id": event["event_id"]}
                await self.send({"type": "error", "error": error})
            case "response.create":
                await self._begin(event["response"].get("metadata"))
                await self.send_audio(_SECOND[:12800])
                await self._end()

    async def _handle_audio(self, pcm: bytes) -> None:
        mark = pcm[:MARK_BYTES]
        if pcm.count(0) == len(pcm):
            return  # silence
        if mark == END:
            await self._end()
        elif mark == CALL:
            await self._end()
            name = "door" if pcm[MARK_BYTES : MARK_BYTES + 1] == b"d" else "unknown"
            number = next(self._numbers)
            call = {"id": f"item_{number}", "type": "function_call", "status": "completed", "arguments": "{}"}
            await self._begin(None)
            await self._done([call | {"call_id": f"call_{number}", "name": name}])
        elif mark == BARGE:
            user = f"item_{next(self._numbers)}"
            await self.send({"type": "input_audio_buffer.speech_started", "item_id": user, "audio_start_ms": 0})
            await self._done([], "cancelled")
            await self.send(
                {"type": "input_audio_buffer.speech_stopped", "item_id": user, "audio_end_ms": 10},
                {"type": "input_audio_buffer.committed", "item_id": user, "previous_item_id": None},
            )
            await self._begin(None)
        else:
            for _ in range(LOTS_S if mark == LOTS else 0):
                await self.send_audio(_SECOND)
                await asyncio.sleep(0)  # lets other connections work
            if mark != LOTS:
                await self.send_audio(base64.b64encode(pcm))

    async def send_audio(self, audio_base64: bytes) -> None:
        """Send base64 audio of the active response; starts one if there is none."""
        if not self._response:
            await self._begin(None)
        part = {"response_id": self._response, "item_id": self._item, "output_index": 0, "content_index": 0}
        await self.send({"type": "response.output_audio.delta", **part, "delta": audio_base64.decode()})

    async def _begin(self, metadata: Obj | None) -> None:
        number = next(self._numbers)
        self._response, self._item = f"resp_{number}", f"item_{number}"
        item = {"id": self._item, "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        await self.send(
            {"type": "response.created", "response": {"id": self._response, "metadata": metadata, "output": []}},
            {"type": "conversation.item.added", "previous_item_id": None, "item": item},
        )

    async def _end(self) -> None:
        if not self._response:
            return
        part = {"response_id": self._response, "item_id": self._item, "output_index": 0, "content_index": 0}
        for word in TRANSCRIPT.split(" "):
            await self.send({"type": "response.output_audio_transcript.delta", **part, "delta": f"{word} "})
        await self.send(
            {"type": "response.output_audio.done", **part},
            {"type": "response.output_audio_transcript.done", **part, "transcript": TRANSCRIPT},
        )
        await self._done([])

    async def _done(self, output: list[Obj], status: str = "completed") -> None:
        if self._response:
            usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
            response = {"id": self._response, "status": status, "output": output, "usage": usage}
            self._response = ""
            await self.send({"type": "response.done", "response": response})


HOSTILE = "hostile"


class HostileUpstreamSession(UpstreamSession):
    """An upstream that turns hostile after its configuration: `turn` takes over the connection.

    It does so in sessions that request the model `HOSTILE` or have it in their instructions.
    """

    def __init__(self, connection: ServerConnection, turn: Callable[[ServerConnection], Awaitable[None]]) -> None:
        super().__init__(connection)
        self._turn = turn
        self._is_hostile = connection.request is not None and f"model={HOSTILE}" in connection.request.path

    async def configure(self, session: Obj) -> None:
        """Accept a configuration, and turn hostile if the session asks for it."""
        await super().configure(session)
        if self._is_hostile or HOSTILE in session.get("instructions", ""):
            await self._turn(self._connection)


@asynccontextmanager
async def fake_upstream(session: Callable[[ServerConnection], Any] = UpstreamSession) -> AsyncIterator[str]:
    """Run a fake upstream; yields its URL. `session` creates the handler of a connection."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await session(connection).run()
        finally:
            connections.discard(connection)

    async with serve(
        handle, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None, close_timeout=1
    ) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1/realtime"
        for connection in list(connections):
            connection.transport.abort()
        await asyncio.sleep(0)
