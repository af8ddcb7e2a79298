"""The recorded model's side of a conversation, played to one client of the Realtime protocol."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pybase64

from relay.json_types import JsonObject
from relay.protocols.openai.server_encoder import ServerEvents, append_of
from relay.recording.derive.normalize import item_of, normalized_entries
from relay.recording.format.lines import Happened, InputAudio, OutputAudio
from relay.recording.store.reader import Recording
from relay.session.common.media_types import AudioDelta
from relay.session.device import commands as cmd
from relay.session.device import events as ev

PATIENCE_S = 10.0
"""How long the client is waited for where the recording has it do something."""
INPUT_SLACK_MS = 60
MAX_WAITING = 1000

Say = Callable[[str], None]

_EXPECTED = {
    cmd.ConfigureSession: "session.update",
    cmd.CommitInput: "input_audio_buffer.commit",
    cmd.ClearInput: "input_audio_buffer.clear",
    cmd.CreateItem: "conversation.item.create",
    cmd.CreateResponse: "response.create",
}
_AT_WILL = frozenset({"conversation.item.truncate", "conversation.item.delete", "conversation.item.retrieve"})
"""What depends on playback, to the millisecond: neither waited for nor missed."""
_BY_EAR = (ev.SpeechStarted, ev.SpeechStopped, ev.InputCommitted)
_NO_MESSAGE = (
    ev.UpstreamOpened,
    ev.OutputAudioStarted,
    ev.UpstreamBackpressure,
    ev.IgnoredUpstreamEvent,
    ev.MalformedUpstreamMessage,
)


@dataclass(frozen=True, slots=True)
class Emit:
    """The model said this, `at` that time, after `input_ms` of the user's audio."""

    at: float
    event: ev.UpstreamEvent | AudioDelta
    input_ms: int


@dataclass(frozen=True, slots=True)
class Expect:
    """The client sent this."""

    at: float
    command: cmd.UpstreamCommand


def steps(recording: Recording) -> Iterator[Emit | Expect]:
    """The model's side of a recording, in order. Raises RecordingError."""
    input_bytes = 0
    options = recording.header.beginning.options
    for entry, event, commands in normalized_entries(recording):
        line, input_ms = entry.line, input_bytes // options.input.bytes_per_ms
        match line:
            case InputAudio(n_bytes=n_bytes):
                input_bytes += n_bytes
            case OutputAudio(now, _, response_id, item_id, content_index):
                audio = pybase64.b64encode(entry.samples)
                yield Emit(now, AudioDelta(response_id, item_id, content_index, audio), input_ms)
            case Happened(now) if type(event) in ev.UPSTREAM_EVENTS:
                yield Emit(now, event, input_ms)
        if not isinstance(line, Happened) or isinstance(event, ev.TextDelta):
            continue  # so frequent, and nothing that the client does follows
        for command in commands:
            if isinstance(command, cmd.ApplyOptions):
                options = command.options
            if type(command) in _EXPECTED:
                yield Expect(line.now, command)
        if cmd.CloseUpstream() in commands:
            return  # what the model said when the client had left, that it hangs up too, answers nobody


