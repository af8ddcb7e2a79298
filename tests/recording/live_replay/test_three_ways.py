"""Conversations with the local engine, recorded and replayed all three ways: rules, model, client."""

from pathlib import Path

import orjson
import pytest

from relay.recording.live_replay.replay_client import replay_against
from relay.recording.live_replay.replay_server import ReplayServer
from relay.recording.replay.verify import verify
from relay.recording.store.reader import Recording
from tests.support.conversations import CONVERSATIONS, ROOT, record_conversations

GOLDEN = ROOT / "recordings" / "golden"


async def test_what_was_recorded_just_now_runs_identically(tmp_path: Path) -> None:
    """All of them at once, in one relay: they take as long as the longest."""
    for name, folder in (await record_conversations(CONVERSATIONS, tmp_path, at_once=True)).items():
        outcome = verify(Recording(folder))
        assert (name, outcome.difference, outcome.notes) == (name, None, [])
        assert outcome.sent_bytes > 10_000


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if not name.startswith("another")])
async def test_the_recorded_user_meets_the_recorded_model(name: str, tmp_path: Path) -> None:
    async with ReplayServer(GOLDEN / name, 0, None, lambda _: None) as upstream:
        comparison = await replay_against(GOLDEN / name, upstream.url, 8.0, tmp_path)
    assert comparison.differences(["user", "assistant", "tools", "arguments"]) == []
    saved = orjson.loads((tmp_path / f"{name}.comparison.json").read_bytes())
    assert len(saved["now"]) == len(saved["recorded"])
    assert (tmp_path / f"{name}.now.wav").stat().st_size > 10_000
