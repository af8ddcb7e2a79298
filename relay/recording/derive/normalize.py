"""A recorded conversation in one language, whoever the client was: events and commands as device sessions have them.

A Realtime client's session is translated: the upstream's events as the codec reads them, the client's as what a device
would have done, its truncation as a barge-in. What only the protocol has is left out. Audio that was handed to a
Realtime client is told by a `SentAudioRecord` of its own.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from audio.formats import REALTIME_FORMATS
from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.protocols.openai.server_events import decode_event
from relay.recording.format.lines import EventRecord, InputAudioRecord, OutputAudioRecord, SentAudioRecord
from relay.recording.format.realtime import parse_event
from relay.recording.store.reader import JournalEntry, Recording, decode_commands
from relay.session.common.model import Item, SentAudio, SessionConfig, ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import TurnTimer
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent, SendToClient, SendToUpstream

MAX_TEXT_CHARS = 65_536
"""What is beyond is not kept."""


class ItemTexts:
    """Texts by item. A piece costs as much as it is long, however long the text is already."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {}
        self._n_chars: dict[str, int] = {}

    def add(self, item_id: str, text: str) -> None:
        """More of an item's text."""
        n_chars = self._n_chars.get(item_id, 0)
        kept = text[: MAX_TEXT_CHARS - n_chars]
        if kept or item_id not in self._pieces:
            self._pieces.setdefault(item_id, []).append(kept)
            self._n_chars[item_id] = n_chars + len(kept)

    def replace(self, item_id: str, text: str) -> None:
        """The whole text of an item, in place of what came before."""
        self._pieces[item_id], self._n_chars[item_id] = [text], len(text)

    def get(self, item_id: str) -> str:
        """The text of an item so far; empty where there is none."""
        pieces = self._pieces.get(item_id)
        if pieces is None:
            return ""
        pieces[:] = ["".join(pieces)]
        return pieces[0]


class NormalizedEntry(NamedTuple):
    """A line with its audio; `event` where it tells one, and the commands that followed."""

    entry: JournalEntry
    event: Any = None
    commands: Sequence[Any] = ()


def normalized_entries(recording: Recording) -> Iterator[NormalizedEntry]:
    """A recording from its first line to its last. Raises RecordingError."""
    if recording.header.setup.realtime is not None:
        normalizer = RealtimeNormalizer(recording)
        for entry in recording.entries():
            yield from normalizer.normalize(entry)
        return
    for entry in recording.entries():
        event = entry.record.event if isinstance(entry.record, EventRecord) else None
        yield NormalizedEntry(entry, event, decode_commands(recording, entry))


def with_item_ids(line: OutputAudioRecord) -> OutputAudioRecord:
    """Audio with the ids that the event around it tells; discarded where no client could have read them."""
    if line.envelope is None:
        return line
    body = parse_event_or_empty((line.envelope.prefix + line.envelope.suffix).encode())
    response_id, item_id, index = (body.get(name) for name in ("response_id", "item_id", "content_index"))
    if not (isinstance(response_id, str) and isinstance(item_id, str)):
        return replace(line, discarded=True)
    return replace(line, response_id=response_id, item_id=item_id, content_index=index if type(index) is int else 0)


def parse_event_or_empty(raw: BytesLike) -> Mapping[str, Any]:
    """An event of the upstream's; empty if it is none."""
    try:
        return parse_event(bytes(raw))
    except ValueError:
        return {}


