"""Clients of `/v1/realtime` over real sockets, and validation of what they receive by the official types."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from relay.testing import ScriptedSession, ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.relay_server import RunningRelay, running_relay

Obj = dict[str, Any]
TIMEOUT_S = 10.0
PATH = "/v1/realtime?model=m"

_SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def is_valid(event: Obj) -> bool:
    """Raise ValidationError unless the official types accept the event."""
    _SERVER_EVENT.validate_python(event, strict=True)
    return True


class RealtimeClient:
    """A test's connection to the relay; `seen` holds all events received."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[Obj] = []

    async def send(self, **event: Any) -> None:
        await self.connection.send(json.dumps(event))

    async def until_closed(self) -> None:
        """Receive events until the connection is closed."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionClosed):
                async for message in self.connection:
                    self.seen.append(json.loads(message))

    async def next(self) -> Obj:
        async with asyncio.timeout(TIMEOUT_S):
            event: Obj = json.loads(await self.connection.recv())
        self.seen.append(event)
        return event

    async def expect(self, kind: str) -> Obj:
        """The next event of that type; those before it stay in `seen`."""
        while True:
            event = await self.next()
            if event["type"] == kind:
                return event


@asynccontextmanager
async def realtime_client(
    relay: RunningRelay, path: str = "/v1/realtime?model=m", **options: Any
) -> AsyncIterator[RealtimeClient]:
    async with connect(relay.ws(path), compression=None, max_size=None, **options) as connection:
        yield RealtimeClient(connection)


@asynccontextmanager
async def relayed_session(
    *,
    tools: ToolRegistry | None = None,
    path: str = PATH,
    headers: Any = None,
    subprotocols: Any = None,
    **settings: Any,
) -> AsyncIterator[tuple[RealtimeClient, ScriptedSession, RunningRelay]]:
    """A client, a relay, and the scripted upstream's side of the session, before any message."""
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, tools, **settings) as relay,
        realtime_client(relay, path, additional_headers=headers, subprotocols=subprotocols) as client,
    ):
        yield client, await upstream.accept(), relay


def tool_registry(*functions: Any) -> ToolRegistry:
    """A registry of functions that `@tool` has marked."""
    return ToolRegistry(Tool.from_function(function) for function in functions)
