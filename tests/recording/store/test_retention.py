"""Retention by age, by size and by owner, and what is never deleted."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from relay.recording.store.layout import folder_size_bytes, lock_journal
from relay.recording.store.retention import expired_recordings, prune, recordings_of_identity, remove_recording
from tests.support.scripted_recordings import STARTED, make_recording


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
    size_mb = folder_size_bytes(next(root.glob("*rs_3"))) / 1e6
    expired = [(path.name[-4:], reason) for path, reason in expired_recordings(root, now, 3.5, 1.5 * size_mb)]
    assert [name for name, _ in expired] == ["rs_0", "rs_1", "rs_2"]
    assert "older than 3.5 days" in expired[0][1]
    assert "over" in expired[2][1]


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
    assert [path.name[-4:] for path in recordings_of_identity(root, "key-1")] == ["rs_1", "rs_3"]
    for path in recordings_of_identity(root, "key-1"):
        remove_recording(path)
    assert recordings_of_identity(root, "key-1") == []
    remove_recording(root / "gone already")


def test_a_link_is_never_followed(root: Path, tmp_path: Path) -> None:
    link = root / "20200101T000000Z-rs_link"
    link.symlink_to(next(root.glob("*rs_3")))
    prune(root, STARTED, 1, None)
    remove_recording(link)
    assert next(root.glob("*rs_3")).is_dir()


# -- whose go, where all together are too large -----------------------------------------------------------------------


def recordings(root: Path, *sizes_of: tuple[str, int]) -> None:
    """Recordings of identities, the oldest first, each filled up to a size in kB."""
    for number, (identity, n_kb) in enumerate(sizes_of):
        started = STARTED + timedelta(hours=number)
        folder = make_recording(root, [], session_id=f"rs_{number}", started=started, identity=identity)
        with (folder / "client.pcm").open("ab") as file:
            file.truncate(n_kb * 1000 - folder_size_bytes(folder))


@contextmanager
def being_recorded(root: Path, *sessions: str) -> Iterator[None]:
    with ExitStack() as stack:
        for session in sessions:
            file = stack.enter_context(next(root.glob(f"*-{session}")).joinpath("journal.jsonl").open("ab"))
            lock_journal(file.fileno())
        yield


def left(root: Path, max_kb: float) -> list[str]:
    prune(root, STARTED + timedelta(days=1), None, max_kb / 1000)
    return [name.partition("-")[2] for name in names(root)]


def test_one_who_records_much_costs_nobody_else_s(tmp_path: Path) -> None:
    recordings(tmp_path, ("key-b", 20), ("key-a", 300), ("key-c", 30), ("key-a", 100), ("key-b", 20))
    assert left(tmp_path, 200) == ["rs_0", "rs_2", "rs_3", "rs_4"]
    assert left(tmp_path, 100) == ["rs_0", "rs_2", "rs_4"]


def test_equal_shares_shrink_together_from_the_oldest(tmp_path: Path) -> None:
    recordings(tmp_path, *[("key-a", 40), ("key-b", 40)] * 3)
    assert left(tmp_path, 165) == ["rs_2", "rs_3", "rs_4", "rs_5"]


def test_what_is_being_recorded_stays_and_its_owner_s_other_recordings_go_first(tmp_path: Path) -> None:
    recordings(tmp_path, ("key-a", 50), ("key-b", 50), ("key-a", 400), ("key-c", 30))
    with being_recorded(tmp_path, "rs_2"):
        assert left(tmp_path, 100) == ["rs_1", "rs_2", "rs_3"]  # too much, but it's nobody else's
    assert left(tmp_path, 100) == ["rs_1", "rs_3"]  # as soon as it has ended


def test_the_others_are_held_to_the_bound_meanwhile(tmp_path: Path) -> None:
    recordings(tmp_path, ("key-b", 90), ("key-b", 90), ("key-a", 400), ("key-c", 30))
    with being_recorded(tmp_path, "rs_2", "rs_3"):
        assert left(tmp_path, 130) == ["rs_1", "rs_2", "rs_3"]


def test_the_newest_stays_and_nobody_pays_for_it(tmp_path: Path) -> None:
    recordings(tmp_path, ("key-b", 20), ("key-c", 20), ("key-a", 400))
    assert left(tmp_path, 100) == ["rs_0", "rs_1", "rs_2"]


def test_a_key_and_the_client_secrets_that_it_made_are_one(tmp_path: Path) -> None:
    recordings(tmp_path, ("key-b", 70), *[(f"key-a/user-{number}", 40) for number in range(4)], ("key-c", 10))
    assert left(tmp_path, 200) == ["rs_0", "rs_2", "rs_3", "rs_4", "rs_5"]
