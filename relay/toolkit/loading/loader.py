"""Loads the tools of the folders into a registry: in a thread, at startup, on demand and after a failure."""

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
    """The tools in order, and one sentence for each problem."""

    tools: tuple[Tool, ...]
    warnings: tuple[str, ...]


def load_sources(sources: ToolSources) -> LoadResult:
    """Load every matching file, in order; loading again replaces the modules.

    Runs user code, so call it in a thread. A file that fails to load and a function without a schema are warnings.
    Raises ToolError for a configured folder that is missing, or that everyone on this machine may write to.
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
        log.warning("tools: %s", warning)
    return LoadResult(tuple(exports.tools.values()), tuple(exports.warnings))


def _import_or_warn(file: SourceFile, warnings: list[str]) -> ModuleType | None:
    with collect_refused_imports() as reasons:
        try:
            module = import_file(file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also a script that calls sys.exit()
            if reasons:
                warnings.append(f"{file.source} was not loaded: {reasons[0]}.")
                return None
            log.exception("tool file failed to load: %s", file.source)
            reason = shorten_paths(f"{type(error).__name__}: {error}")[:MAX_REASON_CHARS]
            warnings.append(f"Failed to load {file.source}: {reason}")
            return None
    warnings += [f"{file.source} was loaded without one of its imports: {reason}." for reason in reasons]
    return module


def load_tools(
    folders: str | Path = "tools", *, base_dir: Path | None = None, agents: str | None = None
) -> ToolRegistry:
    """Load the tools of folders, files and patterns (separated by commas) into a new registry.

    Relative paths start from `base_dir`, else from the working folder. Raises ToolError for a folder that is missing
    or that everyone may write to. Other problems are in the registry's `warnings`.
    """
    loaded = load_sources(ToolSources(folders=str(folders), base_dir=base_dir, agents=agents))
    registry = ToolRegistry()
    registry.assign(FOLDERS_OWNER, loaded.tools, loaded.warnings)
    return registry


class ToolLoader:
    """Fills a registry from folders, on one event loop. A load that hangs blocks only its own thread."""

    def __init__(self, sources: ToolSources, registry: ToolRegistry, *, load_timeout_s: float = LOAD_TIMEOUT_S) -> None:
        self.sources = sources
        self.registry = registry
        self.is_loaded = False
        self._load_timeout_s = load_timeout_s
        self._threads = DaemonThreads(1)
        self._loading: asyncio.Future[LoadResult | ToolError] | None = None

    async def ensure_loaded(self) -> None:
        """Load the tools unless they are loaded; a call after a failure tries again. Raises ToolError."""
        if not self.is_loaded:
            await self.load()

    async def load(self) -> None:
        """Load the tools again and replace the old ones, which stay if loading fails.

        Raises ToolError for invalid folders, and when loading takes longer than the timeout. A load that finishes
        later still replaces the tools.
        """
        loading = self._loading or self._start_loading()
        done, _ = await asyncio.wait({loading}, timeout=self._load_timeout_s)
        if not done:
            raise ToolError(
                f"The tools did not load within {self._load_timeout_s:g} s. A tool file probably blocks on import."
            )
        loaded = loading.result()
        if isinstance(loaded, ToolError):
            raise loaded

    def _start_loading(self) -> "asyncio.Future[LoadResult | ToolError]":
        loading = self._threads.submit(self._load_in_thread, "loader")
        if loading is None:
            raise ToolError("The tools could not be loaded: no thread is available.")
        self._loading = loading
        loading.add_done_callback(self._on_loaded)
        return loading

    def _load_in_thread(self) -> LoadResult | ToolError:
        try:
            return load_sources(self.sources)
        except ToolError as error:
            return error
        except Exception as error:  # a file that was just deleted, a folder without read permission
            log.exception("tools failed to load")
            return ToolError(f"The tools could not be loaded: {type(error).__name__}: {error}")

    def _on_loaded(self, loading: "asyncio.Future[LoadResult | ToolError]") -> None:
        self._loading = None
        if not loading.cancelled() and isinstance(loaded := loading.result(), LoadResult):
            self.registry.assign(FOLDERS_OWNER, loaded.tools, loaded.warnings)
            self.is_loaded = True
