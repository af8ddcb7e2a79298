"""The load process's work with nothing in between: its devices speak to its own model."""

import asyncio
from typing import Any

from scripts.benchmark import load as load_module
from scripts.benchmark.fake_peers import LoadSession
from scripts.benchmark.load import LoadSpec, Pacer, run


async def test_with_nothing_in_between_all_arrives_at_once() -> None:
    said: dict[str, dict[str, Any]] = {}

    async def address() -> str:
        return f"ws://127.0.0.1:{said['listening']['port']}/"

    await run(
        LoadSpec("realtime", sessions=3, rate_hz=24_000, seconds=0.5, warmup_s=0.1, idle_s=0.0, ramp_per_s=1000),
        lambda phase, **more: said.update({phase: more}),
        address,
    )
    assert list(said) == ["listening", "connected", "idle", "start", "end", "result"]
    result = said["result"]
    assert (result["alive"], result["up_delivered"], result["down_delivered"]) == (3, 1.0, 1.0)
    for direction in ("up", "down"):
        assert 0 < result[direction]["p50"] <= result[direction]["p99"] <= result[direction]["worst"]


async def test_a_session_that_is_cut_is_missed(monkeypatch) -> None:
    said: dict[str, dict[str, Any]] = {}
    spoken = 0

    def speak_and_die(session: LoadSession, now: float) -> None:
        nonlocal spoken
        spoken += 1
        if spoken == 10 and session.client is not None:
            session.client.disconnect(False)
        speak(session, now)

    speak = LoadSession.send_frame
    monkeypatch.setattr(load_module.LoadSession, "send_frame", speak_and_die)

    async def address() -> str:
        return f"ws://127.0.0.1:{said['listening']['port']}/"

    await run(
        LoadSpec("realtime", sessions=2, rate_hz=24_000, seconds=0.4, warmup_s=0.0, idle_s=0.0, ramp_per_s=1000),
        lambda phase, **more: said.update({phase: more}),
        address,
    )
    assert said["result"]["alive"] == 1


async def test_the_metronome_gives_every_session_its_turn() -> None:
    sessions = [LoadSession("device", 16_000) for _ in range(4)]
    beats: list[int] = []
    enough = asyncio.Event()

    def beat(session: LoadSession, now: float) -> None:
        beats.append(sessions.index(session))
        if len(beats) == 12:
            enough.set()

    metronome = Pacer(sessions, 0.02, beat)
    await asyncio.wait_for(enough.wait(), 5)
    metronome.stop()
    assert beats[:12] == [0, 1, 2, 3] * 3
    assert metronome.max_late_s >= 0
