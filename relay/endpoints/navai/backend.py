"""The backend that the NAVAI routes share."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from relay.auth.quotas import PaidRouteQuota
from relay.config.navai_options import NavaiOptions
from relay.errors import ToolError
from relay.toolkit.loading.loader import ToolLoader
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.running.runner import ToolRunner
from relay.transport.http_client import ProviderHttpClient

_log = logging.getLogger("relay.navai")


class NavaiBackend:
    """The state that the routes of one NAVAI backend share."""

    def __init__(
        self,
        options: NavaiOptions,
        registry: ToolRegistry,
        runner: ToolRunner | None = None,
        library: ToolLoader | None = None,
        *,
        quota: PaidRouteQuota | None = None,
        provider: ProviderHttpClient | None = None,
    ) -> None:
        self.options = options
        self.registry = registry
        self.library = library
        self.runner = runner or ToolRunner(registry)
        self.quota = quota or PaidRouteQuota()
        self.provider = provider or ProviderHttpClient()
        self._owns_runner = runner is None
        self._owns_provider = provider is None

    async def load_tools(self) -> None:
        """Load the tools unless they are loaded. Raises ToolError without file paths."""
        if self.library is None:
            return
        try:
            await self.library.ensure_loaded()
        except ToolError:
            _log.exception("loading functions failed")
            raise ToolError("The functions could not be loaded; see the server's log.") from None

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """Close the runner and the provider with the application; for `app.cleanup_ctx`."""
        yield
        if self._owns_provider:
            await self.provider.close()
        if self._owns_runner:
            await self.runner.close(2.0)
