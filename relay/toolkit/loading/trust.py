"""Which files below the tools folders may be run: what everyone may write, and what links lead to, may not.

Who owns a file is not looked at: in a container, a mounted folder has its owner from outside.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path


def untrusted_reason(path: Path, root: Path) -> str | None:
    """Why a file or folder below `root` may not be run, as a clause for the user; None if it may.

    `root` is resolved. Every folder from `root` to the file is looked at, and so is what links lead to.
    """
    real = path.resolve()
    if not real.is_relative_to(root):
        return f"{path} is a link that leads out of {root}; put the file itself there"
    way = dict.fromkeys([*_path_and_parents(path, root), *_path_and_parents(real, root)])
    return next((_world_writable_reason(one) for one in way if file_mode(one) & stat.S_IWOTH), None)


def world_writable_parents(folders: Iterable[Path]) -> list[str]:
    """A clause for each folder above tools folders that everyone may write to, and so may replace them.

    A sticky one, as /tmp, lets nobody replace what is another's. These are no refusal: containers' volumes and folders
    of Windows hosts are open to everyone, and often nobody can change that.
    """
    parents = dict.fromkeys(parent for folder in folders for parent in folder.parents)
    return [
        _world_writable_reason(one) for one in parents if file_mode(one) & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
    ]


def _path_and_parents(path: Path, root: Path) -> Iterator[Path]:
    """The path and its parents up to `root`; nothing if it does not lie there."""
    if path.is_relative_to(root):
        yield path
        yield from (parent for parent in path.parents if parent.is_relative_to(root))


def _world_writable_reason(path: Path) -> str:
    return (
        f"{path} may be written by everyone on this machine (mode {stat.S_IMODE(file_mode(path)):04o}); "
        f"correct that with `chmod o-w {shlex.quote(str(path))}`"
    )


def file_mode(path: Path) -> int:
    """A file's mode; 0 where modes mean nothing, and for what lies in an archive, whose own mode counts."""
    try:
        return path.stat().st_mode if os.name == "posix" else 0
    except (FileNotFoundError, NotADirectoryError):
        return 0
