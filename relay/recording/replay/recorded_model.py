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
from relay.protocols.openai.server_encoder import ServerEventEncoder, decode_append
from relay.recording.derive.normalize import normalized_entries, parse_item
from relay.recording.format.lines import EventRecord, InputAudioRecord, OutputAudioRecord
from relay.recording.store.reader import Recording
from relay.session.common.media_types import AudioDelta
from relay.session.device import commands as cmd
from relay.session.device import events as ev

CLIENT_TIMEOUT_S = 10.0
"""How long the client is waited for where the recording has it do something."""
INPUT_TOLERANCE_MS = 60
MAX_PENDING_MESSAGES = 1000

Report = Callable[[str], None]

_EXPECTED_TYPES = {
    cmd.ConfigureSession: "session.update",
    cmd.CommitInput: "input_audio_buffer.commit",
    cmd.ClearInput: "input_audio_buffer.clear",
    cmd.CreateItem: "conversation.item.create",
    cmd.CreateResponse: "response.create",
}
_OPTIONAL_TYPES = frozenset({"conversation.item.truncate", "conversation.item.delete", "conversation.item.retrieve"})
"""What depends on playback, to the millisecond: neither waited for nor missed."""
_AUDIO_TRIGGERED = (ev.SpeechStarted, ev.SpeechStopped, ev.InputCommitted)
_WITHOUT_MESSAGE = (
    ev.UpstreamOpened,
    ev.OutputAudioStarted,
    ev.UpstreamBackpressure,
    ev.IgnoredUpstreamEvent,
    ev.MalformedUpstreamMessage,
)


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """The model said this, `time_s` that time, after `input_ms` of the user's audio."""

    time_s: float
    event: ev.UpstreamEvent | AudioDelta
    input_ms: int


@dataclass(frozen=True, slots=True)
class ExpectMessage:
    """The client sent this."""

    time_s: float
    command: cmd.UpstreamCommand


def steps(recording: Recording) -> Iterator[EmitEvent | ExpectMessage]:
    """The model's side of a recording, in order. Raises RecordingError."""
    input_bytes = 0
    options = recording.header.setup.options
    for entry, event, commands in normalized_entries(recording):
        line, input_ms = entry.record, input_bytes // options.input.bytes_per_ms
        match line:
            case InputAudioRecord(n_bytes=n_bytes):
                input_bytes += n_bytes
            case OutputAudioRecord(now, _, response_id, item_id, content_index):
                audio = pybase64.b64encode(entry.samples)
                yield EmitEvent(now, AudioDelta(response_id, item_id, content_index, audio), input_ms)
            case EventRecord(now) if type(event) in ev.UPSTREAM_EVENTS:
                yield EmitEvent(now, event, input_ms)
        if not isinstance(line, EventRecord) or isinstance(event, ev.TextDelta):
            continue  # so frequent, and nothing that the client does follows
        for command in commands:
            if isinstance(command, cmd.ApplyOptions):
                options = command.options
            if type(command) in _EXPECTED_TYPES:
                yield ExpectMessage(line.time_s, command)
        if cmd.CloseUpstream() in commands:
            return  # what the model said when the client had left, that it hangs up too, answers nobody


