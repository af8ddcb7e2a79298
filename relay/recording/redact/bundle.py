"""One file of a recording for a bug report, after a redaction pass, with a report of what was taken out.

Texts and audio are replaced in the events. Where the recording replayed identically before, its commands are made anew
from them, so that the bundle replays identically too.
"""

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from relay.escaping import escape_controls
from relay.private_files import create_file
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.format.serialize import decode_value, encode_value
from relay.recording.redact.rewriter import RedactedCopy
from relay.recording.redact.rules import Redaction, items_in_spans
from relay.recording.replay.replayer import Replayer
from relay.recording.replay.verify import verify
from relay.recording.store.layout import HEADER_FILE, RecordingError, write_private
from relay.recording.store.reader import Recording
from relay.session.common.model import SessionConfig

REPORT_FILE = "REDACTED.txt"
_INPUT_GATE_TAGS = ("set_input_gate", "release_input")


def write_bundle(folder: Path, target: Path, redaction: Redaction) -> list[str]:
    """Write the bundle; returns the report. Raises RecordingError, OSError."""
    if target.exists():
        raise RecordingError(f"{target} exists already; name another file with --to")
    recording = Recording(folder)
    with tempfile.TemporaryDirectory() as made:
        before = _why_not_replayable(recording)
        timeline = build_timeline(recording).timeline
        redaction.silenced_item_ids = items_in_spans(timeline, redaction.spans)
        beginning = recording.header.setup
        config = decode_value(SessionConfig, redaction.redact(encode_value(beginning.config)))
        header = replace(
            recording.header,
            is_redacted=True,
            has_format_1_commands=recording.header.has_format_1_commands and before != "",
            setup=replace(beginning, config=config, principal=replace(beginning.principal, identity="redacted")),
        )
        RedactedCopy(recording, Path(made), redaction, Replayer(header.setup) if before == "" else None).write()
        report = _report(recording, redaction, before)
        write_private(Path(made) / HEADER_FILE, header.to_json())
        write_private(Path(made) / REPORT_FILE, ("\n".join(report) + "\n").encode())
        with create_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(made).iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
    return report


def _why_not_replayable(recording: Recording) -> str:
    """Why the commands can't be made anew; empty if they can."""
    try:
        result = verify(recording)
    except RecordingError as error:
        return str(error)
    differs_at = _first_difference(recording) if result.difference is None else result.difference.number
    if differs_at is not None:
        return f"it differs from today's rules at line {differs_at}"
    return "" if recording.has_end else "it has a gap or no end"


def _first_difference(recording: Recording) -> int | None:
    """Where today's rules do something else than a session of format 1 did, whose input had no gates."""
    if not recording.header.has_format_1_commands:
        return None  # compared already
    replayer = Replayer(recording.header.setup)
    for entry in recording.entries():
        difference = replayer.step(entry)
        if difference is None:
            continue
        today = [one for one in difference.replayed if not (isinstance(one, dict) and one["t"] in _INPUT_GATE_TAGS)]
        if list(difference.recorded or ()) != today:
            return entry.number
    return None


def _report(recording: Recording, redaction: Redaction, not_replayable: str) -> list[str]:
    lines = [f"Taken out of {recording.folder.name}:", "  the identity of its owner"]
    lines += [f"  {name}: {times}" for name, times in sorted(redaction.removed_counts.items())]
    looked = [*(f"field {name}" for name in redaction.fields), *redaction.patterns]
    lines += [f"  {name}: nothing was found" for name in looked if not redaction.removed_counts[name]]
    for span in redaction.spans:
        lines.append(f"  from {span.start_s:g} to {span.end_s:g} s: the items spoken or heard then, audio and text")
    if redaction.spans:
        lines.append("What tools were asked and answered is not part of a span: --field arguments --field output")
    if not_replayable:
        lines.append(f"Its commands are the recorded ones: {not_replayable}")
    else:
        lines.append("Its commands were made anew from what is left: `relay replay` finds it identical")
    return [escape_controls(line) for line in lines]
