"""Invalid recordings: each error names file and line, and nothing is overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relay.recording.postprocess import finalize
from relay.recording.replay.verify import verify
from relay.recording.store.layout import RecordingError, find_recording, list_recordings
from relay.recording.store.reader import Recording
from tests.support.scripted_recordings import make_recording

Damage = Callable[[Path], object]


def journal(change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "journal.jsonl"
        path.write_bytes(change(path.read_bytes()))

    return damage


def header(old: str, new: str) -> Damage:
    return lambda folder: (folder / "session.json").write_text(
        (folder / "session.json").read_text().replace(old, new, 1)
    )


def cut_audio(folder: Path) -> None:
    with (folder / "client.pcm").open("r+b") as file:
        file.truncate(5000)


def link_audio(folder: Path) -> None:
    (folder / "upstream.pcm").unlink()
    (folder / "upstream.pcm").symlink_to("/etc/passwd")


def swap_lines(raw: bytes) -> bytes:
    lines = raw.splitlines(keepends=True)
    return b"".join([*lines[:4], lines[9], lines[4], *lines[5:9], *lines[10:]])


BAD: dict[str, tuple[Damage, str]] = {
    "cut line": (journal(lambda raw: raw[:-9]), r"journal.jsonl line \d+: the line is truncated: .*repair"),
    "endless line": (
        journal(lambda raw: raw + b" " * (48 * 1024 * 1024 + 1)),
        r"line \d+: the line is longer than the maximum of 50331648 bytes",
    ),
    "no JSON": (journal(lambda raw: raw.replace(b'{"now":', b'{now:', 1)), r"journal.jsonl line 1: not valid JSON"),
    "binary": (journal(lambda raw: b"\x00\xff\n" + raw), r"journal.jsonl line 1: not valid JSON"),
    "unknown event": (
        journal(lambda raw: raw.replace(b"speech_started", b"levitated")), r"line \d+: unknown event .*lev"
    ),
    "wrong type": (
        journal(lambda raw: raw.replace(b'"played_ms":300', b'"played_ms":"x"')), r"line \d+: playback: 'x'"
    ),
    "wrong order": (journal(swap_lines), r"journal.jsonl line 6: the time goes backwards"),
    "behind the end": (
        journal(lambda raw: raw + b'{"now":9e9,"end":""}\n'), r"line \d+: no line may follow the end record"
    ),
    "nested too deeply": (
        journal(lambda raw: b'{"now": 5000.0,"event":%b}\n' % (b"[" * 900 + b"]" * 900) + raw),
        r"journal.jsonl line 1: .*nested too deeply"
    ),
    "missing journal": (lambda folder: (folder / "journal.jsonl").unlink(), r"journal.jsonl: the file is missing"),
    "short audio": (
        cut_audio,
        r"journal.jsonl line \d+: the audio ends at byte 6400 of client.pcm, which has only 5000",
    ),
    "a link": (link_audio, r"upstream.pcm: symbolic links are not followed"),
    "foreign version": (
        header('"format": 2', '"format": 9'),
        r"session.json: the recording has format 9 .* Relay \d.* reads formats 1 to 2: update it"
    ),
    "no version": (
        header('"format": 2,', ""), r"session.json: the format must be a whole number from 1 to 2, not None"
    ),
    "foreign kind": (
        header('"kind": "device"', '"kind": "fax"'), r"session.json: kind must be device or realtime, not 'fax'"
    ),
    "no JSON header": (header("{", "[", ), r"session.json line \d+: not valid JSON"),
    "header without": (header('"config"', '"conf"'), r"session.json: config is missing"),
    "header rate": (header('"rate_hz": 16000', '"rate_hz": 7'), r"session.json: options: rate of pcm16"),
    "header date": (header("2026-11-20T", "yesterday T"), r"session.json: .*isoformat"),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    damage, message = BAD[name]
    folder = make_recording(tmp_path)
    damage(folder)
    before = contents(folder)
    with pytest.raises(RecordingError, match=message):
        verify(Recording(folder))
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["no JSON", "unknown event", "wrong type", "foreign version", "header date"])
def test_repair_leaves_alone_what_it_does_not_understand(name: str, tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    BAD[name][0](folder)
    before = contents(folder)
    with pytest.raises(RecordingError, match=BAD[name][1]):
        finalize(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["../etc", "a/b", "/etc/passwd", "..", "", "a b", "\x00", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is not a valid recording name"):
        find_recording(tmp_path, name)


def test_a_part_of_the_name_is_enough_if_it_is_the_only_one(tmp_path: Path) -> None:
    first, second = make_recording(tmp_path, session_id="rs_one"), make_recording(tmp_path, session_id="rs_other")
    (tmp_path / "link-rs_one").symlink_to(first)
    (tmp_path / "samples").mkdir()
    assert list_recordings(tmp_path) == [first, second]
    assert find_recording(tmp_path, "rs_one") == first
    assert find_recording(tmp_path, second.name) == second
    with pytest.raises(RecordingError, match="'rs_o' matches 2 recordings"):
        find_recording(tmp_path, "rs_o")
    with pytest.raises(RecordingError, match="no recording 'rs_x'"):
        find_recording(tmp_path, "rs_x")
