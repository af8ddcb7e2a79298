"""A protocol added to the registry is served: a telephone call with a tool and a barge-in."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from websockets.asyncio.client import ClientConnection, connect

from relay import tool
from relay.protocols.registry import CLIENT_PROTOCOLS
from relay.testing import ScriptedSession, ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry
from tests.protocols.toy_telephone import TOY_TELEPHONE
from tests.support.relay_server import TIMEOUT_S, running_relay

Obj = dict[str, Any]
ULAW_TYPE = {"type": "audio/pcmu"}
EXTRAPOLATED_MS = 400
"""The most that playback can have advanced since the last acknowledgement."""


@tool
def opening_hours() -> str:
    """When the shop is open."""
    return "nine to five"


class Telephone:
    """The provider's side of a call, which plays nothing until the test requests it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.audio = bytearray()
        self.marks: list[str] = []
        self.order: list[str] = []

    @classmethod
    async def call(cls, url: str) -> Self:
        phone = cls(await connect(url, compression=None))
        await phone.send("connected")
        await phone.send("start", streamSid="MZ1", start={"mediaFormat": {"encoding": "audio/x-mulaw"}})
        return phone

    async def send(self, event: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"event": event, **fields}))

    async def speak(self, ulaw: bytes) -> None:
        await self.send("media", media={"payload": base64.b64encode(ulaw).decode()})

    async def until(self, event: str) -> Obj:
        """Take messages up to one of that name."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message: Obj = json.loads(await self.connection.recv())
                assert message["streamSid"] == "MZ1"
                self.order.append(message["event"])
                if message["event"] == "media":
                    self.audio += base64.b64decode(message["media"]["payload"])
                elif message["event"] == "mark":
                    self.marks.append(message["mark"]["name"])
                if message["event"] == event:
                    return message

    async def return_marks(self, n_marks: int) -> None:
        for _ in range(n_marks):
            await self.send("mark", mark={"name": self.marks.pop(0)})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENT_PROTOCOLS, TOY_TELEPHONE.name, TOY_TELEPHONE)


@asynccontextmanager
async def calling() -> AsyncIterator[tuple[Telephone, ScriptedSession]]:
    registry = ToolRegistry([Tool.from_function(opening_hours)])
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, registry) as relay:
        phone = await Telephone.call(relay.ws("/telephone"))
        session = await upstream.accept()
        update = await session.configure()
        audio = update["session"]["audio"]
        assert (audio["input"]["format"], audio["output"]["format"]) == (ULAW_TYPE, ULAW_TYPE)
        yield phone, session
        await phone.connection.close()


async def test_a_call_with_a_tool_and_a_barge_in() -> None:
    async with calling() as (phone, session):
        spoken = bytes(range(256)) * 5
        for start in range(0, len(spoken), 160):
            await phone.speak(spoken[start : start + 160])
        assert await session.expect_audio(len(spoken)) == spoken

        await session.call(("call_1", "opening_hours", {}))
        output = (await session.expect("conversation.item.create"))["item"]
        assert (output["call_id"], output["output"]) == ("call_1", "nine to five")
        request = (await session.expect("response.create"))["response"]

        # 500 ms of the script's 24 kHz PCM16 are 3 s of µ-law.
        await session.respond(ms=500, response_id="resp_2", metadata=request["metadata"], finish=False)
        await phone.until("mark")
        item_id, played_ms = phone.marks[0].split()
        assert (item_id, int(played_ms)) == ("item_1", len(phone.audio) // 8)
        await phone.return_marks(1)
        await phone.speak(bytes(160))  # the upstream hears it after the mark has come back
        await session.expect_audio(len(spoken) + 160)

        await session.emit({"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0})
        cut = await session.expect("conversation.item.truncate")
        assert cut["item_id"] == "item_1"
        assert int(played_ms) <= cut["audio_end_ms"] <= int(played_ms) + EXTRAPOLATED_MS
        await phone.until("clear")
        await phone.return_marks(len(phone.marks))

        await session.done("resp_2", [], status="cancelled")
        await session.respond("Go on.", ms=20, response_id="resp_3", item_id="item_2")
        del phone.audio[:]
        await phone.until("mark")
        assert phone.marks == ["item_2 120"]
        assert set(phone.order) == {"media", "mark", "clear"}

        await phone.send("stop")
        async with asyncio.timeout(TIMEOUT_S):
            await phone.connection.wait_closed()
            await session.closed.wait()
        assert phone.connection.close_code == 1000


async def test_an_invalid_message_ends_a_call() -> None:
    async with calling() as (phone, _):
        for message in (b"binary", "no JSON", '{"event":"media"}', '{"event":"mark","mark":{"name":"x y"}}') * 3:
            await phone.connection.send(message)
        async with asyncio.timeout(TIMEOUT_S):
            await phone.connection.wait_closed()
        assert phone.connection.close_code == 1008
