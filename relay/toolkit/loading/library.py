"""The tools of the folders in a registry: loaded in a thread at the start, again on demand, and after a failure."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from relay.errors import ToolError
from relay.toolkit.loading.importer import collect_refused_imports, import_file, reset_package
from relay.toolkit.loading.module_exports import ExportCollector
from relay.toolkit.loading.search_paths import SourceFile, ToolSources
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.results import shorten_paths
from relay.toolkit.running.threads import DaemonThreads

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 30.0
MAX_REASON_CHARS = 300
FOLDERS_OWNER = "folders"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was found: the tools in order, and one sentence for each thing that went wrong."""

    tools: tuple[Tool, ...]
    warnings: tuple[str, ...]


def load_sources(sources: ToolSources) -> LoadResult:
    """Loads every file that is meant, in order; loading again replaces the modules. For a thread: user code runs here.

    A file that cannot be loaded, or a function that cannot be described, is a warning; the rest goes on. Raises
    ToolError where a folder that was named is missing, or where anyone on this machine may put code into it.
    """
    exports = ExportCollector()
    files = sources.find_files(exports.warnings)
    for root in dict.fromkeys(file.root for file in files):
        reset_package(root)
    for file in files:
        module = _import_or_warn(file, exports.warnings)
        if module is not None:
            exports.add_module(module, file.source)
    for warning in exports.warnings:
        log.warning("%s", warning)
    return LoadResult(tuple(exports.tools.values()), tuple(exports.warnings))


def _import_or_warn(file: SourceFile, warnings: list[str]) -> ModuleType | None:
    with collect_refused_imports() as refused:
        try:
            module = import_file(file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a script that ends in sys.exit() as well
            if refused:
                warnings.append(f"{file.source} was not loaded: {refused[0]}.")
                return None
            log.exception("could not load %s", file.source)
            reason = shorten_paths(f"{type(error).__name__}: {error}")[:MAX_REASON_CHARS]
            warnings.append(f"Failed to load {file.source}: {reason}")
            return None
    warnings += [f"{file.source} was loaded without one of its imports: {why}." for why in refused]
    return module


def load_tools(
    folders: str | Path = "tools", *, base_dir: Path | None = None, agents: str | None = None
) -> ToolRegistry:
    """The tools of folders, files and patterns (separated by commas) as a registry, loaded here and now.

    Relative paths start from `base_dir`, else from the working folder. Raises ToolError for a folder that is not there
    or that everyone may write to; what else goes wrong is in the registry's `warnings`.
    """
    found = load_sources(ToolSources(folders=str(folders), base_dir=base_dir, agents=agents))
    registry = ToolRegistry()
    registry.assign(FOLDERS_OWNER, found.tools, found.warnings)
    return registry


class ToolLoader:
    """Fills a registry from folders; belongs to one event loop. A load that hangs costs its thread and nothing else."""

    def __init__(self, sources: ToolSources, registry: ToolRegistry, *, load_timeout_s: float = LOAD_TIMEOUT_S) -> None:
        self.sources = sources
        self.registry = registry
        self.is_loaded = False
        self._load_timeout_s = load_timeout_s
        self._threads = DaemonThreads(1)
        self._loading: asyncio.Future[LoadResult | ToolError] | None = None

    async def ensure_loaded(self) -> None:
        """Load the tools unless they are loaded; after a failure the next call tries again. Raises ToolError."""
        if not self.is_loaded:
            await self.load()

    async def load(self) -> None:
        """Load the tools anew and put them in the place of the old ones, which stay if that fails.

        Raises ToolError where the folders are bad, or where loading takes longer than the timeout: what is found
        after that is taken up when it comes.
        """
        loading = self._loading or self._start_loading()
        done, _ = await asyncio.wait({loading}, timeout=self._load_timeout_s)
        if not done:
            raise ToolError(
                f"The tools have not loaded within {self._load_timeout_s:g} s; one of them does not return."
            )
        found = loading.result()
        if isinstance(found, ToolError):
            raise found

    def _start_loading(self) -> "asyncio.Future[LoadResult | ToolError]":
        loading = self._threads.submit(self._load_in_thread, "loader")
        if loading is None:
            raise ToolError("No thread could be started to load the tools.")
        self._loading = loading
        loading.add_done_callback(self._on_loaded)
        return loading

    def _load_in_thread(self) -> LoadResult | ToolError:
        try:
            return load_sources(self.sources)
        except ToolError as error:
            return error
        except Exception as error:  # a file that vanishes meanwhile, a folder that may not be read
            log.exception("the tools could not be loaded")
            return ToolError(f"The tools could not be loaded: {type(error).__name__}: {error}")

    def _on_loaded(self, loading: "asyncio.Future[LoadResult | ToolError]") -> None:
        self._loading = None
        if not loading.cancelled() and isinstance(found := loading.result(), LoadResult):
            self.registry.assign(FOLDERS_OWNER, found.tools, found.warnings)
            self.is_loaded = True
