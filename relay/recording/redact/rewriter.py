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
from relay.private_files import create_file
from relay.recording.derive.normalize import parse_event_or_empty, with_item_ids
from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format import write
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
from relay.recording.format.realtime import with_audio
from relay.recording.format.serialize import from_json, to_json
from relay.recording.redact.rules import CONTENT_FIELDS, Redaction
from relay.recording.replay.replayer import Replayer
from relay.recording.store.layout import AUDIO_FILES, JOURNAL_FILE, TTS_AUDIO_FILE
from relay.recording.store.reader import JournalEntry, Recording, audio_location, decode_commands
from relay.session.device import events as ev
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta, TtsAudio
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent

REALTIME_CONTENT_FIELDS = CONTENT_FIELDS | {"transcript", "delta"}
"""The members that hold text in events of the Realtime protocol; audio is not among them here."""


class RedactedCopy:
    """The journal and the audio without what is to go; `replayer` makes the commands, None keeps the recorded ones."""

    def __init__(self, recording: Recording, target: Path, redaction: Redaction, replayer: Replayer | None) -> None:
        self._recording = recording
        self._replayer = replayer
        self._target = target
        self._redaction = redaction
        beginning = recording.header.setup
        self._is_device = beginning.realtime is None
        self._content_fields = CONTENT_FIELDS if self._is_device else REALTIME_CONTENT_FIELDS
        self._started_at = beginning.started_at
        self._playout = ReconstructedPlayout(beginning.options)
        self._tts_items: dict[str, str] = {}
        self._revealing_context_ids = _revealing_contexts(recording, redaction)
        self._redacted_texts = redacted_texts(recording, redaction)

    def write(self) -> None:
        """Write it all. Raises RecordingError, OSError."""
        there = [name for name in AUDIO_FILES if (self._recording.folder / name).exists()]
        files: dict[str, IO[bytes]] = {name: create_file(self._target / name) for name in (JOURNAL_FILE, *there)}
        try:
            for entry in self._recording.entries():
                copy = self._copy(entry)
                files[JOURNAL_FILE].write(encode_record(copy.record))
                if copy.samples:
                    files[audio_location(copy.record)[0]].write(copy.samples)
        finally:
            for file in files.values():
                file.close()

    def _copy(self, entry: JournalEntry) -> JournalEntry:
        if isinstance(entry.record, SentAudioRecord):
            return self._sent(entry, entry.record)
        entry = self._redacted(entry)
        entry, commands = (
            self._with_recorded_commands(entry)
            if self._replayer is None
            else self._with_replayed_commands(entry, self._replayer)
        )
        if self._is_device:
            self._playout.apply(entry.record, entry.samples, commands)
        return entry

    # -- what follows -------------------------------------------------------------------------------------------------

    def _with_replayed_commands(self, entry: JournalEntry, replayer: Replayer) -> tuple[JournalEntry, Sequence[Any]]:
        line = entry.record
        if isinstance(line, TtsAudioRecord):
            line = replace(line, discarded=False)  # today's rules decide it again, as they do for all other audio
        replayer.step(replace(entry, record=line))
        commands = replayer.commands
        match line:
            case EventRecord(raised=None):
                line = replace(line, stored_commands=tuple(write.encode_commands(line.event, commands)))
            case OutputAudioRecord(envelope=None):
                line = replace(line, discarded=replayer.discarded)
            case TtsAudioRecord():
                line = replace(
                    line, discarded=replayer.discarded, stored_commands=tuple(write.encode_commands(None, commands))
                )
        return replace(entry, record=line), commands

    def _with_recorded_commands(self, entry: JournalEntry) -> tuple[JournalEntry, Sequence[Any]]:
        """All texts of commands go where spans are silenced: which of them belongs to a span is not known."""
        line, commands = entry.record, decode_commands(self._recording, entry)
        if isinstance(line, EventRecord | TtsAudioRecord) and line.stored_commands:
            done = [_with_text(command, self._redacted_texts.get(entry.number)) for command in line.stored_commands]
            do = tuple(
                self._redaction.redact(
                    done, is_silenced=bool(self._redaction.spans), content_fields=self._content_fields
                )
            )
            entry = replace(entry, record=replace(line, stored_commands=do))
        return entry, commands

    def _sent(self, entry: JournalEntry, line: SentAudioRecord) -> JournalEntry:
        if self._replayer is None:
            return JournalEntry(entry.number, replace(line, is_stored=False))
        samples = b"".join(piece.samples for piece in self._playout.read(line.n_bytes))
        line = replace(line, n_bytes=len(samples), crc=crc32(samples))
        return JournalEntry(entry.number, line, samples if line.is_stored else b"")

    # -- what may stay ------------------------------------------------------------------------------------------------

    def _redacted(self, entry: JournalEntry) -> JournalEntry:
        line: JournalRecord = entry.record
        samples, options = bytes(entry.samples), self._playout.options
        match line:
            case EventRecord(n_audio_bytes=0):
                line = replace(line, event=self._event(entry.number, line))
            case EventRecord():
                samples = self._silenced(samples, options.input, self._is_in_span(line.time_s))
                line = replace(line, event=with_audio(line.event, samples))
            case InputAudioRecord():
                samples = self._silenced(samples, options.input, self._is_in_span(line.time_s))
            case OutputAudioRecord():
                gone = with_item_ids(line).item_id in self._redaction.silenced_item_ids
                samples = self._silenced(samples, options.upstream_output, gone)
            case TtsAudioRecord():
                line, samples = self._speech(line, samples)
        return JournalEntry(entry.number, line, samples)

    def _event(self, number: int, line: EventRecord) -> Any:
        wanted, text, event = self._redaction, self._redacted_texts.get(number), line.event
        if isinstance(event, RealtimeClientEvent):
            body = wanted.redact(event.body, content_fields=self._content_fields)
            # Audio in unusual base64 is in its event.
            return RealtimeClientEvent(
                body | {"audio": ""} if event.is_append and self._is_in_span(line.time_s) else body
            )
        if isinstance(event, RealtimeServerEvent):
            body = parse_event_or_empty(event.raw)
            if not body:
                return RealtimeServerEvent(
                    wanted.redact(bytes(event.raw).decode(errors="replace"), is_content=True).encode(), {}
                )
            tidy = wanted.redact(body if text is None else {**body, "delta": text}, content_fields=self._content_fields)
            return RealtimeServerEvent(event.raw if tidy == body else orjson.dumps(tidy), tidy if event.body else {})
        if isinstance(event, TtsAudio):  # it was not played: its characters are needed no more
            event = event._replace(alignment=None)
        stored = to_json(event)
        return from_json(wanted.redact(stored if text is None else stored | {"text": text}))

    def _is_in_span(self, now: float) -> bool:
        """Whether a client's audio was: before it arrived, maybe long before, so a second on either side goes too."""
        at_ms = (now - self._started_at) * 1000
        return any(span.overlaps(at_ms - 1000, at_ms + 1000) for span in self._redaction.spans)

    def _speech(self, line: TtsAudioRecord, samples: bytes) -> tuple[TtsAudioRecord, bytes]:
        """An external voice's audio, and the times of its characters, which spell the text."""
        if not line.discarded:
            self._tts_items[line.context_id] = self._playout.playing_item_id
        item_id = self._tts_items.get(line.context_id)  # None: nobody heard it, so nobody knows when it was
        gone = bool(self._redaction.spans) if item_id is None else item_id in self._redaction.silenced_item_ids
        samples = self._silenced(samples, self._playout.options.upstream_output, gone)
        if gone or line.context_id in self._revealing_context_ids or "text" in self._redaction.fields:
            line = replace(line, alignment=None)
        return line, samples

    def _silenced(self, samples: bytes, format: AudioFormat, is_redacted: bool) -> bytes:
        """Audio as it may stay: silence, if it is to be `is_redacted`."""
        if is_redacted:
            self._redaction.removed_counts["ms of audio"] += format.duration_ms(len(samples))
        return format.silence(len(samples)) if is_redacted else samples


