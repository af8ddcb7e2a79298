"""What the handlers of the NAVAI routes share: the options, the tools, and the HTTP client."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from relay.errors import ToolError
from relay.navai_options import NavaiOptions
from relay.peers.provider import ProviderClient
from relay.spending import Spending
from relay.toolkit.library import ToolLibrary
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolRunner

_log = logging.getLogger("relay.navai")


class NavaiBackend:
    """One NAVAI backend: what its routes need, for as long as their application lives."""

    def __init__(
        self,
        options: NavaiOptions,
        registry: ToolRegistry,
        runner: ToolRunner | None = None,
        library: ToolLibrary | None = None,
        *,
        spending: Spending | None = None,
        provider: ProviderClient | None = None,
    ) -> None:
        self.options = options
        self.registry = registry
        self.library = library
        self.runner = runner or ToolRunner(registry)
        self.spending = spending or Spending()
        self.provider = provider or ProviderClient()
        self._owns_runner = runner is None
        self._owns_provider = provider is None

    async def load_tools(self) -> None:
        """Load the tools where that has not happened, or has failed; raises ToolError without a path of ours."""
        if self.library is None:
            return
        try:
            await self.library.ensure()
        except ToolError:
            _log.exception("the functions could not be loaded")
            raise ToolError("The functions could not be loaded; the server's log says why.") from None

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """For `app.cleanup_ctx`: closes with the application what was opened for it."""
        yield
        if self._owns_provider:
            await self.provider.close()
        if self._owns_runner:
            await self.runner.close(2.0)
