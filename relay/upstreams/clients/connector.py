"""Connects sessions to their upstream: endpoint, credential, and the local engine.

    settings ──► UpstreamEndpoint and credential ──► UpstreamConnector.connect ──► UpstreamConnection

Every session opens its own connection, and a bearer token is fetched for each. If no upstream is configured, the local
engine runs as a child process (`relay.local_engine.supervisor`). While it is down, `unavailable_reason` names the
reason, and connections are refused.
"""

import functools
from collections.abc import Callable

from relay.config.settings import Settings
from relay.local_engine.supervisor import EngineSupervisor
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection, connect_upstream
from relay.upstreams.credentials import KeyCredential, TokenCredential, UpstreamCredential, load_token_provider
from relay.upstreams.endpoint import set_model


class UpstreamConnector:
    """Opens connections to the configured upstream. `engine` is the local engine if that is the upstream."""

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
        """Start the local engine, if it is the upstream. Raises RuntimeError."""
        if self.engine is not None:
            await self.engine.start()

    async def stop(self) -> None:
        """Stop the local engine."""
        if self.engine is not None:
            await self.engine.stop()

    @property
    def unavailable_reason(self) -> str | None:
        """The reason why no session can start now, or None."""
        if self.engine is not None and self.engine.url is None:
            return self.engine.failure or "the local engine is starting"
        return None

    @property
    def default_model(self) -> str | None:
        """The model of sessions that name none; None if the upstream's URL fixes it; then a policy cannot change it."""
        return None if self.endpoint.has_fixed_model else self._model

    async def connect(self, socket: UpstreamConnection, model: str | None = None) -> None:
        """Connect a session's upstream, to `model` or the model of the settings. Raises UpstreamConnectError."""
        url = self.endpoint.url_for(model)
        if self.engine is not None and self.engine.url is not None:
            url = set_model(self.engine.url, model) if model else self.engine.url
        if url is None:
            raise UpstreamConnectError("The local engine is not running; try again in a moment.", None, retryable=True)
        await connect_upstream(url, functools.partial(self.endpoint.headers, self.credential), socket)


def azure_credential(settings: Settings, on_token: Callable[[str], None] | None = None) -> UpstreamCredential | None:
    """Return the credential for Azure, a key or a token; `on_token` gets each token fetched. Raises ConfigError."""
    source = settings.azure.token_provider
    if source is not None:
        source = (
            load_token_provider(source, settings.name_of("azure.token_provider")) if isinstance(source, str) else source
        )
        return TokenCredential(source, on_token=on_token)
    key = settings.azure.api_key
    return KeyCredential("api-key", key) if key is not None else None
