"""What the parts of one running relay share: settings, tools, the way to the model, and the sessions alive."""

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web

from relay import __version__
from relay.access import Gate
from relay.config import DEFAULT_TOOLS, Settings, Upstream
from relay.core.events import Draining
from relay.core.policy import Principal
from relay.core.values import SessionConfig
from relay.engine_process import EngineProcess
from relay.live_session import LiveSession, Tap
from relay.peers.upstream import UpstreamRefusal, UpstreamSocket, dial
from relay.recorder import Recorder
from relay.session_tools import SessionTools, tool_specs
from relay.toolkit.discovery import load_folder
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolRunner

DRAIN_TIMEOUT_S = 4.0
TOOLS_TIMEOUT_S = 2.0


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class RelayState:
    """One relay; lives in the application under `RELAY`."""

    settings: Settings
    registry: ToolRegistry
    gate: Gate
    upstream: Upstream
    engine: EngineProcess | None
    runner: ToolRunner
    recorder: Recorder
    tap: Tap | None = None
    draining: bool = False
    sessions: dict[str, LiveSession] = field(default_factory=dict)
    all_gone: asyncio.Event = field(default_factory=_set_event)

    @classmethod
    def build(cls, settings: Settings, registry: ToolRegistry) -> "RelayState":
        """The relay that `settings` describe; nothing is started yet."""
        upstream = settings.resolve_upstream()
        return cls(
            settings=settings,
            registry=registry,
            gate=Gate(settings),
            upstream=upstream,
            engine=EngineProcess() if upstream.url is None else None,
            runner=ToolRunner(registry),
            recorder=Recorder(
                settings.recordings_dir,
                settings.record,
                max_days=settings.recordings_max_days,
                max_mb=settings.recordings_max_mb,
                upstream=upstream.label,
                model=settings.model if upstream.url is not None else "local engine",
            ),
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what the sessions need."""
        self.recorder.start()
        if self.engine is not None:
            await self.engine.start()

    async def drain(self) -> None:
        """Say goodbye to all sessions and take no new ones; returns when they are gone, in bounded time."""
        self.draining = True
        for session in list(self.sessions.values()):
            session.feed(Draining())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.all_gone.wait()

    async def stop(self) -> None:
        """End what `start` began."""
        await self.runner.close(TOOLS_TIMEOUT_S)
        await self.recorder.stop()
        if self.engine is not None:
            await self.engine.stop()

    @property
    def not_ready(self) -> str | None:
        """Why no session can be had now, if so."""
        if self.draining:
            return "the relay is shutting down"
        if self.engine is not None and self.engine.url is None:
            return self.engine.failure or "the local engine is starting"
        return None

    def describe(self) -> list[str]:
        """What the start-up log says; never a key."""
        settings, config = self.settings, self.settings.session_config()
        model = settings.model if self.upstream.url is not None else "a rehearsal partner on this machine, not a model"
        origins = ", ".join(settings.allowed_origins) or "its own page" + (
            " and localhost" if settings.is_loopback else ""
        )
        return [
            f"relay {__version__} · upstream {self.upstream.label} · model {model} · voice {config.voice}",
            f"audio pcm16 at 8, 16, 24, 48 kHz, pcmu, pcma · turns {config.turn.kind} · origins {origins}",
            f"tools {', '.join(tool.name for tool in self.registry) or 'none'}",
        ]

    def now(self) -> float:
        """The clock of all sessions, in seconds."""
        return asyncio.get_running_loop().time()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def add(self, live: LiveSession) -> None:
        """A session begins."""
        self.sessions[live.core.session_id] = live
        self.all_gone.clear()

    def remove(self, live: LiveSession) -> None:
        """A session has ended."""
        del self.sessions[live.core.session_id]
        if not self.sessions:
            self.all_gone.set()

    def new_session_id(self) -> str:
        """An id of our own making; the provider's is never shown."""
        return f"rs_{secrets.token_hex(10)}"

    def session_config(self) -> SessionConfig:
        """The settings' session with the registry's tools."""
        return replace(self.settings.session_config(), tools=tool_specs(self.registry))

    def tools_for(self, session_id: str, principal: Principal, config: SessionConfig) -> SessionTools:
        """The tools, run in the name of one session."""
        return SessionTools(self.runner, session_id, principal.identity, config.language)

    async def dial(self, socket: UpstreamSocket) -> None:
        """Connect a session's upstream. Raises UpstreamRefusal."""
        url, key = self.upstream.url, self.upstream.key
        if self.engine is not None:
            url = self.engine.url
        if url is None:
            raise UpstreamRefusal("The local engine is not up; try again in a moment.", None, retryable=True)
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
        await dial(url, headers, socket)


RELAY = web.AppKey("relay", RelayState)


def load_tools(settings: Settings) -> ToolRegistry:
    """The tools of the settings' folder, or those that come with the relay. Raises ToolError if the folder is bad."""
    folder = settings.tools
    if folder == DEFAULT_TOOLS and not folder.exists():
        package = Path(__file__).parent
        folder = next(place for place in (package / "shipped_tools", package.parent / "tools") if place.exists())
    return ToolRegistry(load_folder(folder).tools)
