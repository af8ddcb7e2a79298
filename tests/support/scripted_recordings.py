"""Recordings of scripted sessions, without sockets or clocks, in the recorder's format."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import numpy as np
import pybase64

from audio.formats import AudioFormat
from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format.records import InputAudioRecord, JournalRecord, OutputAudioRecord, TtsAudioRecord
from relay.recording.format.write import (
    end_line,
    event_line,
    input_lines,
    output_line,
    sent_audio_line,
    text_line,
    tts_audio_line,
)
from relay.recording.replay.replayer import ReplayedSession
from relay.recording.store.header import RecordingHeader, SessionSetup
from relay.recording.store.layout import (
    AUDIO_FILES,
    CLIENT_AUDIO_FILE,
    SENT_AUDIO_FILE,
    TTS_AUDIO_FILE,
    UPSTREAM_AUDIO_FILE,
    folder_name,
)
from relay.recording.store.writer import RecordingFiles, WriteBatch
from relay.session.common.media_types import AudioDelta, TtsAudioDelta
from relay.session.common.model import (
    Alignment,
    DeviceOptions,
    Item,
    SentAudio,
    SessionConfig,
    ToolSpec,
    TtsOptions,
    Usage,
)
from relay.session.common.policy import Principal
from relay.session.device import events as ev

STARTED_AT_S = 5000.0
STARTED = datetime(2026, 11, 20, 10, 15, 30, tzinfo=UTC)
PCM16_16K = AudioFormat("pcm16", 16_000)
TimedInput = tuple[float, ev.Event | AudioDelta | TtsAudioDelta | bytes]
"""What happens after so many seconds; bytes are the client's audio."""


