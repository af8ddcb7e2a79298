"""Bundle a recording for a bug report: one redacted zip file with a report of what was removed.

Text and audio are redacted in the events. If the recording replays identically, its commands are regenerated from the
redacted events, so that the bundle replays identically too.
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
    """Write the bundle and return the report. Raises RecordingError, OSError."""
    if target.exists():
        raise RecordingError(f"{target} already exists: name another file with --to")
    recording = Recording(folder)
    with tempfile.TemporaryDirectory() as temporary_folder:
        not_replayable = _replay_obstacle(recording)
        timeline = build_timeline(recording).timeline
        redaction.silenced_item_ids = items_in_spans(timeline, redaction.spans)
        setup = recording.header.setup
        config = decode_value(SessionConfig, redaction.redact(encode_value(setup.config)))
        header = replace(
            recording.header,
            is_redacted=True,
            has_format_1_commands=recording.header.has_format_1_commands and not_replayable != "",
            setup=replace(setup, config=config, principal=replace(setup.principal, identity="redacted")),
        )
        RedactedCopy(
            recording, Path(temporary_folder), redaction, Replayer(header.setup) if not_replayable == "" else None
        ).write()
        report = _report(recording, redaction, not_replayable)
        write_private(Path(temporary_folder) / HEADER_FILE, header.to_json())
        write_private(Path(temporary_folder) / REPORT_FILE, ("\n".join(report) + "\n").encode())
        with create_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(temporary_folder).iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
    return report


def _replay_obstacle(recording: Recording) -> str:
    """Return why the commands cannot be regenerated; empty if they can."""
    try:
        result = verify(recording)
    except RecordingError as error:
        return str(error)
    differs_at = _find_difference(recording) if result.difference is None else result.difference.number
    if differs_at is not None:
        return f"the current rules return other commands at line {differs_at}"
    return "" if recording.has_end else "the recording has a gap or no end"


def _find_difference(recording: Recording) -> int | None:
    """Find the first line at which a recording of format 1, without input gates, differs from the current rules."""
    if not recording.header.has_format_1_commands:
        return None  # compared already
    replayer = Replayer(recording.header.setup)
    for entry in recording.entries():
        difference = replayer.step(entry)
        if difference is None:
            continue
        replayed = [command for command in difference.replayed if not _is_gate(command)]
        if list(difference.recorded or ()) != replayed:
            return entry.number
    return None


def _is_gate(command: object) -> bool:
    return isinstance(command, dict) and command["t"] in _INPUT_GATE_TAGS


def _report(recording: Recording, redaction: Redaction, not_replayable: str) -> list[str]:
    lines = [f"Removed from {recording.folder.name}:", "  the identity of its owner"]
    lines += [f"  {name}: {count}" for name, count in sorted((+redaction.removed_counts).items())]
    rules = [*(f"field {name}" for name in redaction.fields), *redaction.patterns]
    lines += [f"  {name}: no match" for name in rules if not redaction.removed_counts[name]]
    for span in redaction.spans:
        lines.append(f"  from {span.start_s:g} to {span.end_s:g} s: all items spoken or played then, audio and text")
    if redaction.spans:
        lines.append("Tool calls are not part of a span: remove them with --field arguments --field output")
    if not_replayable:
        lines.append(f"The commands are the recorded ones: {not_replayable}")
    else:
        lines.append(
            "The commands were regenerated from the redacted events: `relay replay` finds the bundle identical"
        )
    return [escape_controls(line) for line in lines]
