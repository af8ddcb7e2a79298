"""Conversations with the local engine, recorded and replayed all three ways: rules, model, client."""

from pathlib import Path

import orjson
import pytest

from relay.recording.reader import Recording
from relay.recording.rerun import rerun
from relay.replaying.against import run
from relay.replaying.as_upstream import RecordedUpstream
from tests.support.conversations import CONVERSATIONS, ROOT, record_conversation

GOLDEN = ROOT / "recordings" / "golden"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "plain-turn-16k" else pytest.mark.long) for name in CONVERSATIONS]
)
async def test_what_was_recorded_just_now_runs_identically(name: str, tmp_path: Path) -> None:
    outcome = rerun(Recording(await record_conversation(name, tmp_path)))
    assert outcome.difference is None
    assert outcome.exact


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if not name.startswith(("fault", "another"))])
async def test_the_recorded_user_meets_the_recorded_model(name: str, tmp_path: Path) -> None:
    async with RecordedUpstream(GOLDEN / name, 0, None, lambda _: None) as upstream:
        comparison = await run(GOLDEN / name, upstream.url, 4.0, tmp_path)
    assert comparison.unequal(["user", "assistant", "tools", "arguments"]) == []
    saved = orjson.loads((tmp_path / f"{name}.comparison.json").read_bytes())
    assert len(saved["now"]) == len(saved["recorded"])
    assert (tmp_path / f"{name}.now.wav").stat().st_size > 10_000
