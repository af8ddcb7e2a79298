"""The lock on a recording's journal: whoever holds it writes the recording, or repairs it."""

from pathlib import Path

from relay.recording.folder import JOURNAL, RecordingError, open_file

try:
    import fcntl

    HAS_LOCKS = True
except ImportError:  # Windows has no such locks: there, repair while no relay is running
    HAS_LOCKS = False


def take(descriptor: int) -> None:
    """Lock an open journal until it is closed. Raises BlockingIOError if another process has it."""
    if HAS_LOCKS:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_live(folder: Path) -> bool:
    """Whether a relay is writing this recording."""
    if not HAS_LOCKS:
        return False
    try:
        file = open_file(folder, JOURNAL)
    except RecordingError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
