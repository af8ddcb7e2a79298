"""Builds the parts of one relay from its settings, and starts, reloads and stops them."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from relay.admission import Admission
from relay.app import keys
from relay.app.session_factory import SessionFactory
from relay.app.sessions import SessionRegistry
from relay.app.startup_log import describe
from relay.app.toolbox import ToolBox, mcp_servers
from relay.auth.admin_login import AdminLogins
from relay.auth.authenticator import Authenticator, counted
from relay.auth.client_secrets import ClientSecrets
from relay.auth.refusals import RefusalLog
from relay.config import Settings
from relay.core.known_secrets import KnownSecrets
from relay.descriptors import Descriptors
from relay.errors import ConfigError
from relay.exposed_files import exposed_files
from relay.navai_options import NavaiOptions
from relay.peers.client_socket import Keepalive
from relay.peers.provider import ProviderClient
from relay.policies import Policies
from relay.recording.service import RecordingService
from relay.secret_values import secret_values
from relay.spending import Spending
from relay.toolkit.registry import ToolRegistry
from relay.upstreams.azure_sessions import AzureSessions
from relay.upstreams.connector import UpstreamConnector, azure_credential
from relay.upstreams.external_voices import ExternalVoices

_log = logging.getLogger("relay")


class RelayContext:
    """The parts of one relay. Handlers get none of this: `install` puts each part under its own key."""

    def __init__(self, settings: Settings, registry: ToolRegistry | None, navai: NavaiOptions) -> None:
        """Build the parts that `settings` describe; nothing is started, and no tool loaded yet unless it is given.

        Raises ConfigError, ToolError.
        """
        self.settings = settings
        servers = mcp_servers(settings)
        self.known_secrets = known = KnownSecrets(
            (*secret_values(settings, servers), navai.openai_api_key, navai.elevenlabs_api_key)
        )
        self.tools = ToolBox(settings, registry, servers, known)
        self.upstream = UpstreamConnector(settings, known.learn)
        self.logins = AdminLogins(settings.ticket_keys)
        self.client_secrets = ClientSecrets(
            settings.ticket_keys, minted_bytes=round(settings.minted_max_mb * 1024 * 1024)
        )
        policies = Policies.load(settings.policies)
        self.authenticator = Authenticator(settings, policies, self.client_secrets, self.logins)
        self.admission = Admission(settings)
        self.spending = Spending(settings.mints_per_minute, settings.speech_per_minute)
        self.refusals = RefusalLog()
        self.provider = ProviderClient()
        self.voices = ExternalVoices.of(navai, settings.voice_mode, settings.fallback_voice, policies.external_voices())
        self.recordings = _recordings(settings, self.upstream, known)
        self.sessions = SessionRegistry(self.authenticator, self.recordings)
        self.session_factory = SessionFactory(
            settings,
            upstream=self.upstream,
            tools=self.tools,
            recordings=self.recordings,
            client_secrets=self.client_secrets,
            voices=self.voices,
            provider=self.provider,
            known_secrets=known,
        )
        self._azure_credential = azure_credential(settings, known.learn)

    def install(self, app: web.Application) -> None:
        """Put each part under its key, and let the parts live as long as `app` does."""
        settings = self.settings
        app[keys.SETTINGS] = settings
        app[keys.KNOWN_SECRETS] = self.known_secrets
        app[keys.AUTHENTICATOR] = self.authenticator
        app[keys.LOGINS] = self.logins
        app[keys.CLIENT_SECRETS] = self.client_secrets
        app[keys.ADMISSION] = self.admission
        app[keys.SPENDING] = self.spending
        app[keys.REFUSALS] = self.refusals
        app[keys.TOOLS] = self.tools
        app[keys.UPSTREAM] = self.upstream
        app[keys.PROVIDER] = self.provider
        app[keys.VOICES] = self.voices
        app[keys.RECORDINGS] = self.recordings
        app[keys.SESSIONS] = self.sessions
        app[keys.SESSION_FACTORY] = self.session_factory
        app[keys.KEEPALIVE] = Keepalive(settings.ping_interval_s, settings.pong_timeout_s)
        if settings.azure is not None and self._azure_credential is not None:
            app[keys.AZURE_SESSIONS] = AzureSessions(settings.azure, self._azure_credential, self.provider)
        app.cleanup_ctx.append(self._lifetime)
        app.on_shutdown.append(self._drain)

    def fit(self) -> Descriptors:
        """Admit no more sessions than fit into the files and sockets of this process; returns how those are shared."""
        descriptors = Descriptors.of_process(
            has_recordings=self._may_record, has_external_voice=self.voices.rules is not None
        )
        self.admission.fit(descriptors)
        return descriptors

    @property
    def _may_record(self) -> bool:
        """Whether sessions may be recorded, by the settings or by a policy."""
        return self.settings.record != "off" or self.authenticator.policies.records()

    async def reload(self) -> None:
        """Read keys and policies again, then the tools; sessions go on. Mistakes are logged, and change nothing."""
        self.reload_access()
        await self.tools.load()
        _log.info("SIGHUP: tools %s", ", ".join(self.tools.registry.names()) or "none")

    def reload_access(self) -> None:
        """Read keys and policies again; sessions of revoked keys end. A mistake is logged, and changes nothing."""
        try:
            fresh = self.settings.reread()
            policies = Policies.load(fresh.policies)
        except ConfigError as error:
            _log.error("SIGHUP: keys and policies are as before: %s", error)
            return
        self.known_secrets.add(secret_values(fresh))
        self.authenticator.use(fresh, policies)
        self.logins.use_keys(fresh.ticket_keys)
        self.fit()  # policies may record sessions now
        n_revoked = self.sessions.end_revoked()
        _log.info(
            "SIGHUP: %s, %s, policies %s; %s of revoked keys end",
            counted(len(fresh.api_keys), "key"), counted(len(fresh.admin_keys), "admin key"),
            ", ".join(policies.names()), counted(n_revoked, "session"),
        )  # fmt: skip
        for warning in self.warnings():
            _log.warning("%s", warning)

    def describe(self) -> list[str]:
        """What the start-up log says; never a key."""
        own = describe(self.settings, self.upstream.endpoint, self.tools.registry, self.authenticator)
        return [*own, *self.voices.describe()]

    def warnings(self) -> list[str]:
        """What the start and a reload warn of: access, files that other users can read, and descriptors."""
        exposed = exposed_files(self.settings, self.known_secrets, records=self._may_record)
        return [*self.authenticator.warnings(), *exposed, *self.admission.warnings()]

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        self.recordings.start()
        await self.tools.start()
        await self.upstream.start()
        try:
            yield
        finally:
            await self.tools.stop()
            await self.provider.close()
            await self.recordings.stop()
            await self.upstream.stop()

    async def _drain(self, app: web.Application) -> None:
        await self.sessions.drain()


CONTEXT = web.AppKey("context", RelayContext)
"""For who starts, reloads and inspects a relay; handlers take the parts that they need instead."""


def _recordings(settings: Settings, upstream: UpstreamConnector, secrets: KnownSecrets) -> RecordingService:
    return RecordingService(
        settings.recordings_dir,
        settings.record,
        max_days=settings.recordings_max_days,
        max_mb=settings.recordings_max_mb,
        recording_max_mb=settings.recording_max_mb,
        upstream=upstream.endpoint.label,
        model=settings.model if upstream.endpoint.url is not None else "local engine",
        secrets=secrets,
    )
