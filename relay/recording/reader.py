"""Reading a recording: its header, its journal line by line, its audio. Nothing in it is trusted to be as written."""

import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pybase64

from audio.framing import Chunk
from relay.core.events import Forwarded, VoiceSpoke
from relay.core.journal import from_json
from relay.core.journal_lines import MAX_LINE_BYTES, PASSED_ON, End, Gap, Happened, Line, Sent, read_line
from relay.core.journal_realtime import Frame, with_sound
from relay.core.realtime_events import ClientSaid, PassDown, TellUpstream, UpstreamSaid
from relay.recording.folder import (
    AUDIO,
    CLIENT_AUDIO,
    JOURNAL,
    SENT_AUDIO,
    UPSTREAM_AUDIO,
    VOICE_AUDIO,
    RecordingError,
    open_file,
)
from relay.recording.header import Header, read_header


@dataclass(frozen=True, slots=True)
class Entry:
    """One line with its number; `event` is whole, with its audio, and `samples` are the audio in its own format."""

    number: int
    line: Line
    event: Any = None
    samples: Chunk = b""


def commands_of(recording: "Recording", entry: Entry) -> list[Any]:
    """The commands that followed an event then; early microphone audio that was passed on later is left out."""
    line = entry.line
    if not isinstance(line, Happened) or entry.event is None:
        return []
    found: list[Any] = []
    for one in line.do or ():
        if one == PASSED_ON:
            found.append(_passed_on(entry.event))
        elif "crc" not in one or isinstance(entry.event, VoiceSpoke):
            try:
                found.append(_command(one, entry.event))
            except ValueError as error:
                raise recording.wrong(entry.number, str(error)) from None
    return found


def _passed_on(event: Any) -> Any:
    """The command that passes an event on: itself if it is sound, else what tells it to the other end."""
    if isinstance(event, UpstreamSaid):
        return PassDown(event.raw)
    return TellUpstream(event.body) if isinstance(event, ClientSaid) else event


def _command(told: dict[str, Any], event: Any) -> Any:
    """A command of a line; the sound that an external voice's led to is that voice's."""
    if told.get("t") == "Forwarded" and isinstance(event, VoiceSpoke):
        told = {name: member for name, member in told.items() if name != "crc"} | {"raw": ""}
        sound = from_json(told)
        assert isinstance(sound, Forwarded)
        return sound._replace(raw=event.raw)
    return from_json(told)


class AudioFile:
    """One of a recording's audio files, read from its beginning to its end; one that is missing is empty."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.position = 0
        self._map: mmap.mmap | None = None
        if not self.path.exists() and not self.path.is_symlink():
            return
        descriptor = open_file(folder, name)
        try:
            if os.fstat(descriptor).st_size:
                self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)

    @property
    def n_bytes(self) -> int:
        """Its length."""
        return len(self._map) if self._map is not None else 0

    def take(self, n_bytes: int) -> bytes:
        """The next bytes. Raises ValueError if there are not that many."""
        end = self.position + n_bytes
        if end > self.n_bytes:
            raise ValueError(f"it speaks of {self.path.name} up to byte {end}, which has only {self.n_bytes}")
        start, self.position = self.position, end
        return self._map[start:end] if self._map is not None else b""

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()


class Recording(AbstractContextManager["Recording"]):
    """One recording, open for reading. Raises RecordingError, which names the file and the line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: Header = read_header(folder)
        self.journal_path = folder / JOURNAL
        self.ended = False

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between two passes."""

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
                    line = read_line(raw)
                    now = last if isinstance(line, Gap) else line.now
                    if now < last:
                        raise ValueError(f"time runs backwards, from {last} to {now}")
                    if ended:
                        raise ValueError("there is a line behind the end")
                    last = now
                    entry = _entry(number, line, audio, is_realtime)
                except ValueError as error:
                    raise self.wrong(number, str(error)) from None
                ended = isinstance(line, End)
                yield entry
            self.ended = ended

    def wrong(self, number: int, what: str) -> RecordingError:
        """The error for a line of the journal."""
        return RecordingError(f"{self.journal_path} line {number}: {what}")

    def _raw_lines(self, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
        file = stack.enter_context(os.fdopen(open_file(self.folder, JOURNAL), "rb"))
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 2):
            number += 1
            if not raw.endswith(b"\n"):
                raise self.wrong(number, "the line is cut off; `relay recordings repair` takes it away")
            yield number, raw


def _entry(number: int, line: Line, audio: dict[str, AudioFile], is_realtime: bool) -> Entry:
    if isinstance(line, Sent):
        return Entry(number, line, samples=audio[SENT_AUDIO].take(line.n_bytes) if line.kept else b"")
    if not isinstance(line, Happened):
        return Entry(number, line)
    event: Any = line.event
    if line.n_audio_bytes and (line.frame is not None or is_realtime):
        samples = audio[CLIENT_AUDIO if line.is_input else UPSTREAM_AUDIO].take(line.n_audio_bytes)
        return Entry(number, line, with_sound(event, line.frame or Frame(), samples), samples)
    if line.n_audio_bytes and isinstance(event, VoiceSpoke):
        samples = audio[VOICE_AUDIO].take(line.n_audio_bytes)
        return Entry(number, line, event._replace(raw=pybase64.b64encode(samples)), samples)
    if line.n_audio_bytes and isinstance(event, Forwarded):
        if event.kind == "input_audio":
            samples = audio[CLIENT_AUDIO].take(line.n_audio_bytes)
            return Entry(number, line, event._replace(raw=samples), samples)
        samples = audio[UPSTREAM_AUDIO].take(line.n_audio_bytes)
        return Entry(number, line, event._replace(raw=pybase64.b64encode(samples)), samples)
    return Entry(number, line, event)
