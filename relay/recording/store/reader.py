"""Reading a recording: its header, its journal line by line, its audio. Nothing in it is trusted to be as written."""

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio.framing import Chunk
from relay.json_types import JsonObject
from relay.recording.format import version1, version2
from relay.recording.format.lines import End, Frame, Gap, Happened, InputAudio, Line, OutputAudio, Sent, SpeechAudio
from relay.recording.format.realtime import joined, with_audio
from relay.recording.format.serialize import from_json
from relay.recording.format.version2 import count, time
from relay.recording.format.write import MAX_LINE_BYTES, PASSED_ON, is_unredacted, load, redacted_later
from relay.recording.store.header import Header, read_header
from relay.recording.store.layout import (
    AUDIO,
    CLIENT_AUDIO,
    JOURNAL,
    SENT_AUDIO,
    UPSTREAM_AUDIO,
    VOICE_AUDIO,
    RecordingError,
    open_file,
)
from relay.session.realtime.events import ForwardToClient, RealtimeClientEvent, RealtimeServerEvent, SendToUpstream


def read_line(raw: bytes, format: int) -> list[Line]:
    """One line of the file; of format 1 it can be two. Raises ValueError naming what is wrong with it."""
    line = parse(raw)
    if "gap" in line:
        gap = line["gap"] if isinstance(line["gap"], dict) else {}
        return [Gap(count(gap, "records"), time(gap, "from"), time(gap, "to"))]
    now = time(line, "now")
    if "end" in line:
        return [End(now, str(line["end"]))]
    if "sent" in line:
        return [Sent(now, count(line, "sent"), count(line, "crc"), line.get("kept") is True)]
    return version1.read(line, now) if format == 1 else [version2.read(line, now)]


def parse(raw: bytes) -> JsonObject:
    """The JSON object of a line, redacted. Raises ValueError."""
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes; {MAX_LINE_BYTES} are the most a journal's line may have")
    try:
        line = load(redacted_later(raw) if is_unredacted(raw) else raw)
    except ValueError as error:
        raise ValueError(f"that is not JSON: {error}") from None
    if not isinstance(line, dict):
        raise ValueError("a line is a JSON object")
    return line


@dataclass(frozen=True, slots=True)
class Entry:
    """One line with its number in the file.

    `samples` are its audio, in its own format. `raw` is the whole Realtime event where the line holds audio in one.
    """

    number: int
    line: Line
    samples: Chunk = b""
    raw: bytes = b""


def commands_of(recording: "Recording", entry: Entry) -> list[Any]:
    """The commands that followed an event, or an external voice's audio, as they were recorded."""
    line = entry.line
    if not isinstance(line, Happened | SpeechAudio):
        return []
    event = line.event if isinstance(line, Happened) else None
    try:
        return [_passed_on(event) if command == PASSED_ON else from_json(command) for command in line.do or ()]
    except ValueError as error:
        raise recording.wrong(entry.number, str(error)) from None


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

    def take(self, n_bytes: int) -> bytes:
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
        self.header: Header = read_header(folder)
        self.journal_path = folder / JOURNAL
        self.ended = False

    def entries(self) -> Iterator[Entry]:
        """The journal from its first line to its last, each with its audio."""
        ended, is_realtime = False, self.header.beginning.realtime is not None
        with ExitStack() as stack:
            audio = {name: AudioFile(self.folder, name) for name in AUDIO}
            for file in audio.values():
                stack.callback(file.close)
            last = float("-inf")
            for number, raw in self._raw_lines(stack):
                try:
                    for line in read_line(raw, self.header.format):
                        now = last if isinstance(line, Gap) else line.now
                        if now < last:
                            raise ValueError(f"time runs backwards, from {last} to {now}")
                        if ended:
                            raise ValueError("there is a line behind the end")
                        last, ended = now, isinstance(line, End)
                        yield _entry(number, line, audio, is_realtime)
                except ValueError as error:
                    raise self.wrong(number, str(error)) from None
            self.ended = ended

    def wrong(self, number: int, what: str) -> RecordingError:
        """The error for a line of the journal."""
        return RecordingError(f"{self.journal_path} line {number}: {what}")

    def _raw_lines(self, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
        file = stack.enter_context(open_file(self.folder, JOURNAL))
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 2):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise self.wrong(number, "the line is longer than any that was recorded")
            if not raw.endswith(b"\n"):
                raise self.wrong(number, "the line is cut off; `relay recordings repair` takes it away")
            yield number, raw


def _entry(number: int, line: Line, audio: Mapping[str, AudioFile], is_realtime: bool) -> Entry:
    """The line with its audio. Raises ValueError for a line that no session of this kind has."""
    if not _fits(line, is_realtime):
        raise ValueError(f"a {'Realtime client' if is_realtime else 'device'}'s session has no such line")
    name, n_bytes = audio_of(line)
    samples = audio[name].take(n_bytes) if name else b""
    match line:
        case InputAudio(frame=frame) if is_realtime:
            frame = frame or Frame()
            return Entry(number, replace(line, frame=frame), samples, joined(frame, samples))
        case OutputAudio(frame=Frame() as frame):
            return Entry(number, line, samples, joined(frame, samples))
        case Happened() if samples:
            return Entry(number, replace(line, event=with_audio(line.event, samples)), samples)
    return Entry(number, line, samples)


def _fits(line: Line, is_realtime: bool) -> bool:
    match line:
        case (
            Happened(event=RealtimeClientEvent() | RealtimeServerEvent())
            | OutputAudio(frame=Frame())
            | InputAudio(frame=Frame())
        ):
            return is_realtime
        case OutputAudio() | SpeechAudio() | Sent():
            return not is_realtime
    return True


def audio_of(line: Line) -> tuple[str, int]:
    """The file that holds the audio of a line, and how many bytes of it; no name if there is none."""
    match line:
        case InputAudio(n_bytes=n_bytes) | Happened(n_audio_bytes=n_bytes) if n_bytes:
            return CLIENT_AUDIO, n_bytes
        case OutputAudio(n_bytes=n_bytes):
            return UPSTREAM_AUDIO, n_bytes
        case SpeechAudio(n_bytes=n_bytes):
            return VOICE_AUDIO, n_bytes
        case Sent(n_bytes=n_bytes, kept=True):
            return SENT_AUDIO, n_bytes
    return "", 0
