"""The openai package for Python, unchanged, GA and beta, against the relay on its own engine."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from pydantic import TypeAdapter

from relay import load_tools
from tests.support.realtime_client import is_valid
from tests.support.relay_server import RunningRelay, running_relay

SAMPLES = Path(__file__).parents[2] / "recordings/samples"
TIMEOUT_S = 20.0
LAMP: Any = {
    "type": "function", "name": "switch_lamp", "description": "Switch the lamp.",
    "parameters": {"type": "object", "properties": {}},
}  # fmt: skip

_BETA_EVENT: TypeAdapter[Any] = TypeAdapter(BetaServerEvent)


class Talk:
    """A connection of the SDK's; all that came is in `seen` and valid."""

    def __init__(self, connection: Any, *, beta: bool = False) -> None:
        self.connection = connection
        self.beta = beta
        self.seen: list[Any] = []

    async def expect(self, kind: str, **members: Any) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                raw = await self.connection.recv_bytes()
                event = self.connection.parse_event(raw)
                if self.beta:
                    _BETA_EVENT.validate_json(raw)
                else:
                    assert is_valid(event.to_dict())
                self.seen.append(event)
                if event.type == kind and all(getattr(event, name) == value for name, value in members.items()):
                    return event

    async def say(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        await self.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})

    async def speak(self, sample: str) -> None:
        samples, _ = soundfile.read(SAMPLES / f"{sample}.flac", dtype="int16")
        pcm = samples.astype("<i2").tobytes() + bytes(72_000)
        for at in range(0, len(pcm), 9600):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + 9600]).decode())


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RunningRelay]:
    async with running_relay("local", load_tools("tools")) as relay:
        yield relay


def openai(relay: RunningRelay) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=relay.http("/v1"), api_key="any", max_retries=0)


async def test_turns_tools_and_history(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await connection.session.update(
            session={"type": "realtime", "instructions": "Be brief.", "output_modalities": ["text"], "tools": [LAMP]}
        )
        updated = await talk.expect("session.updated")
        assert [tool.name for tool in updated.session.tools] == ["switch_lamp"]

        await talk.say("Roll two dice")
        await connection.response.create(response={"metadata": {"step": "1"}})
        assert (await talk.expect("response.created")).response.metadata == {"step": "1"}
        rolled = await talk.expect("response.output_text.done")
        assert "rolled" in rolled.text
        await talk.expect("response.done")

        await talk.say("switch lamp")
        await connection.response.create()
        call = await talk.expect("response.function_call_arguments.done")
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"summary":"The lamp is on."}'}
        )
        await connection.response.create()
        assert "lamp" in (await talk.expect("response.output_text.done")).text
        await talk.expect("response.done")

        await connection.conversation.item.retrieve(item_id=rolled.item_id)
        assert (await talk.expect("conversation.item.retrieved")).item.id == rolled.item_id
        await connection.conversation.item.delete(item_id=rolled.item_id)
        await talk.expect("conversation.item.deleted", item_id=rolled.item_id)
        await connection.conversation.item.delete(item_id=rolled.item_id, event_id="again")
        assert (await talk.expect("error")).error.event_id == "again"


async def test_client_and_server_tools_in_one_response(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "tools": [LAMP]})
        await talk.say("Roll two dice and switch lamp")
        await connection.response.create()
        done = await talk.expect("response.done")
        [call] = done.response.output
        assert (call.name, call.status) == ("switch_lamp", "completed")
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"summary":"The lamp is on."}'}
        )
        await connection.response.create()
        text = (await talk.expect("response.output_text.done")).text
        assert "rolled" in text
        assert "lamp" in text


