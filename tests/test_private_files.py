"""Modes of what the relay makes: for its owner alone, from creation, also where the umask takes nothing away."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from typer.testing import CliRunner

from audio.files import write_wav
from relay.auth.admin_login import create_login_code, redeem_login_code
from relay.cli.app import app
from relay.private_files import create_file, create_folder, is_exposed
from relay.recording.postprocess import finalize
from tests.support.scripted_recordings import make_recording

CALLS_THAT_CHANGE_FILES = {"open", "mkdir", "write", "replace", "chmod"}


@pytest.fixture(autouse=True)
def _umask_of_nothing() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def exposed_below(folder: Path) -> set[str]:
    """Everything below a folder that has a right for others, or for its owner one that it should not have."""
    modes = {path: path.lstat().st_mode & 0o777 for path in folder.rglob("*")}
    return {f"{path} {mode:o}" for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)}


@contextmanager
def watched(folder: Path) -> Iterator[set[str]]:
    """What was exposed at any moment: looked at behind every call that makes, fills, renames or changes a file."""
    seen: set[str] = set()
    looks = 0

    def look(_: FrameType, what: str, called: Any) -> None:
        nonlocal looks
        if what == "c_return" and called.__name__ in CALLS_THAT_CHANGE_FILES:
            looks += 1
            seen.update(exposed_below(folder))

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)
    assert looks > 3


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output


def test_a_recording_while_it_is_written_and_finished(tmp_path: Path) -> None:
    with watched(tmp_path) as seen:
        recording = make_recording(tmp_path / "srv" / "relay" / "recordings")
        finalize(recording)
    assert seen == set()
    assert {path.name for path in recording.iterdir()} >= {"session.json", "client.pcm", "user.flac", "transcript.vtt"}


def test_what_the_command_line_exports_and_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_recording(tmp_path / "recordings").parent
    out = tmp_path / "out"
    create_folder(out)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where a bundle is put together
    with watched(tmp_path) as seen:
        run("recordings", "export", "rs_scripted", "--to", out, "--dir", root)
        run("recordings", "export", "rs_scripted", "--raw", "--to", out, "--dir", root)
        run("recordings", "bundle", "rs_scripted", "--to", out / "bug.zip", "--dir", root)
    assert seen == set()
    assert len(list(out.iterdir())) == 5


def test_the_code_of_a_login(tmp_path: Path) -> None:
    state = tmp_path / "local" / "state" / "relay"
    with watched(tmp_path) as seen:
        code = create_login_code(state, 1000.0)
        create_login_code(state, 1001.0)
    assert seen == set()
    assert redeem_login_code(state, code, 1002.0)


def test_what_relay_talk_saves(tmp_path: Path) -> None:
    with watched(tmp_path) as seen:
        write_wav(tmp_path / "answer.wav", bytes(200), 24_000)
        write_wav(tmp_path / "answer.wav", bytes(400), 24_000)  # over what was there
    assert seen == set()
    assert (tmp_path / "answer.wav").stat().st_size == 444


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    create_folder(tmp_path / "shared" / "mine")
    create_folder(tmp_path / "shared" / "mine")
    assert is_exposed(tmp_path / "shared")
    assert not is_exposed(tmp_path / "shared" / "mine")
    assert not is_exposed(tmp_path / "nothing")


def test_several_may_make_the_same_folder_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait(10)
        try:
            create_folder(tmp_path / "a" / "b" / "c")
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_file_is_never_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "link")
