"""The parts of one relay, each under its own key in the application.

`install` builds them from the settings; the application starts and stops them. `reload` rereads keys, policies and
tools.
"""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from relay import __version__
from relay.app.file_descriptors import DescriptorBudget
from relay.app.secret_values import collect_secrets, exposed_file_warnings
from relay.app.session_limiter import SessionLimiter
from relay.app.sessions import SessionFactory, SessionRegistry
from relay.app.toolbox import ToolBox, load_mcp_servers
from relay.auth.admin_login import AdminLogins
from relay.auth.authenticator import Authenticator, pluralize
from relay.auth.client_secrets import ClientSecretIssuer
from relay.auth.quotas import PaidRouteQuota
from relay.auth.refusals import RefusalLog
from relay.config.navai_options import NavaiOptions
from relay.config.policy_file import Policies
from relay.config.settings import Settings
from relay.errors import ConfigError
from relay.recording.service import RecordingService
from relay.session.common.known_secrets import KnownSecrets
from relay.toolkit.registry import ToolRegistry
from relay.transport.http_client import ProviderHttpClient
from relay.transport.upgrade import Keepalive
from relay.upstreams.clients.browser_secrets import AzureSessionClient
from relay.upstreams.clients.connector import UpstreamConnector, azure_credential
from relay.upstreams.clients.elevenlabs import ExternalVoices

SETTINGS = web.AppKey("settings", Settings)
KNOWN_SECRETS = web.AppKey("known_secrets", KnownSecrets)
"""The secrets that are redacted from everything that leaves the relay, except the upstream's deltas."""
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
LOGINS = web.AppKey("logins", AdminLogins)
CLIENT_SECRETS = web.AppKey("client_secrets", ClientSecretIssuer)
SESSION_LIMITER = web.AppKey("session_limiter", SessionLimiter)
PAID_ROUTE_QUOTA = web.AppKey("paid_route_quota", PaidRouteQuota)
REFUSAL_LOG = web.AppKey("refusal_log", RefusalLog)
TOOLS = web.AppKey("tools", ToolBox)
UPSTREAM = web.AppKey("upstream", UpstreamConnector)
PROVIDER = web.AppKey("provider", ProviderHttpClient)
AZURE_SESSIONS = web.AppKey("azure_sessions", AzureSessionClient)
"""The client of Azure's session API; missing if no Azure resource is configured."""
VOICES = web.AppKey("voices", ExternalVoices)
RECORDINGS = web.AppKey("recordings", RecordingService)
SESSIONS = web.AppKey("sessions", SessionRegistry)
SESSION_FACTORY = web.AppKey("session_factory", SessionFactory)
KEEPALIVE = web.AppKey("keepalive", Keepalive)

_log = logging.getLogger("relay")


def install(app: web.Application, settings: Settings, registry: ToolRegistry | None, navai: NavaiOptions) -> None:
    """Build the parts from the settings, without starting anything or loading tools. Raises ConfigError, ToolError."""
    servers = load_mcp_servers(settings)
    known = KnownSecrets((*collect_secrets(settings, servers), navai.openai_api_key, navai.elevenlabs_api_key))
    app[SETTINGS], app[KNOWN_SECRETS] = settings, known
    app[TOOLS] = ToolBox(settings, registry, servers, known)
    app[UPSTREAM] = UpstreamConnector(settings, known.add_rotating)
    app[PROVIDER] = ProviderHttpClient()
    _install_access(app, settings)
    app[VOICES] = ExternalVoices.from_settings(navai, settings, app[AUTHENTICATOR].policies.external_voices())
    _install_sessions(app, settings)
    resource, credential = settings.azure.resource, azure_credential(settings, known.add_rotating)
    if resource is not None and credential is not None:
        app[AZURE_SESSIONS] = AzureSessionClient(resource, credential, app[PROVIDER])
    app.cleanup_ctx.append(_lifetime)
    app.on_shutdown.append(lambda app: app[SESSIONS].drain())


def _install_access(app: web.Application, settings: Settings) -> None:
    minted_bytes = round(settings.limits.client_secrets_max_mb * 1024 * 1024)
    app[LOGINS] = logins = AdminLogins(settings.access.ticket_keys)
    app[CLIENT_SECRETS] = client_secrets = ClientSecretIssuer(settings.access.ticket_keys, minted_bytes=minted_bytes)
    app[AUTHENTICATOR] = Authenticator(
        settings, Policies.load(settings.access.policies, settings.name_of("access.policies")), client_secrets, logins
    )
    app[SESSION_LIMITER] = SessionLimiter(settings)
    app[PAID_ROUTE_QUOTA] = PaidRouteQuota(
        settings.limits.provider_secrets_per_minute, settings.limits.speech_per_minute
    )
    app[REFUSAL_LOG] = RefusalLog()


