"""The sessions of one relay: a factory, and a registry of the active ones.

The factory holds what all sessions share, and passes each session only the parts that it needs. The caller passes what
differs: the principal, the protocol, the connection. First comes a `SessionSetup`, the initial values of a session.
The rules are built from it, and the recorder stores it, so that a replay builds the same rules. The runtime connects
them to the client; it also connects the upstream when it runs.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from relay.app.toolbox import ToolBox, tool_specs
from relay.auth.authenticator import Authenticator
from relay.auth.client_secrets import ClientSecretIssuer
from relay.config.policy_checks import no_default_error, require_value
from relay.config.settings import Settings
from relay.errors import AccessDenied, CapacityExceeded
from relay.protocols.client_protocol import DeviceClientProtocol, RealtimeDialect
from relay.protocols.openai.proxy import ProxyCodec
from relay.recording.service import RecordingService
from relay.recording.store.header import RealtimeSetup, SessionSetup
from relay.runtime.base import Observer, SessionRuntime
from relay.runtime.device import DeviceRuntime
from relay.runtime.realtime import RealtimeRuntime
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.model import DeviceOptions
from relay.session.common.policy import Policy, Principal, allows_any
from relay.session.device.events import KeyRevoked, ServerDraining
from relay.session.device.negotiation import InitialSession, initial_session
from relay.session.realtime.policy_table import has_voice, with_default_voice
from relay.transport.http_client import ProviderHttpClient
from relay.transport.read_budget import ReadBudget
from relay.transport.websocket import WebSocketConnection
from relay.upstreams.clients.connector import UpstreamConnector
from relay.upstreams.clients.elevenlabs import ExternalVoices

DRAIN_TIMEOUT_S = 4.0
_log = logging.getLogger("relay.session")


@dataclass(slots=True)
class SessionFactory:
    """Creates sessions, with the policy of their principal. A new session is not connected yet."""

    settings: Settings
    upstream: UpstreamConnector
    tools: ToolBox
    recordings: RecordingService
    client_secrets: ClientSecretIssuer
    voices: ExternalVoices
    provider: ProviderHttpClient
    known_secrets: KnownSecrets
    observer: Observer | None = None
    """Observes the events and commands of all sessions created from now on."""

    def initial_session(self, policy: Policy, requested_voice: str | None) -> InitialSession:
        """Return the initial state of a device session. Raises AccessDenied if the policy allows no model or voice."""
        initial = initial_session(
            replace(self.settings.session_config(), tools=tool_specs(self.tools.registry)),
            policy,
            model=self.upstream.default_model,
            client_voice=requested_voice,
            external_voice=self.voices.default_voice,
            has_external_voices=self.voices.tts_options is not None,
        )
        if initial.missing is not None:
            raise no_default_error(initial.missing)
        return initial

    def create_device_session(
        self,
        protocol: DeviceClientProtocol,
        principal: Principal,
        initial: InitialSession,
        options: DeviceOptions,
        client: WebSocketConnection,
    ) -> DeviceRuntime:
        """Create a device session: the relay controls its turns."""
        dialect = self.upstream.endpoint.dialect
        has_external_voice = initial.config.external_voice is not None
        options = replace(options, upstream=dialect.capabilities, has_external_voice=has_external_voice)
        voice_rules, limits = self.voices.tts_options_for(principal.policy), self.settings.session_limits()
        setup = SessionSetup(_new_session_id(), initial.config, options, principal, _now(), voice_rules, limits)
        recorder = self.recordings.open(setup, _now, initial.model)
        core = setup.device_session()
        return DeviceRuntime(
            core,
            client,
            protocol.codec(self.known_secrets),
            dialect.codec(self.known_secrets, initial.model or self.settings.session.model),
            functools.partial(self.upstream.connect, model=initial.model),
            self.tools.for_session(core.session_id, principal, lambda: core.config),
            observer=self.observer,
            recorder=recorder,
            max_queued_ms=self.settings.limits.max_queued_s * 1000,
            connect_tts=self.voices.connection_factory(self.provider, self.known_secrets),
            secrets=self.known_secrets,
        )

    def create_realtime_codec(self, dialect: RealtimeDialect | None) -> ProxyCodec:
        """Create the codec for a client's `dialect`. Raises OpenAIError if the upstream cannot serve it."""
        return ProxyCodec(dialect, self.upstream.endpoint.realtime_dialect(), self.known_secrets)

    def create_realtime_session(
        self, principal: Principal, model: str, codec: ProxyCodec, client: WebSocketConnection
    ) -> RealtimeRuntime:
        """Create a Realtime session: its client controls the turns. `model` is "" for the model of the settings.

        Raises AccessDenied if the policy allows no voice.
        """
        start = RealtimeSetup(model, self._initial_realtime_session(principal))
        setup = SessionSetup.for_realtime(
            _new_session_id(), tool_specs(self.tools.registry), start, principal, _now(), self.settings.session_limits()
        )
        recorder = self.recordings.open(setup, _now, model)
        core = setup.realtime_session()
        return RealtimeRuntime(
            core,
            client,
            codec,
            functools.partial(self.upstream.connect, model=model or None),
            self.tools.for_session(core.session_id, principal),
            observer=self.observer,
            recorder=recorder,
            secrets=self.known_secrets,
        )

    def _initial_realtime_session(self, principal: Principal) -> Mapping[str, Any] | None:
        """Return the session of the client secret, with a voice if the policy restricts voices."""
        initial = self.client_secrets.session_config_for(principal.secret_id)
        policy = principal.policy
        if allows_any(policy.realtime.voices) or has_voice(initial):
            return initial
        voice = require_value("voice", policy.realtime.first_voice(policy.voice, self.settings.session.voice))
        return with_default_voice(initial, voice)


