"""What the parts of one running relay share: settings, tools, the way to the model, and the sessions alive."""

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from relay import __version__
from relay.admission import Admission
from relay.auth.admin_login import AdminLogins
from relay.auth.authenticator import Authenticator, counted
from relay.auth.client_secrets import ClientSecrets
from relay.auth.refusals import RefusalLog
from relay.callbacks import ignore
from relay.config import DEFAULT_TOOLS, Settings
from relay.core.events import Draining, KeyRevoked
from relay.core.known_secrets import KnownSecrets
from relay.core.policy import Principal
from relay.core.values import SessionConfig, ToolSpec
from relay.descriptors import Descriptors
from relay.engine_process import EngineProcess
from relay.errors import AccessDenied, ConfigError, Full, ToolError
from relay.exposed_files import exposed_files
from relay.peers.client_socket import Keepalive
from relay.peers.provider import ProviderClient
from relay.peers.read_budget import ReadBudget
from relay.peers.upstream import UpstreamRefusal, UpstreamSocket, dial
from relay.policies import Policies
from relay.recording.service import RecordingService
from relay.runtime.base import Observer, SessionRuntime
from relay.secret_values import secret_values
from relay.session_tools import SessionTools, tool_specs
from relay.spending import Spending
from relay.toolkit.library import ToolLibrary
from relay.toolkit.mcp import McpServers
from relay.toolkit.mcp_config import McpServerConfig, read_config
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolRunner
from relay.toolkit.sources import ToolSources
from relay.upstreams.credentials import AnyCredential, Credential, TokenCredential, load_token_source
from relay.upstreams.endpoint import with_model

DRAIN_TIMEOUT_S = 4.0
TOOLS_TIMEOUT_S = 2.0

_log = logging.getLogger("relay")