def _with_text(command: Any, text: str | None) -> Any:
    """A command as stored, with `text` in place of the piece of a text that it sends."""
    if text is None or not isinstance(command, dict):
        return command
    if "text" in command:
        return command | {"text": text}
    body = command.get("body")
    return command | {"body": body | {"delta": text}} if isinstance(body, dict) and "delta" in body else command


def _revealing_contexts(recording: Recording, redaction: Redaction) -> frozenset[str]:
    """The contexts of a voice in whose text, put together from its characters, a pattern finds something."""
    if not redaction.patterns or not (recording.folder / TTS_AUDIO_FILE).exists():
        return frozenset()
    texts: dict[str, list[str]] = {}
    for entry in recording.entries():
        if isinstance(entry.record, TtsAudioRecord) and entry.record.alignment is not None:
            texts.setdefault(entry.record.context_id, []).extend(entry.record.alignment.chars)
    return frozenset(
        context_id
        for context_id, chars in texts.items()
        if any(pattern.find_spans("".join(chars)) for pattern in redaction.patterns.values())
    )


def redacted_texts(recording: Recording, redaction: Redaction) -> dict[int, str]:
    """By line number, each piece of a text without what goes, which may begin in one delta and end in another."""
    texts: dict[Hashable, list[tuple[int, str]]] = {}
    for entry in recording.entries():
        piece = _text_delta(entry)
        if piece is not None:
            key, text = piece
            texts.setdefault(key, []).append((entry.number, text))
    kept: dict[int, str] = {}
    for pieces in texts.values():
        without = redaction.redact_split_text([text for _, text in pieces])
        kept.update((number, text) for (number, _), text in zip(pieces, without, strict=True))
    return kept


