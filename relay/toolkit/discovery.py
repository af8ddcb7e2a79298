"""Finds tools: the files that the settings mean, loaded one after the other, and what they export."""

import logging
from dataclasses import dataclass
from types import ModuleType

from relay.toolkit.exports import Exports
from relay.toolkit.modules import forget, load, refused_imports
from relay.toolkit.registry import Tool
from relay.toolkit.scrub import without_paths
from relay.toolkit.sources import SourceFile, ToolSources

log = logging.getLogger(__name__)

MAX_REASON_CHARS = 300


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
    exports = Exports()
    files = sources.find(exports.warnings)
    for root in dict.fromkeys(file.root for file in files):
        forget(root)
    for file in files:
        module = _load(file, exports.warnings)
        if module is not None:
            exports.read(module, file.source)
    for warning in exports.warnings:
        log.warning("%s", warning)
    return LoadResult(tuple(exports.tools.values()), tuple(exports.warnings))


def _load(file: SourceFile, warnings: list[str]) -> ModuleType | None:
    with refused_imports() as refused:
        try:
            module = load(file)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a script that ends in sys.exit() as well
            if refused:
                warnings.append(f"{file.source} was not loaded: {refused[0]}.")
                return None
            log.exception("could not load %s", file.source)
            reason = without_paths(f"{type(error).__name__}: {error}")[:MAX_REASON_CHARS]
            warnings.append(f"Failed to load {file.source}: {reason}")
            return None
    warnings += [f"{file.source} was loaded without one of its imports: {why}." for why in refused]
    return module
