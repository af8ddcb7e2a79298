"""Helpers of the local engine's tests: tools, a strict check of events, a harness without audio, a socket client."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pybase64
import websockets
from aiohttp import web
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

from audio.files import read_audio
from relay.local_engine.realtime.commands import CancelSpeech, EngineCommand, SendEvent, Synthesize, TranscribeTurn
from relay.local_engine.realtime.conversation import Conversation
from relay.local_engine.server import create_engine_app

SAMPLES = Path(__file__).parents[2] / "recordings" / "samples"
ENGINE_KEYS = {"id", "object", "engine", "expires_at"}
"""Keys of the session object that the SDK's type lacks: it is that of the request."""


def function(name: str, examples: list[str], required: list[str], **properties: Any) -> dict[str, Any]:
    """Return a function tool for `session.update`."""
    schema = {"type": "object", "properties": properties, "required": required}
    parameters = schema | ({"x-examples": examples} if examples else {})
    return {"type": "function", "name": name, "description": f"{name}.", "parameters": parameters}


TOOLS = [
    function(
        "current_time",
        ["what time is it in {city}", "tell me the time in {city}", "what is the time in {city}"],
        ["city"],
        city={"type": "string", "description": "A city."},
    ),
    function(
        "roll_dice",
        ["roll a die", "roll {count} dice", "roll {count} dice with {sides} sides"],
        [],
        count={"type": "integer", "minimum": 1, "maximum": 20, "default": 1},
        sides={"type": "integer", "minimum": 2, "maximum": 100, "default": 6},
    ),
    function(
        "convert_units",
        ["convert {value} {from_unit} to {to_unit}", "how many {to_unit} are {value} {from_unit}"],
        ["value", "from_unit", "to_unit"],
        value={"type": "number"},
        from_unit={"type": "string"},
        to_unit={"type": "string"},
    ),
]

_MODELS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(RealtimeServerEvent)[0])
}


def check_strictly(event: dict[str, Any]) -> None:
    """Check that an event has exactly the shape of the official SDK: types without coercion, no unknown keys."""
    model = _MODELS[event["type"]].model_validate_json(json.dumps(event), strict=True)
    assert not list(_unknown_keys(model, event["type"]))


