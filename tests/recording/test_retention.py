"""What goes: by age, by size, by owner; and what never does."""

from datetime import timedelta
from pathlib import Path

import pytest

from relay.recording.folder import size_bytes
from relay.recording.retention import due, prune, recordings_of, remove
from tests.support.tapes import STARTED, make_recording


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for day in range(4):
        make_recording(
            tmp_path, session_id=f"rs_{day}", started=STARTED + timedelta(days=day), identity=f"key-{day % 2}"
        )
    (tmp_path / "samples").mkdir()
    (tmp_path / "golden").mkdir()
    make_recording(tmp_path / "golden", session_id="rs_golden").rename(tmp_path / "golden-one")
    return tmp_path


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_old_go_first_then_the_oldest_of_the_rest(root: Path) -> None:
    now = STARTED + timedelta(days=4)
    one = size_bytes(next(root.glob("*rs_3"))) / 1e6
    going = [(path.name[-4:], why) for path, why in due(root, now, 3.5, 1.5 * one)]
    assert [name for name, _ in going] == ["rs_0", "rs_1", "rs_2"]
    assert "older than 3.5 days" in going[0][1]
    assert "over" in going[2][1]


def test_only_sessions_are_pruned_and_the_newest_stays(root: Path) -> None:
    prune(root, STARTED + timedelta(days=4), None, 0.000001)
    assert names(root) == ["20261123T101530Z-rs_3", "golden", "golden-one", "samples"]
    prune(root, STARTED + timedelta(days=400), 1, None)
    assert names(root) == ["golden", "golden-one", "samples"]


def test_what_is_being_recorded_is_not_pruned(root: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    live = next(root.glob("*rs_1"))
    with (live / "journal.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prune(root, STARTED + timedelta(days=400), 1, None)
    assert live.name in names(root)


def test_an_owner_s_recordings_are_found_by_identity(root: Path) -> None:
    assert [path.name[-4:] for path in recordings_of(root, "key-1")] == ["rs_1", "rs_3"]
    for path in recordings_of(root, "key-1"):
        remove(path)
    assert recordings_of(root, "key-1") == []
    remove(root / "gone already")


def test_a_link_is_never_followed(root: Path, tmp_path: Path) -> None:
    link = root / "20200101T000000Z-rs_link"
    link.symlink_to(next(root.glob("*rs_3")))
    prune(root, STARTED, 1, None)
    remove(link)
    assert next(root.glob("*rs_3")).is_dir()