def _new_session_id() -> str:
    """Create an id; clients never see the upstream's session id."""
    return f"rs_{secrets.token_hex(10)}"


def _now() -> float:
    return asyncio.get_running_loop().time()


class SessionRegistry:
    """The active sessions by id; `all_ended` is set while there are none."""

    def __init__(self, authenticator: Authenticator, recordings: RecordingService) -> None:
        self._authenticator = authenticator
        self._recordings = recordings
        self.active: dict[str, SessionRuntime[Any]] = {}
        self.is_draining = False
        self.all_ended = asyncio.Event()
        self.all_ended.set()
        self.read_budget = ReadBudget()
        """The budget for long messages, shared by the clients of all sessions."""

    @contextmanager
    def register(
        self, runtime: SessionRuntime[Any], consume_secret: Callable[[], None], description: str
    ) -> Iterator[None]:
        """Register a session while it runs. Afterwards consume its client secret if the session became ready."""
        session_id = runtime.core.session_id
        _log.info("session started: id=%s identity=%s %s", session_id, runtime.core.principal.identity, description)
        self.active[session_id] = runtime
        self.all_ended.clear()
        try:
            yield
        finally:
            del self.active[session_id]
            if not self.active:
                self.all_ended.set()
            if runtime.core.state.was_ready:
                consume_secret()
            self._recordings.close(session_id)
            _log.info("session ended: id=%s reason=%s", session_id, runtime.close_summary)

    def end_revoked_sessions(self) -> int:
        """End the sessions whose keys were revoked; returns their number."""
        revoked = [
            runtime for runtime in self.active.values() if self._authenticator.has_revoked(runtime.core.principal)
        ]
        for runtime in revoked:
            runtime.dispatch(KeyRevoked())
        return len(revoked)

    async def drain(self) -> None:
        """End all sessions gracefully and refuse new ones; returns when all ended, in bounded time."""
        self.is_draining = True
        for runtime in list(self.active.values()):
            runtime.dispatch(ServerDraining())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.all_ended.wait()

    def check_still_authorized(self, principal: Principal) -> None:
        """Check again after a wait. Raises AccessDenied for a revoked key, CapacityExceeded during shutdown.

        A running session gets these as events; one that still waits gets none.
        """
        if self._authenticator.has_revoked(principal):
            raise AccessDenied("The key was revoked; connect with another key.", status=401)
        self.check_not_draining()

    def check_not_draining(self) -> None:
        """Raise CapacityExceeded if the relay is shutting down."""
        if self.is_draining:
            raise CapacityExceeded("The relay is shutting down; try again in a moment.")