def _unknown_keys(value: Any, path: str) -> Iterable[str]:
    if isinstance(value, BaseModel):
        allowed = ENGINE_KEYS if path.endswith(".session") else set()
        yield from (f"{path}.{key}" for key in set(value.model_extra or {}) - allowed)
        for name in type(value).model_fields:
            yield from _unknown_keys(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for entry in value:
            yield from _unknown_keys(entry, path)


class EngineHarness:
    """A conversation without speech: the test reports turns, transcripts and audio. Every event is checked strictly."""

    def __init__(self, *, kind: str = "realtime", **session: Any) -> None:
        counter = itertools.count(1)
        self.conversation = Conversation("relay-local", lambda name: f"{name}_{next(counter)}", session_type=kind)
        self.sent: list[dict[str, Any]] = []
        self.commands: list[EngineCommand] = []
        self.record(self.conversation.start())
        if session:
            self.client_sends("session.update", session={"type": "realtime", **session})

    def record(self, commands: list[EngineCommand]) -> list[dict[str, Any]]:
        """Record commands; returns the new events."""
        events = [effect.event for effect in commands if isinstance(effect, SendEvent)]
        for event in events:
            check_strictly(event)
        self.sent += events
        self.commands += [effect for effect in commands if not isinstance(effect, SendEvent)]
        return events

    def client_sends(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Send a client event; returns the events sent back."""
        return self.record(self.conversation.receive(json.dumps({"type": kind, **fields})))

    def user_says(
        self, text: str | None, start_ms: int = 0, end_ms: int = 2000, failure: str | None = None
    ) -> list[dict[str, Any]]:
        """Report a user turn with the transcript `text`; `failure` says why there is none."""
        events = self.record(self.conversation.on_speech_started(start_ms))
        events += self.record(self.conversation.on_speech_stopped(end_ms))
        [task] = [effect for effect in self.commands if isinstance(effect, TranscribeTurn)][-1:]
        return events + self.record(self.conversation.on_transcript(task.item_id, text, failure=failure))

    def user_types(self, text: str) -> list[dict[str, Any]]:
        """Create a user message and a response."""
        content = [{"type": "input_text", "text": text}]
        events = self.client_sends(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )
        return events + self.client_sends("response.create")

    def tool_returns(self, call_id: str, output: str) -> None:
        """Send the output of a tool call."""
        self.client_sends(
            "conversation.item.create", item={"type": "function_call_output", "call_id": call_id, "output": output}
        )

    @property
    def last_synthesis(self) -> Synthesize:
        """The last `Synthesize` command."""
        return [effect for effect in self.commands if isinstance(effect, Synthesize)][-1]

    @property
    def cancelled_speech(self) -> list[str]:
        """The ids of the responses whose speech was cancelled."""
        return [effect.response_id for effect in self.commands if isinstance(effect, CancelSpeech)]

    def assistant_speaks(self, sentences: int | None = None, ms: int = 1000) -> list[dict[str, Any]]:
        """Report the audio of `sentences` sentences of `ms` each (None: all, and the end of the speech)."""
        task = self.last_synthesis
        bytes_per_ms = 48 if task.output["format"]["type"] == "audio/pcm" else 8
        events: list[dict[str, Any]] = []
        for sentence in task.sentences[:sentences]:
            audio = bytes(ms * bytes_per_ms)
            events += self.record(self.conversation.on_sentence_audio(task.response_id, sentence, audio))
        if sentences is None:
            events += self.record(self.conversation.on_speech_done(task.response_id))
        return events


def types_of(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return the types of events, consecutive repetitions once, without rate limits, whose position may vary."""
    kinds = (event["type"] for event in events if event["type"] != "rate_limits.updated")
    return [kind for kind, _ in itertools.groupby(kinds)]


def last(events: Iterable[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the last event of a type."""
    return [event for event in events if event["type"] == kind][-1]


class EngineClient:
    """A client of a running engine over a real socket; every event is checked strictly."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def wait_for(self, kind: str) -> dict[str, Any]:
        """Wait for an event of that type; all received events are in `events`."""
        async with asyncio.timeout(20):
            while True:
                event: dict[str, Any] = json.loads(await self.socket.recv())
                check_strictly(event)
                self.events.append(event)
                if event["type"] == kind:
                    return event

    async def append(self, pcm: bytes, chunk_bytes: int = 4800) -> None:
        """Send audio in the session's input format."""
        for start in range(0, len(pcm), chunk_bytes):
            audio = pybase64.b64encode(pcm[start : start + chunk_bytes]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    async def play_sample(self, sample: str, silence_ms: int = 800) -> None:
        """Send a sample, then enough silence to end the turn."""
        await self.append(read_audio(SAMPLES / f"{sample}.flac", 24_000) + bytes(48 * silence_ms))


@asynccontextmanager
async def running_engine(pace: float | None = None, *, workers: int = 0, **options: Any) -> AsyncIterator[int]:
    """Run an engine on the test's event loop; yields its port. Without workers it starts faster."""
    async with serving(create_engine_app(pace=pace, workers=workers, **options)) as port:
        yield port


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[int]:
    """Serve an application on a free port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(port: int, **session: Any) -> AsyncIterator[EngineClient]:
    """Connect a client; it has received session.created and, with settings, session.updated."""
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=relay-local"
    # A client that disconnects during a response has not read the close frame yet: do not wait for it.
    async with websockets.connect(url, max_size=None, close_timeout=0.5) as socket:
        client = EngineClient(socket)
        await client.wait_for("session.created")
        if session:
            await client.send("session.update", session={"type": "realtime", **session})
            await client.wait_for("session.updated")
        yield client
