"""How the sessions of one relay reach their upstream: its endpoint, its credential, and the engine in its place."""

import functools
from collections.abc import Callable

from relay.callbacks import ignore
from relay.config import Settings
from relay.engine_process import EngineProcess
from relay.peers.upstream import UpstreamRefusal, UpstreamSocket, dial
from relay.upstreams.credentials import AnyCredential, Credential, TokenCredential, load_token_source
from relay.upstreams.endpoint import with_model


class UpstreamConnector:
    """Dials the upstream that the settings name. `engine` is the local engine, where that is the upstream."""

    def __init__(self, settings: Settings, on_token: Callable[[str], None] = ignore) -> None:
        """`on_token` gets each bearer token that is fetched. Raises ConfigError."""
        self.endpoint = settings.resolve_upstream()
        self.engine = EngineProcess() if self.endpoint.url is None else None
        self.credential: AnyCredential | None = None
        if self.endpoint.kind == "azure":
            self.credential = azure_credential(settings, on_token)
        elif self.endpoint.key is not None:
            self.credential = Credential("bearer", self.endpoint.key.get_secret_value())
        self._model = settings.model

    async def start(self) -> None:
        """Start the engine, where there is one. Raises RuntimeError."""
        if self.engine is not None:
            await self.engine.start()

    async def stop(self) -> None:
        """End the engine."""
        if self.engine is not None:
            await self.engine.stop()

    @property
    def not_ready(self) -> str | None:
        """Why no session can be had now, if so."""
        if self.engine is not None and self.engine.url is None:
            return self.engine.failure or "the local engine is starting"
        return None

    @property
    def own_model(self) -> str | None:
        """The model of sessions that name none; None where the upstream's URL fixes it, whatever a policy says."""
        return None if self.endpoint.fixes_model else self._model

    async def dial(self, socket: UpstreamSocket, model: str | None = None) -> None:
        """Connect a session's upstream, to another model than the settings' if one is named. Raises UpstreamRefusal."""
        url = self.endpoint.url_for(model)
        if self.engine is not None and self.engine.url is not None:
            url = with_model(self.engine.url, model) if model else self.engine.url
        if url is None:
            raise UpstreamRefusal("The local engine is not up; try again in a moment.", None, retryable=True)
        await dial(url, functools.partial(self.endpoint.headers, self.credential), socket)


def azure_credential(settings: Settings, on_token: Callable[[str], None] = ignore) -> AnyCredential | None:
    """The credential for Azure: a key, or a token, and `on_token` gets each that is fetched. Raises ConfigError."""
    source = settings.azure_token
    if source is not None:
        source = load_token_source(source, "RELAY_AZURE_TOKEN") if isinstance(source, str) else source
        return TokenCredential(source, on_token=on_token)
    key = settings.azure_api_key
    return Credential("api-key", key.get_secret_value()) if key is not None else None
