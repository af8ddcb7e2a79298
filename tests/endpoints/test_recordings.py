"""The viewer's routes: the list, the derived files in ranges, and nothing else of the disk."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from relay.recording.postprocess import finalize
from tests.support.relay_server import RunningRelay, running_relay
from tests.support.scripted_recordings import make_recording

ADMIN = "admin-key-0123456789abcdef"
BEARER = {"Authorization": f"Bearer {ADMIN}"}
NAME = "20261120T101530Z-rs_scripted"


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[RunningRelay]:
    finalize(make_recording(tmp_path))
    make_recording(tmp_path, session_id="rs_unfinished")
    broken = make_recording(tmp_path, session_id="rs_broken")
    (broken / "session.json").write_text('{"format":7}')
    (tmp_path / "secret.txt").write_text("secret")
    async with running_relay("ws://127.0.0.1:9/", recording_dir=tmp_path, access_admin_keys=(ADMIN,)) as running:
        yield running


async def get(relay: RunningRelay, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(relay.http(path), headers=BEARER | headers) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


async def test_the_list_says_how_each_stands(relay: RunningRelay) -> None:
    async with aiohttp.ClientSession() as http, http.get(relay.http("/recordings/list"), headers=BEARER) as answer:
        rows = {row["name"][17:]: row for row in (await answer.json())["recordings"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "rs_scripted": "finished", "rs_unfinished": "unfinished", "rs_broken": "broken"
    }  # fmt: skip
    assert rows["rs_scripted"]["identity"] == "key-0123456789ab"
    assert "format 7" in rows["rs_broken"]["why"]


async def test_files_come_whole_and_in_ranges(relay: RunningRelay, tmp_path: Path) -> None:
    track = (tmp_path / NAME / "user.flac").read_bytes()
    status, body, headers = await get(relay, f"/recordings/{NAME}/user.flac")
    assert (status, body, headers["Content-Type"]) == (200, track, "audio/flac")
    assert headers["Cache-Control"] == "no-store"
    status, body, _ = await get(relay, f"/recordings/{NAME}/user.flac", Range="bytes=4-9")
    assert (status, body) == (206, track[4:10])


async def test_the_page_may_play_its_own_sound_and_nothing_else(relay: RunningRelay) -> None:
    status, body, headers = await get(relay, "/recordings")
    assert status == 200
    assert b"recordings.js" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "media-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/..%2f..%2fetc/passwd",
        "/recordings/%2e%2e/secret.txt",
        f"/recordings/{NAME}/..%2f..%2fsecret.txt",
        f"/recordings/{NAME}/journal.jsonl",
        f"/recordings/{NAME}/session.json",
        "/recordings/nothing/user.flac",
        "/recordings/20261120T101530Z-rs_unfinished/user.flac",
    ],
)
async def test_nothing_else_is_served(relay: RunningRelay, path: str) -> None:
    status, body, _ = await get(relay, path)
    assert status == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")


async def test_a_link_is_not_followed(relay: RunningRelay, tmp_path: Path) -> None:
    track = tmp_path / NAME / "user.flac"
    track.unlink()
    track.symlink_to(tmp_path / "secret.txt")
    status, body, _ = await get(relay, f"/recordings/{NAME}/user.flac")
    assert status == 404
    assert b"not finished" in body