def tone(ms: int, rate_hz: int = 24_000, hz: float = 440.0) -> bytes:
    """A quiet sine."""
    t = np.arange(rate_hz * ms // 1000) / rate_hz
    return (3000 * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def microphone_audio(ms: int, rate_hz: int = 16_000) -> bytes:
    """Audio of a device's."""
    return tone(ms, rate_hz, 200.0)


def model_audio(ms: int, item: str = "item_a", response: str = "resp_1") -> AudioDelta:
    """Audio of the model's."""
    return AudioDelta(response, item, 0, pybase64.b64encode(tone(ms)))


def conversation() -> list[TimedInput]:
    """A turn with a tool, its answer, and a barge-in; seconds from the start."""
    greeting: list[TimedInput] = [(0.0, ev.UpstreamOpened()), (0.1, ev.SessionCreated()), (0.2, ev.SessionUpdated(500))]
    spoken: list[TimedInput] = [(0.3 + n / 10, microphone_audio(100)) for n in range(12)]
    call = Item(
        "item_c", "function_call", status="completed", call_id="call_1", name="clock", arguments='{"city":"Rome"}'
    )
    turn: list[TimedInput] = [
        (0.6, ev.SpeechStarted("item_u", 200)),
        (1.4, ev.SpeechStopped("item_u", 900)),
        (1.4, ev.InputCommitted("item_u")),
        (1.5, ev.ResponseCreated("resp_0")),
        (1.6, ev.ResponseDone("resp_0", "completed", output=(call,), usage=Usage(10, 5, 15))),
        (1.65, ev.ToolCallFinished("call_1", "done", '{"time":"noon"}', 50)),
        (1.7, ev.UserTranscript("item_u", "what time is it in Rome? my mail is ann@example.com", True)),
        (1.8, ev.ResponseCreated("resp_1", "relay_3")),
        (1.8, ev.ItemAdded(Item("item_a", "message", "assistant"))),
        (1.9, ev.TextDelta("resp_1", "item_a", 0, "It is noon in Rome, and ", True)),
        (2.0, model_audio(1000)),
        (2.0, ev.FirstAudioSent("item_a")),
        (2.1, model_audio(1000)),
        (2.4, ev.Playback("item_a", 300)),
        (2.9, ev.DeadlineReached()),
        (2.9, ev.Playback("item_a", 800)),
        (3.0, ev.SpeechStarted("item_v", 1100)),
        (3.0, ev.PlayoutCleared((SentAudio("item_a", 0, 2000, 900),))),
        (3.1, ev.ResponseDone("resp_1", "cancelled", usage=Usage(20, 10, 30))),
        (3.6, ev.SpeechStopped("item_v", 1150)),
        (3.6, ev.InputCommitted("item_v", "item_a")),
        (3.7, ev.UserTranscript("item_v", "stop", True)),
        (4.0, ev.ClientClosed(1000)),
    ]
    return sorted([*greeting, *spoken, *turn], key=lambda timed: timed[0])


def tts_audio(text: str, ms: int, context: str = "relay_3", rate_hz: int = 16_000) -> TtsAudioDelta:
    """An external TTS voice speaks a text at an even pace."""
    step = ms // len(text)
    alignment = Alignment(tuple(text), tuple(n * step for n in range(len(text))), (step,) * len(text))
    return TtsAudioDelta(context, tone(ms, rate_hz, 330.0), alignment)


def tts_conversation() -> list[TimedInput]:
    """A turn that an external voice speaks, and a barge-in after its response; for a recording with a `voice_id`."""
    spoken: list[TimedInput] = [(0.3 + n / 10, microphone_audio(100)) for n in range(12)]
    turn: list[TimedInput] = [
        (0.0, ev.UpstreamOpened()),
        (0.1, ev.SessionCreated()),
        (0.2, ev.SessionUpdated(500)),
        (0.3, ev.TtsConnected()),
        (0.6, ev.SpeechStarted("item_u", 200)),
        (1.4, ev.SpeechStopped("item_u", 900)),
        (1.4, ev.InputCommitted("item_u")),
        (1.4, ev.ItemAdded(Item("item_u", "message", "user"))),
        (1.5, ev.UserTranscript("item_u", "who are you", True)),
        (1.6, ev.ResponseCreated("resp_1", "relay_2")),
        (1.6, ev.ItemAdded(Item("item_a", "message", "assistant"), "item_u")),
        (1.7, ev.TextDelta("resp_1", "item_a", 0, "One two three four. ", False)),
        (1.7, ev.TextDelta("resp_1", "item_a", 0, "Call 030 1234567.", False)),
        (1.8, tts_audio("One two three four. ", 2000)),
        (1.8, ev.FirstAudioSent("item_a")),
        (1.9, ev.TextDone("resp_1", "item_a", 0, "One two three four. Call 030 1234567.", False)),
        (1.9, ev.ResponseDone("resp_1", "completed", output=(Item("item_a", "message", "assistant"),))),
        (2.2, tts_audio("Call 030 1234567. ", 1800)),
        (2.2, ev.TtsContextDone("relay_3")),
        (2.4, ev.Playback("item_a", 500)),
        (2.9, ev.Playback("item_a", 1000)),
        (3.0, ev.SpeechStarted("item_v", 2200)),
        (3.0, ev.PlayoutCleared((SentAudio("item_a", 0, 2000, 1100),))),
        (3.6, ev.SpeechStopped("item_v", 2800)),
        (3.6, ev.InputCommitted("item_v", "relay_9")),
        (3.7, ev.UserTranscript("item_v", "stop", True)),
        (4.0, ev.ClientClosed(1000)),
    ]
    return sorted([*turn, *spoken], key=lambda timed: timed[0])


class ScriptedRecording:
    """A session and its recording; audio is sent to the client at once."""

    def __init__(self, beginning: SessionSetup) -> None:
        self.journal = bytearray()
        self.audio: dict[str, bytearray] = {name: bytearray() for name in AUDIO_FILES}
        self.session = ReplayedSession(beginning)
        self._playout = ReconstructedPlayout(beginning.options)

    def add(self, happening: ev.Event | AudioDelta | TtsAudioDelta | bytes, now: float) -> None:
        """Add an event or audio."""
        match happening:
            case bytes(samples):
                self.session.receive_input(len(samples))
                self._write(input_lines([now], len(samples)), CLIENT_AUDIO_FILE, samples)
            case AudioDelta():
                self._output(happening, now)
            case TtsAudioDelta():
                self._speech(happening, now)
            case _:
                self._event(happening, now)
        self._sent(now)

    def _write(self, line: bytes, name: str = "", samples: bytes = b"") -> None:
        self.journal += line
        if name:
            self.audio[name] += samples

    def _event(self, event: ev.Event, now: float) -> None:
        commands = self.session.handle(event, now)
        if isinstance(event, ev.TextDelta):
            self._write(text_line(event, now, commands))
        else:
            self._write(event_line(event, now, commands))
        self._playout.apply(InputAudioRecord(now, 0), b"", commands)

    def _output(self, delta: AudioDelta, now: float) -> None:
        key, samples = (delta.item_id, delta.content_index), pybase64.b64decode(delta.audio)
        rules = self.session.rules
        if delta.response_id not in rules.discarded_responses and key not in rules.started_parts:
            self._event(ev.OutputAudioStarted(delta.response_id, *key), now)
        discarded = self.session.discards_output(delta.response_id, key)
        if not discarded:
            self.session.accept_output(key, len(samples), now)
        line = OutputAudioRecord(now, len(samples), delta.response_id, *key, discarded)
        self._write(output_line(now, len(samples), delta.response_id, *key, discarded), UPSTREAM_AUDIO_FILE, samples)
        self._playout.apply(line, samples, ())

    def _speech(self, delta: TtsAudioDelta, now: float) -> None:
        context_id, samples, alignment = delta
        discarded = self.session.discards_tts_audio(context_id)
        commands = () if discarded else self.session.accept_tts_audio(context_id, len(samples), alignment, now)
        line: JournalRecord = TtsAudioRecord(now, len(samples), context_id, alignment, discarded)
        self._write(
            tts_audio_line(now, len(samples), context_id, alignment, commands, discarded), TTS_AUDIO_FILE, samples
        )
        self._playout.apply(line, samples, commands)

    def _sent(self, now: float) -> None:
        samples = b"".join(piece.samples for piece in self._playout.read(1 << 30))
        if samples:
            options = self._playout.options
            is_stored = options.output != options.upstream_output
            self._write(
                sent_audio_line(now, len(samples), crc32(samples), is_stored=is_stored),
                SENT_AUDIO_FILE if is_stored else "",
                samples,
            )


def make_recording(
    root: Path,
    events: Iterable[TimedInput] | None = None,
    *,
    session_id: str = "rs_scripted",
    options: DeviceOptions | None = None,
    started: datetime = STARTED,
    identity: str = "key-0123456789ab",
    ended: bool = True,
    change: Callable[[bytes], bytes] = bytes,
    voice_id: str | None = None,
) -> Path:
    """Write a recording of `events`; `change` edits the journal."""
    options = options or DeviceOptions(PCM16_16K, PCM16_16K)
    config = SessionConfig(
        voice=f"elevenlabs:{voice_id}" if voice_id else None,
        instructions="Be brief.",
        tools=(ToolSpec("clock", "Tells the time.", {"type": "object"}, visible_to_client=True),),
    )
    options = replace(options, has_external_voice=voice_id is not None)
    beginning = SessionSetup(
        session_id, config, options, Principal(identity), STARTED_AT_S, TtsOptions() if voice_id else None
    )
    header = RecordingHeader(beginning, started, "url (example)", "scripted")
    folder = root / folder_name(header.timestamp, session_id)
    recording, now = ScriptedRecording(beginning), STARTED_AT_S
    for after_s, happening in events if events is not None else conversation():
        now = STARTED_AT_S + after_s
        recording.add(happening, now)
    journal = bytes(recording.journal) + (end_line(now, "closed") if ended else b"")
    files = RecordingFiles(folder, header.to_json())
    client, model, spoken, sent = (bytes(recording.audio[name]) for name in AUDIO_FILES)
    files.write_batch(WriteBatch((client, model, spoken, sent), change(journal), 1, STARTED_AT_S, now))
    files.close()
    return folder
