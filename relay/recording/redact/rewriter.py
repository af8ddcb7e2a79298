"""A recording written anew, line by line: what is to go is taken out of a line, then the line is rendered.

Its commands are today's, made by a replay of what is left, or the recorded ones without what is to go.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import orjson

from audio.formats import AudioFormat
from relay.private_files import create
from relay.recording.derive.normalize import parsed_event, with_part
from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format import write
from relay.recording.format.lines import End, Frame, Gap, Happened, InputAudio, Line, OutputAudio, Sent, SpeechAudio
from relay.recording.format.realtime import with_audio
from relay.recording.format.serialize import from_json, to_json
from relay.recording.redact.rules import CONTENT, Redaction
from relay.recording.replay.replayer import Replayer
from relay.recording.store.layout import AUDIO, JOURNAL, VOICE_AUDIO
from relay.recording.store.reader import Entry, Recording, audio_of, commands_of
from relay.session.device import events as ev
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta, TtsAudio
from relay.session.realtime.events import ClientSaid, UpstreamSaid

REALTIME_CONTENT = CONTENT | {"transcript", "delta"}
"""The members that hold text in events of the Realtime protocol; audio is not among them here."""


class RedactedCopy:
    """The journal and the audio without what is to go; `replayer` makes the commands, None keeps the recorded ones."""

    def __init__(self, recording: Recording, target: Path, wanted: Redaction, replayer: Replayer | None) -> None:
        self._recording = recording
        self._replayer = replayer
        self._target = target
        self._wanted = wanted
        beginning = recording.header.beginning
        self._is_device = beginning.realtime is None
        self._content = CONTENT if self._is_device else REALTIME_CONTENT
        self._started_at = beginning.started_at
        self._playout = ReconstructedPlayout(beginning.options)
        self._spoken_items: dict[str, str] = {}
        self._revealing = _revealing_contexts(recording, wanted)
        self._texts = redacted_pieces(recording, wanted)

    def write(self) -> None:
        """Write it all. Raises RecordingError, OSError."""
        there = [name for name in AUDIO if (self._recording.folder / name).exists()]
        files: dict[str, IO[bytes]] = {name: create(self._target / name) for name in (JOURNAL, *there)}
        try:
            for entry in self._recording.entries():
                copy = self._copy(entry)
                files[JOURNAL].write(rendered(copy.line))
                if copy.samples:
                    files[audio_of(copy.line)[0]].write(copy.samples)
        finally:
            for file in files.values():
                file.close()

    def _copy(self, entry: Entry) -> Entry:
        if isinstance(entry.line, Sent):
            return self._sent(entry, entry.line)
        entry = self._redacted(entry)
        entry, commands = self._recorded(entry) if self._replayer is None else self._made_anew(entry, self._replayer)
        if self._is_device:
            self._playout.follow(entry.line, entry.samples, commands)
        return entry

    # -- what follows -------------------------------------------------------------------------------------------------

    def _made_anew(self, entry: Entry, replayer: Replayer) -> tuple[Entry, Sequence[Any]]:
        line = entry.line
        if isinstance(line, SpeechAudio):
            line = replace(line, discarded=False)  # today's rules decide it again, as they do for all other audio
        replayer.step(replace(entry, line=line))
        commands = replayer.commands
        match line:
            case Happened(raised=None):
                line = replace(line, do=tuple(write.encode_commands(line.event, commands)))
            case OutputAudio(frame=None):
                line = replace(line, discarded=replayer.discarded)
            case SpeechAudio():
                line = replace(line, discarded=replayer.discarded, do=tuple(write.encode_commands(None, commands)))
        return replace(entry, line=line), commands

    def _recorded(self, entry: Entry) -> tuple[Entry, Sequence[Any]]:
        """All texts of commands go where spans are silenced: which of them belongs to a span is not known."""
        line, commands = entry.line, commands_of(self._recording, entry)
        if isinstance(line, Happened | SpeechAudio) and line.do:
            done = [_with_text(command, self._texts.get(entry.number)) for command in line.do]
            do = tuple(self._wanted.tidy(done, gone=bool(self._wanted.spans), said=self._content))
            entry = replace(entry, line=replace(line, do=do))
        return entry, commands

    def _sent(self, entry: Entry, line: Sent) -> Entry:
        if self._replayer is None:
            return Entry(entry.number, replace(line, kept=False))
        samples = b"".join(piece.samples for piece in self._playout.take(line.n_bytes))
        line = replace(line, n_bytes=len(samples), crc=crc32(samples))
        return Entry(entry.number, line, samples if line.kept else b"")

    # -- what may stay ------------------------------------------------------------------------------------------------

    def _redacted(self, entry: Entry) -> Entry:
        line: Line = entry.line
        samples, options = bytes(entry.samples), self._playout.options
        match line:
            case Happened(n_audio_bytes=0):
                line = replace(line, event=self._event(entry.number, line))
            case Happened():
                samples = self._silenced(samples, options.input, self._was_spoken_in_a_span(line.now))
                line = replace(line, event=with_audio(line.event, samples))
            case InputAudio():
                samples = self._silenced(samples, options.input, self._was_spoken_in_a_span(line.now))
            case OutputAudio():
                gone = with_part(line).item_id in self._wanted.silenced_items
                samples = self._silenced(samples, options.upstream_output, gone)
            case SpeechAudio():
                line, samples = self._speech(line, samples)
        return Entry(entry.number, line, samples)

    def _event(self, number: int, line: Happened) -> Any:
        wanted, text, event = self._wanted, self._texts.get(number), line.event
        if isinstance(event, ClientSaid):
            body = wanted.tidy(event.body, said=self._content)
            # Audio in unusual base64 is in its event.
            return ClientSaid(
                body | {"audio": ""} if event.is_append and self._was_spoken_in_a_span(line.now) else body
            )
        if isinstance(event, UpstreamSaid):
            body = parsed_event(event.raw)
            if not body:
                return UpstreamSaid(wanted.tidy(bytes(event.raw).decode(errors="replace"), content=True).encode(), {})
            tidy = wanted.tidy(body if text is None else {**body, "delta": text}, said=self._content)
            return UpstreamSaid(event.raw if tidy == body else orjson.dumps(tidy), tidy if event.body else {})
        if isinstance(event, TtsAudio):  # it was not played: its characters are needed no more
            event = event._replace(alignment=None)
        stored = to_json(event)
        return from_json(wanted.tidy(stored if text is None else stored | {"text": text}))

    def _was_spoken_in_a_span(self, now: float) -> bool:
        """Whether a client's audio was: before it arrived, maybe long before, so a second on either side goes too."""
        at_ms = (now - self._started_at) * 1000
        return any(span.touches(at_ms - 1000, at_ms + 1000) for span in self._wanted.spans)

    def _speech(self, line: SpeechAudio, samples: bytes) -> tuple[SpeechAudio, bytes]:
        """An external voice's audio, and the times of its characters, which spell the text."""
        if not line.discarded:
            self._spoken_items[line.context_id] = self._playout.playing
        item_id = self._spoken_items.get(line.context_id)  # None: nobody heard it, so nobody knows when it was
        gone = bool(self._wanted.spans) if item_id is None else item_id in self._wanted.silenced_items
        samples = self._silenced(samples, self._playout.options.upstream_output, gone)
        if gone or line.context_id in self._revealing or "text" in self._wanted.fields:
            line = replace(line, alignment=None)
        return line, samples

    def _silenced(self, samples: bytes, format: AudioFormat, gone: bool) -> bytes:
        """Audio as it may stay: silence, if it is to be `gone`."""
        if gone:
            self._wanted.removed["ms of audio"] += format.ms_of(len(samples))
        return format.silence(len(samples)) if gone else samples


