"""Deleting recordings: by name, by the identity they belong to, by age and by size."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.recording.folder import (
    RecordingError,
    all_recordings,
    is_session_folder,
    read_json,
    size_bytes,
)


@dataclass(frozen=True, slots=True)
class Pruned:
    """A recording that went, and why."""

    name: str
    why: str


def remove(folder: Path) -> None:
    """Delete one recording's folder with all that is in it; one that is gone already is no error. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def recordings_of(root: Path, identity: str) -> list[Path]:
    """All recordings of one identity."""
    return [folder for folder in _sessions(root) if _identity(folder) == identity]


def due(root: Path, now: datetime, max_days: float | None, max_mb: float | None) -> list[tuple[Path, str]]:
    """What the retention lets go: first what is too old, then the oldest until the rest fits."""
    found: list[tuple[Path, str]] = []
    kept: list[Path] = []
    for folder in _sessions(root):
        if max_days is not None and _started(folder) < now - timedelta(days=max_days):
            found.append((folder, f"older than {max_days:g} days"))
        else:
            kept.append(folder)
    if max_mb is not None:
        sizes = {folder: size_bytes(folder) for folder in kept}
        total = sum(sizes.values())
        for folder in kept[:-1]:  # the newest stays, however large: it may still be written
            if total <= max_mb * 1_000_000:
                break
            total -= sizes[folder]
            found.append((folder, f"all together are over {max_mb:g} MB"))
    return found


def prune(root: Path, now: datetime, max_days: float | None, max_mb: float | None) -> list[Pruned]:
    """Delete what is due, except what is being recorded. Raises OSError."""
    from relay.recording.finish import is_live

    pruned = []
    for folder, why in due(root, now, max_days, max_mb):
        if not is_live(folder):
            remove(folder)
            pruned.append(Pruned(folder.name, why))
    return pruned


def _sessions(root: Path) -> Iterable[Path]:
    """Only folders named as sessions are: what else lies there (samples, golden ones) is not ours to delete."""
    return (folder for folder in all_recordings(root) if is_session_folder(folder))


def _started(folder: Path) -> datetime:
    return datetime.strptime(folder.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _identity(folder: Path) -> str | None:
    try:
        found = read_json(folder, "session.json").get("identity")
    except RecordingError:
        return None
    return found if isinstance(found, str) else None
