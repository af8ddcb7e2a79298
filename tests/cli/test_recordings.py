"""`relay recordings` and `relay replay` on the command line: what they print, and how they end."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.app import app
from relay.errors import RelayError
from relay.session.tools import pending_calls as tool_calls
from relay.session.tools.dispatcher import ToolDispatcher
from tests.support.scripted_recordings import make_recording

NAME = "20261120T101530Z-rs_scripted"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_recording(tmp_path / "r")
    return tmp_path / "r"


def test_list_repair_show(root: Path) -> None:
    assert "not finished: repair" in run("recordings", "list", "--dir", root)
    assert "tracks, waveform and transcript written" in run("recordings", "repair", "--dir", root)
    told = run("recordings", "list", "--dir", root)
    assert NAME in told
    assert "not finished" not in told
    assert "1 recordings in" in told
    assert "what time is it in Rome?" in run("recordings", "show", "rs_scripted", "--dir", root)


def test_export_of_what_was_heard_and_of_all_that_was_generated(root: Path, tmp_path: Path) -> None:
    run("recordings", "export", "rs_scripted", "--to", tmp_path, "--dir", root)
    assert {path.name for path in tmp_path.glob(f"{NAME}.*")} == {
        f"{NAME}.user.flac", f"{NAME}.assistant.flac", f"{NAME}.transcript.vtt"
    }  # fmt: skip
    told = run("recordings", "export", "rs_scripted", "--raw", "--to", tmp_path, "--dir", root)
    assert "pcm16 24000 Hz mono" in told
    assert (tmp_path / f"{NAME}.pcm").read_bytes() == (root / NAME / "upstream.pcm").read_bytes()
    result = CliRunner().invoke(app, ["recordings", "export", "rs_scripted", "--to", str(tmp_path), "--dir", str(root)])
    assert isinstance(result.exception, RelayError)
    assert "exists already" in str(result.exception)


def test_delete_by_name_and_by_identity(root: Path) -> None:
    make_recording(root, session_id="rs_other", identity="key-other")
    assert "deleted" in run("recordings", "delete", "--identity", "key-other", "--yes", "--dir", root)
    assert [path.name for path in root.iterdir()] == [NAME]
    run("recordings", "delete", "rs_scripted", "--dir", root, code=1)  # nobody said yes
    assert (root / NAME).is_dir()
    run("recordings", "delete", "rs_scripted", "--yes", "--dir", root)
    assert list(root.iterdir()) == []


def test_prune_says_what_it_would_do(root: Path) -> None:
    told = run("recordings", "prune", "--max-days", "0.001", "--dry-run", "--dir", root)
    assert f"would delete {NAME}: older than" in told or told == ""
    assert (root / NAME).is_dir()


def test_replay_is_identical_or_says_where_it_is_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run("replay", "rs_scripted", "--dir", root)
    assert told.startswith("identical: ")
    monkeypatch.setattr(tool_calls, "CANCELLED_CALL", "x")
    monkeypatch.setattr(ToolDispatcher, "send_progress", lambda *_: None)
    assert run("replay", "rs_scripted", "--dir", root) == told
    monkeypatch.setattr(ToolDispatcher, "_send_output", lambda *_: None)
    different = run("replay", "rs_scripted", "--dir", root, code=1)
    assert "different: " in different
    assert "1.650 s  tool_call_finished(" in different
    assert "recorded  create_item(" in different
    assert "both      send_tool(" in different
    assert different.count("\n  ") >= 3


def test_a_bad_recording_is_one_sentence_and_code_2(root: Path) -> None:
    journal = root / NAME / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-5])
    process = subprocess.run(
        [Path(sys.executable).with_name("relay"), "replay", "rs_scripted", "--dir", root],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("relay: ")
    assert "the line is truncated" in process.stderr
    assert process.stderr.count("\n") == 1
