"""Every golden recording replays identically: the same commands, and the same audio, bit for bit.

After an intended change of a rule: scripts/regold, and review the diff.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.recording.replay.replayer import Difference
from relay.recording.replay.verify import verify
from relay.recording.store.layout import SENT_AUDIO_FILE
from relay.recording.store.reader import Recording
from relay.session.device import user_turn
from relay.session.device.playout_transcoder import PlayoutTranscoder

ROOT = Path(__file__).parent.parent.parent
GOLDEN = sorted(path for path in (ROOT / "recordings" / "golden").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_golden_recordings_are_identical(folder: Path) -> None:
    outcome = verify(Recording(folder))
    assert outcome.difference is None
    assert outcome.n_records > 100
    assert outcome.sent_bytes > 10_000
    is_of_format_1 = folder.name.startswith("format-1")
    assert Recording(folder).header.format == (1 if is_of_format_1 else 2)
    assert any("format 1" in note and "not compared" in note for note in outcome.notes) == is_of_format_1


def of(name: str) -> Path:
    return next(path for path in GOLDEN if path.name.startswith(name))


def test_one_changed_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_turn, "MIN_COMMIT_MS", 60_000)
    difference = verify(Recording(of("manual-turn"))).difference
    assert isinstance(difference, Difference)
    assert difference.description == "commit()"
    assert [command["t"] for command in difference.recorded] == ["commit_input"]
    assert [command["t"] for command in difference.replayed] == ["send_error"]


def test_one_changed_byte_of_what_was_sent_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    shutil.copytree(of("plain-turn-16k"), folder)
    with (folder / SENT_AUDIO_FILE).open("r+b") as file:
        file.seek(1000)
        file.write(b"\x55\x55")
    difference = verify(Recording(folder)).difference
    assert isinstance(difference, Difference)
    assert "bytes in sent.pcm are not those that were sent to the client" in difference.description


def test_one_changed_sample_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    use = PlayoutTranscoder.apply_options

    def louder(self: PlayoutTranscoder, options: object) -> None:
        use(self, options)  # type: ignore[arg-type]
        convert = self.convert
        self.convert = lambda chunk: bytes(convert(chunk)[:-1]) + b"\x01"

    monkeypatch.setattr(PlayoutTranscoder, "apply_options", louder)
    difference = verify(Recording(of("plain-turn"))).difference
    assert isinstance(difference, Difference)
    assert difference.recorded is None
    assert "differ in the replay" in difference.description


def regold_of(root: Path, name: str, recording: Path) -> tuple[Path, Callable[[], str]]:
    """A copy of a recording under another name, and scripts/regold for it alone."""
    golden = root / "recordings" / "golden" / name
    shutil.copytree(recording, golden)
    for folder in ("relay", "audio", "tests"):
        (root / folder).symlink_to(ROOT / folder)
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "regold", root / "scripts")

    def regold() -> str:
        return subprocess.run(
            [sys.executable, root / "scripts" / "regold"], capture_output=True, text=True, check=True
        ).stdout

    return golden, regold


def test_regold_makes_the_same_of_the_same_and_mends_what_differs(tmp_path: Path) -> None:
    golden, regold = regold_of(tmp_path, "manual", of("manual-turn"))
    before = (golden / "journal.jsonl").read_bytes()
    assert regold() == "manual: unchanged\n"
    (golden / "journal.jsonl").write_bytes(before.replace(b'"commit_input"', b'"clear_input"'))
    assert verify(Recording(golden)).difference is not None
    report = regold()
    assert "manual: journal.jsonl changed" in report
    assert ", commit(): -clear_input +commit_input" in report
    assert (golden / "journal.jsonl").read_bytes() == before


def test_regold_makes_format_2_of_format_1(tmp_path: Path) -> None:
    golden, regold = regold_of(tmp_path, "former", of("format-1"))
    report = regold()
    assert "format 1 becomes format 2" in report
    assert ", bye(): +set_input_gate" in report  # which format 1 did not have
    assert Recording(golden).header.format == 2
    assert verify(Recording(golden)).is_identical
    assert (golden / "journal.jsonl").read_bytes() == (of("two-tools") / "journal.jsonl").read_bytes()
    assert regold() == "former: unchanged\n"


def test_regold_leaves_a_recording_of_format_1_alone_that_is_kept_as_one(tmp_path: Path) -> None:
    golden, regold = regold_of(tmp_path, "format-1", of("format-1"))
    assert regold() == ""
    assert Recording(golden).header.format == 1
