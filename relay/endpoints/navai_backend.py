"""What the handlers of the NAVAI routes share: the options, the tools, the way upstream, and how a body is read."""

import logging
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from relay.endpoints.bodies import json_object
from relay.endpoints.navai_options import NavaiOptions
from relay.errors import BadRequest, TooBig, ToolError
from relay.peers.provider import ProviderClient
from relay.spending import Spending
from relay.toolkit.library import ToolLibrary
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolRunner

MAX_BODY_BYTES = 100 * 1024

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


async def read_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; none, or another content type than application/json, is an empty one.

    Raises BadRequest for what is no JSON object in UTF-8, TooBig beyond 100 KiB.
    """
    if request.content_type != "application/json" or not request.can_read_body:
        return {}
    raw = bytearray()
    async for chunk in request.content.iter_chunked(16 * 1024):
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise TooBig(f"The body may have at most {MAX_BODY_BYTES} bytes.")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise BadRequest("The body must be UTF-8.")
    return json_object(bytes(raw))
