"""Bad recordings on the command line: one sentence with the file (and the line), code 2, and nothing written over."""

import sys
from pathlib import Path

import pytest

from relay.cli import main
from tests.recording.store.test_reader import BAD, contents
from tests.support.scripted_recordings import make_recording

READING = {
    "show": ["recordings", "show", "rs_scripted"],
    "export": ["recordings", "export", "rs_scripted", "--to", "{out}"],
    "export --raw": ["recordings", "export", "rs_scripted", "--raw", "--to", "{out}"],
    "bundle": ["recordings", "bundle", "rs_scripted", "--to", "{out}/b.zip"],
    "replay": ["replay", "rs_scripted"],
    "replay --against": ["replay", "rs_scripted", "--against", "ws://127.0.0.1:9/"],
    "repair": ["recordings", "repair", "rs_scripted"],
}
DAMAGES = ["no JSON", "unknown event", "foreign version", "missing journal", "no JSON header", "a link", "short audio"]
MENDED = {("repair", "short audio"), ("export", "short audio")}
"""What ended too early is what repair is for."""


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """The command as it is called, in this process."""
    monkeypatch.setattr(sys, "argv", ["relay", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    code = ended.value.code
    return code if isinstance(code, int) else 0, told.out, told.err


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    make_recording(tmp_path / "r")
    return tmp_path / "r"


@pytest.mark.parametrize(
    ("command", "damage"),
    [(command, damage) for command in READING for damage in DAMAGES if (command, damage) not in MENDED],
)
def test_each_command_says_what_is_wrong_and_changes_nothing(
    command: str, damage: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = root.iterdir()
    BAD[damage][0](folder)
    before = contents(folder)
    out = root.parent / "out"
    arguments = [one.replace("{out}", str(out)) for one in READING[command]]
    code, _, said = run(capsys, monkeypatch, *arguments, "--dir", root)
    assert code == 2
    assert "Traceback" not in said
    assert said.count("\n") == 1, said
    assert str(folder) in said
    assert contents(folder) == before
    assert list(out.iterdir()) == []


def test_list_tells_of_a_bad_one_among_good_ones(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    BAD["foreign version"][0](make_recording(root, session_id="rs_bad"))
    code, told, _ = run(capsys, monkeypatch, "recordings", "list", "--dir", root)
    assert code == 0
    assert "has format 9" in told
    assert "key-0123456789ab" in told


def test_what_cannot_be_read_can_be_deleted_and_pruned(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rs_bad", "rs_worse"):
        BAD["no JSON header"][0](make_recording(root, session_id=name))
    assert run(capsys, monkeypatch, "recordings", "delete", "rs_bad", "--yes", "--dir", root)[0] == 0
    assert run(capsys, monkeypatch, "recordings", "prune", "--max-days", "0.001", "--dir", root)[0] == 0
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["recordings", "show"], ["recordings", "export"], ["recordings", "bundle"], ["recordings", "delete", "--yes"],
        ["recordings", "repair"], ["replay"], ["replay", "--as-upstream", "--port", "0"],
        ["replay", "--against", "ws://127.0.0.1:9/"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("asked", ["../r", "/etc/passwd", "rs_nobody"])
def test_names_that_lead_elsewhere_or_nowhere(
    arguments: list[str], asked: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = root.iterdir()
    before = contents(folder)
    code, _, said = run(capsys, monkeypatch, *arguments, asked, "--dir", root)
    assert code == 2
    assert said.startswith("relay: ")
    assert "recording" in said
    assert said.count("\n") == 1
    assert contents(folder) == before


def test_as_upstream_reads_the_recording_before_it_serves(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = root.iterdir()
    BAD["unknown event"][0](folder)
    code, _, said = run(capsys, monkeypatch, "replay", "rs_scripted", "--as-upstream", "--port", "0", "--dir", root)
    assert (code, "unknown event" in said) == (2, True)
