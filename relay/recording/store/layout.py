"""The layout of recordings on disk: file names, lookup, and the lock of a recording that is being written.

No function returns a path outside the recordings' folder.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import orjson

from relay.errors import RelayError
from relay.private_files import create_file

try:
    import fcntl

    HAS_FILE_LOCKS = True
except ImportError:  # Windows has none: finalize recordings only while no relay is running
    HAS_FILE_LOCKS = False

HEADER_FILE: Final = "session.json"
JOURNAL_FILE: Final = "journal.jsonl"
CLIENT_AUDIO_FILE: Final = "client.pcm"
UPSTREAM_AUDIO_FILE: Final = "upstream.pcm"
TTS_AUDIO_FILE: Final = "voice.pcm"
SENT_AUDIO_FILE: Final = "sent.pcm"
USER_TRACK_FILE: Final = "user.flac"
ASSISTANT_TRACK_FILE: Final = "assistant.flac"
TIMELINE_FILE: Final = "timeline.json"
PEAKS_FILE: Final = "peaks.bin"
TRANSCRIPT_FILE: Final = "transcript.vtt"

AUDIO_FILES: Final = (CLIENT_AUDIO_FILE, UPSTREAM_AUDIO_FILE, TTS_AUDIO_FILE, SENT_AUDIO_FILE)
DERIVED_FILES: Final = (USER_TRACK_FILE, ASSISTANT_TRACK_FILE, PEAKS_FILE, TRANSCRIPT_FILE, TIMELINE_FILE)
"""The timeline is written last: if it exists, so do the others."""

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
_SESSION_FOLDER_NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9_.-]{1,80}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")


class RecordingError(RelayError):
    """A recording cannot be found or read. The message names the file, and the line if there is one."""

    http_status = 404


def folder_name(started: str, session_id: str) -> str:
    """Return the name of a session's folder; `started` has the form 20261121T101500Z."""
    return f"{started}-{re.sub(r'[^A-Za-z0-9_.-]', '_', session_id)[:80]}"


def is_session_folder(path: Path) -> bool:
    """Return whether a folder has the name of a recorded session; `samples` and `golden` do not."""
    return _SESSION_FOLDER_NAME.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def list_recordings(root: Path) -> list[Path]:
    """Return the folders of all recordings in `root`, sorted by name and therefore by time."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.is_symlink() and (path / HEADER_FILE).is_file()
    )


def find_recording(root: Path, name: str) -> Path:
    """Find a recording by its folder name or a unique part of it. Raises RecordingError."""
    if not _NAME.fullmatch(name):
        raise RecordingError(
            f"{name!r:.80} is not a valid recording name: give the folder name from `relay recordings list` or a "
            "part of it; choose another folder of recordings with --dir"
        )
    recordings = list_recordings(root)
    exact = [path for path in recordings if path.name == name]
    matching = exact or [path for path in recordings if name in path.name]
    if not matching:
        raise RecordingError(f"no recording {name!r} in {root}: `relay recordings list` shows all of them")
    if len(matching) > 1:
        names = ", ".join(path.name for path in matching[:3])
        raise RecordingError(f"{name!r} matches {len(matching)} recordings ({names} …): give more of the name")
    return matching[0]


def open_file(folder: Path, name: str) -> BinaryIO:
    """Open a file of a recording for reading. Raises RecordingError, also for a symbolic link."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise RecordingError(f"{path}: the file is missing") from None
    except OSError as error:
        reason = "symbolic links are not followed" if path.is_symlink() else error.strerror or str(error)
        raise RecordingError(f"{path}: {reason.lower()}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RecordingError(f"{path}: not a regular file")
    return os.fdopen(descriptor, "rb")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size. Raises RecordingError."""
    with open_file(folder, name) as file:
        raw = file.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise RecordingError(f"{folder / name}: the file is larger than {MAX_JSON_BYTES} bytes")
    try:
        obj = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RecordingError(
            f"{folder / name} line {raw[: error.pos].count(10) + 1}: not valid JSON: {error}"
        ) from None
    if not isinstance(obj, dict):
        raise RecordingError(f"{folder / name} line 1: must be a JSON object")
    return obj


@contextlib.contextmanager
def atomic_private_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file of mode 0600 atomically: it appears complete or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    with create_file(temporary) as file:
        yield file
    temporary.replace(path)


def write_private(path: Path, data: bytes) -> None:
    """Write a small file of mode 0600 atomically. Raises OSError."""
    with atomic_private_file(path) as file:
        file.write(data)


def folder_size_bytes(folder: Path) -> int:
    """Return the total size of a recording's files."""
    with os.scandir(folder) as entries:
        files = (entry for entry in entries if entry.is_file(follow_symlinks=False))
        return sum(file.stat(follow_symlinks=False).st_size for file in files)


def lock_journal(descriptor: int) -> None:
    """Lock an open journal until it is closed, to record or to finalize.

    Raises BlockingIOError if another process holds the lock.
    """
    if HAS_FILE_LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_being_recorded(folder: Path) -> bool:
    """Return whether a relay is writing the recording now."""
    if not HAS_FILE_LOCKS:
        return False
    try:
        file = open_file(folder, JOURNAL_FILE)
    except RecordingError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