def _with_text(command: Any, text: str | None) -> Any:
    """A command as stored, with `text` in place of the piece of a text that it sends."""
    if text is None or not isinstance(command, dict):
        return command
    if "text" in command:
        return command | {"text": text}
    body = command.get("body")
    return command | {"body": body | {"delta": text}} if isinstance(body, dict) and "delta" in body else command


def _revealing_contexts(recording: Recording, wanted: Redaction) -> frozenset[str]:
    """The contexts of a voice in whose text, put together from its characters, a pattern finds something."""
    if not wanted.patterns or not (recording.folder / VOICE_AUDIO).exists():
        return frozenset()
    texts: dict[str, list[str]] = {}
    for entry in recording.entries():
        if isinstance(entry.line, SpeechAudio) and entry.line.alignment is not None:
            texts.setdefault(entry.line.context_id, []).extend(entry.line.alignment.chars)
    return frozenset(
        context_id
        for context_id, chars in texts.items()
        if any(pattern.spans("".join(chars)) for pattern in wanted.patterns.values())
    )


def redacted_pieces(recording: Recording, wanted: Redaction) -> dict[int, str]:
    """By line number, each piece of a text without what goes, which may begin in one delta and end in another."""
    texts: dict[Hashable, list[tuple[int, str]]] = {}
    for entry in recording.entries():
        piece = _piece(entry)
        if piece is not None:
            key, text = piece
            texts.setdefault(key, []).append((entry.number, text))
    kept: dict[int, str] = {}
    for pieces in texts.values():
        without = wanted.pieces([text for _, text in pieces])
        kept.update((number, text) for (number, _), text in zip(pieces, without, strict=True))
    return kept


