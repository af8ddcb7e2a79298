"""One file of a recording for a bug report, after a redaction pass, with a report of what was taken out.

Texts and sound are replaced in the events; where the recording ran identically before, its commands are made anew from
them, so that the bundle runs identically too.
"""

import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import orjson
import pybase64

from audio.formats import AudioFormat
from relay.core import events as ev
from relay.core.journal import build, from_json, plain, to_json
from relay.core.journal_lines import Gap, Happened, Sent, audio_line, end_line, event_line, gap_line, sent_line
from relay.core.policy import Principal
from relay.core.replay import Rerun
from relay.core.values import SessionConfig
from relay.recording.client_stream import ClientStream
from relay.recording.folder import (
    CLIENT_AUDIO,
    HEADER,
    JOURNAL,
    SENT_AUDIO,
    UPSTREAM_AUDIO,
    RecordingError,
)
from relay.recording.reader import Entry, Recording
from relay.recording.rerun import rerun
from relay.recording.timeline import Timeline, listen

GONE = "[…]"
REPORT = "REDACTED.txt"
CONTENT = frozenset(
    {"text", "final_text", "heard_text", "arguments", "output", "message", "reason", "instructions", "description",
     "examples", "what", "progress"}
)  # fmt: skip
"""Members of events, commands and settings that hold what people, tools or models said; ids and numbers are not."""

PATTERNS = {
    "e-mail addresses": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "long numbers": r"\+?\d(?:[ ./()-]?\d){6,}",
}
_SILENCE = {"pcm16": b"\x00", "pcmu": b"\xff", "pcma": b"\xd5"}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the conversation, in seconds from its start, of which nothing is to be heard or read."""

    start_s: float
    end_s: float

    def touches(self, start_ms: float, end_ms: float) -> bool:
        """Whether something lies in it, even in part."""
        return start_ms <= self.end_s * 1000 and end_ms >= self.start_s * 1000


def parse_span(text: str) -> Span:
    """`12.5-14`. Raises RecordingError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text.strip())
    if found is None or float(found[1]) >= float(found[2]):
        raise RecordingError(f"--silence {text!r:.40}: give a span in seconds such as 12.5-14")
    return Span(float(found[1]), float(found[2]))


@dataclass(slots=True)
class Redaction:
    """What is to go; `removed` counts what went."""

    fields: Sequence[str] = ()
    patterns: dict[str, "re.Pattern[str]"] = field(default_factory=dict)
    spans: Sequence[Span] = ()
    removed: Counter[str] = field(default_factory=Counter)
    silenced_items: frozenset[str] = frozenset()

    def tidy(self, value: Any, *, content: bool = False, gone: bool = False) -> Any:
        """A JSON value without what is to go; `content`: its texts are what somebody said."""
        if isinstance(value, str):
            return self._text(value, gone) if content else value
        if isinstance(value, list | tuple):
            return [self.tidy(member, content=content, gone=gone) for member in value]
        if isinstance(value, dict):
            item_id = value.get("item_id") or value.get("id")
            gone = gone or (isinstance(item_id, str) and item_id in self.silenced_items)
            return {name: self._member(name, member, content, gone) for name, member in value.items()}
        return value

    def _member(self, name: str, member: Any, content: bool, gone: bool) -> Any:
        if name in self.fields and member not in (None, "", [], {}):
            self.removed[f"field {name}"] += 1
            return GONE if isinstance(member, str) else self.tidy(member, content=True, gone=True)
        said = name in CONTENT and (name != "output" or isinstance(member, str))  # a response's output is items
        return self.tidy(member, content=content or said, gone=gone)

    def _text(self, text: str, gone: bool) -> str:
        if gone and text:
            self.removed["texts of silenced spans"] += 1
            return GONE
        for name, pattern in self.patterns.items():
            text, times = pattern.subn(GONE, text)
            if times:
                self.removed[name] += times
        return text


def redaction(fields: Iterable[str], patterns: Iterable[str], spans: Iterable[str]) -> Redaction:
    """What the command line asks for, with the patterns that always apply. Raises RecordingError."""
    compiled = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
    for pattern in patterns:
        try:
            compiled[f"pattern {pattern}"] = re.compile(pattern)
        except re.error as error:
            raise RecordingError(f"--pattern {pattern!r:.60} is no regular expression: {error}") from None
    return Redaction(tuple(fields), compiled, tuple(map(parse_span, spans)))


def bundle(folder: Path, target: Path, wanted: Redaction) -> list[str]:
    """Write the bundle; returns the report. Raises RecordingError, OSError."""
    if target.exists():
        raise RecordingError(f"{target} exists already; name another file with --to")
    with Recording(folder) as recording, tempfile.TemporaryDirectory() as made:
        before = _before(recording)
        timeline = listen(recording).timeline
        wanted.silenced_items = _silenced(timeline, wanted.spans)
        beginning = recording.header.beginning
        config = build(SessionConfig, wanted.tidy(plain(beginning.config)))
        header = replace(
            recording.header,
            redacted=True,
            beginning=replace(beginning, config=config, principal=_nobody(beginning.principal)),
        )
        copy = _Copy(recording, Path(made), wanted, before == "")
        copy.rerun = Rerun(header.beginning) if before == "" else None
        copy.run()
        report = _report(recording, wanted, before)
        (Path(made) / HEADER).write_bytes(header.to_json())
        (Path(made) / REPORT).write_text("\n".join(report) + "\n")
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(made).iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
    target.chmod(0o600)
    return report


