"""A recording written anew from its events: with some of them changed, or with today's commands."""

import re
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import orjson
import pybase64

from audio.formats import AudioFormat
from relay.core import events as ev
from relay.core.commands import UseOptions
from relay.core.journal import from_json, to_json
from relay.core.journal_lines import (
    Gap,
    Happened,
    Sent,
    audio_line,
    end_line,
    event_line,
    gap_line,
    realtime_line,
    sent_line,
    voice_line,
    words_line,
)
from relay.core.journal_realtime import Frame, with_sound
from relay.core.realtime_events import ClientSaid, UpstreamSaid
from relay.core.replay import Rerun
from relay.private_files import create
from relay.recording.client_stream import ClientStream
from relay.recording.folder import AUDIO, CLIENT_AUDIO, JOURNAL, SENT_AUDIO, UPSTREAM_AUDIO, VOICE_AUDIO
from relay.recording.pieces import words_without
from relay.recording.reader import Entry, Recording, commands_of
from relay.recording.redaction import CONTENT, Redaction

_ITEM = re.compile(r'"item_id"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*)"')
REALTIME_CONTENT = CONTENT | {"transcript", "delta"}
"""What holds words in events of the Realtime protocol; sound is not among them here."""
_SILENCE = {"pcm16": b"\x00", "pcmu": b"\xff", "pcma": b"\xd5"}


