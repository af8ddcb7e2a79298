"""A Python client of the device protocol (docs/client.md).

import asyncio
from relay.client import AudioEndEvent, AudioEvent, TextDeltaEvent, connect


async def main() -> None:
    async with connect("ws://127.0.0.1:8080/") as relay:
        await relay.send_text("What time is it in Tokyo?")
        async for event in relay:
            match event:
                case TextDeltaEvent(text=text):
                    print(text, end="", flush=True)
                case AudioEvent(data=pcm):
                    ...  # 16 kHz PCM16 for the speaker
                case AudioEndEvent():
                    break


asyncio.run(main())
"""

from relay.client.connection import RelayClient, SessionOptions, connect
from relay.client.errors import ClientError, ClosedError, ConnectError, InvalidURL, ProtocolError
from relay.client.events import (
    AudioEndEvent,
    AudioEvent,
    AudioStartEvent,
    ConnectedEvent,
    ErrorEvent,
    GoodbyeEvent,
    InterruptedEvent,
    LatencyEvent,
    ReadyEvent,
    RelayEvent,
    ResponseEndedEvent,
    ResponseStartedEvent,
    SpeechEndedEvent,
    SpeechStartedEvent,
    TextDeltaEvent,
    ToolCallEvent,
    ToolEvent,
    TranscriptEvent,
    UnknownEvent,
    UsageEvent,
)
from relay.client.microphone_stream import MicrophoneStream
from relay.client.playback import PlaybackTracker, VirtualPlayer
from relay.client.tools import FunctionTool
from relay.errors import ToolError

__all__ = [
    "AudioEndEvent",
    "AudioEvent",
    "AudioStartEvent",
    "ClientError",
    "ClosedError",
    "ConnectError",
    "ConnectedEvent",
    "ErrorEvent",
    "FunctionTool",
    "GoodbyeEvent",
    "InterruptedEvent",
    "InvalidURL",
    "LatencyEvent",
    "MicrophoneStream",
    "PlaybackTracker",
    "ProtocolError",
    "ReadyEvent",
    "RelayClient",
    "RelayEvent",
    "ResponseEndedEvent",
    "ResponseStartedEvent",
    "SessionOptions",
    "SpeechEndedEvent",
    "SpeechStartedEvent",
    "TextDeltaEvent",
    "ToolCallEvent",
    "ToolError",
    "ToolEvent",
    "TranscriptEvent",
    "UnknownEvent",
    "UsageEvent",
    "VirtualPlayer",
    "connect",
]