def _before(recording: Recording) -> str:
    """Why the commands can't be made anew; empty if they can."""
    try:
        outcome = rerun(recording)
    except RecordingError as error:
        return str(error)
    if outcome.difference is not None:
        return f"it differs from today's rules at line {outcome.difference.number}"
    return "" if recording.ended else "it has a gap or no end"


def _nobody(principal: Principal) -> Principal:
    return replace(principal, identity="redacted")


def _silenced(timeline: Timeline, spans: Sequence[Span]) -> frozenset[str]:
    """The items of which anything was spoken or heard in a span: they go as a whole, and their words with them."""
    said = [(one.item_id, one.start_ms, one.end_ms or one.start_ms) for one in timeline.speech]
    said += [(one.item_id, one.start_ms, one.end_ms) for one in timeline.heard]
    return frozenset(item for item, start, end in said if any(span.touches(start, end) for span in spans))


class _Copy:
    """The journal and the audio, line by line, without what is to go."""

    def __init__(self, recording: Recording, target: Path, wanted: Redaction, anew: bool) -> None:
        self.recording = recording
        self.rerun: Rerun | None = None
        self._target = target
        self._wanted = wanted
        self._options = recording.header.beginning.options
        self._stream = ClientStream(self._options)
        self._started_at = recording.header.beginning.started_at
        self._files: dict[str, IO[bytes]] = {}

    def run(self) -> None:
        names = (JOURNAL, CLIENT_AUDIO, UPSTREAM_AUDIO, SENT_AUDIO)
        self._files = {name: (self._target / name).open("wb") for name in names}
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

    def _event(self, entry: Entry, line: Happened) -> bytes:
        event = entry.event
        assert event is not None  # of every line of this kind
        if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
            event = self._sound(event, entry.samples, line.now)
        else:
            event = from_json(self._wanted.tidy(to_json(event)))  # type: ignore[assignment]  # an event stays one
        assert event is not None
        if self.rerun is not None:
            self.rerun.step(entry.number, line, event)
            commands = self.rerun.commands
            self._stream.run(event, commands)
            if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
                return audio_line(event, line.now, commands)
            return event_line(event, line.now, commands if line.raised is None else None, line.raised or "")
        # As it was recorded; whatever it says of silenced spans goes, for it can't be told from the rest.
        do = self._wanted.tidy(list(line.do or ()), gone=bool(self._wanted.spans))
        if isinstance(event, ev.Forwarded) and line.n_audio_bytes:
            raw = orjson.loads(audio_line(event, line.now, ()))
        else:
            raw = orjson.loads(event_line(event, line.now, () if line.raised is None else None, line.raised or ""))
        return orjson.dumps(raw | ({"do": do} if line.raised is None else {}), option=orjson.OPT_APPEND_NEWLINE)

    def _sound(self, event: ev.Forwarded, samples: Any, now: float) -> ev.Forwarded:
        samples = bytes(samples)
        is_input = event.kind == "input_audio"
        at_ms = (now - self._started_at) * 1000
        if is_input:
            # It was spoken before it arrived, and may have been late: a second on either side goes as well.
            gone = any(span.touches(at_ms - 1000, at_ms + 1000) for span in self._wanted.spans)
            sound: AudioFormat = self._options.input
        else:
            gone = event.item_id in self._wanted.silenced_items
            sound = self._options.upstream_output
        if gone:
            samples = _SILENCE[sound.encoding] * len(samples)
            self._wanted.removed["ms of sound"] += sound.ms_of(len(samples))
        self._files[CLIENT_AUDIO if is_input else UPSTREAM_AUDIO].write(samples)
        return event._replace(raw=samples if is_input else pybase64.b64encode(samples))

    def _sent(self, line: Sent) -> bytes:
        if self.rerun is None:
            return sent_line(line.now, line.n_bytes, line.crc, kept=False)
        samples = b"".join(piece.samples for piece in self._stream.take(line.n_bytes))
        if line.kept:
            self._files[SENT_AUDIO].write(samples)
        return sent_line(line.now, len(samples), crc32(samples), kept=line.kept)


def _report(recording: Recording, wanted: Redaction, before: str) -> list[str]:
    lines = [f"Taken out of {recording.folder.name}:", "  the identity of its owner"]
    lines += [f"  {name}: {times}" for name, times in sorted(wanted.removed.items())]
    looked = [*(f"field {name}" for name in wanted.fields), *wanted.patterns]
    lines += [f"  {name}: nothing was found" for name in looked if not wanted.removed[name]]
    for span in wanted.spans:
        lines.append(f"  from {span.start_s:g} to {span.end_s:g} s: the items spoken or heard then, sound and words")
    if wanted.spans:
        lines.append("What tools were asked and answered is not part of a span: --field arguments --field output")
    if before:
        lines.append(f"Its commands are the recorded ones: {before}")
    else:
        lines.append("Its commands were made anew from what is left: `relay replay` finds it identical")
    return lines
