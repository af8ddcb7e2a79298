"""The load process: `python -m scripts.benchmark.load SPEC`, where SPEC is a `LoadSpec` as JSON.

It writes one JSON line at the start of each phase: listening, connected, idle, start, end, result. The line of
"listening" has the port of the upstream; the process then reads the URL of the target from standard input.
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
"""The time to wait for chunks that were sent before the measurement ended."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """The number, protocol, rate and duration of the sessions."""

    protocol: LoadProtocol
    sessions: int
    rate_hz: int
    seconds: float
    warmup_s: float
    idle_s: float = 1.0
    ramp_per_s: float = 100.0


class Pacer:
    """Calls `send(session, now)` once per `period_s` for every session, evenly spread; measures its own delay."""

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
        """Stop the calls."""
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


async def run(spec: LoadSpec, report: Callable[..., None], read_url: Callable[[], Any]) -> None:
    """Run the load from the first connection to the result."""
    clock = time.monotonic  # the clock of uvloop has a resolution of 1 ms
    sessions = {index: LoadSession(spec.protocol, spec.rate_hz) for index in range(spec.sessions)}
    server = await ws_create_server(
        lambda request: FakeUpstream(request, sessions, clock), "127.0.0.1", 0, backlog=1024
    )
    report("listening", port=server.sockets[0].getsockname()[1])
    url = await read_url()
    await _connect(spec, sessions, url, clock)
    report("connected")
    await asyncio.sleep(spec.idle_s)
    report("idle")
    report("result", **await _stream(spec, list(sessions.values()), report))
    for session in sessions.values():
        for transport in (session.client, session.upstream):
            if transport is not None:
                transport.disconnect(False)
    server.close()


async def _connect(spec: LoadSpec, sessions: dict[int, LoadSession], url: str, clock: Callable[[], float]) -> None:
    started_at = clock()
    ready = asyncio.Semaphore(0)
    for index, session in sessions.items():
        await asyncio.sleep(max(0.0, started_at + index / spec.ramp_per_s - clock()))
        client = FakeClient(session, index, clock, ready.release)
        client_url = f"{url}?rate={spec.rate_hz}&voice={voice_name(index)}" if spec.protocol == "device" else url
        await ws_connect(lambda client=client: client, client_url, max_redirects=0)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        for _ in sessions:
            await ready.acquire()


async def _stream(spec: LoadSpec, sessions: list[LoadSession], report: Callable[..., None]) -> dict[str, Any]:
    """Send the audio and return the result; `late_ms` is the largest delay of the load process itself."""
    gc.collect()
    gc.freeze()  # pauses of the load process would count as latency
    for session in sessions:
        session.start_response()
    frame_pacer = Pacer(sessions, FRAME_MS / 1000, LoadSession.send_frame)
    delta_pacer = Pacer(sessions, DELTA_MS / 1000, LoadSession.send_delta)
    flows = [flow for session in sessions for flow in (session.up, session.down)]
    await asyncio.sleep(spec.warmup_s)
    frame_pacer.max_late_s = delta_pacer.max_late_s = 0.0
    for flow in flows:
        flow.open_window()
    report("start")
    await asyncio.sleep(spec.seconds)
    for flow in flows:
        flow.close_window()
    report("end")
    late_s = max(frame_pacer.max_late_s, delta_pacer.max_late_s)
    await asyncio.sleep(ARRIVAL_TIMEOUT_S)
    frame_pacer.stop()
    delta_pacer.stop()
    alive = sum(session.is_alive for session in sessions)
    result: dict[str, Any] = {"alive": alive, "late_ms": late_s * 1000}
    for direction in ("up", "down"):
        direction_flows: list[AudioFlow] = [getattr(session, direction) for session in sessions]
        latencies_ms = [latency_ms for flow in direction_flows for latency_ms in flow.latencies_ms()]
        result[direction] = asdict(Percentiles.from_latencies(latencies_ms))
        result[f"{direction}_delivered"] = len(latencies_ms) / max(1, sum(flow.sent_chunks for flow in direction_flows))
    return result


def main() -> None:
    """Run the load process."""
    spec = LoadSpec(**orjson.loads(sys.argv[1]))

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
        runner.run(run(spec, report, read_url))


if __name__ == "__main__":
    main()