@dataclass
class ReplayConnection:
    """The recording, played to one client. `divergences` says where the client did something else."""

    recording: Recording
    speed: float | None
    report: Report
    send: Callable[[str], Any]
    divergences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        beginning = self.recording.header.setup
        self._encoder = ServerEventEncoder({"model": self.recording.header.model})
        self._started_at = beginning.started_at
        self._input_bytes_per_ms = beginning.options.upstream_input.bytes_per_ms
        self._input_bytes = 0
        self._pending_messages: deque[JsonObject] = deque()
        self._changed = asyncio.Condition()
        self._is_disconnected = False
        self._metadata: JsonObject | None = None
        self._response_id: str | None = None
        self._cancelled_ids: set[str] = set()
        self._time_s = beginning.started_at
        self._is_configured = False

    # -- what the client does -----------------------------------------------------------------------------------------

    async def on_message(self, raw: str | bytes) -> None:
        """A message of the client's."""
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._diverge("the client sent what is not JSON")
            return
        if not isinstance(message, dict):
            self._diverge("the client sent what is no event")
            return
        async with self._changed:
            audio = decode_append(message)
            if audio is not None:
                self._input_bytes += len(audio)
            elif message.get("type") == "response.cancel":
                await self._cancelled()
            elif message.get("type") not in _OPTIONAL_TYPES:
                if message.get("type") == "session.update" and isinstance(message.get("session"), dict):
                    self._configured(message["session"])
                    if self._is_configured:  # how often a client configures is its own business: answered at once
                        await self._send_event(ev.SessionUpdated())
                        return
                self._pending_messages.append(message)
                if len(self._pending_messages) > MAX_PENDING_MESSAGES:
                    self._diverge(
                        f"more than {MAX_PENDING_MESSAGES} messages ahead of the recording; the oldest is forgotten"
                    )
                    self._pending_messages.popleft()
            self._changed.notify_all()

    async def on_disconnect(self) -> None:
        """The client is gone."""
        async with self._changed:
            self._is_disconnected = True
            self._changed.notify_all()

    def _configured(self, session: JsonObject) -> None:
        self._encoder.session |= session
        audio = session.get("audio") or {}
        kind = ((audio.get("input") or {}).get("format") or {}).get("type")
        if kind in ("audio/pcmu", "audio/pcma"):
            self._input_bytes_per_ms = 8

    async def _cancelled(self) -> None:
        response_id = self._response_id
        if response_id is None or response_id in self._cancelled_ids:
            return
        self._cancelled_ids.add(response_id)
        self._diverge(f"the client cancelled {response_id}")
        await self._send_event(ev.ResponseDone(response_id, "cancelled", reason="client_cancelled"))

    async def _send_event(self, event: ev.UpstreamEvent | AudioDelta) -> None:
        for obj in self._encoder.encode(event, self._metadata):
            await self.send(orjson.dumps(obj).decode())

    # -- what was recorded --------------------------------------------------------------------------------------------

    async def run(self) -> ev.UpstreamClosed | None:
        """Play to the end; returns how the recorded model hung up, if it did."""
        for step in steps(self.recording):
            if self._is_disconnected:
                return None
            if self._is_configured and _configures(step):
                continue
            if isinstance(step, ExpectMessage):
                await self._expect(step)
            elif isinstance(step.event, ev.UpstreamClosed):
                return step.event
            elif not isinstance(step.event, _WITHOUT_MESSAGE):
                await self._emit(step)
                self._is_configured = self._is_configured or isinstance(step.event, ev.SessionUpdated)
            self._time_s = step.time_s
        for message in self._pending_messages:
            self._diverge(f"the client sent {str(message.get('type'))[:80]}, which the recording does not have")
        return None

    async def _emit(self, step: EmitEvent) -> None:
        if isinstance(step.event, _AUDIO_TRIGGERED) and step.input_ms:
            await self._await_input(step)
        elif self.speed is not None:
            await asyncio.sleep(max(0.0, step.time_s - self._time_s) / self.speed)
        event = step.event
        response_id = getattr(event, "response_id", None)
        if response_id is not None and response_id in self._cancelled_ids:
            return
        if isinstance(event, ev.ResponseCreated):
            self._response_id = event.response_id
            self._metadata = self._metadata if event.request_id is not None else None
        await self._send_event(event)
        if isinstance(event, ev.ResponseDone):
            self._response_id = self._metadata = None

    async def _await_input(self, step: EmitEvent) -> None:
        """Wait until the client has sent as much audio as there was then."""
        wanted_ms = step.input_ms - INPUT_TOLERANCE_MS
        async with self._changed:
            while not self._is_disconnected and self._input_bytes // self._input_bytes_per_ms < wanted_ms:
                heard = self._input_bytes
                try:
                    async with asyncio.timeout(CLIENT_TIMEOUT_S):
                        await self._changed.wait_for(partial(self._more_than, heard))
                except TimeoutError:
                    self._diverge(
                        f"the client sends no more audio: {heard // self._input_bytes_per_ms} ms came, after "
                        f"{step.input_ms} ms there was {type(step.event).__name__}",
                        step.time_s,
                    )
                    return

    def _more_than(self, n_bytes: int) -> bool:
        return self._is_disconnected or self._input_bytes > n_bytes

    async def _expect(self, step: ExpectMessage) -> None:
        kind = _EXPECTED_TYPES[type(step.command)]
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLIENT_TIMEOUT_S):
                    await self._changed.wait_for(lambda: self._is_disconnected or self._find(step.command) is not None)
            found = self._find(step.command)
            if found is None:
                if not self._is_disconnected:
                    self._diverge(f"the client has not sent {kind}, which comes here in the recording", step.time_s)
                return
            self._pending_messages.remove(found)
        self._compare(step, found)
        if kind == "response.create":
            metadata = (found.get("response") or {}).get("metadata")
            self._metadata = metadata if isinstance(metadata, dict) else {}

    def _find(self, command: cmd.UpstreamCommand) -> JsonObject | None:
        kind = _EXPECTED_TYPES[type(command)]
        for message in self._pending_messages:
            if message.get("type") != kind:
                continue
            if isinstance(command, cmd.CreateItem) and command.item.kind == "function_call_output":
                if (message.get("item") or {}).get("call_id") == command.item.call_id:
                    return message
            else:
                return message
        return None

    def _compare(self, step: ExpectMessage, message: JsonObject) -> None:
        command = step.command
        if not isinstance(command, cmd.CreateItem):
            return
        text = parse_item(message.get("item") or {}).text
        if text != command.item.text:
            what = f"output of {command.item.call_id}" if command.item.call_id else "text"
            self._diverge(f"the client's {what} is {text!r:.120}, it was {command.item.text!r:.120}", step.time_s)

    def _diverge(self, what: str, at: float | None = None) -> None:
        when = (self._time_s if at is None else at) - self._started_at
        line = f"departs at {when:.2f} s: {what}"
        if len(self.divergences) < MAX_PENDING_MESSAGES:
            self.divergences.append(line)
        self.report(line)


def _configures(step: EmitEvent | ExpectMessage) -> bool:
    return isinstance(
        step.command if isinstance(step, ExpectMessage) else step.event, cmd.ConfigureSession | ev.SessionUpdated
    )
