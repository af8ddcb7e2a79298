"""Build the timeline of a recording from its events, commands and audio."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from audio.formats import AudioFormat
from relay.recording.derive.item_texts import MAX_TEXT_CHARS, ItemTexts
from relay.recording.derive.normalize import NormalizedEntry, normalize_entries
from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.derive.timeline import (
    BargeIn,
    PlayedItem,
    Timeline,
    TimelineNote,
    TimelineResponse,
    ToolRun,
    TurnLatency,
    UserSpeech,
)
from relay.recording.derive.track_layout import PlayedClip, Track, layout_input, layout_playback
from relay.recording.format.records import (
    EndRecord,
    EventRecord,
    GapRecord,
    InputAudioRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.store.reader import Recording
from relay.session.common.model import ELEVENLABS_PREFIX, DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import TurnMetrics


@dataclass(slots=True)
class TimelineResult:
    """A timeline, and the layout of both audio tracks."""

    timeline: Timeline
    user: Track
    assistant: Track


class _TimelineBuilder:
    def __init__(self, recording: Recording, playout_file: BinaryIO | None) -> None:
        header = recording.header
        self.started_at = header.setup.started_at
        self.options: DeviceOptions = header.setup.options
        self.timeline = Timeline(
            name=recording.folder.name,
            session_id=header.setup.session_id,
            started=header.started.isoformat(timespec="milliseconds"),
            identity=header.setup.principal.identity,
            upstream=header.upstream,
            model=header.model,
        )
        self.last_s = self.started_at
        self._playout_file = playout_file
        self._playout_bytes = 0
        self._playout = ReconstructedPlayout(self.options)
        self.chunks: list[tuple[float, int]] = []
        self.clips: dict[str, PlayedClip] = {}
        self._speech: dict[str, UserSpeech] = {}
        self._timeline_responses: dict[str, TimelineResponse] = {}
        self._tools: dict[str, ToolRun] = {}
        self._texts = ItemTexts()
        self._heard_texts: dict[str, str] = {}
        self._items: dict[str, dict[str, None]] = {}
        self._response_ids: dict[str, str] = {}
        self._voice = ""
        self._voices: dict[str, str] = {}
        self._turn_start_ms: float | None = None

    def add(self, normalized: NormalizedEntry) -> None:
        entry, event, commands = normalized
        record = entry.record
        if isinstance(record, GapRecord):
            self._add_note(
                record.start_s, "gap", f"{record.n_records} records were not written, until {record.end_s:.3f}"
            )
            return
        self.last_s = record.time_s
        at_ms = self._to_ms(record.time_s)
        self._playout.apply(record, entry.samples, commands)
        match record:
            case EventRecord():
                self._on_event(event, record, at_ms, commands)
            case InputAudioRecord(n_bytes=n_bytes) if n_bytes:
                self.chunks.append((record.time_s - self.started_at, n_bytes))
                self._turn_start_ms = at_ms if self._turn_start_ms is None else self._turn_start_ms
            case OutputAudioRecord(item_id=item_id, response_id=response_id):
                self._get_clip(item_id).response_id = response_id
            case TtsAudioRecord(discarded=False):
                item_id = self._playout.playing_item_id
                self._get_clip(item_id).response_id = self._response_ids.get(item_id, "")
                self._voices[item_id] = self._voice
            case SentAudioRecord():
                self._on_sent_audio(record)
            case EndRecord():
                self.timeline.end = record.reason
        for command in commands:
            self._on_command(command, record.time_s, at_ms)

    def _to_ms(self, now: float) -> float:
        return round((now - self.started_at) * 1000, 1)

    def _add_note(self, now: float, kind: str, text: str) -> None:
        self.timeline.marks.append(TimelineNote(self._to_ms(now), kind, text[:500]))

    # -- audio --------------------------------------------------------------------------------------------------------

    def _on_sent_audio(self, record: SentAudioRecord) -> None:
        for item_id, samples in self._playout.read(record.n_bytes):
            self._get_clip(item_id).chunks.append((record.time_s - self.started_at, self._playout_bytes, len(samples)))
            self._playout_bytes += len(samples)
            if self._playout_file is not None:
                self._playout_file.write(samples)

    def _get_clip(self, item_id: str) -> PlayedClip:
        return self.clips.setdefault(item_id, PlayedClip(item_id))

    # -- events -------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Any, record: EventRecord, at_ms: float, commands: Sequence[Any]) -> None:
        if record.raised is not None:
            self._add_note(record.time_s, "failure", f"the relay failed at {type(event).__name__}: {record.raised}")
        match event:
            case ev.SpeechStarted(item_id):
                self._get_user_speech(item_id, at_ms)
            case ev.SpeechStopped(item_id):
                self._get_user_speech(item_id, at_ms).end_ms = at_ms
            case ev.InputCommitted(item_id):
                start_ms = at_ms if self._turn_start_ms is None else self._turn_start_ms
                speech = self._get_user_speech(item_id, start_ms)
                speech.end_ms = at_ms if speech.end_ms is None else speech.end_ms
                self._turn_start_ms = None
            case ev.ResponseCreated(response_id):
                self._get_response(response_id, at_ms)
            case ev.ResponseDone(response_id, status):
                response = self._get_response(response_id, at_ms)
                response.end_ms, response.status = at_ms, status
            case ev.TextDone(_, item_id, _, text):
                self._texts.replace(item_id, text)
            case ev.TextDelta(response_id, item_id, _, text):
                self._texts.add(item_id, text)
                self._items.setdefault(response_id, {})[item_id] = None
                self._response_ids[item_id] = response_id
            case ev.Playback(item_id, played_ms) if item_id in self.clips:
                self.clips[item_id].on_acknowledged(record.time_s - self.started_at, played_ms)
            case ev.PlayoutCleared(clips):
                self._on_interruption([clip.item_id for clip in clips], commands)
            case ev.ToolCallFinished(call_id, status, output):
                self._on_tool_result(call_id, at_ms, status, output)
            case ev.ToolResult(call_id, output, failed):
                self._on_tool_result(call_id, at_ms, "failed" if failed else "done", output)

    def _on_command(self, command: cmd.Command, now: float, at_ms: float) -> None:
        timeline = self.timeline
        match command:
            case cmd.ApplyOptions(options):
                self.options = options
            case cmd.ConnectTts(voice_id) | cmd.SynthesizeText(_, voice_id):
                self._voice = ELEVENLABS_PREFIX + voice_id
            case cmd.SendTranscript("user", item_id, _, text, True):
                self._on_user_transcript(item_id, text, at_ms)
            case cmd.RunTool(call_id, name, arguments) | cmd.SendToolCall(call_id, name, arguments):
                self._tools[call_id] = ToolRun(call_id, name, arguments, at_ms)
                timeline.tools.append(self._tools[call_id])
            case cmd.SendInterrupted(item_id, played_ms, heard_text, estimated):
                timeline.barge_ins.append(BargeIn(at_ms, item_id, played_ms, estimated))
                self._heard_texts[item_id] = heard_text
            case TurnMetrics():
                timeline.latencies.append(TurnLatency(**asdict(command), at_ms=at_ms))
            case cmd.SendError(code, message):
                self._add_note(now, "error", f"{code}: {message}")
            case cmd.SendUsage(usage):
                timeline.usage += usage

    def _on_tool_result(self, call_id: str, at_ms: float, status: str, output: str) -> None:
        run = self._tools.get(call_id)
        if run is not None:
            run.end_ms, run.status, run.output = at_ms, status, output[:MAX_TEXT_CHARS]

    def _get_user_speech(self, item_id: str, at_ms: float) -> UserSpeech:
        return self._speech.setdefault(item_id, UserSpeech(item_id, at_ms))

    def _on_user_transcript(self, item_id: str, text: str, at_ms: float) -> None:
        if item_id not in self._speech:
            speech = self._get_user_speech(item_id, at_ms)
            speech.typed, speech.end_ms = True, at_ms
        self._speech[item_id].text = text

    def _get_response(self, response_id: str, at_ms: float) -> TimelineResponse:
        return self._timeline_responses.setdefault(response_id, TimelineResponse(response_id, at_ms))

    def _on_interruption(self, item_ids: list[str], commands: Sequence[cmd.Command]) -> None:
        interruption = next((command for command in commands if isinstance(command, cmd.SendInterrupted)), None)
        if interruption is None or interruption.item_id not in item_ids:
            return
        for item_id in item_ids[item_ids.index(interruption.item_id) :]:  # later items were not played at all
            self._get_clip(item_id).cut_ms = interruption.played_ms if item_id == interruption.item_id else 0

    # -- the end ------------------------------------------------------------------------------------------------------

    def build(self) -> TimelineResult:
        user = layout_input(self.chunks, self.options.input)
        assistant, spans = layout_playback(self.clips.values(), self.options.output)
        timeline = self.timeline
        for item_id, (start_s, end_s) in spans.items():
            clip = self.clips[item_id]
            voice = self._voices.get(item_id, "")
            others = [other_id for other_id in self._items.get(clip.response_id, ()) if voice and other_id != item_id]
            text = "\n".join(filter(None, (self._texts.get(text_id) for text_id in (item_id, *others))))
            heard_text = self._heard_texts.get(item_id, "" if clip.cut_ms == 0 else None)
            span_ms = round(start_s * 1000, 1), round(end_s * 1000, 1)
            timeline.heard.append(
                PlayedItem(item_id, clip.response_id, *span_ms, text, heard_text, clip.cut_ms, voice, tuple(others))
            )
        timeline.speech, timeline.answers = [*self._speech.values()], [*self._timeline_responses.values()]
        timeline.input, timeline.output = _format_name(self.options.input), _format_name(self.options.output)
        duration_s = max(self.last_s - self.started_at, user.end_s, assistant.end_s)
        timeline.duration_ms = round(duration_s * 1000, 1)
        return TimelineResult(timeline, user, assistant)


def build_timeline(recording: Recording, playout_file: BinaryIO | None = None) -> TimelineResult:
    """Build the timeline; the audio that was sent to the client goes to `playout_file`. Raises RecordingError."""
    builder = _TimelineBuilder(recording, playout_file)
    for normalized in normalize_entries(recording):
        builder.add(normalized)
    return builder.build()


def _format_name(audio_format: AudioFormat) -> str:
    return f"{audio_format.encoding} {audio_format.rate_hz} Hz"
