"""`relay recordings`: list, show, export, bundle, delete, prune and repair what was recorded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.terminal import confirm, say, say_lines

if TYPE_CHECKING:
    from relay.session.common.model import DeviceOptions

app = typer.Typer(
    name="recordings",
    help="Recordings of sessions (RELAY_RECORD): list them, look into them, export, delete.",
    no_args_is_help=True,
)

Dir = Annotated[
    Path | None, typer.Option("--dir", help="The folder that holds the recordings (RELAY_RECORDINGS_DIR; recordings).")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A recording's folder, or a part of its name that is unique.")]


def root_of(given: Path | None) -> Path:
    """The recordings' folder: what was asked for, else what the settings say."""
    if given is not None:
        return given
    from relay.config.settings import Settings

    return Settings.load().recording.dir


@app.command("list")
def list_(folder: Dir = None) -> None:
    """All recordings, the newest last."""
    from relay.recording.postprocess import is_finalized
    from relay.recording.store.header import read_header
    from relay.recording.store.layout import RecordingError, folder_size_bytes, is_being_recorded, list_recordings

    root = root_of(folder)
    found = list_recordings(root)
    for path in found:
        state = "being recorded" if is_being_recorded(path) else "" if is_finalized(path) else "not finished: repair"
        try:
            header = read_header(path)
            who = f"{header.setup.principal.identity:<18} {header.upstream} {header.model}"
        except RecordingError as error:
            who, state = "?", str(error)
        say(f"{path.name}  {folder_size_bytes(path) / 1e6:8.2f} MB  {who}  {state}".rstrip())
    say(f"{len(found)} recordings in {root}", err=True)


@app.command()
def show(
    asked: Id,
    folder: Dir = None,
    width: Annotated[int, typer.Option(min=0, help="Columns; 0 for the terminal's.")] = 0,
) -> None:
    """Draw a conversation: who spoke when, tools, barge-ins, latency of each turn with p50 and p95."""
    import shutil

    from relay.recording.derive.ascii_timeline import render
    from relay.recording.derive.timeline_builder import build_timeline
    from relay.recording.store.layout import find_recording
    from relay.recording.store.reader import Recording

    timeline = build_timeline(Recording(find_recording(root_of(folder), asked))).timeline
    for line in render(timeline, width or shutil.get_terminal_size((100, 24)).columns):
        say(line)


@app.command()
def export(
    asked: Id,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path(),
    raw: Annotated[bool, typer.Option("--raw", help="What was generated, as it came, without a header.")] = False,
    folder: Dir = None,
) -> None:
    """Write both heard tracks (FLAC) and the transcript, or with --raw all audio that was generated.

    With an external voice that is the voice's (ID.voice.pcm), and the model's where it spoke itself (ID.pcm).
    """
    from relay.errors import RelayError
    from relay.recording.postprocess import finalize as finish
    from relay.recording.postprocess import is_finalized
    from relay.recording.store.layout import ASSISTANT_TRACK_FILE, TRANSCRIPT_FILE, USER_TRACK_FILE, find_recording

    path = find_recording(root_of(folder), asked)
    if not to.is_dir():
        raise RelayError(f"--to {to}: there is no such folder")
    if raw:
        names = _names_of_raw_audio(path)
    else:
        if not is_finalized(path):
            finish(path)
        names = {name: f"{path.name}.{name}" for name in (USER_TRACK_FILE, ASSISTANT_TRACK_FILE, TRANSCRIPT_FILE)}
    for name, new in names.items():
        _copy(path, name, to / new)


@app.command()
def bundle(
    asked: Id,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write (ID.zip).")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Empty every member of this name, as instructions.")] = None,
    pattern: Annotated[list[str] | None, typer.Option(help="Take out what this regular expression finds.")] = None,
    silence: Annotated[list[str] | None, typer.Option(help="Seconds, as 12.5-14: no sound, no words of it.")] = None,
    folder: Dir = None,
) -> None:
    """Make one file for a bug report, and say what was taken out. E-mail addresses and long numbers always are."""
    from relay.recording.redact.bundle import write_bundle as make
    from relay.recording.redact.rules import parse_redaction
    from relay.recording.store.layout import find_recording

    path = find_recording(root_of(folder), asked)
    target = to or Path(f"{path.name}.zip")
    for line in make(path, target, parse_redaction(field or (), pattern or (), silence or ())):
        say(line)
    say(f"{target}: look into it before you send it; voices can be known again")


