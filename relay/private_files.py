"""Files and folders that only their owner can read: mode 0600 and 0700 from creation, whatever the umask."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
O_BINARY = getattr(os, "O_BINARY", 0)
"""A flag for `os.open`: without it, Windows writes a line end as two bytes."""


def create_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700; an existing one keeps its mode. Raises OSError.

    `Path.mkdir(parents=True)` would create the parents with the default mode.
    """
    if not folder.parent.exists():
        create_folder(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)


def create_file(path: Path) -> BinaryIO:
    """Create a file with mode 0600 and open it for writing. Raises OSError, FileExistsError if the path exists."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_BINARY, PRIVATE_FILE_MODE), "wb")


def is_exposed(path: Path, mask: int = stat.S_IRWXG | stat.S_IRWXO) -> bool:
    """Return whether other users have a permission of `mask`; False if the path does not exist or is not on POSIX."""
    if os.name != "posix":
        return False
    try:
        return bool(path.stat().st_mode & mask)
    except OSError:  # it does not exist, or we may not see it
        return False