class RealtimeNormalizer:
    """Translates one Realtime client's session, line by line."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._options = recording.header.setup.options
        self._texts = ItemTexts()
        self._item_bytes: dict[str, int] = {}
        self._input_ends: list[int] = []  # bytes that had arrived …
        self._input_times: list[float] = []  # … by then
        self._silence_ms = 0
        self._timer = TurnTimer()

    def normalize(self, entry: JournalEntry) -> Iterator[NormalizedEntry]:
        """What a line says, as a device's session would."""
        match entry.record:
            case EventRecord() as line:
                yield self._happened(entry, line)
            case InputAudioRecord(now, n_bytes):
                yield self._input(entry, now, n_bytes)
            case OutputAudioRecord() as line:
                yield from self._output(entry, line)
            case _:
                yield NormalizedEntry(entry)

    def _happened(self, entry: JournalEntry, line: EventRecord) -> NormalizedEntry:
        if line.n_audio_bytes:
            return self._input(entry, line.time_s, line.n_audio_bytes)
        commands = decode_commands(self._recording, entry)
        event = line.event
        follows = [
            one for command in commands if isinstance(command, SendToUpstream) for one in _to_model(command.body)
        ]
        follows += [one for one in commands if isinstance(one, cmd.RunTool | cmd.CloseUpstream | cmd.CloseClient)]
        follows += [one for command in commands if isinstance(command, SendToClient) for one in _errors(command.body)]
        if isinstance(event, RealtimeClientEvent):
            event, own = self._client(event.body, line.time_s)
            follows = [*own, *follows]
        elif isinstance(event, RealtimeServerEvent):
            event, own = self._model(event, line.time_s, follows)
            follows = [*own, *follows]
        return NormalizedEntry(entry, event, follows)

    # -- audio --------------------------------------------------------------------------------------------------------

    def _input(self, entry: JournalEntry, now: float, n_bytes: int) -> NormalizedEntry:
        self._input_ends.append((self._input_ends[-1] if self._input_ends else 0) + n_bytes)
        self._input_times.append(now)
        return NormalizedEntry(JournalEntry(entry.number, InputAudioRecord(now, n_bytes), entry.samples))

    def _output(self, entry: JournalEntry, line: OutputAudioRecord) -> Iterator[NormalizedEntry]:
        line = with_item_ids(line)
        audio = JournalEntry(entry.number, line, entry.samples)
        if line.discarded:
            yield NormalizedEntry(audio)
            return
        self._item_bytes[line.item_id] = self._item_bytes.get(line.item_id, 0) + line.n_bytes
        self._timer.audio_received(line.item_id, line.time_s)
        self._timer.audio_sent(line.item_id, line.time_s)  # what was passed on at once
        metrics = self._timer.report()
        yield NormalizedEntry(audio, None, [] if metrics is None else [metrics])
        yield NormalizedEntry(JournalEntry(entry.number, SentAudioRecord(line.time_s, line.n_bytes, 0)))

    # -- the client ---------------------------------------------------------------------------------------------------

    def _client(self, body: Mapping[str, Any], now: float) -> tuple[Any, list[Any]]:
        item = body.get("item") if isinstance(body.get("item"), Mapping) else {}
        match body.get("type"):
            case "session.update":
                return _hello(_member(body, "session")), []
            case "input_audio_buffer.commit":
                self._timer.turn_ended(now)
                return ev.Commit(), []
            case "input_audio_buffer.clear":
                return ev.Clear(), []
            case "conversation.item.create" if item and item.get("type") == "function_call_output":
                return ev.ToolResult(str(item.get("call_id")), str(item.get("output"))), []
            case "conversation.item.create" if item and item.get("role") == "user":
                text = parse_item(item).text
                if not text:
                    return None, []
                self._timer.turn_ended(now)
                item_id = str(item.get("id") or f"typed at {now}")
                return ev.UserText(text), [cmd.SendTranscript("user", item_id, 0, text, True)]
            case "conversation.item.truncate":
                return self._cut(str(body.get("item_id")), body.get("audio_end_ms"))
            case _:
                return None, []

    def _cut(self, item_id: str, played_ms: Any) -> tuple[Any, list[Any]]:
        total_ms = self._item_bytes.get(item_id, 0) // self._options.output.bytes_per_ms
        if type(played_ms) is not int or not 0 <= played_ms < total_ms:
            return None, []
        text = self._texts.get(item_id)
        heard = text[: len(text) * played_ms // total_ms]
        dropped = ev.PlayoutCleared((SentAudio(item_id, 0, total_ms, played_ms),))
        return dropped, [cmd.SendInterrupted(item_id, played_ms, heard, estimated=False)]

    # -- the model ----------------------------------------------------------------------------------------------------

    def _model(self, said: RealtimeServerEvent, now: float, follows: Sequence[Any]) -> tuple[Any, list[Any]]:
        event: Any = decode_event(dict(parse_event_or_empty(said.raw)))
        own: list[Any] = []
        match event:
            case ev.SessionCreated() | ev.SessionUpdated():
                self._silence_ms = getattr(event, "silence_ms", None) or 0
                own = self._formats(_member(said.body, "session"))
            case ev.SpeechStopped(_, audio_end_ms):
                self._timer.turn_ended(min(self._arrival(audio_end_ms - self._silence_ms, now), now), now)
            case ev.UserTranscript(item_id, text, True):
                own = [cmd.SendTranscript("user", item_id, 0, text, True)]
            case ev.TextDelta(_, item_id, _, text):
                self._texts.add(item_id, text)
            case ev.ResponseDone():
                own = [cmd.SendUsage(event.usage), *self._clients_calls(event, follows)]
            case ev.UpstreamErrorEvent(code, message):
                own = [cmd.SendError(code or "error", message)]  # type: ignore[arg-type]  # the model's
        return event, own

    def _clients_calls(self, event: ev.ResponseDone, follows: Sequence[Any]) -> list[Any]:
        ours = {one.call_id for one in follows if isinstance(one, cmd.RunTool)}
        calls = [one for one in event.output if one.kind == "function_call" and one.call_id not in ours]
        done = event.status == "completed"
        return [cmd.SendToolCall(one.call_id or "", one.name or "", one.arguments or "", 0) for one in calls if done]

    def _arrival(self, audio_ms: int, otherwise: float) -> float:
        """When so much of the client's audio had arrived."""
        index = bisect_left(self._input_ends, audio_ms * self._options.input.bytes_per_ms)
        return self._input_times[index] if index < len(self._input_times) else otherwise

    def _formats(self, session: Mapping[str, Any]) -> list[Any]:
        audio = _member(session, "audio")
        kinds = (str(_member(_member(audio, side), "format").get("type")) for side in ("input", "output"))
        input_, output = map(REALTIME_FORMATS.get, kinds)
        options = replace(self._options, input=input_ or self._options.input, output=output or self._options.output)
        if options == self._options:
            return []
        self._options = options
        return [cmd.ApplyOptions(options)]


def _hello(session: Mapping[str, Any]) -> ev.Hello:
    """A client's configuration as a device would say it."""
    audio = _member(session, "audio")
    wishes: JsonObject = {}
    voice, instructions = _member(audio, "output").get("voice"), session.get("instructions")
    if isinstance(voice, str):
        wishes["voice"] = voice
    if isinstance(instructions, str):
        wishes["instructions"] = instructions
    if "turn_detection" in _member(audio, "input"):
        detection = _member(audio, "input")["turn_detection"]
        kind = detection.get("type") if isinstance(detection, Mapping) else "manual"
        wishes["turn"] = kind if kind in ("server_vad", "semantic_vad", "manual") else "server_vad"
    tools = session.get("tools")
    if isinstance(tools, list):
        wishes["tools"] = tuple(
            ToolSpec(tool["name"], str(tool.get("description") or ""), _member(tool, "parameters"), runs_on_client=True)
            for tool in tools
            if isinstance(tool, Mapping) and tool.get("type") == "function" and isinstance(tool.get("name"), str)
        )
    return ev.Hello(tuple(wishes), **wishes)


def _to_model(body: Mapping[str, Any]) -> list[Any]:
    """What the model was sent, as far as devices' sessions send it too."""
    event_id = str(body.get("event_id") or "")
    match body.get("type"):
        case "session.update":
            return [cmd.ConfigureSession(SessionConfig(), event_id)]
        case "input_audio_buffer.commit":
            return [cmd.CommitInput(event_id)]
        case "input_audio_buffer.clear":
            return [cmd.ClearInput(event_id)]
        case "conversation.item.create":
            return [cmd.CreateItem(parse_item(_member(body, "item")), event_id)]
        case "response.create":
            return [cmd.CreateResponse(event_id)]
        case _:
            return []


def _errors(body: Mapping[str, Any]) -> list[Any]:
    """The relay's own errors to the client."""
    error = _member(body, "error")
    return [cmd.SendError(error.get("code") or "error", str(error.get("message")))] if error else []  # type: ignore[arg-type]


def parse_item(item: Mapping[str, Any]) -> Item:
    """An item that the model was sent."""
    parts = item.get("content") if isinstance(item.get("content"), list) else []
    texts = [part.get("text") for part in parts or () if isinstance(part, Mapping)] + [item.get("output")]
    return Item(
        str(item.get("id") or ""),
        str(item.get("type") or ""),
        call_id=item.get("call_id") if isinstance(item.get("call_id"), str) else None,
        text="".join(text for text in texts if isinstance(text, str)),
    )


def _member(obj: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is not."""
    value = obj.get(name) if isinstance(obj, Mapping) else None
    return value if isinstance(value, Mapping) else {}
