"""Loads the tools of one folder as the relay does."""

from pathlib import Path

from relay.toolkit.loading.loader import LoadResult, load_sources
from relay.toolkit.loading.search_paths import ToolSources


def load_folder(path: Path) -> LoadResult:
    """Load the tools of a folder and of the folders below it."""
    return load_sources(ToolSources(folders=f"{path}/...", base_dir=path.parent))
