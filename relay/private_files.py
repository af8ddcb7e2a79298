"""Files and folders for their owner alone: mode 0600 and 0700 from creation, whatever the umask."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
O_BINARY = getattr(os, "O_BINARY", 0)
"""For `os.open`: Windows writes a line end as two bytes without it."""


def create_folder(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700; one that exists stays as it is. Raises OSError.

    `Path.mkdir(parents=True)` gives the parents the usual mode.
    """
    if not folder.parent.exists():
        create_folder(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)


def create_file(path: Path) -> BinaryIO:
    """A new file with mode 0600, to be written. Raises OSError, FileExistsError where there is one or a link."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_BINARY, PRIVATE_FILE_MODE), "wb")


def is_exposed(path: Path, mask: int = stat.S_IRWXG | stat.S_IRWXO) -> bool:
    """Whether others have a right of `mask` to a file or folder; False for none, and where modes mean nothing."""
    if os.name != "posix":
        return False
    try:
        return bool(path.stat().st_mode & mask)
    except OSError:  # not there, or not for us to see
        return False
