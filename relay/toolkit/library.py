"""The tools of the folders in a registry: loaded in a thread at the start, again on demand, and after a failure."""

import asyncio
import logging
from pathlib import Path

from relay.errors import ToolError
from relay.toolkit.discovery import LoadResult, load_sources
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.sources import ToolSources
from relay.toolkit.threads import DaemonThreads

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 30.0
OWNER = "folders"


def load_tools(
    folders: str | Path = "tools", *, base_dir: Path | None = None, agents: str | None = None
) -> ToolRegistry:
    """The tools of folders, files and patterns (separated by commas) as a registry, loaded here and now.

    Relative paths start from `base_dir`, else from the working folder. Raises ToolError for a folder that is not there
    or that everyone may write to; what else goes wrong is in the registry's `warnings`.
    """
    found = load_sources(ToolSources(folders=str(folders), base_dir=base_dir, agents=agents))
    registry = ToolRegistry()
    registry.assign(OWNER, found.tools, found.warnings)
    return registry


class ToolLibrary:
    """Fills a registry from folders; belongs to one event loop. A load that hangs costs its thread and nothing else."""

    def __init__(self, sources: ToolSources, registry: ToolRegistry, *, load_timeout_s: float = LOAD_TIMEOUT_S) -> None:
        self.sources = sources
        self.registry = registry
        self.is_loaded = False
        self._load_timeout_s = load_timeout_s
        self._threads = DaemonThreads(1)
        self._loading: asyncio.Future[LoadResult | ToolError] | None = None

    async def ensure(self) -> None:
        """Load the tools unless they are loaded; after a failure the next call tries again. Raises ToolError."""
        if not self.is_loaded:
            await self.load()

    async def load(self) -> None:
        """Load the tools anew and put them in the place of the old ones, which stay if that fails.

        Raises ToolError where the folders are bad, or where loading takes longer than the timeout: what is found
        after that is taken up when it comes.
        """
        loading = self._loading or self._start()
        done, _ = await asyncio.wait({loading}, timeout=self._load_timeout_s)
        if not done:
            raise ToolError(
                f"The tools have not loaded within {self._load_timeout_s:g} s; one of them does not return."
            )
        found = loading.result()
        if isinstance(found, ToolError):
            raise found

    def _start(self) -> "asyncio.Future[LoadResult | ToolError]":
        loading = self._threads.submit(self._find, "loader")
        if loading is None:
            raise ToolError("No thread could be started to load the tools.")
        self._loading = loading
        loading.add_done_callback(self._take)
        return loading

    def _find(self) -> LoadResult | ToolError:
        try:
            return load_sources(self.sources)
        except ToolError as error:
            return error
        except Exception as error:  # a file that vanishes meanwhile, a folder that may not be read
            log.exception("the tools could not be loaded")
            return ToolError(f"The tools could not be loaded: {type(error).__name__}: {error}")

    def _take(self, loading: "asyncio.Future[LoadResult | ToolError]") -> None:
        self._loading = None
        if not loading.cancelled() and isinstance(found := loading.result(), LoadResult):
            self.registry.assign(OWNER, found.tools, found.warnings)
            self.is_loaded = True