class RelayState:
    """One relay; lives in the application under `RELAY`."""

    def __init__(self, settings: Settings, registry: ToolRegistry | None) -> None:
        """The relay that `settings` describe; nothing is started, and no tool loaded yet unless it is given."""
        self.settings = settings
        self.upstream = settings.resolve_upstream()
        self.engine = EngineProcess() if self.upstream.url is None else None
        servers = mcp_servers(settings)
        self.known_secrets = known = KnownSecrets(secret_values(settings, servers))
        """What is taken out of everything that leaves the relay, but for the model's deltas."""
        self.library: ToolLibrary | None = None
        if registry is None:
            registry = ToolRegistry()
            self.library = ToolLibrary(tool_sources(settings), registry)
        self.registry = registry
        self.mcp = McpServers(servers, registry, known.redact)
        self.runner = ToolRunner(registry, redact=known.redact)
        self.logins = AdminLogins(settings.ticket_keys)
        self.client_secrets = ClientSecrets(
            settings.ticket_keys, minted_bytes=round(settings.minted_max_mb * 1024 * 1024)
        )
        self.auth = Authenticator(settings, Policies.load(settings.policies), self.client_secrets, self.logins)
        self.admission = Admission(settings)
        self.spending = Spending(settings.mints_per_minute, settings.speech_per_minute)
        self.read_budget = ReadBudget()
        self.provider = ProviderClient()
        self.credential = upstream_credential(settings, known.learn)
        self.azure_credential = azure_credential(settings, known.learn)
        self.recordings = RecordingService(
            settings.recordings_dir,
            settings.record,
            max_days=settings.recordings_max_days,
            max_mb=settings.recordings_max_mb,
            recording_max_mb=settings.recording_max_mb,
            upstream=self.upstream.label,
            model=settings.model if self.upstream.url is not None else "local engine",
            secrets=known,
        )
        self.observer: Observer | None = None
        self.has_external_voice = False
        """Whether sessions may be spoken by another voice than the model's."""
        self.draining = False
        self.refusals = RefusalLog()
        self.sessions: dict[str, SessionRuntime[Any]] = {}
        self.all_gone = asyncio.Event()
        self.all_gone.set()

    @property
    def may_record(self) -> bool:
        """Whether sessions may be recorded, by the settings or by a policy."""
        return self.settings.record != "off" or self.auth.policies.records()

    def fit(self) -> Descriptors:
        """Admit no more sessions than fit into the files and sockets of this process; returns how those are shared."""
        descriptors = Descriptors.of_process(has_recordings=self.may_record, has_external_voice=self.has_external_voice)
        self.admission.fit(descriptors)
        return descriptors

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what the sessions need."""
        self.recordings.start()
        await self.load_tools()
        await self.mcp.start()
        if self.engine is not None:
            await self.engine.start()

    async def load_tools(self) -> None:
        """Load the tools, anew if they are; sessions go on, and new ones get what there is. A failure is logged."""
        if self.library is None:
            return
        try:
            await self.library.load()
        except ToolError as error:
            _log.error("%s The tools are as before.", error)

    def reload_access(self) -> None:
        """Read keys and policies anew; sessions of keys that are gone end. A mistake is logged, and changes nothing."""
        try:
            fresh = self.settings.reread()
            policies = Policies.load(fresh.policies)
        except ConfigError as error:
            _log.error("SIGHUP: keys and policies are as before: %s", error)
            return
        self.known_secrets.add(secret_values(fresh))
        self.auth.use(fresh, policies)
        self.logins.use_keys(fresh.ticket_keys)
        self.fit()  # policies may record sessions now
        revoked = [live for live in self.sessions.values() if self.auth.has_revoked(live.core.principal)]
        for live in revoked:
            live.dispatch(KeyRevoked())
        _log.info(
            "SIGHUP: %s, %s, policies %s; %s of revoked keys end",
            counted(len(fresh.api_keys), "key"), counted(len(fresh.admin_keys), "admin key"),
            ", ".join(policies.names()), counted(len(revoked), "session"),
        )  # fmt: skip
        for warning in self.warnings():
            _log.warning("%s", warning)

    async def drain(self) -> None:
        """Say goodbye to all sessions and take no new ones; returns when they are gone, in bounded time."""
        self.draining = True
        for session in list(self.sessions.values()):
            session.dispatch(Draining())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.all_gone.wait()

    async def stop(self) -> None:
        """End what `start` began."""
        await self.runner.close(TOOLS_TIMEOUT_S)
        await self.provider.close()
        await self.mcp.stop()
        await self.recordings.stop()
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
        origins = ", ".join(
            ("its own page", *(("localhost",) if settings.is_loopback else ()), *settings.allowed_origins)
        )
        return [
            f"relay {__version__} · upstream {self.upstream.label} · model {model} · voice {config.voice}",
            f"audio pcm16 at 8, 16, 24, 48 kHz, pcmu, pcma · turns {config.turn.kind} · origins {origins}",
            f"tools {', '.join(tool.name for tool in self.registry) or 'none'}",
            f"access {self.auth.describe()} · policies {', '.join(self.auth.policies.names())}",
            self._describe_bounds(),
        ]

    def _describe_bounds(self) -> str:
        """How many sessions there may be, how long they last, and what is kept of them."""
        settings = self.settings
        parts = [f"at most {settings.max_sessions} sessions"]
        parts += [f"each at most {settings.max_duration_s:g} s"] if settings.max_duration_s else []
        parts += [f"ended after {settings.max_idle_s:g} s idle"] if settings.max_idle_s else []
        kept = f"recordings {settings.record}"
        return " · ".join([*parts, kept if settings.record == "off" else f"{kept}, in {settings.recordings_dir}"])

    def warnings(self) -> list[str]:
        """What the start and a reload say: about access, files that others can get at, and descriptors."""
        exposed = exposed_files(self.settings, self.known_secrets, records=self.may_record)
        return [*self.auth.warnings(), *exposed, *self.admission.warnings()]

    def now(self) -> float:
        """The clock of all sessions, in seconds."""
        return asyncio.get_running_loop().time()

    @property
    def own_model(self) -> str | None:
        """The model of sessions that name none; None where the upstream's URL fixes it, whatever a policy says."""
        return None if self.upstream.fixes_model else self.settings.model

    # -- sessions -----------------------------------------------------------------------------------------------------

    def add(self, live: SessionRuntime[Any]) -> None:
        """A session begins."""
        self.sessions[live.core.session_id] = live
        self.all_gone.clear()

    def remove(self, live: SessionRuntime[Any]) -> None:
        """A session has ended."""
        del self.sessions[live.core.session_id]
        if not self.sessions:
            self.all_gone.set()

    async def turn(self, principal: Principal) -> None:
        """Wait for a turn to begin a session, while holding a session slot. Raises as `check_still_admitted` does."""
        await self.admission.turn()
        self.check_still_admitted(principal)

    def check_still_admitted(self, principal: Principal) -> None:
        """Check again after a wait. Raises AccessDenied if the key was revoked, Full if the relay is shutting down.

        Both are events to a session that has begun, and a session that still waits gets no events.
        """
        if self.auth.has_revoked(principal):
            raise AccessDenied("The key was revoked; connect with another one.", status=401)
        self.refuse_when_draining()

    def refuse_when_draining(self) -> None:
        """Raise Full if the relay is about to end."""
        if self.draining:
            raise Full("The relay is shutting down; try again in a moment.")

    def new_session_id(self) -> str:
        """An id of our own making; the provider's is never shown."""
        return f"rs_{secrets.token_hex(10)}"

    @property
    def keepalive(self) -> Keepalive:
        """How often clients are pinged, and how long they have to answer."""
        return Keepalive(self.settings.ping_interval_s, self.settings.pong_timeout_s)

    def session_config(self) -> SessionConfig:
        """The settings' session with the registry's tools."""
        return replace(self.settings.session_config(), tools=tool_specs(self.registry))

    def tool_specs(self) -> tuple[ToolSpec, ...]:
        """What the model may be told of the registry's tools."""
        return tool_specs(self.registry)

    def tools_for(self, session_id: str, principal: Principal, config: SessionConfig | None = None) -> SessionTools:
        """The tools, run in the name of one session."""
        language = config.language if config else None
        offers = principal.policy.allows_tool
        return SessionTools(self.runner, session_id, principal.identity, language, offers, self.known_secrets)

    async def dial(self, socket: UpstreamSocket, model: str | None = None) -> None:
        """Connect a session's upstream, to another model than the settings' if one is named. Raises UpstreamRefusal."""
        url = self.upstream.url_for(model)
        if self.engine is not None and self.engine.url is not None:
            url = with_model(self.engine.url, model) if model else self.engine.url
        if url is None:
            raise UpstreamRefusal("The local engine is not up; try again in a moment.", None, retryable=True)
        await dial(url, functools.partial(self.upstream.headers, self.credential), socket)