def _text_delta(entry: JournalEntry) -> tuple[Hashable, str] | None:
    """The text that a line's event belongs to, and the piece of it."""
    event: Any = entry.record.event if isinstance(entry.record, EventRecord) else None
    if isinstance(event, ev.TextDelta):
        return (event.response_id, event.item_id, event.content_index), event.text
    if isinstance(event, ev.UserTranscript) and not event.final:
        return event.item_id, event.text
    if not isinstance(event, RealtimeServerEvent):
        return None
    body = event.body or parse_event_or_empty(event.raw)
    text = body.get("delta")
    if not isinstance(text, str):
        return None
    return tuple(str(body.get(name)) for name in ("type", "response_id", "item_id", "content_index")), text


# -- rendering --------------------------------------------------------------------------------------------------------


def encode_record(record: JournalRecord) -> bytes:
    """A line as it is stored in format 2."""
    match record:
        case EventRecord():
            return _event_line(record)
        case InputAudioRecord(now, n_bytes, frame):
            return write.redacted_line({"now": now, "in": n_bytes, **_envelope_members(frame)})
        case OutputAudioRecord(envelope=None):
            part = record.response_id, record.item_id, record.content_index
            return write.output_line(record.time_s, record.n_bytes, *part, record.discarded)
        case OutputAudioRecord(now, n_bytes, discarded=discarded, envelope=frame):
            return write.redacted_line(
                {"now": now, "out": n_bytes, **_envelope_members(frame), **({"discarded": True} if discarded else {})}
            )
        case TtsAudioRecord(now, n_bytes, context_id, alignment, discarded, do):
            stored = write.parse_json(write.tts_audio_line(now, n_bytes, context_id, alignment, (), discarded))
            return write.redacted_line(stored | ({"do": list(do)} if do else {}))
        case SentAudioRecord(now, n_bytes, crc, kept):
            return write.sent_audio_line(now, n_bytes, crc, is_stored=kept)
        case GapRecord():
            return write.gap_line(record)
        case EndRecord(now, reason):
            return write.end_line(now, reason)


def _event_line(line: EventRecord) -> bytes:
    event, do = line.event, None if line.stored_commands is None else list(line.stored_commands)
    if isinstance(event, TextDelta) and do == [to_json(SendTextDelta(event.text))]:
        return write.text_line(event, line.time_s, (SendTextDelta(event.text),))
    return write.redacted_line(write.stored_event_object(event, line.time_s, do, line.raised or "")[0])


def _envelope_members(frame: AudioEnvelope | None) -> dict[str, str]:
    return {} if frame is None or frame == AudioEnvelope() else {"head": frame.prefix, "tail": frame.suffix}
