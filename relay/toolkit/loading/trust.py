"""Decides which files below the tools folders may run: none that everyone may write to, and no links out of a folder.

The owner of a file is not checked: in a container, the owner of a mounted folder comes from the host.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path


def untrusted_reason(path: Path, root: Path) -> str | None:
    """Return why a file or folder below `root` may not run, as a clause for the user; None if it may.

    `root` is resolved. Checks every folder from `root` to the file, and the targets of links.
    """
    real_path = path.resolve()
    if not real_path.is_relative_to(root):
        return f"{path} is a link out of {root}; copy the file into that folder"
    checked_paths = dict.fromkeys([*_path_and_parents(path, root), *_path_and_parents(real_path, root)])
    return next((_world_writable_reason(path) for path in checked_paths if file_mode(path) & stat.S_IWOTH), None)


def world_writable_parents(folders: Iterable[Path]) -> list[str]:
    """Return a clause for each parent folder in which everyone could replace a tools folder.

    In a sticky folder such as /tmp, users cannot replace files of others. These parents cause a warning only: volumes
    of containers and folders of Windows hosts are writable by everyone, and often that cannot be changed.
    """
    parents = dict.fromkeys(parent for folder in folders for parent in folder.parents)
    mask = stat.S_IWOTH | stat.S_ISVTX
    return [_world_writable_reason(parent) for parent in parents if file_mode(parent) & mask == stat.S_IWOTH]


def _path_and_parents(path: Path, root: Path) -> Iterator[Path]:
    """Yield the path and its parents up to `root`; nothing if it is not below `root`."""
    if path.is_relative_to(root):
        yield path
        yield from (parent for parent in path.parents if parent.is_relative_to(root))


def _world_writable_reason(path: Path) -> str:
    return (
        f"{path} may be written by everyone on this machine (mode {stat.S_IMODE(file_mode(path)):04o}); "
        f"run `chmod o-w {shlex.quote(str(path))}`"
    )


def file_mode(path: Path) -> int:
    """Return a file's mode; 0 on Windows, and inside an archive, whose own mode counts."""
    try:
        return path.stat().st_mode if os.name == "posix" else 0
    except (FileNotFoundError, NotADirectoryError):
        return 0