async def test_a_spoken_turn_and_a_barge_in(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await talk.speak("dice-and-time")
        await talk.expect("response.output_audio.delta")
        await talk.expect("response.done")
        await talk.say("Tell me a story")
        await connection.response.create()
        first = await talk.expect("response.output_audio.delta")
        await talk.speak("roll-two-dice")
        cut = await talk.expect("response.done")
        assert (cut.response.id, cut.response.status) == (first.response_id, "cancelled")
        assert "rolled" in (await talk.expect("response.output_audio_transcript.done")).transcript


async def test_a_response_with_settings_of_its_own(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await connection.session.update(session={"type": "realtime", "tools": [LAMP]})
        await talk.say("Hello")
        await connection.response.create(
            response={
                "output_modalities": ["text"],
                "instructions": "Be kind.",
                "max_output_tokens": 500,
                "tools": [],
                "metadata": {"own": "settings"},
            }
        )
        assert (await talk.expect("response.created")).response.output_modalities == ["text"]
        await talk.expect("response.output_text.done")
        assert (await talk.expect("response.done")).response.metadata == {"own": "settings"}
        await talk.say("switch lamp")
        await connection.response.create()
        await talk.expect("response.function_call_arguments.done", name="switch_lamp")
        await talk.expect("response.done")
        # The server's tools are there whatever tools a response brings along, or does without.
        await talk.say("Roll two dice")
        await connection.response.create(response={"tools": [], "output_modalities": ["text"]})
        assert "rolled" in (await talk.expect("response.output_text.done")).text


async def test_history_is_edited_around_hidden_items(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await talk.say("Roll two dice")
        question = await talk.expect("conversation.item.added")
        await connection.response.create()
        answer = await talk.expect("conversation.item.added")
        assert answer.previous_item_id == question.item.id, "the call and its output are between them"
        await talk.expect("response.done")
        content: Any = [{"type": "output_text", "text": "Let me see."}]
        for previous, item_id in ((question.item.id, "mine_1"), ("root", "mine_2")):
            item: Any = {"type": "message", "role": "assistant", "id": item_id, "content": content}
            await connection.conversation.item.create(item=item, previous_item_id=previous)
            added = await talk.expect("conversation.item.added")
            assert added.item.id == item_id
            assert added.previous_item_id == (None if previous == "root" else question.item.id)
        await connection.session.update(session={"type": "realtime", "output_modalities": ["audio"]})
        await talk.say("Tell me a story")
        await connection.response.create()
        story = await talk.expect("response.output_audio.delta")
        await connection.response.cancel()
        await talk.expect("response.done")
        await connection.conversation.item.truncate(item_id=story.item_id, content_index=0, audio_end_ms=20)
        assert (await talk.expect("conversation.item.truncated")).item_id == story.item_id


async def test_a_response_outside_the_conversation(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await talk.say("Tell me a story")
        await connection.response.create(response={"metadata": {"kind": "story"}})
        story = await talk.expect("response.created")
        await connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"kind": "aside"},
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
                ],
            }
        )
        aside = await talk.expect("response.created")
        assert aside.response.metadata == {"kind": "aside"}
        await connection.response.cancel(response_id=story.response.id)
        ended = {(await talk.expect("response.done")).response.id for _ in range(2)}
        assert ended == {story.response.id, aside.response.id}


async def test_refusals_carry_the_clients_event_id(relay: RunningRelay) -> None:
    async with openai(relay) as client, client.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection)
        await connection.session.update(session={"type": "realtime", "speed": 99}, event_id="bad")  # type: ignore[typeddict-unknown-key]
        assert (await talk.expect("error")).error.event_id == "bad"
        await connection.session.update(
            session={
                "type": "realtime",
                "tools": [{"type": "mcp", "server_label": "x", "server_url": "http://10.0.0.1"}],
            },
            event_id="mcp",
        )
        error = await talk.expect("error")
        assert (error.error.event_id, error.error.code) == ("mcp", "not_allowed_by_policy")
        await talk.say("Tell me a story")
        for number in range(3):
            await connection.response.create(event_id=f"create_{number}")
        error = await talk.expect("error")
        assert (error.error.event_id, error.error.code) == ("create_2", "conversation_already_has_active_response")
        await connection.response.cancel()
        assert (await talk.expect("error")).error.event_id == "create_1"
        await talk.expect("response.done")


async def test_the_beta_client(relay: RunningRelay) -> None:
    openai = AsyncOpenAI(websocket_base_url=relay.ws("/v1"), api_key="any")  # its beta insists on wss otherwise
    async with openai as client, client.beta.realtime.connect(model="gpt-realtime") as connection:
        talk = Talk(connection, beta=True)
        created = await talk.expect("session.created")
        assert created.session.modalities == ["audio", "text"]
        assert created.session.input_audio_format == "pcm16"
        await connection.session.update(session={"modalities": ["text"], "temperature": 0.8, "tools": [LAMP]})
        updated = await talk.expect("session.updated")
        assert updated.session.modalities == ["text"]
        await talk.say("Roll two dice")
        await connection.response.create()
        assert "rolled" in (await talk.expect("response.text.done")).text
        done = await talk.expect("response.done")
        assert done.response.output[0].content[0].type == "text"
        await connection.session.update(session={"modalities": ["audio", "text"]})
        await talk.speak("roll-two-dice")
        await talk.expect("response.audio.delta")
        assert "rolled" in (await talk.expect("response.audio_transcript.done")).transcript
        assert "conversation.item.added" not in {event.type for event in talk.seen}


async def test_azures_client_on_its_preview_path(relay: RunningRelay) -> None:
    azure = AsyncAzureOpenAI(
        azure_endpoint=relay.http(""),
        websocket_base_url=relay.ws("/openai"),
        api_version="2025-04-01-preview",
        api_key="any",
    )
    async with azure, azure.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
        talk = Talk(connection, beta=True)
        assert (await talk.expect("session.created")).session.model == "gpt-4o-realtime-preview"
