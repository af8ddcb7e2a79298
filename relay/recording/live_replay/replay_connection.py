"""One connection of the replay server: the recorded upstream's events, replayed to one client."""

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
from relay.recording.derive.normalize import normalize_entries, parse_item
from relay.recording.format.records import EventRecord, InputAudioRecord, OutputAudioRecord
from relay.recording.store.reader import Recording
from relay.session.common.media_types import AudioDelta
from relay.session.device import commands as cmd
from relay.session.device import events as ev

CLIENT_TIMEOUT_S = 10.0
"""How long the replay waits for an expected message of the client."""
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
"""Messages that depend on the exact playback position: neither expected nor reported."""
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
    """An event to send, recorded at `time_s` after `input_ms` of the client's audio."""

    time_s: float
    event: ev.UpstreamEvent | AudioDelta
    input_ms: int


@dataclass(frozen=True, slots=True)
class ExpectMessage:
    """A message that the recorded client sent."""

    time_s: float
    command: cmd.UpstreamCommand


def replay_steps(recording: Recording) -> Iterator[EmitEvent | ExpectMessage]:
    """Yield the upstream's side of a recording, in order. Raises RecordingError."""
    input_bytes = 0
    options = recording.header.setup.options
    for entry, event, commands in normalize_entries(recording):
        record, input_ms = entry.record, input_bytes // options.input.bytes_per_ms
        match record:
            case InputAudioRecord(n_bytes=n_bytes):
                input_bytes += n_bytes
            case OutputAudioRecord(now, _, response_id, item_id, content_index):
                audio = pybase64.b64encode(entry.samples)
                yield EmitEvent(now, AudioDelta(response_id, item_id, content_index, audio), input_ms)
            case EventRecord(now) if type(event) in ev.UPSTREAM_EVENTS:
                yield EmitEvent(now, event, input_ms)
        if not isinstance(record, EventRecord) or isinstance(event, ev.TextDelta):
            continue  # frequent, and never followed by a message of the client
        for command in commands:
            if isinstance(command, cmd.ApplyOptions):
                options = command.options
            if type(command) in _EXPECTED_TYPES:
                yield ExpectMessage(record.time_s, command)
        if cmd.CloseUpstream() in commands:
            return  # later events of the upstream have no receiver