RELAY = web.AppKey("relay", RelayState)


def upstream_credential(settings: Settings, on_token: Callable[[str], None] = ignore) -> AnyCredential | None:
    """What the upstream's dials show, if anything; `on_token` is told of each bearer token that is fetched."""
    upstream = settings.resolve_upstream()
    if upstream.kind == "azure":
        return azure_credential(settings, on_token)
    return Credential("bearer", upstream.key.get_secret_value()) if upstream.key is not None else None


def azure_credential(settings: Settings, on_token: Callable[[str], None] = ignore) -> AnyCredential | None:
    """What Azure is shown: a key, or a token. Raises ConfigError where the token's callable cannot be loaded."""
    source = settings.azure_token
    if source is not None:
        source = load_token_source(source, "RELAY_AZURE_TOKEN") if isinstance(source, str) else source
        return TokenCredential(source, on_token=on_token)
    key = settings.azure_api_key
    return Credential("api-key", key.get_secret_value()) if key is not None else None


def mcp_servers(settings: Settings) -> tuple[McpServerConfig, ...]:
    """The MCP servers of the settings. Raises ConfigError."""
    return read_config(settings.mcp_servers, settings.environment()) if settings.mcp_servers else ()


def tool_sources(settings: Settings) -> ToolSources:
    """Where the settings' tools are; the folder that comes with the relay, if nothing is named and there is none.

    Raises ToolError where a folder that was named is bad.
    """
    folders, base_dir = settings.tools, settings.tools_base_dir
    if folders == DEFAULT_TOOLS and not (base_dir or Path()).joinpath(folders).exists():
        package = Path(__file__).parent
        folders = str(next(one for one in (package / "shipped_tools", package.parent / "tools") if one.exists()))
    sources = ToolSources(
        folders=folders, navai_folders=settings.navai_folders, agents=settings.navai_agents, base_dir=base_dir
    )
    sources.check()
    return sources