def _piece(entry: Entry) -> tuple[Hashable, str] | None:
    """The text that a line's event belongs to, and the piece of it."""
    event: Any = entry.line.event if isinstance(entry.line, Happened) else None
    if isinstance(event, ev.TextDelta):
        return (event.response_id, event.item_id, event.content_index), event.text
    if isinstance(event, ev.UserTranscript) and not event.final:
        return event.item_id, event.text
    if not isinstance(event, UpstreamSaid):
        return None
    body = event.body or parsed_event(event.raw)
    text = body.get("delta")
    if not isinstance(text, str):
        return None
    return tuple(str(body.get(name)) for name in ("type", "response_id", "item_id", "content_index")), text


# -- rendering --------------------------------------------------------------------------------------------------------


def rendered(line: Line) -> bytes:
    """A line as it is stored in format 2."""
    match line:
        case Happened():
            return _happened(line)
        case InputAudio(now, n_bytes, frame):
            return write.line_of({"now": now, "in": n_bytes, **_around(frame)})
        case OutputAudio(frame=None):
            part = line.response_id, line.item_id, line.content_index
            return write.output_line(line.now, line.n_bytes, *part, line.discarded)
        case OutputAudio(now, n_bytes, discarded=discarded, frame=frame):
            return write.line_of(
                {"now": now, "out": n_bytes, **_around(frame), **({"discarded": True} if discarded else {})}
            )
        case SpeechAudio(now, n_bytes, context_id, alignment, discarded, do):
            stored = write.load(write.speech_line(now, n_bytes, context_id, alignment, (), discarded))
            return write.line_of(stored | ({"do": list(do)} if do else {}))
        case Sent(now, n_bytes, crc, kept):
            return write.sent_line(now, n_bytes, crc, kept=kept)
        case Gap():
            return write.gap_line(line)
        case End(now, reason):
            return write.end_line(now, reason)


def _happened(line: Happened) -> bytes:
    event, do = line.event, None if line.do is None else list(line.do)
    if isinstance(event, TextDelta) and do == [to_json(SendTextDelta(event.text))]:
        return write.text_line(event, line.now, (SendTextDelta(event.text),))
    return write.line_of(write.happened_object(event, line.now, do, line.raised or "")[0])


def _around(frame: Frame | None) -> dict[str, str]:
    return {} if frame is None or frame == Frame() else {"head": frame.head, "tail": frame.tail}
