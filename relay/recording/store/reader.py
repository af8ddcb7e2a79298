"""Read a recording: header, journal and audio. Its content is untrusted: every member is checked."""

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.recording.format import version1, version2
from relay.recording.format.realtime import join_audio, restore_audio
from relay.recording.format.records import (
    AudioEnvelope,
    EndRecord,
    EventRecord,
    GapRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import from_json
from relay.recording.format.version2 import get_int, get_time_s
from relay.recording.format.write import FORWARDED, MAX_LINE_BYTES, is_unredacted, parse_json, redact_deferred
from relay.recording.store.header import RecordingHeader, read_header
from relay.recording.store.layout import (
    AUDIO_FILES,
    CLIENT_AUDIO_FILE,
    JOURNAL_FILE,
    SENT_AUDIO_FILE,
    TTS_AUDIO_FILE,
    UPSTREAM_AUDIO_FILE,
    RecordingError,
    open_file,
)
from relay.session.realtime.events import ForwardToClient, RealtimeClientEvent, RealtimeServerEvent, SendToUpstream


def decode_line(raw: bytes, format: int) -> list[JournalRecord]:
    """Decode one line; a line of format 1 can be two records. Raises ValueError that names the wrong member."""
    line = parse_line(raw)
    if "gap" in line:
        gap = line["gap"] if isinstance(line["gap"], dict) else {}
        return [GapRecord(get_int(gap, "records"), get_time_s(gap, "from"), get_time_s(gap, "to"))]
    now = get_time_s(line, "now")
    if "end" in line:
        return [EndRecord(now, str(line["end"]))]
    if "sent" in line:
        return [SentAudioRecord(now, get_int(line, "sent"), get_int(line, "crc"), line.get("kept") is True)]
    return version1.decode_record(line, now) if format == 1 else [version2.decode_record(line, now)]


def parse_line(raw: bytes) -> JsonObject:
    """Parse the JSON object of a line, redacted. Raises ValueError."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes, more than the maximum of {MAX_LINE_BYTES}")
    try:
        line = parse_json(redact_deferred(raw) if is_unredacted(raw) else raw)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(line, dict):
        raise ValueError("a line must be a JSON object")
    return line


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A record with its line number and its audio, `samples`, in the recorded format.

    `raw` is the whole Realtime event if the audio was in one.
    """

    number: int
    record: JournalRecord
    samples: BytesLike = b""
    raw: bytes = b""


def decode_commands(recording: "Recording", entry: JournalEntry) -> list[Any]:
    """Decode the recorded commands of an event or of TTS audio. Raises RecordingError."""
    record = entry.record
    if not isinstance(record, EventRecord | TtsAudioRecord):
        return []
    event = record.event if isinstance(record, EventRecord) else None
    try:
        return [
            _forward_command(event) if command == FORWARDED else from_json(command)
            for command in record.stored_commands or ()
        ]
    except ValueError as error:
        raise recording.error_at(entry.number, str(error)) from None


def _forward_command(event: Any) -> Any:
    """Return the command that forwards an event unchanged. Raises ValueError."""
    match event:
        case RealtimeServerEvent(raw):
            return ForwardToClient(raw)
        case RealtimeClientEvent(body):
            return SendToUpstream(body)
    raise ValueError("only an event of the Realtime protocol can be forwarded")


class AudioFile:
    """An audio file of a recording, read sequentially; a missing file is empty."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.position = 0
        self._content: mmap.mmap | bytes = b""
        if not self.path.exists() and not self.path.is_symlink():
            return
        with open_file(folder, name) as file:
            if os.fstat(file.fileno()).st_size:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self, n_bytes: int) -> bytes:
        """Read the next bytes. Raises ValueError if the file is too short."""
        end = self.position + n_bytes
        if end > len(self._content):
            raise ValueError(f"the audio ends at byte {end} of {self.path.name}, which has only {len(self._content)}")
        start, self.position = self.position, end
        return self._content[start:end]

    def close(self) -> None:
        """Unmap the file."""
        if isinstance(self._content, mmap.mmap):
            self._content.close()


class Recording:
    """A recording to read. No file stays open between two passes. Its RecordingErrors name file and line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: RecordingHeader = read_header(folder)
        self.journal_path = folder / JOURNAL_FILE
        self.has_end = False

    def entries(self) -> Iterator[JournalEntry]:
        """Iterate over the journal, each record with its audio. Raises RecordingError."""
        has_end, is_realtime = False, self.header.setup.realtime is not None
        with ExitStack() as stack:
            audio = {name: AudioFile(self.folder, name) for name in AUDIO_FILES}
            for file in audio.values():
                stack.callback(file.close)
            last_s = float("-inf")
            for number, raw in self._raw_lines(stack):
                try:
                    for record in decode_line(raw, self.header.format):
                        now = last_s if isinstance(record, GapRecord) else record.time_s
                        if now < last_s:
                            raise ValueError(f"the time goes backwards, from {last_s} to {now}")
                        if has_end:
                            raise ValueError("no line may follow the end record")
                        last_s, has_end = now, isinstance(record, EndRecord)
                        yield _read_entry(number, record, audio, is_realtime)
                except ValueError as error:
                    raise self.error_at(number, str(error)) from None
            self.has_end = has_end

    def error_at(self, number: int, problem: str) -> RecordingError:
        """Return the error for a line of the journal."""
        return RecordingError(f"{self.journal_path} line {number}: {problem}")

    def _raw_lines(self, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
        file = stack.enter_context(open_file(self.folder, JOURNAL_FILE))
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 2):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise self.error_at(number, f"the line is longer than the maximum of {MAX_LINE_BYTES} bytes")
            if not raw.endswith(b"\n"):
                raise self.error_at(number, "the line is truncated: `relay recordings repair` removes it")
            yield number, raw


def _read_entry(number: int, record: JournalRecord, audio: Mapping[str, AudioFile], is_realtime: bool) -> JournalEntry:
    """Add the audio to a record. Raises ValueError for a record that this kind of session cannot have."""
    if not _is_allowed(record, is_realtime):
        raise ValueError(f"a {'Realtime client' if is_realtime else 'device'}'s session cannot have this record")
    name, n_bytes = audio_location(record)
    samples = audio[name].read(n_bytes) if name else b""
    match record:
        case InputAudioRecord(envelope=envelope) if is_realtime:
            envelope = envelope or AudioEnvelope()
            return JournalEntry(number, replace(record, envelope=envelope), samples, join_audio(envelope, samples))
        case OutputAudioRecord(envelope=AudioEnvelope() as envelope):
            return JournalEntry(number, record, samples, join_audio(envelope, samples))
        case EventRecord() if samples:
            return JournalEntry(number, replace(record, event=restore_audio(record.event, samples)), samples)
    return JournalEntry(number, record, samples)


def _is_allowed(record: JournalRecord, is_realtime: bool) -> bool:
    match record:
        case (
            EventRecord(event=RealtimeClientEvent() | RealtimeServerEvent())
            | OutputAudioRecord(envelope=AudioEnvelope())
            | InputAudioRecord(envelope=AudioEnvelope())
        ):
            return is_realtime
        case OutputAudioRecord() | TtsAudioRecord() | SentAudioRecord():
            return not is_realtime
    return True


def audio_location(record: JournalRecord) -> tuple[str, int]:
    """Return the file that contains the audio of a record, and its length there; no name if there is none."""
    match record:
        case InputAudioRecord(n_bytes=n_bytes) | EventRecord(n_audio_bytes=n_bytes) if n_bytes:
            return CLIENT_AUDIO_FILE, n_bytes
        case OutputAudioRecord(n_bytes=n_bytes):
            return UPSTREAM_AUDIO_FILE, n_bytes
        case TtsAudioRecord(n_bytes=n_bytes):
            return TTS_AUDIO_FILE, n_bytes
        case SentAudioRecord(n_bytes=n_bytes, is_stored=True):
            return SENT_AUDIO_FILE, n_bytes
    return "", 0