def _install_sessions(app: web.Application, settings: Settings) -> None:
    known, endpoint = app[KNOWN_SECRETS], app[UPSTREAM].endpoint
    app[KEEPALIVE] = Keepalive(settings.limits.ping_interval_s, settings.limits.pong_timeout_s)
    recording = settings.recording
    app[RECORDINGS] = RecordingService(
        recording.dir,
        recording.mode,
        max_days=recording.max_days,
        max_mb=recording.max_total_mb,
        recording_max_mb=recording.max_mb,
        upstream=endpoint.label,
        model=settings.session.model if endpoint.url is not None else "local engine",
        secrets=known,
    )
    app[SESSIONS] = SessionRegistry(app[AUTHENTICATOR], app[RECORDINGS])
    app[SESSION_FACTORY] = SessionFactory(
        settings, app[UPSTREAM], app[TOOLS], app[RECORDINGS], app[CLIENT_SECRETS], app[VOICES], app[PROVIDER], known
    )


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    app[RECORDINGS].start()
    await app[TOOLS].start()
    await app[UPSTREAM].start()
    try:
        yield
    finally:
        await app[TOOLS].stop()
        await app[PROVIDER].close()
        await app[RECORDINGS].stop()
        await app[UPSTREAM].stop()


def _may_record(app: web.Application) -> bool:
    """Whether the settings or a policy allow recordings."""
    return app[SETTINGS].recording.mode != "off" or app[AUTHENTICATOR].policies.records_sessions()


def limit_sessions_to_descriptors(app: web.Application) -> DescriptorBudget:
    """Admit no more sessions than fit into the file descriptors of this process; returns the budget."""
    has_voices = app[VOICES].tts_options is not None
    descriptors = DescriptorBudget.for_process(has_recordings=_may_record(app), has_external_voice=has_voices)
    app[SESSION_LIMITER].use_descriptor_budget(descriptors)
    return descriptors


def startup_lines(app: web.Application) -> list[str]:
    """Return the lines of the start-up log, without keys."""
    settings, upstream, authenticator = app[SETTINGS], app[UPSTREAM].endpoint, app[AUTHENTICATOR]
    config = settings.session_config()
    model = settings.session.model if upstream.url is not None else "local engine (rehearsal, not a model)"
    localhost = ("localhost",) if settings.server.is_loopback else ()
    origins = ", ".join(("its own page", *localhost, *settings.access.allowed_origins))
    return [
        f"relay {__version__} · upstream {upstream.label} · model {model} · voice {config.voice}",
        f"audio pcm16 at 8, 16, 24, 48 kHz, pcmu, pcma · turns {config.turn.kind} · origins {origins}",
        f"tools {', '.join(tool.name for tool in app[TOOLS].registry) or 'none'}",
        f"access {authenticator.describe()} · policies {', '.join(authenticator.policies.names())}",
        _limits_line(settings),
        *app[VOICES].describe(),
    ]


def _limits_line(settings: Settings) -> str:
    """Return the limits of sessions and the recording mode."""
    limits, recording = settings.limits, settings.recording
    parts = [f"at most {limits.max_sessions} sessions"]
    parts += [f"each at most {limits.max_duration_s:g} s"] if limits.max_duration_s else []
    parts += [f"ended after {limits.max_idle_s:g} s idle"] if limits.max_idle_s else []
    parts.append(f"recordings {recording.mode}" + (f", in {recording.dir}" if recording.mode != "off" else ""))
    return " · ".join(parts)


def warnings(app: web.Application) -> list[str]:
    """Return the warnings of a start or reload: access, exposed files, and file descriptors."""
    exposed = exposed_file_warnings(app[SETTINGS], app[KNOWN_SECRETS], records=_may_record(app))
    return [*app[AUTHENTICATOR].warnings(), *exposed, *app[SESSION_LIMITER].warnings()]


async def reload(app: web.Application) -> None:
    """Reload keys and policies, then the tools; sessions continue. A failed reload is logged and changes nothing."""
    reload_access(app)
    await app[TOOLS].load()
    _log.info("reloaded tools: %s", ", ".join(app[TOOLS].registry.names()) or "none")


def reload_access(app: web.Application) -> None:
    """Reload keys and policies; sessions of revoked keys end. A failed reload is logged and changes nothing."""
    try:
        reread = app[SETTINGS].reread()
        policies = Policies.load(reread.access.policies, reread.name_of("access.policies"))
    except ConfigError as error:
        text = str(error).replace(":\n  ", ": ", 1).replace("\n  ", "; ")
        _log.error("keys and policies not reloaded, the previous ones stay: %s", text)
        return
    app[KNOWN_SECRETS].add(collect_secrets(reread))
    app[AUTHENTICATOR].use_keys_and_policies(reread, policies)
    app[LOGINS].set_keys(reread.access.ticket_keys)
    limit_sessions_to_descriptors(app)  # the new policies may allow recordings
    n_revoked = app[SESSIONS].end_revoked_sessions()
    _log.info(
        "reloaded access: %s, %s, policies %s; ended %s of revoked keys",
        pluralize(len(reread.access.api_keys), "key"), pluralize(len(reread.access.admin_keys), "admin key"),
        ", ".join(policies.names()), pluralize(n_revoked, "session"),
    )  # fmt: skip
    for warning in warnings(app):
        _log.warning("%s", warning)
