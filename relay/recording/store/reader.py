"""Reading a recording: its header, its journal line by line, its audio. Nothing in it is trusted to be as written."""

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
from relay.recording.format.lines import (
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
from relay.recording.format.realtime import join_audio, with_audio
from relay.recording.format.serialize import from_json
from relay.recording.format.version2 import int_member, time_member
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
    """One line of the file; of format 1 it can be two. Raises ValueError naming what is wrong with it."""
    line = parse_line(raw)
    if "gap" in line:
        gap = line["gap"] if isinstance(line["gap"], dict) else {}
        return [GapRecord(int_member(gap, "records"), time_member(gap, "from"), time_member(gap, "to"))]
    now = time_member(line, "now")
    if "end" in line:
        return [EndRecord(now, str(line["end"]))]
    if "sent" in line:
        return [SentAudioRecord(now, int_member(line, "sent"), int_member(line, "crc"), line.get("kept") is True)]
    return version1.decode_record(line, now) if format == 1 else [version2.decode_record(line, now)]


def parse_line(raw: bytes) -> JsonObject:
    """The JSON object of a line, redacted. Raises ValueError."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes; {MAX_LINE_BYTES} are the most a journal's line may have")
    try:
        line = parse_json(redact_deferred(raw) if is_unredacted(raw) else raw)
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    if not isinstance(line, dict):
        raise ValueError("a line is a JSON object")
    return line


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line with its number in the file.

    `samples` are its audio, in its own format. `raw` is the whole Realtime event where the line holds audio in one.
    """

    number: int
    record: JournalRecord
    samples: BytesLike = b""
    raw: bytes = b""


def decode_commands(recording: "Recording", entry: JournalEntry) -> list[Any]:
    """The commands that followed an event, or an external voice's audio, as they were recorded."""
    line = entry.record
    if not isinstance(line, EventRecord | TtsAudioRecord):
        return []
    event = line.event if isinstance(line, EventRecord) else None
    try:
        return [
            _passed_on(event) if command == FORWARDED else from_json(command) for command in line.stored_commands or ()
        ]
    except ValueError as error:
        raise recording.error_at(entry.number, str(error)) from None


def _passed_on(event: Any) -> Any:
    """The command that passes an event of one end on to the other. Raises ValueError."""
    match event:
        case RealtimeServerEvent(raw):
            return ForwardToClient(raw)
        case RealtimeClientEvent(body):
            return SendToUpstream(body)
    raise ValueError("only an event of the Realtime protocol can be passed on")


class AudioFile:
    """One of a recording's audio files, read from its beginning to its end; one that is missing is empty."""

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
        """The next bytes. Raises ValueError if there are not that many."""
        end = self.position + n_bytes
        if end > len(self._content):
            raise ValueError(f"it speaks of {self.path.name} up to byte {end}, which has only {len(self._content)}")
        start, self.position = self.position, end
        return self._content[start:end]

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._content, mmap.mmap):
            self._content.close()


class Recording:
    """One recording, to be read; nothing stays open between two passes. Its RecordingErrors name file and line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: RecordingHeader = read_header(folder)
        self.journal_path = folder / JOURNAL_FILE
        self.has_end = False

    def entries(self) -> Iterator[JournalEntry]:
        """The journal from its first line to its last, each with its audio."""
        ended, is_realtime = False, self.header.setup.realtime is not None
        with ExitStack() as stack:
            audio = {name: AudioFile(self.folder, name) for name in AUDIO_FILES}
            for file in audio.values():
                stack.callback(file.close)
            last = float("-inf")
            for number, raw in self._raw_lines(stack):
                try:
                    for line in decode_line(raw, self.header.format):
                        now = last if isinstance(line, GapRecord) else line.time_s
                        if now < last:
                            raise ValueError(f"time runs backwards, from {last} to {now}")
                        if ended:
                            raise ValueError("there is a line behind the end")
                        last, ended = now, isinstance(line, EndRecord)
                        yield _entry(number, line, audio, is_realtime)
                except ValueError as error:
                    raise self.error_at(number, str(error)) from None
            self.has_end = ended

    def error_at(self, number: int, problem: str) -> RecordingError:
        """The error for a line of the journal."""
        return RecordingError(f"{self.journal_path} line {number}: {problem}")

    def _raw_lines(self, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
        file = stack.enter_context(open_file(self.folder, JOURNAL_FILE))
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 2):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise self.error_at(number, "the line is longer than any that was recorded")
            if not raw.endswith(b"\n"):
                raise self.error_at(number, "the line is cut off; `relay recordings repair` takes it away")
            yield number, raw


def _entry(number: int, line: JournalRecord, audio: Mapping[str, AudioFile], is_realtime: bool) -> JournalEntry:
    """The line with its audio. Raises ValueError for a line that no session of this kind has."""
    if not _fits(line, is_realtime):
        raise ValueError(f"a {'Realtime client' if is_realtime else 'device'}'s session has no such line")
    name, n_bytes = audio_location(line)
    samples = audio[name].read(n_bytes) if name else b""
    match line:
        case InputAudioRecord(envelope=frame) if is_realtime:
            frame = frame or AudioEnvelope()
            return JournalEntry(number, replace(line, envelope=frame), samples, join_audio(frame, samples))
        case OutputAudioRecord(envelope=AudioEnvelope() as frame):
            return JournalEntry(number, line, samples, join_audio(frame, samples))
        case EventRecord() if samples:
            return JournalEntry(number, replace(line, event=with_audio(line.event, samples)), samples)
    return JournalEntry(number, line, samples)


def _fits(line: JournalRecord, is_realtime: bool) -> bool:
    match line:
        case (
            EventRecord(event=RealtimeClientEvent() | RealtimeServerEvent())
            | OutputAudioRecord(envelope=AudioEnvelope())
            | InputAudioRecord(envelope=AudioEnvelope())
        ):
            return is_realtime
        case OutputAudioRecord() | TtsAudioRecord() | SentAudioRecord():
            return not is_realtime
    return True


def audio_location(line: JournalRecord) -> tuple[str, int]:
    """The file that holds the audio of a line, and how many bytes of it; no name if there is none."""
    match line:
        case InputAudioRecord(n_bytes=n_bytes) | EventRecord(n_audio_bytes=n_bytes) if n_bytes:
            return CLIENT_AUDIO_FILE, n_bytes
        case OutputAudioRecord(n_bytes=n_bytes):
            return UPSTREAM_AUDIO_FILE, n_bytes
        case TtsAudioRecord(n_bytes=n_bytes):
            return TTS_AUDIO_FILE, n_bytes
        case SentAudioRecord(n_bytes=n_bytes, is_stored=True):
            return SENT_AUDIO_FILE, n_bytes
    return "", 0
