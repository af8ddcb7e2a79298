"""A recorded conversation in one language, whoever the client was: events and commands as device sessions have them.

A Realtime client's session is translated: the model's events as the upstream's codec reads them, the client's as what a
device would have done, its truncation as a barge-in. What only the protocol has is left out. Sound that was handed to a
Realtime client is told by a `Sent` of its own.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from audio.formats import AudioFormat
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.journal_lines import Happened, Sent
from relay.core.latency import TurnClock
from relay.core.realtime_events import ClientSaid, Obj, PassDown, TellClient, TellUpstream, UpstreamSaid
from relay.core.values import ClipHanded, Item, SessionConfig, ToolSpec
from relay.recording.reader import Entry, Recording, commands_of
from relay.recording.texts import ItemTexts
from relay.wire.realtime import RealtimeCodec

_FORMATS = {
    "audio/pcm": AudioFormat("pcm16", 24_000),
    "audio/pcmu": AudioFormat("pcmu", 8000),
    "audio/pcma": AudioFormat("pcma", 8000),
}


class Said(NamedTuple):
    """One thing that happened, and what followed; `event` is None for lines that are none."""

    entry: Entry
    event: Any = None
    commands: Any = ()


def dialogue(recording: Recording) -> Iterator[Said]:
    """A recording from its first line to its last. Raises RecordingError."""
    interpreter = Interpreter(recording) if recording.header.beginning.realtime is not None else None
    for entry in recording.entries():
        if not isinstance(entry.line, Happened):
            yield Said(entry)
        elif interpreter is not None:
            yield from interpreter.take(entry, entry.line)
        else:
            yield Said(entry, entry.event, commands_of(recording, entry))


class Interpreter:
    """Translates one Realtime client's session, line by line."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._options = recording.header.beginning.options
        self._codec = RealtimeCodec()
        self._texts = ItemTexts()
        self._item_bytes: dict[str, int] = {}
        self._input_ends: list[int] = []  # bytes that had arrived …
        self._input_times: list[float] = []  # … by then
        self._silence_ms = 0
        self._clock: TurnClock | None = None

    def take(self, entry: Entry, line: Happened) -> Iterator[Said]:
        """What a line says, in the devices' language."""
        commands = commands_of(self._recording, entry)
        event = entry.event
        to_model = [one for command in commands if isinstance(command, TellUpstream) for one in _to_model(command.body)]
        kept = [one for one in commands if isinstance(one, cmd.RunTool | cmd.CloseUpstream | cmd.CloseClient)]
        told = [one for command in commands if isinstance(command, TellClient) for one in _errors(command.body)]
        if line.n_audio_bytes and line.is_input:
            event = ev.Forwarded("input_audio", "", line.n_audio_bytes, entry.samples)
            self._input_ends.append((self._input_ends[-1] if self._input_ends else 0) + line.n_audio_bytes)
            self._input_times.append(line.now)
            yield Said(entry, event, [event, *to_model])
        elif isinstance(event, ClientSaid):
            own, follows = self._client(event.body, line.now)
            yield Said(entry, own, [*follows, *to_model, *kept, *told])
        elif isinstance(event, UpstreamSaid):
            reaches_client = any(isinstance(one, PassDown | TellClient) for one in commands)
            yield from self._model(entry, line, event, [*to_model, *kept, *told], reaches_client)
        else:
            yield Said(entry, event, [*to_model, *kept, *told])

    # -- the client ---------------------------------------------------------------------------------------------------

    def _client(self, body: Mapping[str, Any], now: float) -> tuple[Any, list[Any]]:
        item = body.get("item") if isinstance(body.get("item"), Mapping) else {}
        match body.get("type"):
            case "session.update":
                return _hello(_member(body, "session")), []
            case "input_audio_buffer.commit":
                self._clock = TurnClock(now)
                return ev.Commit(), []
            case "input_audio_buffer.clear":
                return ev.Clear(), []
            case "conversation.item.create" if item and item.get("type") == "function_call_output":
                return ev.ToolResult(str(item.get("call_id")), str(item.get("output"))), []
            case "conversation.item.create" if item and item.get("role") == "user":
                text = _item(item).text
                if not text:
                    return None, []
                self._clock = TurnClock(now)
                item_id = str(item.get("id") or f"typed at {now}")
                return ev.UserText(text), [cmd.TellTranscript("user", item_id, 0, text, True)]
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
        dropped = ev.AudioDropped((ClipHanded(item_id, 0, total_ms, played_ms),))
        return dropped, [cmd.TellInterrupted(item_id, played_ms, heard, estimated=False)]

    # -- the model ----------------------------------------------------------------------------------------------------

    def _model(
        self, entry: Entry, line: Happened, said: UpstreamSaid, follows: list[Any], reaches_client: bool
    ) -> Iterator[Said]:
        event = self._codec.decode(memoryview(said.raw))
        now = line.now
        match event:
            case ev.Forwarded():
                event = event._replace(raw=bytes(event.raw))
                if reaches_client:
                    follows = [event, *self._latency(event.item_id, now), *follows]
                    self._item_bytes[event.item_id] = self._item_bytes.get(event.item_id, 0) + event.n_bytes
            case ev.SessionCreated() | ev.SessionUpdated():
                self._silence_ms = getattr(event, "silence_ms", None) or 0
                follows = [*self._formats(_member(said.body, "session")), *follows]
            case ev.SpeechStopped(_, audio_end_ms):
                self._clock = TurnClock(min(self._arrival(audio_end_ms - self._silence_ms, now), now), now)
            case ev.UserTranscript(item_id, text, True):
                follows = [cmd.TellTranscript("user", item_id, 0, text, True), *follows]
            case ev.TextDelta(_, item_id, _, text):
                self._texts.add(item_id, text)
            case ev.ResponseDone():
                follows = [cmd.TellUsage(event.usage), *self._clients_calls(event, follows), *follows]
            case ev.UpstreamError(code, message):
                follows = [cmd.TellError(code or "error", message), *follows]  # type: ignore[arg-type]  # the model's
            case _:
                pass
        yield Said(entry, event, follows)
        if isinstance(event, ev.Forwarded) and reaches_client:
            yield Said(Entry(entry.number, Sent(now, event.n_bytes, 0)))

    def _clients_calls(self, event: ev.ResponseDone, follows: list[Any]) -> list[Any]:
        ours = {one.call_id for one in follows if isinstance(one, cmd.RunTool)}
        calls = [one for one in event.output if one.kind == "function_call" and one.call_id not in ours]
        done = event.status == "completed"
        return [cmd.TellToolCall(one.call_id or "", one.name or "", one.arguments or "", 0) for one in calls if done]

    def _latency(self, item_id: str, now: float) -> list[Any]:
        clock, self._clock = self._clock, None
        if clock is None:
            return []
        clock.first_delta = clock.first_byte = now  # what was passed on at once
        clock.item_id = item_id
        report = clock.report()
        return [report] if report is not None else []

    def _arrival(self, audio_ms: int, otherwise: float) -> float:
        """When so much of the client's audio had arrived."""
        index = bisect_left(self._input_ends, audio_ms * self._options.input.bytes_per_ms)
        return self._input_times[index] if index < len(self._input_times) else otherwise

    def _formats(self, session: Mapping[str, Any]) -> list[Any]:
        audio = _member(session, "audio")
        input_, output = (
            _FORMATS.get(str(_member(_member(audio, side), "format").get("type"))) for side in ("input", "output")
        )
        options = replace(self._options, input=input_ or self._options.input, output=output or self._options.output)
        if options == self._options:
            return []
        self._options = options
        return [cmd.UseOptions(options)]


def _hello(session: Mapping[str, Any]) -> ev.Hello:
    """A client's configuration as a device would say it."""
    audio = _member(session, "audio")
    wishes: Obj = {}
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
            ToolSpec(tool["name"], str(tool.get("description") or ""), _member(tool, "parameters"), of_client=True)
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
            return [cmd.CreateItem(_item(_member(body, "item")), event_id)]
        case "response.create":
            return [cmd.CreateResponse(event_id)]
        case _:
            return []


def _errors(body: Mapping[str, Any]) -> list[Any]:
    """The relay's own errors to the client."""
    error = _member(body, "error")
    return [cmd.TellError(error.get("code") or "error", str(error.get("message")))] if error else []  # type: ignore[arg-type]


def _item(item: Mapping[str, Any]) -> Item:
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