@app.command()
def delete(
    asked: Annotated[str | None, typer.Argument(metavar="[ID]", help="One recording.", show_default=False)] = None,
    identity: Annotated[str | None, typer.Option(help="All recordings of this identity (see list).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Dir = None,
) -> None:
    """Delete one recording, or all that belong to an identity."""
    from relay.errors import RelayError
    from relay.recording.store.layout import find_recording
    from relay.recording.store.retention import recordings_of_identity, remove_recording

    root = root_of(folder)
    if (asked is None) == (identity is None):
        raise RelayError("name a recording, or give --identity")
    paths = [find_recording(root, asked)] if asked is not None else recordings_of_identity(root, identity or "")
    if not paths:
        raise RelayError(f"there is no recording of {identity} in {root}")
    if not yes:
        confirm(f"delete {len(paths)} recordings ({paths[0].name}{' …' if len(paths) > 1 else ''})?")
    for path in paths:
        remove_recording(path)
        say(f"deleted {path.name}")


@app.command()
def prune(
    max_days: Annotated[float | None, typer.Option(help="Delete what is older (RELAY_RECORDINGS_MAX_DAYS).")] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Then the oldest beyond, of who has most (RELAY_RECORDINGS_MAX_MB).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    folder: Dir = None,
) -> None:
    """Keep to the retention now; a running relay does it by itself."""
    from datetime import UTC, datetime

    from relay.config.settings import Settings
    from relay.recording.store.retention import expired_recordings
    from relay.recording.store.retention import prune as run

    settings = Settings.load()
    root = folder or settings.recording.dir
    limits = (max_days or settings.recording.max_days, max_mb or settings.recording.max_total_mb)
    if dry_run:
        for path, why in expired_recordings(root, datetime.now(UTC), *limits):
            say(f"would delete {path.name}: {why}")
        return
    for path, why in run(root, datetime.now(UTC), *limits):
        say(f"deleted {path.name}: {why}")


@app.command()
def repair(
    asked: Annotated[str | None, typer.Argument(metavar="[ID]", help="One recording; all without it.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Make tracks and transcript anew.")] = False,
    folder: Dir = None,
) -> None:
    """Finish recordings that ended suddenly: cut off the half-written, add the end, make tracks and transcript."""
    from relay.errors import RelayError
    from relay.recording.postprocess import finalize as run
    from relay.recording.store.layout import find_recording, list_recordings

    root = root_of(folder)
    failed = 0
    for path in [find_recording(root, asked)] if asked is not None else list_recordings(root):
        try:
            done = run(path, force=again)
        except (RelayError, OSError) as error:
            failed += 1
            say_lines(f"{error}", err=True)
        else:
            say(f"{done.name}: {done.summary}")
    if failed:
        sys.exit(2)


def _names_of_raw_audio(path: Path) -> dict[str, str]:
    """The files of what was generated, and what to call them elsewhere; says what is in them."""
    from dataclasses import replace

    from relay.recording.store.header import read_header
    from relay.recording.store.layout import TTS_AUDIO_FILE, UPSTREAM_AUDIO_FILE

    # The audio is what upstream_output of the options in force says; a hello may have changed them.
    options = _final_options(path, read_header(path).setup.options)
    middles = {UPSTREAM_AUDIO_FILE: "", TTS_AUDIO_FILE: ".voice"}
    names = {}
    for name in [name for name in middles if (path / name).exists()] or [UPSTREAM_AUDIO_FILE]:
        sound = replace(options, has_external_voice=name == TTS_AUDIO_FILE).upstream_output
        suffix = "pcm" if sound.encoding == "pcm16" else sound.encoding
        names[name] = f"{path.name}{middles[name]}.{suffix}"
        say(f"{name}: {sound.encoding} {sound.rate_hz} Hz mono, little-endian, no header", err=True)
    return names


def _copy(path: Path, name: str, target: Path) -> None:
    """Copy one file of a recording, for its owner alone; what exists is never written over."""
    import shutil

    from relay.errors import RelayError
    from relay.private_files import create_file
    from relay.recording.store.layout import open_file

    if target.exists():
        raise RelayError(f"{target} exists already")
    if not (path / name).exists():
        raise RelayError(f"{path.name} holds no {name}: nothing of that kind was recorded")
    with open_file(path, name) as recorded, create_file(target) as file:
        shutil.copyfileobj(recorded, file)
    say(str(target))


def _final_options(path: Path, options: "DeviceOptions") -> "DeviceOptions":
    from relay.recording.derive.normalize import normalized_entries
    from relay.recording.store.reader import Recording
    from relay.session.device.commands import ApplyOptions

    for _, _, commands in normalized_entries(Recording(path)):
        for command in commands:
            if isinstance(command, ApplyOptions):
                options = command.options
    return options