@dataclass
class ReplayConnection:
    """Replays the recording to one client; `divergences` are where the client acted differently."""

    recording: Recording
    speed: float | None
    report: Report
    send: Callable[[str], Any]
    divergences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        setup = self.recording.header.setup
        self._encoder = ServerEventEncoder({"model": self.recording.header.model})
        self._started_at = setup.started_at
        self._input_bytes_per_ms = setup.options.upstream_input.bytes_per_ms
        self._input_bytes = 0
        self._pending_messages: deque[JsonObject] = deque()
        self._changed = asyncio.Condition()
        self._is_disconnected = False
        self._metadata: JsonObject | None = None
        self._response_id: str | None = None
        self._cancelled_ids: set[str] = set()
        self._time_s = setup.started_at
        self._is_configured = False

    # -- the client ---------------------------------------------------------------------------------------------------

    async def on_message(self, raw: str | bytes) -> None:
        """Handle a message from the client."""
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._report_divergence("the client sent invalid JSON")
            return
        if not isinstance(message, dict):
            self._report_divergence("the client sent a message that is not an event")
            return
        async with self._changed:
            audio = decode_append(message)
            if audio is not None:
                self._input_bytes += len(audio)
            elif message.get("type") == "response.cancel":
                await self._on_cancel()
            elif message.get("type") not in _OPTIONAL_TYPES:
                if message.get("type") == "session.update" and isinstance(message.get("session"), dict):
                    self._apply_session(message["session"])
                    if self._is_configured:  # a client may reconfigure at any time
                        await self._send_event(ev.SessionUpdated())
                        return
                self._pending_messages.append(message)
                if len(self._pending_messages) > MAX_PENDING_MESSAGES:
                    self._report_divergence(
                        f"more than {MAX_PENDING_MESSAGES} messages ahead of the recording; the oldest is dropped"
                    )
                    self._pending_messages.popleft()
            self._changed.notify_all()

    async def on_disconnect(self) -> None:
        """Handle the end of the connection."""
        async with self._changed:
            self._is_disconnected = True
            self._changed.notify_all()

    def _apply_session(self, session: JsonObject) -> None:
        self._encoder.session |= session
        audio = session.get("audio") or {}
        kind = ((audio.get("input") or {}).get("format") or {}).get("type")
        if kind in ("audio/pcmu", "audio/pcma"):
            self._input_bytes_per_ms = 8

    async def _on_cancel(self) -> None:
        response_id = self._response_id
        if response_id is None or response_id in self._cancelled_ids:
            return
        self._cancelled_ids.add(response_id)
        self._report_divergence(f"the client cancelled {response_id}")
        await self._send_event(ev.ResponseDone(response_id, "cancelled", reason="client_cancelled"))

    async def _send_event(self, event: ev.UpstreamEvent | AudioDelta) -> None:
        for obj in self._encoder.encode(event, self._metadata):
            await self.send(orjson.dumps(obj).decode())

    # -- the recording ------------------------------------------------------------------------------------------------

    async def run(self) -> ev.UpstreamClosed | None:
        """Replay to the end. Returns the recorded close of the upstream, if there is one."""
        for step in replay_steps(self.recording):
            if self._is_disconnected:
                return None
            if self._is_configured and _is_configuration(step):
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
            self._report_divergence(f"the client sent {str(message.get('type'))[:80]}, which was not recorded")
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
        """Wait until the client has sent as much audio as the recorded one."""
        expected_ms = step.input_ms - INPUT_TOLERANCE_MS
        async with self._changed:
            while not self._is_disconnected and self._input_bytes // self._input_bytes_per_ms < expected_ms:
                n_bytes = self._input_bytes
                try:
                    async with asyncio.timeout(CLIENT_TIMEOUT_S):
                        await self._changed.wait_for(partial(self._has_more_than, n_bytes))
                except TimeoutError:
                    self._report_divergence(
                        f"the client stopped sending audio after {n_bytes // self._input_bytes_per_ms} ms, but "
                        f"{type(step.event).__name__} was recorded after {step.input_ms} ms",
                        step.time_s,
                    )
                    return

    def _has_more_than(self, n_bytes: int) -> bool:
        return self._is_disconnected or self._input_bytes > n_bytes

    async def _expect(self, step: ExpectMessage) -> None:
        expected_type = _EXPECTED_TYPES[type(step.command)]
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLIENT_TIMEOUT_S):
                    await self._changed.wait_for(lambda: self._is_disconnected or self._find(step.command) is not None)
            message = self._find(step.command)
            if message is None:
                if not self._is_disconnected:
                    self._report_divergence(f"the client has not sent the recorded {expected_type}", step.time_s)
                return
            self._pending_messages.remove(message)
        self._compare(step, message)
        if expected_type == "response.create":
            metadata = (message.get("response") or {}).get("metadata")
            self._metadata = metadata if isinstance(metadata, dict) else {}

    def _find(self, command: cmd.UpstreamCommand) -> JsonObject | None:
        expected_type = _EXPECTED_TYPES[type(command)]
        for message in self._pending_messages:
            if message.get("type") != expected_type:
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
            subject = f"output of {command.item.call_id}" if command.item.call_id else "text"
            self._report_divergence(
                f"the {subject} is {text!r:.120}, but {command.item.text!r:.120} was recorded", step.time_s
            )

    def _report_divergence(self, description: str, time_s: float | None = None) -> None:
        offset_s = (self._time_s if time_s is None else time_s) - self._started_at
        message = f"divergence at {offset_s:.2f} s: {description}"
        if len(self.divergences) < MAX_PENDING_MESSAGES:
            self.divergences.append(message)
        self.report(message)


def _is_configuration(step: EmitEvent | ExpectMessage) -> bool:
    return isinstance(
        step.command if isinstance(step, ExpectMessage) else step.event, cmd.ConfigureSession | ev.SessionUpdated
    )
