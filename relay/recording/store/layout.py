"""Where recordings are: names, files, the ways to find one, and the lock of one that is being written.

Nothing outside the recordings' folder is ever named.
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
except ImportError:  # Windows has no such locks: there, repair while no relay is running
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
"""The timeline is made last: where it is, the others are."""

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
_SESSION_FOLDER_NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9_.-]{1,80}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")


class RecordingError(RelayError):
    """A recording cannot be found or read; the text names the file, and the line where there is one."""

    http_status = 404


def folder_name(started: str, session_id: str) -> str:
    """The name of a session's folder; `started` is like 20261121T101500Z."""
    return f"{started}-{re.sub(r'[^A-Za-z0-9_.-]', '_', session_id)[:80]}"


def is_session_folder(path: Path) -> bool:
    """Whether a folder is a recorded session by its name and its header; `samples` and `golden` are not."""
    return _SESSION_FOLDER_NAME.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def list_recordings(root: Path) -> list[Path]:
    """The folders of all recordings below `root`, by name, which is by time; golden ones have names of their own."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.is_symlink() and (path / HEADER_FILE).is_file()
    )


def find_recording(root: Path, name: str) -> Path:
    """The recording that `name` names, by its folder's name or a part of it that is unique. Raises RecordingError."""
    if not _NAME.fullmatch(name):
        raise RecordingError(
            f"{name!r:.80} cannot be a recording: give its folder's name or a part of it, as `relay recordings list` "
            "shows it, and the folder that holds it with --dir"
        )
    found = list_recordings(root)
    exact = [path for path in found if path.name == name]
    matching = exact or [path for path in found if name in path.name]
    if not matching:
        raise RecordingError(f"there is no recording {name!r} in {root}; `relay recordings list` shows what there is")
    if len(matching) > 1:
        names = ", ".join(path.name for path in matching[:3])
        raise RecordingError(f"{name!r} is a part of {len(matching)} names ({names} …): give more of it")
    return matching[0]


def open_file(folder: Path, name: str) -> BinaryIO:
    """A recording's own file, to be read; a link to anywhere else is refused. Raises RecordingError."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise RecordingError(f"{path}: the file is missing") from None
    except OSError as error:
        why = "it is a link, which a recording never holds" if path.is_symlink() else error.strerror or str(error)
        raise RecordingError(f"{path}: {why.lower()}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RecordingError(f"{path}: that is not a file")
    return os.fdopen(descriptor, "rb")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from a file of bounded size. Raises RecordingError."""
    with open_file(folder, name) as file:
        raw = file.read(MAX_JSON_BYTES + 1)
    if len(raw) > MAX_JSON_BYTES:
        raise RecordingError(f"{folder / name}: the file has more than {MAX_JSON_BYTES} bytes")
    try:
        obj = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RecordingError(
            f"{folder / name} line {raw[: error.pos].count(10) + 1}: that is not JSON: {error}"
        ) from None
    if not isinstance(obj, dict):
        raise RecordingError(f"{folder / name} line 1: a JSON object is expected")
    return obj


@contextlib.contextmanager
def atomic_private_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file of mode 0600 in one step: it is there whole, or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    with create_file(temporary) as file:
        yield file
    temporary.replace(path)


def write_private(path: Path, data: bytes) -> None:
    """Write a small file of mode 0600 in one step. Raises OSError."""
    with atomic_private_file(path) as file:
        file.write(data)


def folder_size_bytes(folder: Path) -> int:
    """What a recording takes on the disk, by its files."""
    with os.scandir(folder) as entries:
        files = (entry for entry in entries if entry.is_file(follow_symlinks=False))
        return sum(file.stat(follow_symlinks=False).st_size for file in files)


def lock_journal(descriptor: int) -> None:
    """Lock an open journal until it is closed: to write the recording, or to repair it.

    Raises BlockingIOError if another process has it.
    """
    if HAS_FILE_LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_being_recorded(folder: Path) -> bool:
    """Whether a relay is writing this recording."""
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
