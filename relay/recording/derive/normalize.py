"""Normalize a recording of any client to the events and commands of a device session.

In the session of a Realtime client, upstream events are decoded by the codec, client events become those of a device,
and a truncation becomes a barge-in. Events without a counterpart are left out. Audio that was forwarded to a Realtime
client gets a separate `SentAudioRecord`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from audio.formats import REALTIME_FORMATS
from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.protocols.openai.server_events import decode_event
from relay.recording.derive.item_texts import ItemTexts
from relay.recording.format.realtime import parse_event
from relay.recording.format.records import EventRecord, InputAudioRecord, OutputAudioRecord, SentAudioRecord
from relay.recording.store.reader import JournalEntry, Recording, decode_commands
from relay.session.common.model import Item, SentAudio, SessionConfig, ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import TurnTimer
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent, SendToClient, SendToUpstream


class NormalizedEntry(NamedTuple):
    """A journal entry, the event in it, if any, and the commands that followed."""

    entry: JournalEntry
    event: Any = None
    commands: Sequence[Any] = ()


def normalize_entries(recording: Recording) -> Iterator[NormalizedEntry]:
    """Iterate over a recording. Raises RecordingError."""
    if recording.header.setup.realtime is not None:
        normalizer = RealtimeNormalizer(recording)
        for entry in recording.entries():
            yield from normalizer.normalize(entry)
        return
    for entry in recording.entries():
        event = entry.record.event if isinstance(entry.record, EventRecord) else None
        yield NormalizedEntry(entry, event, decode_commands(recording, entry))


def add_item_ids(record: OutputAudioRecord) -> OutputAudioRecord:
    """Add the ids from the audio's envelope; `discarded` if they are missing or invalid."""
    if record.envelope is None:
        return record
    body = parse_event_or_empty((record.envelope.prefix + record.envelope.suffix).encode())
    response_id, item_id, index = (body.get(name) for name in ("response_id", "item_id", "content_index"))
    if not (isinstance(response_id, str) and isinstance(item_id, str)):
        return replace(record, discarded=True)
    return replace(record, response_id=response_id, item_id=item_id, content_index=index if type(index) is int else 0)


def parse_event_or_empty(raw: BytesLike) -> Mapping[str, Any]:
    """Parse an upstream event; empty if it is invalid."""
    try:
        return parse_event(bytes(raw))
    except ValueError:
        return {}


