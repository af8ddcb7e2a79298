"""How sessions reach their upstream: its endpoint, its credential, and the local engine as a supervised child.

    settings ──► UpstreamEndpoint and credential ──► UpstreamConnector.dial ──► UpstreamSocket

Every session dials by itself, and a bearer token is fetched for each dial. Where no upstream is configured, the engine
runs as a child process on a free loopback port. `EngineSupervisor` starts it again when it ends, ever more slowly.
While it is down, `unavailable_reason` says why, and dials are refused with a sentence that says when to try again.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable

from relay.child_environment import python_command, python_environment
from relay.config.settings import Settings
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection, connect_upstream
from relay.upstreams.credentials import KeyCredential, TokenCredential, UpstreamCredential, load_token_provider
from relay.upstreams.endpoint import with_model

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 3.0
FIRST_RETRY_S = 0.5
MAX_RETRY_S = 30.0
STABLE_AFTER_S = 10.0

_log = logging.getLogger("relay.engine")


class EngineSupervisor:
    """Runs `python -m relay.local_engine` on a free loopback port.

    `url` is where it listens, None while it is not up; `failure` is why the last start failed.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._restart_task: asyncio.Task[None] | None = None
        self.failure: str | None = None

    async def start(self) -> None:
        """Start the engine and wait until it listens. Raises RuntimeError with its last words if it does not."""
        await self._spawn()
        self._restart_task = asyncio.get_running_loop().create_task(self._restart_on_exit())

    async def stop(self) -> None:
        """End the engine, in bounded time."""
        if self._restart_task is not None:
            self._restart_task.cancel()
            await asyncio.wait([self._restart_task])
            self._restart_task = None
        self.url = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _spawn(self) -> None:
        # The engine ends when its standard input does: also when we are killed and cannot say goodbye.
        self._process = process = await asyncio.create_subprocess_exec(
            *python_command("relay.local_engine", "--host", "127.0.0.1", "--port", "0", "--exit-with-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=python_environment(os.environ),
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                assert process.stdout is not None
                line = await process.stdout.readline()
            self.url = f"ws://127.0.0.1:{int(json.loads(line)['port'])}/v1/realtime"
            self.failure = None
        except (TimeoutError, ValueError, KeyError, TypeError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self.failure = "the local engine did not start; its own message is above"
            raise RuntimeError(self.failure) from error

    async def _restart_on_exit(self) -> None:
        loop = asyncio.get_running_loop()
        retry_s, started_at = FIRST_RETRY_S, loop.time()
        while True:
            process = self._process
            if process is not None:
                code = await process.wait()
                self.url = None
                if loop.time() - started_at > STABLE_AFTER_S:
                    retry_s = FIRST_RETRY_S
                _log.error("the local engine ended with %s; starting it again in %.1f s", code, retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, MAX_RETRY_S)
            try:
                await self._spawn()
                started_at = loop.time()
                _log.info("the local engine is up again")
            except (RuntimeError, OSError) as error:
                self._process = None
                _log.error("the local engine cannot be started: %s", error)


class UpstreamConnector:
    """Dials the upstream that the settings name. `engine` is the local engine, where that is the upstream."""

    def __init__(self, settings: Settings, on_token: Callable[[str], None] | None = None) -> None:
        """`on_token` gets each bearer token that is fetched. Raises ConfigError."""
        self.endpoint = settings.resolve_upstream()
        self.engine = EngineSupervisor() if self.endpoint.url is None else None
        self.credential: UpstreamCredential | None = None
        if self.endpoint.kind == "azure":
            self.credential = azure_credential(settings, on_token)
        elif self.endpoint.key is not None:
            self.credential = KeyCredential("bearer", self.endpoint.key.get_secret_value())
        self._model = settings.session.model

    async def start(self) -> None:
        """Start the engine, where there is one. Raises RuntimeError."""
        if self.engine is not None:
            await self.engine.start()

    async def stop(self) -> None:
        """End the engine."""
        if self.engine is not None:
            await self.engine.stop()

    @property
    def unavailable_reason(self) -> str | None:
        """Why no session can be had now, if so."""
        if self.engine is not None and self.engine.url is None:
            return self.engine.failure or "the local engine is starting"
        return None

    @property
    def default_model(self) -> str | None:
        """The model of sessions that name none; None where the upstream's URL fixes it, whatever a policy says."""
        return None if self.endpoint.has_fixed_model else self._model

    async def connect(self, socket: UpstreamConnection, model: str | None = None) -> None:
        """Connect a session's upstream, to another model than the settings' if one is named. Raises UpstreamRefusal."""
        url = self.endpoint.url_for(model)
        if self.engine is not None and self.engine.url is not None:
            url = with_model(self.engine.url, model) if model else self.engine.url
        if url is None:
            raise UpstreamConnectError("The local engine is not up; try again in a moment.", None, retryable=True)
        await connect_upstream(url, functools.partial(self.endpoint.headers, self.credential), socket)


def azure_credential(settings: Settings, on_token: Callable[[str], None] | None = None) -> UpstreamCredential | None:
    """The credential for Azure: a key, or a token, and `on_token` gets each that is fetched. Raises ConfigError."""
    source = settings.azure.token_provider
    if source is not None:
        source = (
            load_token_provider(source, settings.name_of("azure.token_provider")) if isinstance(source, str) else source
        )
        return TokenCredential(source, on_token=on_token)
    key = settings.azure.api_key
    return KeyCredential("api-key", key) if key is not None else None
