"""A dialect that is added to the registry is spoken: another vendor's model, with a tool and a barge-in."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from audio.formats import PCM16_16K, PCM16_24K
from audio.transcode import Transcoder
from relay import tool
from relay.recording.replay.verify import verify
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.toolkit.registry import Tool, ToolRegistry
from relay.upstreams.registry import UPSTREAM_DIALECTS
from tests.support.relay_server import TIMEOUT_S, DeviceClient, RunningRelay, running_relay
from tests.support.scripted_recordings import tone
from tests.upstreams.toy_upstream import TOY_UPSTREAM

Obj = dict[str, Any]


@tool
def opening_hours() -> str:
    """When the shop is open."""
    return "nine to five"


class ToyModel:
    """The vendor's end of one connection; `asked` is what it was sent besides audio."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.asked: list[Obj] = []
        self.audio = bytearray()

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"say": kind, **fields}))

    async def speak(self, turn: str, pcm: bytes, words: str = "") -> None:
        await self.say("audio", turn=turn, pcm=base64.b64encode(pcm).decode(), words=words)

    async def until(self, what: str) -> Obj:
        """The next message of that name; audio is heard."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message: Obj = json.loads(await self.connection.recv())
                if message["do"] == "audio":
                    self.audio += base64.b64decode(message["pcm"])
                else:
                    self.asked.append(message)
                if message["do"] == what:
                    return message

    async def hear(self, n_bytes: int) -> bytes:
        while len(self.audio) < n_bytes:
            await self.until("audio")
        return bytes(self.audio)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPSTREAM_DIALECTS, TOY_UPSTREAM.name, TOY_UPSTREAM)


@asynccontextmanager
async def toy_models() -> AsyncIterator[tuple[str, asyncio.Queue[ToyModel]]]:
    """Where the vendor is, and the connections as they come."""
    models: asyncio.Queue[ToyModel] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        models.put_nowait(ToyModel(connection))
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/toy", models


@asynccontextmanager
async def talking(relay: RunningRelay, models: asyncio.Queue[ToyModel]) -> AsyncIterator[tuple[DeviceClient, ToyModel]]:
    async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
        async with asyncio.timeout(TIMEOUT_S):
            model = await models.get()
        await model.say("ready", model="toy-1")
        setup = await model.until("setup")
        assert (setup["in"], setup["out"], setup["tools"][0]["name"]) == (16_000, 24_000, "opening_hours")
        await model.say("ok")
        await client.expect("AIConnected")
        yield client, model


async def test_a_conversation_with_a_tool_and_a_barge_in(tmp_path: Path) -> None:
    registry = ToolRegistry([Tool.from_function(opening_hours)])
    async with (
        toy_models() as (url, models),
        running_relay(
            url, registry, upstream_key="toy-key", session_model="toy-1", recording_mode="on", recording_dir=tmp_path
        ) as relay,
        talking(relay, models) as (client, model),
    ):
        assert model.connection.request is not None
        assert model.connection.request.headers["X-Toy-Version"] == "1"
        assert (model.connection.request.path, model.asked[0]["model"]) == ("/toy?key=toy-key", "toy-1")
        spoken = tone(500, 24_000)
        for start in range(0, len(spoken), 960):
            await client.speak(spoken[start : start + 960])
        audio = await model.hear(15_000)
        assert audio == bytes(Transcoder(PCM16_24K, PCM16_16K).feed(spoken))[: len(audio)]

        await model.say("speech", on=True, ms=0)
        await model.say("speech", on=False, ms=400)
        await model.say("turn", turn="t1")
        await model.say("end", turn="t1", calls=[{"id": "c1", "name": "opening_hours", "with": {}}])
        assert await model.until("result") == {"do": "result", "id": "c1", "is": "nine to five"}
        await model.until("answer")

        answer = tone(2000, 24_000)
        await model.say("turn", turn="t2")
        for start in range(0, len(answer), 9600):
            await model.speak("t2", answer[start : start + 9600], words="We are open. ")
        assert (await client.expect("textDelta"))["text"] == "We are open. "
        assert await client.expect_audio(9600) == answer[: len(client.audio)]
        await client.send(type="playback", itemId="t2", playedMs=200)
        await client.speak(bytes(960))  # the model hears it after the acknowledgement has come
        await model.hear(16_001)

        await model.say("speech", on=True, ms=3000)
        interrupted = await client.expect("interrupted")
        assert (interrupted["itemId"], interrupted["estimated"]) == ("t2", False)
        await model.say("end", turn="t2", cut=True)
        assert (await client.expect("AIResponseEnd"))["status"] == "cancelled"

        await client.send(type="text", text="Sorry, go on.")
        await model.say("speech", on=False, ms=3500)
        await model.say("turn", turn="t3")
        await model.speak("t3", answer[:9600], words="Until five.")
        await model.say("end", turn="t3")
        await client.expect("audioEnd")
        assert await model.until("text") == {"do": "text", "text": "Sorry, go on."}
        await model.until("answer")
        assert [one["do"] for one in model.asked] == ["setup", "result", "answer", "text", "answer"]
    [recording] = list_recordings(tmp_path)
    assert verify(Recording(recording)).is_identical


async def test_realtime_clients_are_refused_before_anything_is_dialled() -> None:
    async with toy_models() as (url, models), running_relay(url, ToolRegistry()) as relay:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(relay.ws("/v1/realtime"))
        assert refusal.value.response.status_code == 501
        assert b"toy-upstream" in (refusal.value.response.body or b"")
        assert models.empty()


async def test_the_dialect_can_be_named_for_another_address() -> None:
    registry = ToolRegistry([Tool.from_function(opening_hours)])
    async with (
        toy_models() as (url, models),
        running_relay(f"{url}/elsewhere", registry, upstream_dialect="toy-upstream") as relay,
        talking(relay, models),
    ):
        pass