class RealtimeNormalizer:
    """Normalizes the session of a Realtime client, entry by entry."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._options = recording.header.setup.options
        self._texts = ItemTexts()
        self._item_bytes: dict[str, int] = {}
        self._input_ends: list[int] = []  # total bytes …
        self._input_times: list[float] = []  # … and when they had arrived
        self._silence_ms = 0
        self._timer = TurnTimer()

    def normalize(self, entry: JournalEntry) -> Iterator[NormalizedEntry]:
        """Normalize one entry."""
        match entry.record:
            case EventRecord() as record:
                yield self._normalize_event(entry, record)
            case InputAudioRecord(now, n_bytes):
                yield self._normalize_input(entry, now, n_bytes)
            case OutputAudioRecord() as record:
                yield from self._normalize_output(entry, record)
            case _:
                yield NormalizedEntry(entry)

    def _normalize_event(self, entry: JournalEntry, record: EventRecord) -> NormalizedEntry:
        if record.n_audio_bytes:
            return self._normalize_input(entry, record.time_s, record.n_audio_bytes)
        commands = decode_commands(self._recording, entry)
        event = record.event
        normalized: list[Any] = []
        for command in commands:
            if isinstance(command, SendToUpstream):
                normalized += _to_upstream_commands(command.body)
        normalized += [
            command for command in commands if isinstance(command, cmd.RunTool | cmd.CloseUpstream | cmd.CloseClient)
        ]
        for command in commands:
            if isinstance(command, SendToClient):
                normalized += _to_error_commands(command.body)
        if isinstance(event, RealtimeClientEvent):
            event, event_commands = self._normalize_client_event(event.body, record.time_s)
            normalized = [*event_commands, *normalized]
        elif isinstance(event, RealtimeServerEvent):
            event, event_commands = self._normalize_upstream_event(event, record.time_s, normalized)
            normalized = [*event_commands, *normalized]
        return NormalizedEntry(entry, event, normalized)

    # -- audio --------------------------------------------------------------------------------------------------------

    def _normalize_input(self, entry: JournalEntry, now: float, n_bytes: int) -> NormalizedEntry:
        self._input_ends.append((self._input_ends[-1] if self._input_ends else 0) + n_bytes)
        self._input_times.append(now)
        return NormalizedEntry(JournalEntry(entry.number, InputAudioRecord(now, n_bytes), entry.samples))

    def _normalize_output(self, entry: JournalEntry, record: OutputAudioRecord) -> Iterator[NormalizedEntry]:
        record = add_item_ids(record)
        audio = JournalEntry(entry.number, record, entry.samples)
        if record.discarded:
            yield NormalizedEntry(audio)
            return
        self._item_bytes[record.item_id] = self._item_bytes.get(record.item_id, 0) + record.n_bytes
        self._timer.on_audio_received(record.item_id, record.time_s)
        self._timer.on_audio_sent(record.item_id, record.time_s)  # forwarded at once
        metrics = self._timer.report()
        yield NormalizedEntry(audio, None, [] if metrics is None else [metrics])
        yield NormalizedEntry(JournalEntry(entry.number, SentAudioRecord(record.time_s, record.n_bytes, 0)))

    # -- the client ---------------------------------------------------------------------------------------------------

    def _normalize_client_event(self, body: Mapping[str, Any], now: float) -> tuple[Any, list[Any]]:
        item = body.get("item") if isinstance(body.get("item"), Mapping) else {}
        match body.get("type"):
            case "session.update":
                return _to_hello(_get_object(body, "session")), []
            case "input_audio_buffer.commit":
                self._timer.on_turn_ended(now)
                return ev.Commit(), []
            case "input_audio_buffer.clear":
                return ev.Clear(), []
            case "conversation.item.create" if item and item.get("type") == "function_call_output":
                return ev.ToolResult(str(item.get("call_id")), str(item.get("output"))), []
            case "conversation.item.create" if item and item.get("role") == "user":
                text = parse_item(item).text
                if not text:
                    return None, []
                self._timer.on_turn_ended(now)
                item_id = str(item.get("id") or f"typed at {now}")
                return ev.UserText(text), [cmd.SendTranscript("user", item_id, 0, text, True)]
            case "conversation.item.truncate":
                return self._normalize_truncation(str(body.get("item_id")), body.get("audio_end_ms"))
            case _:
                return None, []

    def _normalize_truncation(self, item_id: str, played_ms: Any) -> tuple[Any, list[Any]]:
        total_ms = self._item_bytes.get(item_id, 0) // self._options.output.bytes_per_ms
        if type(played_ms) is not int or not 0 <= played_ms < total_ms:
            return None, []
        text = self._texts.get(item_id)
        heard_text = text[: len(text) * played_ms // total_ms]
        event = ev.PlayoutCleared((SentAudio(item_id, 0, total_ms, played_ms),))
        return event, [cmd.SendInterrupted(item_id, played_ms, heard_text, estimated=False)]

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _normalize_upstream_event(
        self, server_event: RealtimeServerEvent, now: float, commands: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        event: Any = decode_event(dict(parse_event_or_empty(server_event.raw)))
        event_commands: list[Any] = []
        match event:
            case ev.SessionCreated() | ev.SessionUpdated():
                self._silence_ms = getattr(event, "silence_ms", None) or 0
                event_commands = self._formats(_get_object(server_event.body, "session"))
            case ev.SpeechStopped(_, audio_end_ms):
                self._timer.on_turn_ended(min(self._arrival_time(audio_end_ms - self._silence_ms, now), now), now)
            case ev.UserTranscript(item_id, text, True):
                event_commands = [cmd.SendTranscript("user", item_id, 0, text, True)]
            case ev.TextDelta(_, item_id, _, text):
                self._texts.add(item_id, text)
            case ev.ResponseDone():
                event_commands = [cmd.SendUsage(event.usage), *self._client_calls(event, commands)]
            case ev.UpstreamErrorEvent(code, message):
                event_commands = [cmd.SendError(code or "error", message)]  # type: ignore[arg-type]  # the upstream's
        return event, event_commands

    def _client_calls(self, event: ev.ResponseDone, commands: Sequence[Any]) -> list[Any]:
        if event.status != "completed":
            return []
        server_calls = {command.call_id for command in commands if isinstance(command, cmd.RunTool)}
        return [
            cmd.SendToolCall(item.call_id or "", item.name or "", item.arguments or "", 0)
            for item in event.output
            if item.kind == "function_call" and item.call_id not in server_calls
        ]

    def _arrival_time(self, audio_ms: int, default_s: float) -> float:
        """Return when the first `audio_ms` of input had arrived."""
        index = bisect_left(self._input_ends, audio_ms * self._options.input.bytes_per_ms)
        return self._input_times[index] if index < len(self._input_times) else default_s

    def _formats(self, session: Mapping[str, Any]) -> list[Any]:
        audio = _get_object(session, "audio")
        kinds = (str(_get_object(_get_object(audio, side), "format").get("type")) for side in ("input", "output"))
        input_, output = map(REALTIME_FORMATS.get, kinds)
        options = replace(self._options, input=input_ or self._options.input, output=output or self._options.output)
        if options == self._options:
            return []
        self._options = options
        return [cmd.ApplyOptions(options)]


def _to_hello(session: Mapping[str, Any]) -> ev.Hello:
    """Convert a client's `session.update` to a device's hello."""
    audio = _get_object(session, "audio")
    fields: JsonObject = {}
    voice, instructions = _get_object(audio, "output").get("voice"), session.get("instructions")
    if isinstance(voice, str):
        fields["voice"] = voice
    if isinstance(instructions, str):
        fields["instructions"] = instructions
    if "turn_detection" in _get_object(audio, "input"):
        detection = _get_object(audio, "input")["turn_detection"]
        kind = detection.get("type") if isinstance(detection, Mapping) else "manual"
        fields["turn"] = kind if kind in ("server_vad", "semantic_vad", "manual") else "server_vad"
    tools = session.get("tools")
    if isinstance(tools, list):
        fields["tools"] = tuple(
            ToolSpec(
                tool["name"], str(tool.get("description") or ""), _get_object(tool, "parameters"), runs_on_client=True
            )
            for tool in tools
            if isinstance(tool, Mapping) and tool.get("type") == "function" and isinstance(tool.get("name"), str)
        )
    return ev.Hello(tuple(fields), **fields)


def _to_upstream_commands(body: Mapping[str, Any]) -> list[Any]:
    """Convert a client event to commands of a device session; an empty list if there is no counterpart."""
    event_id = str(body.get("event_id") or "")
    match body.get("type"):
        case "session.update":
            return [cmd.ConfigureSession(SessionConfig(), event_id)]
        case "input_audio_buffer.commit":
            return [cmd.CommitInput(event_id)]
        case "input_audio_buffer.clear":
            return [cmd.ClearInput(event_id)]
        case "conversation.item.create":
            return [cmd.CreateItem(parse_item(_get_object(body, "item")), event_id)]
        case "response.create":
            return [cmd.CreateResponse(event_id)]
        case _:
            return []


def _to_error_commands(body: Mapping[str, Any]) -> list[Any]:
    """Convert an `error` of the relay to `SendError`; an empty list for any other event."""
    error = _get_object(body, "error")
    return [cmd.SendError(error.get("code") or "error", str(error.get("message")))] if error else []  # type: ignore[arg-type]


def parse_item(item: Mapping[str, Any]) -> Item:
    """Parse an item of the Realtime protocol."""
    parts = item.get("content") if isinstance(item.get("content"), list) else []
    texts = [part.get("text") for part in parts or () if isinstance(part, Mapping)] + [item.get("output")]
    return Item(
        str(item.get("id") or ""),
        str(item.get("type") or ""),
        call_id=item.get("call_id") if isinstance(item.get("call_id"), str) else None,
        text="".join(text for text in texts if isinstance(text, str)),
    )


def _get_object(obj: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is an object; an empty one for any other value."""
    value = obj.get(name) if isinstance(obj, Mapping) else None
    return value if isinstance(value, Mapping) else {}