class Copy:
    """The journal and the audio, line by line, without what is to go; `rerun` makes the commands, None keeps them."""

    def __init__(self, recording: Recording, target: Path, wanted: Redaction, rerun: Rerun | None) -> None:
        self.recording = recording
        self.rerun = rerun
        self._target = target
        self._wanted = wanted
        self._options = recording.header.beginning.options
        self._stream = ClientStream(self._options)
        self._started_at = recording.header.beginning.started_at
        self._spoken_items: dict[str, str] = {}
        self._telling = _contexts_that_tell(recording, wanted)
        self._words = words_without(recording, wanted)
        self._files: dict[str, IO[bytes]] = {}

    def run(self) -> None:
        """Write it all. Raises RecordingError, OSError."""
        there = [name for name in AUDIO if (self.recording.folder / name).exists()]
        self._files = {name: create(self._target / name) for name in (JOURNAL, *there)}
        try:
            for entry in self.recording.entries():
                self._files[JOURNAL].write(self._line(entry))
        finally:
            for file in self._files.values():
                file.close()

    def _line(self, entry: Entry) -> bytes:
        line = entry.line
        if isinstance(line, Happened):
            return self._event(entry, line)
        if isinstance(line, Sent):
            return self._sent(line)
        return gap_line(line) if isinstance(line, Gap) else end_line(line.now, line.reason)

    def _realtime(self, entry: Entry, line: Happened) -> bytes:
        """A line of a Realtime client's session; with its commands as recorded, they stand as they are tidied."""
        event = self._tidied(entry, line)
        if self.rerun is not None:
            self.rerun.step(entry.number, line, event)
            commands = self.rerun.commands if line.raised is None else None
            raw, samples, _ = realtime_line(event, line.now, commands, line.raised or "")
        else:
            raw, samples, _ = realtime_line(event, line.now, None, line.raised or "")
            told = orjson.loads(raw)
            if line.raised is None:
                del told["raised"]
                told["do"] = self._wanted.tidy(self._done(entry, line), gone=bool(self._wanted.spans))
            raw = orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
        if samples:
            self._files[CLIENT_AUDIO if line.is_input else UPSTREAM_AUDIO].write(samples)
        return raw

    def _tidied(self, entry: Entry, line: Happened) -> Any:
        event, wanted = entry.event, self._wanted
        if line.n_audio_bytes:
            item_id = (_ITEM.search(line.frame.head) or _ITEM.search(line.frame.tail)) if line.frame else None
            samples = self._as_it_may_stay(bytes(entry.samples), line.is_input, item_id[1] if item_id else "", line.now)
            return with_sound(event, line.frame or Frame(), samples)
        if isinstance(event, ClientSaid):
            return ClientSaid(wanted.tidy(event.body, said=REALTIME_CONTENT))
        if isinstance(event, UpstreamSaid):
            body = orjson.loads(event.raw)
            words = {"delta": self._words[entry.number]} if entry.number in self._words else {}
            tidy = wanted.tidy(body | words, said=REALTIME_CONTENT)
            raw = event.raw if tidy == body else orjson.dumps(tidy)
            return UpstreamSaid(raw, tidy if event.body else {})
        return from_json(wanted.tidy(to_json(event)))

    def _event(self, entry: Entry, line: Happened) -> bytes:
        if self.recording.header.beginning.realtime is not None:
            return self._realtime(entry, line)
        event = entry.event
        assert event is not None  # of every line of this kind
        if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
            event = self._sound(event, entry.samples, line.now)
        elif isinstance(event, ev.VoiceSpoke) and line.n_audio_bytes:
            event = self._speech(event, entry.samples, line)
        else:
            told = to_json(event)
            if entry.number in self._words:
                told["text"] = self._words[entry.number]
            event = from_json(self._wanted.tidy(told))
        assert event is not None
        if self.rerun is not None:
            self.rerun.step(entry.number, line, event)
            commands = self.rerun.commands
            self._stream.run(event, commands)
            self._options = self._stream.options
            if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
                return audio_line(event, line.now, commands)
            if isinstance(event, ev.VoiceSpoke) and line.n_audio_bytes:
                return voice_line(event, line.now, commands)
            if isinstance(event, ev.TextDelta) and line.raised is None:
                return words_line(event, line.now, commands)
            return event_line(event, line.now, commands if line.raised is None else None, line.raised or "")
        for command in commands_of(self.recording, entry):
            if isinstance(command, UseOptions):
                self._options = command.options
        # As it was recorded; whatever it says of silenced spans goes, for it can't be told from the rest.
        do = self._wanted.tidy(self._done(entry, line), gone=bool(self._wanted.spans))
        if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
            raw = orjson.loads(audio_line(event, line.now, ()))
        elif isinstance(event, ev.VoiceSpoke) and line.n_audio_bytes:
            raw = orjson.loads(voice_line(event, line.now, ()))
        else:
            raw = orjson.loads(event_line(event, line.now, () if line.raised is None else None, line.raised or ""))
        return orjson.dumps(raw | ({"do": do} if line.raised is None else {}), option=orjson.OPT_APPEND_NEWLINE)

    def _done(self, entry: Entry, line: Happened) -> list[Any]:
        """What was done, as recorded, but for a piece of a text, whose words stand there again."""
        words = self._words.get(entry.number)
        if words is None:
            return list(line.do or ())
        done = []
        for one in line.do or ():
            if isinstance(one, dict) and "text" in one:
                one = one | {"text": words}
            elif isinstance(one, dict) and isinstance(one.get("body"), dict) and "delta" in one["body"]:
                one = one | {"body": one["body"] | {"delta": words}}
            done.append(one)
        return done

    def _sound(self, event: ev.Forwarded, samples: Any, now: float) -> ev.Forwarded:
        is_input = event.kind == "input_audio"
        samples = self._as_it_may_stay(bytes(samples), is_input, event.item_id, now)
        self._files[CLIENT_AUDIO if is_input else UPSTREAM_AUDIO].write(samples)
        return event._replace(raw=samples if is_input else pybase64.b64encode(samples))

    def _as_it_may_stay(self, samples: bytes, is_input: bool, item_id: str, now: float) -> bytes:
        """Sound as it may stay: silence, if it lies in a span that is to go."""
        at_ms = (now - self._started_at) * 1000
        if is_input:
            # It was spoken before it arrived, and may have been late: a second on either side goes as well.
            gone = any(span.touches(at_ms - 1000, at_ms + 1000) for span in self._wanted.spans)
            sound: AudioFormat = self._options.input
        else:
            gone = item_id in self._wanted.silenced_items
            sound = self._options.upstream_output
        if gone:
            samples = self._silence(sound, len(samples))
        return samples

    def _speech(self, event: ev.VoiceSpoke, samples: Any, line: Happened) -> ev.VoiceSpoke:
        """An external voice's sound, and when each character of it is heard, which spells what was said."""
        samples = bytes(samples)
        for one in line.do or ():
            if isinstance(one, dict) and one.get("t") == "Forwarded":
                self._spoken_items[event.context_id] = str(one.get("item_id"))
        item_id = self._spoken_items.get(event.context_id)  # None: nobody heard it, so nobody knows when it was
        silenced = self._wanted.silenced_items
        gone = bool(self._wanted.spans) if item_id is None else item_id in silenced
        if gone:
            samples = self._silence(self._options.upstream_output, len(samples))
        self._files[VOICE_AUDIO].write(samples)
        tells = gone or event.context_id in self._telling or "text" in self._wanted.fields
        return event._replace(raw=pybase64.b64encode(samples), alignment=None if tells else event.alignment)

    def _silence(self, sound: AudioFormat, n_bytes: int) -> bytes:
        self._wanted.removed["ms of sound"] += sound.ms_of(n_bytes)
        return _SILENCE[sound.encoding] * n_bytes

    def _sent(self, line: Sent) -> bytes:
        if self.rerun is None:
            return sent_line(line.now, line.n_bytes, line.crc, kept=False)
        samples = b"".join(piece.samples for piece in self._stream.take(line.n_bytes))
        if line.kept:
            self._files[SENT_AUDIO].write(samples)
        return sent_line(line.now, len(samples), crc32(samples), kept=line.kept)


def _contexts_that_tell(recording: Recording, wanted: Redaction) -> frozenset[str]:
    """The contexts of a voice in whose words, put together from their characters, a pattern finds something."""
    if not wanted.patterns or not (recording.folder / VOICE_AUDIO).exists():
        return frozenset()
    words: dict[str, list[str]] = {}
    for entry in recording.entries():
        event = entry.event
        if isinstance(event, ev.VoiceSpoke) and event.alignment is not None:
            words.setdefault(event.context_id, []).extend(event.alignment.chars)
    return frozenset(
        context_id
        for context_id, chars in words.items()
        if any(one.spans("".join(chars)) for one in wanted.patterns.values())
    )
