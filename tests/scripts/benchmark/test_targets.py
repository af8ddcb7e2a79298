"""Starting what is measured."""

import asyncio
import sys

import pytest

from scripts.benchmark import targets as subjects
from scripts.benchmark.targets import BenchError, run_target


async def test_a_subject_that_does_not_start_is_a_sentence_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    monkeypatch.setattr(subjects, "_command", lambda *_: (command, {}))
    with pytest.raises(BenchError, match="relay did not start: no such thing"):
        async with run_target("relay", 9, 1, None):
            pass


async def test_a_subject_that_does_not_listen_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "_command", lambda *_: ([sys.executable, "-c", "import signal; signal.pause()"], {}))
    monkeypatch.setattr(subjects, "START_TIMEOUT_S", 0.2)
    with pytest.raises(BenchError, match="did not listen within"):
        async with run_target("relay", 9, 1, None):
            pass


async def test_without_haproxy_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "find_haproxy", lambda: None)
    with pytest.raises(BenchError, match="apt-get install haproxy"):
        async with run_target("haproxy", 9, 1, None):
            pass


async def test_nothing_of_the_users_settings_reaches_the_relay_under_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("RELAY_API_KEYS", "mine")
    _, environment = subjects._command("relay", tmp_path, 8080, 9000, 5)
    assert {name for name in environment if name.startswith(("RELAY_", "OPENAI_"))} == {
        "RELAY_UPSTREAM", "RELAY_MAX_SESSIONS", "RELAY_LOG_LEVEL"
    }  # fmt: skip
    assert environment["RELAY_UPSTREAM"] == "ws://127.0.0.1:9000/v1/realtime"
    assert not await asyncio.to_thread((tmp_path / ".env").exists)
