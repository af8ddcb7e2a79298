"""`relay recordings`: list, show, export, bundle, delete, prune and repair recordings."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.terminal import confirm, say, say_lines

if TYPE_CHECKING:
    from relay.session.common.model import DeviceOptions

app = typer.Typer(
    name="recordings",
    help="Recordings of sessions (RELAY_RECORD): list, show, export and delete them.",
    no_args_is_help=True,
)

RecordingsDir = Annotated[
    Path | None, typer.Option("--dir", help="The folder of the recordings (RELAY_RECORDINGS_DIR; recordings).")
]
RecordingId = Annotated[str, typer.Argument(metavar="ID", help="The name of a recording, or a unique part of it.")]


def recordings_dir(option: Path | None) -> Path:
    """Return the folder of the recordings: the option --dir, else the setting."""
    if option is not None:
        return option
    from relay.config.settings import Settings

    return Settings.load().recording.dir


@app.command("list")
def list_(folder: RecordingsDir = None) -> None:
    """List all recordings, the newest last."""
    from relay.recording.postprocess import is_finalized
    from relay.recording.store.header import read_header
    from relay.recording.store.layout import RecordingError, folder_size_bytes, is_being_recorded, list_recordings

    root = recordings_dir(folder)
    paths = list_recordings(root)
    for path in paths:
        state = "being recorded" if is_being_recorded(path) else "" if is_finalized(path) else "not finished: repair"
        try:
            header = read_header(path)
            description = f"{header.setup.principal.identity:<18} {header.upstream} {header.model}"
        except RecordingError as error:
            description, state = "?", str(error)
        say(f"{path.name}  {folder_size_bytes(path) / 1e6:8.2f} MB  {description}  {state}".rstrip())
    say(f"{len(paths)} recordings in {root}", err=True)


@app.command()
def show(
    recording: RecordingId,
    folder: RecordingsDir = None,
    width: Annotated[int, typer.Option(min=0, help="Columns; 0 for the width of the terminal.")] = 0,
) -> None:
    """Draw a conversation: speech of both sides, tool calls, barge-ins and the latency of each turn."""
    import shutil

    from relay.recording.derive.ascii_timeline import render
    from relay.recording.derive.timeline_builder import build_timeline
    from relay.recording.store.layout import find_recording
    from relay.recording.store.reader import Recording

    timeline = build_timeline(Recording(find_recording(recordings_dir(folder), recording))).timeline
    for line in render(timeline, width or shutil.get_terminal_size((100, 24)).columns):
        say(line)


@app.command()
def export(
    recording: RecordingId,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path(),
    raw: Annotated[bool, typer.Option("--raw", help="Export all generated audio instead, without a header.")] = False,
    folder: RecordingsDir = None,
) -> None:
    """Export both tracks as they were heard (FLAC) and the transcript, or with --raw all generated audio.

    The raw audio of an external voice is ID.voice.pcm, and that of the model ID.pcm.
    """
    from relay.errors import RelayError
    from relay.recording.postprocess import finalize, is_finalized
    from relay.recording.store.layout import ASSISTANT_TRACK_FILE, TRANSCRIPT_FILE, USER_TRACK_FILE, find_recording

    path = find_recording(recordings_dir(folder), recording)
    if not to.is_dir():
        raise RelayError(f"--to {to}: there is no such folder")
    if raw:
        names = _raw_audio_names(path)
    else:
        if not is_finalized(path):
            finalize(path)
        names = {name: f"{path.name}.{name}" for name in (USER_TRACK_FILE, ASSISTANT_TRACK_FILE, TRANSCRIPT_FILE)}
    for name, new in names.items():
        _export_file(path, name, to / new)


@app.command()
def bundle(
    recording: RecordingId,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write (ID.zip).")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Empty every JSON member of this name, such as instructions.")
    ] = None,
    pattern: Annotated[list[str] | None, typer.Option(help="Redact all matches of this regular expression.")] = None,
    silence: Annotated[
        list[str] | None, typer.Option(help="Redact audio and text between these seconds, such as 12.5-14.")
    ] = None,
    folder: RecordingsDir = None,
) -> None:
    """Create a file for a bug report, and list the redactions; always redacts e-mail addresses and long numbers."""
    from relay.recording.redact.bundle import write_bundle
    from relay.recording.redact.rules import parse_redaction
    from relay.recording.store.layout import find_recording

    path = find_recording(recordings_dir(folder), recording)
    target = to or Path(f"{path.name}.zip")
    for line in write_bundle(path, target, parse_redaction(field or (), pattern or (), silence or ())):
        say(line)
    say(f"{target}: check its content before you send it; voices can identify people")


@app.command()
def delete(
    recording: Annotated[str | None, typer.Argument(metavar="ID", help="One recording.", show_default=False)] = None,
    identity: Annotated[str | None, typer.Option(help="All recordings of this identity, as `list` shows it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    folder: RecordingsDir = None,
) -> None:
    """Delete one recording, or all recordings of an identity."""
    from relay.errors import RelayError
    from relay.recording.store.layout import find_recording
    from relay.recording.store.retention import recordings_of_identity, remove_recording

    root = recordings_dir(folder)
    if (recording is None) == (identity is None):
        raise RelayError("specify either a recording or --identity")
    paths = [find_recording(root, recording)] if recording is not None else recordings_of_identity(root, identity or "")
    if not paths:
        raise RelayError(f"there is no recording of {identity} in {root}")
    if not yes:
        confirm(f"delete {len(paths)} recordings ({paths[0].name}{' …' if len(paths) > 1 else ''})?")
    for path in paths:
        remove_recording(path)
        say(f"deleted {path.name}")


@app.command()
def prune(
    max_days: Annotated[
        float | None, typer.Option(help="Delete recordings older than this (RELAY_RECORDINGS_MAX_DAYS).")
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(
            help="Then delete the oldest ones of the identity with the most data, until all fit "
            "(RELAY_RECORDINGS_MAX_MB)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    folder: RecordingsDir = None,
) -> None:
    """Delete the recordings beyond the retention limits; a running relay does so itself."""
    from datetime import UTC, datetime

    from relay.config.settings import Settings
    from relay.recording.store.retention import expired_recordings
    from relay.recording.store.retention import prune as apply_retention

    settings = Settings.load()
    root = folder or settings.recording.dir
    limits = (max_days or settings.recording.max_days, max_mb or settings.recording.max_total_mb)
    if dry_run:
        for path, reason in expired_recordings(root, datetime.now(UTC), *limits):
            say(f"would delete {path.name}: {reason}")
        return
    for path, reason in apply_retention(root, datetime.now(UTC), *limits):
        say(f"deleted {path.name}: {reason}")


@app.command()
def repair(
    recording: Annotated[str | None, typer.Argument(metavar="ID", help="One recording (default: all).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Recreate existing tracks and transcripts.")] = False,
    folder: RecordingsDir = None,
) -> None:
    """Finish interrupted recordings: drop a partial last line, add the end, create tracks and transcript."""
    from relay.errors import RelayError
    from relay.recording.postprocess import finalize
    from relay.recording.store.layout import find_recording, list_recordings

    root = recordings_dir(folder)
    failed = 0
    for path in [find_recording(root, recording)] if recording is not None else list_recordings(root):
        try:
            result = finalize(path, force=again)
        except (RelayError, OSError) as error:
            failed += 1
            say_lines(f"{error}", err=True)
        else:
            say(f"{result.name}: {result.summary}")
    if failed:
        sys.exit(2)


def _raw_audio_names(path: Path) -> dict[str, str]:
    """Return the files with generated audio and their names for export; print their formats."""
    from dataclasses import replace

    from relay.recording.store.header import read_header
    from relay.recording.store.layout import TTS_AUDIO_FILE, UPSTREAM_AUDIO_FILE

    # A hello may have changed the options: the format is that of the last ones.
    options = _final_options(path, read_header(path).setup.options)
    infixes = {UPSTREAM_AUDIO_FILE: "", TTS_AUDIO_FILE: ".voice"}
    names = {}
    for name in [name for name in infixes if (path / name).exists()] or [UPSTREAM_AUDIO_FILE]:
        audio_format = replace(options, has_external_voice=name == TTS_AUDIO_FILE).upstream_output
        suffix = "pcm" if audio_format.encoding == "pcm16" else audio_format.encoding
        names[name] = f"{path.name}{infixes[name]}.{suffix}"
        say(f"{name}: {audio_format.encoding} {audio_format.rate_hz} Hz mono, little-endian, no header", err=True)
    return names


def _export_file(path: Path, name: str, target: Path) -> None:
    """Copy one file of a recording, readable by its owner only. Raises RelayError for an existing target."""
    import shutil

    from relay.errors import RelayError
    from relay.private_files import create_file
    from relay.recording.store.layout import open_file

    if target.exists():
        raise RelayError(f"{target} exists already; move it away, or choose another folder with --to")
    if not (path / name).exists():
        raise RelayError(f"{path.name} has no {name}: no such audio or text was recorded")
    with open_file(path, name) as recorded, create_file(target) as file:
        shutil.copyfileobj(recorded, file)
    say(str(target))


def _final_options(path: Path, options: "DeviceOptions") -> "DeviceOptions":
    from relay.recording.derive.normalize import normalize_entries
    from relay.recording.store.reader import Recording
    from relay.session.device.commands import ApplyOptions

    for _, _, commands in normalize_entries(Recording(path)):
        for command in commands:
            if isinstance(command, ApplyOptions):
                options = command.options
    return options
