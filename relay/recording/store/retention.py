"""Delete recordings: by name, by identity, by age and by size.

If the total is too large, the oldest recording of the identity with the largest total is deleted, repeatedly. A running
recording and the newest one are never deleted. An identity that has only such recordings is not counted, so that no
other identity's recordings are deleted for them. All anonymous clients are one identity: no address is stored.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.recording.store.layout import (
    RecordingError,
    folder_size_bytes,
    is_being_recorded,
    is_session_folder,
    list_recordings,
    read_json,
)


def remove_recording(folder: Path) -> None:
    """Delete a recording's folder; a missing one is no error. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def recordings_of_identity(root: Path, identity: str) -> list[Path]:
    """Return all recordings of one identity."""
    return [folder for folder in _session_folders(root) if _read_identity(folder) == identity]


def expired_recordings(
    root: Path, now: datetime, max_days: float | None, max_mb: float | None
) -> list[tuple[Path, str]]:
    """Return the recordings to delete, with the reason: the expired ones, then the oldest of the largest identities."""
    expired_folders: list[tuple[Path, str]] = []
    remaining: list[Path] = []
    for folder in _session_folders(root):
        is_old = max_days is not None and _parse_start_time(folder) < now - timedelta(days=max_days)
        if is_old and not is_being_recorded(folder):
            expired_folders.append((folder, f"older than {max_days:g} days"))
        else:
            remaining.append(folder)
    if max_mb is not None:
        expired_folders += [(folder, f"total over {max_mb:g} MB") for folder in _over_limit(remaining, max_mb * 1e6)]
    return expired_folders


def _over_limit(folders: list[Path], max_bytes: float) -> Iterator[Path]:
    """Choose recordings to delete; `folders` are sorted from the oldest to the newest."""
    sizes = {folder: folder_size_bytes(folder) for folder in folders}
    if sum(sizes.values()) <= max_bytes:
        return
    finished_folders: dict[str, list[Path]] = defaultdict(list)
    totals: Counter[str] = Counter()
    for folder in folders:
        owner = _read_owner(folder)
        totals[owner] += sizes[folder]
        if folder != folders[-1] and not is_being_recorded(folder):
            finished_folders[owner].append(folder)
    while totals.total() > max_bytes:
        owner = min(totals, key=lambda name: (-totals[name], not finished_folders[name], finished_folders[name][:1]))
        if not finished_folders[owner]:
            del totals[owner]
            continue
        folder = finished_folders[owner].pop(0)
        totals[owner] -= sizes[folder]
        yield folder


def prune(root: Path, now: datetime, max_days: float | None, max_mb: float | None) -> list[tuple[Path, str]]:
    """Delete expired recordings; returns them with the reason. Raises OSError."""
    pruned_folders = expired_recordings(root, now, max_days, max_mb)
    for folder, _ in pruned_folders:
        remove_recording(folder)
    return pruned_folders


def _session_folders(root: Path) -> Iterable[Path]:
    """Return the folders named like a session: samples and golden recordings are never deleted."""
    return (folder for folder in list_recordings(root) if is_session_folder(folder))


def _parse_start_time(folder: Path) -> datetime:
    return datetime.strptime(folder.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _read_owner(folder: Path) -> str:
    """Return the identity that a recording counts for; a client secret (`key-…/name`) counts for its key."""
    return (_read_identity(folder) or "").partition("/")[0]


def _read_identity(folder: Path) -> str | None:
    try:
        identity = read_json(folder, "session.json").get("identity")
    except RecordingError:
        return None
    return identity if isinstance(identity, str) else None
