"""The load process: `python -m scripts.benchmark.load SPEC`, driven by lines of JSON.

It says where its model listens, is told which address to load, and then says each phase as it begins, so that whoever
started it can take readings: listening, connected, idle, start, end, result.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from picows import ws_connect, ws_create_server

from scripts.benchmark.fake_peers import (
    DELTA_MS,
    FRAME_MS,
    AudioFlow,
    FakeClient,
    FakeUpstream,
    LoadProtocol,
    LoadSession,
    Percentiles,
    voice_name,
)

CONNECT_TIMEOUT_S = 20.0
ARRIVAL_TIMEOUT_S = 0.3
"""What is on its way when the window closes has this long to arrive."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How many sessions of which kind, and for how long."""

    protocol: LoadProtocol
    sessions: int
    rate_hz: int
    seconds: float
    warmup_s: float
    idle_s: float = 1.0
    ramp_per_s: float = 100.0


class Pacer:
    """Calls `beat(session, now)` for every session once in `period_s`, evenly spread; measures its own lateness."""

    def __init__(
        self, sessions: list[LoadSession], period_s: float, send: Callable[[LoadSession, float], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sessions = sessions
        self._step_s = period_s / len(sessions)
        self._send = send
        self._start = time.monotonic()
        self._n_sent = 0
        self.max_late_s = 0.0
        self._timer = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        """No more beats."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = time.monotonic()
        self.max_late_s = max(self.max_late_s, now - self._due)
        while self._due <= now:
            self._send(self._sessions[self._n_sent % len(self._sessions)], time.monotonic())
            self._n_sent += 1
        self._timer = self._loop.call_later(self._due - now, self._tick)

    @property
    def _due(self) -> float:
        return self._start + self._n_sent * self._step_s


async def run(load: LoadSpec, report: Callable[..., None], read_url: Callable[[], Any]) -> None:
    """One run of the load from its first connection to its result."""
    clock = time.monotonic  # uvloop's own counts whole milliseconds
    sessions = {index: LoadSession(load.protocol, load.rate_hz) for index in range(load.sessions)}
    server = await ws_create_server(
        lambda request: FakeUpstream(request, sessions, clock), "127.0.0.1", 0, backlog=1024
    )
    report("listening", port=server.sockets[0].getsockname()[1])
    url = await read_url()
    await _connect(load, sessions, url, clock)
    report("connected")
    await asyncio.sleep(load.idle_s)
    report("idle")
    report("result", **await _stream(load, list(sessions.values()), report))
    for session in sessions.values():
        for end in (session.client, session.upstream):
            if end is not None:
                end.disconnect(False)
    server.close()


async def _connect(load: LoadSpec, sessions: dict[int, LoadSession], url: str, clock: Callable[[], float]) -> None:
    started = clock()
    ready = asyncio.Semaphore(0)
    for index, session in sessions.items():
        await asyncio.sleep(max(0.0, started + index / load.ramp_per_s - clock()))
        end = FakeClient(session, index, clock, ready.release)
        client_url = f"{url}?rate={load.rate_hz}&voice={voice_name(index)}" if load.protocol == "device" else url
        await ws_connect(lambda end=end: end, client_url, max_redirects=0)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        for _ in sessions:
            await ready.acquire()


async def _stream(load: LoadSpec, sessions: list[LoadSession], report: Callable[..., None]) -> dict[str, Any]:
    """What the load process saw; `late_ms`: how late it was itself at worst, which no relay is to blame for."""
    gc.collect()
    gc.freeze()  # the load's own pauses are nobody's latency
    for session in sessions:
        session.start_response()
    frame_pacer = Pacer(sessions, FRAME_MS / 1000, LoadSession.send_frame)
    delta_pacer = Pacer(sessions, DELTA_MS / 1000, LoadSession.send_delta)
    flows = [flow for session in sessions for flow in (session.up, session.down)]
    await asyncio.sleep(load.warmup_s)
    frame_pacer.max_late_s = delta_pacer.max_late_s = 0.0
    for flow in flows:
        flow.open_window()
    report("start")
    await asyncio.sleep(load.seconds)
    for flow in flows:
        flow.close_window()
    report("end")
    late_s = max(frame_pacer.max_late_s, delta_pacer.max_late_s)
    await asyncio.sleep(ARRIVAL_TIMEOUT_S)
    frame_pacer.stop()
    delta_pacer.stop()
    alive = sum(session.is_alive for session in sessions)
    result: dict[str, Any] = {"alive": alive, "late_ms": late_s * 1000}
    for way in ("up", "down"):
        its_flows: list[AudioFlow] = [getattr(session, way) for session in sessions]
        ms = [one for flow in its_flows for one in flow.latencies_ms()]
        result[way] = asdict(Percentiles.from_latencies(ms))
        result[f"{way}_delivered"] = len(ms) / max(1, sum(flow.sent_chunks for flow in its_flows))
    return result


def main() -> None:
    """Entry point of the process; `SPEC` is a `LoadSpec` as JSON."""
    load = LoadSpec(**orjson.loads(sys.argv[1]))

    def report(phase: str, **more: Any) -> None:
        sys.stdout.buffer.write(orjson.dumps({"phase": phase, **more}) + b"\n")
        sys.stdout.buffer.flush()

    async def read_url() -> str:
        return str((await asyncio.to_thread(sys.stdin.readline)).strip())

    try:
        from uvloop import new_event_loop as loop_factory
    except ImportError:  # Windows, PyPy
        loop_factory = None  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run(load, report, read_url))


if __name__ == "__main__":
    main()
