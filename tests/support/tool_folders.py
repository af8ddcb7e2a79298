"""The tools of one folder, found the way the relay finds them."""

from pathlib import Path

from relay.toolkit.loading.loader import LoadResult, load_sources
from relay.toolkit.loading.search_paths import ToolSources


def load_folder(path: Path) -> LoadResult:
    """The tools of a folder and what is below it."""
    return load_sources(ToolSources(folders=f"{path}/...", base_dir=path.parent))
