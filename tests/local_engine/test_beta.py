"""The beta dialect over a real socket, by the official SDK, which validates nothing; so the shapes are checked here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import websockets
from openai import AsyncOpenAI
from openai.types.beta.realtime import RealtimeServerEvent, Session
from pydantic import TypeAdapter

from tests.local_engine.engine_harness import TOOLS, running_engine

EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


@asynccontextmanager
async def beta_connection() -> AsyncIterator[websockets.ClientConnection]:
    """A raw connection after `session.created` and `conversation.created`."""
    headers = {"OpenAI-Beta": "realtime=v1"}
    async with (
        running_engine() as port,
        asyncio.timeout(20),
        websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime", additional_headers=headers) as connection,
    ):
        kinds = [json.loads(await connection.recv())["type"] for _ in range(2)]
        assert kinds == ["session.created", "conversation.created"]
        yield connection


async def test_a_beta_client_configures_calls_and_hears():
    kinds: list[str] = []
    async with (
        running_engine() as port,
        asyncio.timeout(20),
        AsyncOpenAI(websocket_base_url=f"ws://127.0.0.1:{port}/v1", api_key="x") as client,
        client.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection,
    ):
        flat = {"modalities": ["audio", "text"], "voice": "alloy", "temperature": 0.7, "tools": TOOLS}
        flat |= {"output_audio_format": "g711_ulaw", "turn_detection": None}
        await connection.session.update(session=flat)  # type: ignore[arg-type]
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "roll a die"}]}
        await connection.conversation.item.create(item=message)  # type: ignore[arg-type]
        await connection.response.create()
        async for event in connection:
            EVENTS.validate_json(event.model_dump_json())
            kinds.append(event.type)
            if event.type == "session.updated":
                assert isinstance(event.session, Session)
                assert (event.session.output_audio_format, event.session.modalities) == ("g711_ulaw", ["audio", "text"])
                assert event.session.turn_detection is None
            if event.type == "response.done":
                [output] = event.response.output or []
                if output.type == "message":
                    assert output.content is not None
                    assert output.content[0].type == "audio"
                    break
                assert output.name == "roll_dice"
                item = {"type": "function_call_output", "call_id": output.call_id, "output": "You rolled a two."}
                await connection.conversation.item.create(item=item)  # type: ignore[arg-type]
                await connection.response.create()
    assert kinds[:2] == ["session.created", "conversation.created"]
    assert {"conversation.item.created", "response.audio.delta", "response.audio_transcript.done"} <= set(kinds)
    assert not [kind for kind in kinds if "output_audio" in kind or kind == "conversation.item.added"]


async def test_an_invalid_event_is_refused():
    async with beta_connection() as connection:
        for message in ("{", "[]", "7"):
            await connection.send(message)
            refused = json.loads(await connection.recv())
            assert (refused["type"], refused["error"]["type"]) == ("error", "invalid_request_error")


async def test_a_wrong_format_is_named():
    async with beta_connection() as connection:
        await connection.send(json.dumps({"type": "session.update", "session": {"input_audio_format": "mp3"}}))
        refused = json.loads(await connection.recv())
        assert "mp3" in refused["error"]["message"]
        assert refused["error"]["param"] == "session.audio.input.format"