@dataclass
class Performance:
    """The recording, played to one client. `departures` says where the client did something else."""

    recording: Recording
    speed: float | None
    say: Say
    send: Callable[[str], Any]
    departures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        beginning = self.recording.header.beginning
        self._encoder = ServerEvents({"model": self.recording.header.model})
        self._started_at = beginning.started_at
        self._input_bytes_per_ms = beginning.options.upstream_input.bytes_per_ms
        self._input_bytes = 0
        self._waiting: deque[JsonObject] = deque()
        self._news = asyncio.Condition()
        self._gone = False
        self._metadata: JsonObject | None = None
        self._response_id: str | None = None
        self._cut: set[str] = set()
        self._at = beginning.started_at
        self._is_configured = False

    # -- what the client does -----------------------------------------------------------------------------------------

    async def take(self, raw: str | bytes) -> None:
        """A message of the client's."""
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._depart("the client sent what is not JSON")
            return
        if not isinstance(message, dict):
            self._depart("the client sent what is no event")
            return
        async with self._news:
            audio = append_of(message)
            if audio is not None:
                self._input_bytes += len(audio)
            elif message.get("type") == "response.cancel":
                await self._cancelled()
            elif message.get("type") not in _AT_WILL:
                if message.get("type") == "session.update" and isinstance(message.get("session"), dict):
                    self._configured(message["session"])
                    if self._is_configured:  # how often a client configures is its own business: answered at once
                        await self._tell(ev.SessionUpdated())
                        return
                self._waiting.append(message)
                if len(self._waiting) > MAX_WAITING:
                    self._depart(f"more than {MAX_WAITING} messages ahead of the recording; the oldest is forgotten")
                    self._waiting.popleft()
            self._news.notify_all()

    async def left(self) -> None:
        """The client is gone."""
        async with self._news:
            self._gone = True
            self._news.notify_all()

    def _configured(self, session: JsonObject) -> None:
        self._encoder.session |= session
        audio = session.get("audio") or {}
        kind = ((audio.get("input") or {}).get("format") or {}).get("type")
        if kind in ("audio/pcmu", "audio/pcma"):
            self._input_bytes_per_ms = 8

    async def _cancelled(self) -> None:
        response_id = self._response_id
        if response_id is None or response_id in self._cut:
            return
        self._cut.add(response_id)
        self._depart(f"the client cancelled {response_id}")
        await self._tell(ev.ResponseDone(response_id, "cancelled", reason="client_cancelled"))

    async def _tell(self, event: ev.UpstreamEvent | AudioDelta) -> None:
        for obj in self._encoder.encode(event, self._metadata):
            await self.send(orjson.dumps(obj).decode())

    # -- what was recorded --------------------------------------------------------------------------------------------

    async def play(self) -> ev.UpstreamClosed | None:
        """Play to the end; returns how the recorded model hung up, if it did."""
        for step in steps(self.recording):
            if self._gone:
                return None
            if self._is_configured and _configures(step):
                continue
            if isinstance(step, Expect):
                await self._expect(step)
            elif isinstance(step.event, ev.UpstreamClosed):
                return step.event
            elif not isinstance(step.event, _NO_MESSAGE):
                await self._emit(step)
                self._is_configured = self._is_configured or isinstance(step.event, ev.SessionUpdated)
            self._at = step.at
        for message in self._waiting:
            self._depart(f"the client sent {str(message.get('type'))[:80]}, which the recording does not have")
        return None

    async def _emit(self, step: Emit) -> None:
        if isinstance(step.event, _BY_EAR) and step.input_ms:
            await self._hear(step)
        elif self.speed is not None:
            await asyncio.sleep(max(0.0, step.at - self._at) / self.speed)
        event = step.event
        response_id = getattr(event, "response_id", None)
        if response_id is not None and response_id in self._cut:
            return
        if isinstance(event, ev.ResponseCreated):
            self._response_id = event.response_id
            self._metadata = self._metadata if event.request_id is not None else None
        await self._tell(event)
        if isinstance(event, ev.ResponseDone):
            self._response_id = self._metadata = None

    async def _hear(self, step: Emit) -> None:
        """Wait until the client has sent as much audio as there was then."""
        wanted_ms = step.input_ms - INPUT_SLACK_MS
        async with self._news:
            while not self._gone and self._input_bytes // self._input_bytes_per_ms < wanted_ms:
                heard = self._input_bytes
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self._news.wait_for(partial(self._more_than, heard))
                except TimeoutError:
                    self._depart(
                        f"the client sends no more audio: {heard // self._input_bytes_per_ms} ms came, after "
                        f"{step.input_ms} ms there was {type(step.event).__name__}",
                        step.at,
                    )
                    return

    def _more_than(self, n_bytes: int) -> bool:
        return self._gone or self._input_bytes > n_bytes

    async def _expect(self, step: Expect) -> None:
        kind = _EXPECTED[type(step.command)]
        async with self._news:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._news.wait_for(lambda: self._gone or self._find(step.command) is not None)
            found = self._find(step.command)
            if found is None:
                if not self._gone:
                    self._depart(f"the client has not sent {kind}, which comes here in the recording", step.at)
                return
            self._waiting.remove(found)
        self._compare(step, found)
        if kind == "response.create":
            metadata = (found.get("response") or {}).get("metadata")
            self._metadata = metadata if isinstance(metadata, dict) else {}

    def _find(self, command: cmd.UpstreamCommand) -> JsonObject | None:
        kind = _EXPECTED[type(command)]
        for message in self._waiting:
            if message.get("type") != kind:
                continue
            if isinstance(command, cmd.CreateItem) and command.item.kind == "function_call_output":
                if (message.get("item") or {}).get("call_id") == command.item.call_id:
                    return message
            else:
                return message
        return None

    def _compare(self, step: Expect, message: JsonObject) -> None:
        command = step.command
        if not isinstance(command, cmd.CreateItem):
            return
        text = item_of(message.get("item") or {}).text
        if text != command.item.text:
            what = f"output of {command.item.call_id}" if command.item.call_id else "text"
            self._depart(f"the client's {what} is {text!r:.120}, it was {command.item.text!r:.120}", step.at)

    def _depart(self, what: str, at: float | None = None) -> None:
        when = (self._at if at is None else at) - self._started_at
        line = f"departs at {when:.2f} s: {what}"
        if len(self.departures) < MAX_WAITING:
            self.departures.append(line)
        self.say(line)


def _configures(step: Emit | Expect) -> bool:
    return isinstance(
        step.command if isinstance(step, Expect) else step.event, cmd.ConfigureSession | ev.SessionUpdated
    )
