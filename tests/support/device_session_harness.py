"""A `DeviceSession` driven like a transcript: events in, commands out, with a manual clock."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from relay.protocols.device.codec import DeviceCodec
from relay.session.common.limits import SessionLimits
from relay.session.common.model import DeviceOptions, Item, SentAudio, SessionConfig, TtsOptions, TurnDetection
from relay.session.common.policy import Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from tests.support.device_schema import check
from tests.support.media import InputAudio, MediaPath, OutputAudio, SpeechAudio

CLIENT_MESSAGES = cmd.CLIENT_MESSAGES | {cmd.SendAudioStart, cmd.SendAudioEnd}
MS_BYTES = 48
"""Bytes of one ms of the upstream's 24 kHz PCM16."""


class DeviceSessionHarness:
    """One session and a clock; `feed` passes it events and returns its commands."""

    def __init__(
        self,
        config: SessionConfig | None = None,
        options: DeviceOptions | None = None,
        principal: Principal | None = None,
        limits: SessionLimits | None = None,
        speech: TtsOptions | None = None,
    ) -> None:
        numbers = itertools.count(1)
        self.session = DeviceSession(
            "rs_test",
            config or SessionConfig(),
            options or DeviceOptions(),
            lambda: f"relay_{next(numbers)}",
            principal=principal,
            limits=limits,
            tts_options=speech,
        )
        self.media = MediaPath(self.session)
        self.now = 0.0

    def feed(self, *events: ev.Event | InputAudio | OutputAudio | SpeechAudio, after_s: float = 0.0) -> list[Any]:
        """Pass events and audio one after the other. Returns all commands, and the audio that is forwarded."""
        self.now += after_s
        commands: list[Any] = []
        for event in events:
            commands.extend(self.media.handle(event, self.now))
        check_messages(commands)
        return commands

    def ready(self) -> "DeviceSessionHarness":
        """Make the session ready."""
        self.feed(ev.UpstreamOpened(), ev.SessionCreated(), ev.SessionUpdated())
        return self

    def model_speaks(self, response: str = "resp_1", item: str = "item_1", ms: int = 1000) -> list[cmd.Command]:
        """The upstream answers with `ms` of audio and its transcript; the response is not done."""
        return self.feed(
            ev.ResponseCreated(response),
            ev.ItemAdded(Item(item, "message", "assistant")),
            ev.TextDelta(response, item, 0, "one two three four five six seven eight nine ten", spoken=True),
            audio(response, item, ms),
        )


def check_messages(commands: Sequence[cmd.Command]) -> None:
    """Validate the messages to a device client against the schema of the protocol."""
    codec = DeviceCodec()
    for command in commands:
        if type(command) in CLIENT_MESSAGES:
            check(json.loads(codec.encode(command)), "toClient")  # type: ignore[arg-type]


def audio(response: str = "resp_1", item: str = "item_1", ms: int = 100, part: int = 0) -> OutputAudio:
    """One delta of the assistant's audio."""
    return OutputAudio(response, item, part, ms * MS_BYTES)


def microphone(ms: int = 20, rate_khz: int = 16) -> InputAudio:
    """One chunk of the user's audio."""
    return InputAudio(bytes(ms * rate_khz * 2))


def playout_cleared(*parts: tuple[str, int, int]) -> ev.PlayoutCleared:
    """The sent audio of each part, as (item, sent ms, estimated played ms)."""
    return ev.PlayoutCleared(tuple(SentAudio(item, 0, sent, played) for item, sent, played in parts))


def call(call_id: str, name: str = "clock", arguments: str = "{}", status: str = "completed") -> Item:
    """A function call as in `response.done`."""
    return Item(f"item_{call_id}", "function_call", status=status, call_id=call_id, name=name, arguments=arguments)


def done(response: str = "resp_1", *output: Item, status: str = "completed", **more: object) -> ev.ResponseDone:
    """The end of a response."""
    return ev.ResponseDone(response, status, output=output, **more)  # type: ignore[arg-type]


def tool_finished(call_id: str, output: str = '"ok"', status: str = "done") -> ev.ToolCallFinished:
    """The end of a tool call."""
    return ev.ToolCallFinished(call_id, status, output, 5)  # type: ignore[arg-type]


def only(commands: Sequence[cmd.Command], kind: type) -> list[cmd.Command]:
    """The commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]


def kinds(commands: Sequence[cmd.Command]) -> list[str]:
    """The names of the commands, in order."""
    return [type(command).__name__ for command in commands]


MANUAL = SessionConfig(turn=TurnDetection(kind="manual"))
