"""Deleting recordings: by name, by the identity they belong to, by age and by size.

Where all together are too large, the identity with the most gives its oldest recording, again and again. What is being
recorded never goes, and neither does the newest recording. An identity that has nothing else is left out of the count:
what it has goes later, and nobody else's recordings pay for it. The address of a client is not stored, so all anonymous
clients are one identity.
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
    """Delete one recording's folder with all that is in it; one that is gone already is no error. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def recordings_of_identity(root: Path, identity: str) -> list[Path]:
    """All recordings of one identity."""
    return [folder for folder in _sessions(root) if _identity(folder) == identity]


def expired_recordings(
    root: Path, now: datetime, max_days: float | None, max_mb: float | None
) -> list[tuple[Path, str]]:
    """What the retention lets go: first what is too old, then the oldest of who has most, until the rest fits."""
    found: list[tuple[Path, str]] = []
    kept: list[Path] = []
    for folder in _sessions(root):
        is_old = max_days is not None and _started(folder) < now - timedelta(days=max_days)
        if is_old and not is_being_recorded(folder):
            found.append((folder, f"older than {max_days:g} days"))
        else:
            kept.append(folder)
    if max_mb is not None:
        found += [(folder, f"all together are over {max_mb:g} MB") for folder in _too_much(kept, max_mb * 1e6)]
    return found


def _too_much(folders: list[Path], max_bytes: float) -> Iterator[Path]:
    """Which of these go, of whom, in which order; they are given from the oldest to the newest."""
    sizes = {folder: folder_size_bytes(folder) for folder in folders}
    if sum(sizes.values()) <= max_bytes:
        return
    finished: dict[str, list[Path]] = defaultdict(list)
    totals: Counter[str] = Counter()
    for folder in folders:
        owner = _owner(folder)
        totals[owner] += sizes[folder]
        if folder != folders[-1] and not is_being_recorded(folder):
            finished[owner].append(folder)
    while totals.total() > max_bytes:
        owner = min(totals, key=lambda one: (-totals[one], not finished[one], finished[one][:1]))
        if not finished[owner]:
            del totals[owner]
            continue
        folder = finished[owner].pop(0)
        totals[owner] -= sizes[folder]
        yield folder


def prune(root: Path, now: datetime, max_days: float | None, max_mb: float | None) -> list[tuple[Path, str]]:
    """Delete what is due; returns it. Raises OSError."""
    pruned = expired_recordings(root, now, max_days, max_mb)
    for folder, _ in pruned:
        remove_recording(folder)
    return pruned


def _sessions(root: Path) -> Iterable[Path]:
    """Only folders named as sessions are: what else lies there (samples, golden ones) is not ours to delete."""
    return (folder for folder in list_recordings(root) if is_session_folder(folder))


def _started(folder: Path) -> datetime:
    return datetime.strptime(folder.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _owner(folder: Path) -> str:
    """Whose quota a recording counts for: that of a client secret (`key-…/name`) for its key's."""
    return (_identity(folder) or "").partition("/")[0]


def _identity(folder: Path) -> str | None:
    try:
        found = read_json(folder, "session.json").get("identity")
    except RecordingError:
        return None
    return found if isinstance(found, str) else None
