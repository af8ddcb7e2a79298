"""Finds the Python files of tools from the patterns of a setting.

A pattern is a folder, a glob with `*` or `**` for files or folders, or one file. A folder includes everything below it;
`folder/...` does so without the agents filter. NAVAI_FUNCTIONS_FOLDERS is relative to `src`; RELAY_TOOLS may name any
path. Links out of a root and files that everyone may write to are skipped with a warning. A root with a parent folder
that everyone may write to causes a warning only (`relay.toolkit.loading.trust`).
"""

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relay.errors import ToolError
from relay.toolkit.loading.names import collation_key
from relay.toolkit.loading.trust import file_mode, untrusted_reason, world_writable_parents

FALLBACK_FOLDER = "src/ai/functions-modules"
SKIPPED_FOLDERS = frozenset({"node_modules", "dist", ".venv", "__pycache__"})
MAX_FILES = 10_000

PathMatcher = Callable[[str], bool]


@dataclass(slots=True)
class SearchRoot:
    """A root folder, its label in sources, and the matchers of its files (relative paths with "/").

    `root` is resolved; `configured_paths` are the paths in the settings that lead to it.
    """

    root: Path
    label: str
    matchers: list[PathMatcher] = field(default_factory=list)
    configured_paths: list[Path] = field(default_factory=list)

    def matches(self, path: str) -> bool:
        """Return whether one of the patterns matches a relative path."""
        return any(matcher(path) for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to load: its path, its root folder, and its name in `Tool.source`."""

    path: Path
    root: Path
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSources:
    """The settings of where tools are.

    `navai_folders`, if set, replaces `folders`. Relative paths start from `base_dir`, None means the working folder.
    `navai_only` is for applications that mount only NAVAI's routes; without a setting they use the fallback folder.
    """

    folders: str = "tools"
    navai_folders: str | None = None
    agents: str | None = None
    base_dir: Path | None = None
    navai_only: bool = False

    @property
    def base(self) -> Path:
        """The resolved folder that relative paths start from."""
        return (self.base_dir or Path()).resolve()

    @property
    def uses_navai_rules(self) -> bool:
        """Whether NAVAI's rules apply."""
        return self.navai_only or self.navai_folders is not None

    def check(self) -> None:
        """Raise ToolError if a configured folder is missing, is a file, or may be written by everyone."""
        if self.uses_navai_rules:
            if not self.base.is_dir():
                raise ToolError(f"The folder {self.base} does not exist. Correct NAVAI_FUNCTIONS_BASE_DIR.")
            return
        for search_root in self._search_roots():
            _check_root(search_root.root)

    def find_files(self, warnings: list[str]) -> list[SourceFile]:
        """Return all matching files once, in the order of the patterns and then of the paths. Raises ToolError."""
        self.check()
        if self.uses_navai_rules:
            return self._find_navai(warnings)
        roots = self._search_roots()
        files = _matching_files(roots)
        warnings += _permission_warnings(roots)
        if not files:
            warnings.append(f'RELAY_TOOLS did not match any module: "{self.folders}".')
        return _unique_files(_drop_untrusted(files, warnings))

    def _search_roots(self) -> list[SearchRoot]:
        """Return the roots of RELAY_TOOLS; patterns with the same root share it."""
        roots: dict[Path, SearchRoot] = {}
        for pattern in _split_list(self.folders):
            path, rest = _split_root(self.base / Path(pattern).expanduser())
            root = path.resolve()
            label = root.relative_to(self.base).as_posix() if root.is_relative_to(self.base) else root.name
            search_root = roots.setdefault(root, SearchRoot(root, root.name if label == "." else label))
            search_root.matchers.append(path_matcher(rest, self._agents))
            search_root.configured_paths.append(path)
        return list(roots.values())

    def _find_navai(self, warnings: list[str]) -> list[SourceFile]:
        raw = FALLBACK_FOLDER if self.navai_folders is None else self.navai_folders
        patterns = [_under_src(pattern) for pattern in _split_list(raw)]
        roots = self._navai_search_roots(patterns or [FALLBACK_FOLDER])
        files = _matching_files(roots)
        if not files and patterns:  # no warning for a value of only commas
            text = f'NAVAI_FUNCTIONS_FOLDERS did not match any module: "{raw}". Falling back to "{FALLBACK_FOLDER}".'
            warnings.append(text)
            files = _matching_files(self._navai_search_roots([FALLBACK_FOLDER]))
        warnings += _permission_warnings(roots)
        return _unique_files(_drop_untrusted(files, warnings))

    def _navai_search_roots(self, patterns: list[str]) -> list[SearchRoot]:
        matchers = [path_matcher(pattern.removeprefix("src").lstrip("/"), self._agents) for pattern in patterns]
        root = self.base / "src"
        return [SearchRoot(root.resolve(), "src", matchers, [root])] if root.is_dir() else []

    @property
    def _agents(self) -> frozenset[str]:
        return frozenset(name for pattern in _split_list(self.agents or "") if (name := pattern.strip("/\\ ")))


def path_matcher(pattern: str, agents: frozenset[str] = frozenset()) -> PathMatcher:
    """Return a test of relative paths for one pattern; an empty pattern matches the whole root."""
    if pattern == "..." or pattern.endswith("/..."):
        return _folder_matcher(pattern.removesuffix("...").rstrip("/"))
    if "*" in pattern:
        regex = _glob_to_regex(pattern.rstrip("/"))
        return lambda path: any(regex.fullmatch(part) for part in (path, *_parents(path)))
    if pattern.lower().endswith(".py"):
        return lambda path: path == pattern
    below = _folder_matcher(pattern)
    if not agents:
        return below
    depth = len(Path(pattern).parts)
    return lambda path: below(path) and path.split("/")[depth] in agents


def _folder_matcher(folder: str) -> PathMatcher:
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return lambda path: path.startswith(prefix)


def _glob_to_regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _split_list(value: str) -> list[str]:
    return [pattern for part in value.split(",") if (pattern := part.strip())]


def _under_src(pattern: str) -> str:
    pattern = re.sub(r"^(\.{0,2}/)+", "", pattern.replace("\\", "/"))
    return pattern if pattern == "src" or pattern.startswith("src/") else f"src/{pattern}"


def _split_root(path: Path) -> tuple[Path, str]:
    """Split a pattern of RELAY_TOOLS into its root folder and the rest below it."""
    parts = path.parts
    first = next((n for n, part in enumerate(parts) if part == "..." or "*" in part), len(parts))
    root, rest = Path(*parts[:first]), "/".join(parts[first:])
    if not rest and (root.is_file() or (root.suffix.lower() == ".py" and not root.is_dir())):
        return root.parent, root.name
    return root, rest


# -- the files below a root -------------------------------------------------------------------------------------------


def _check_root(path: Path) -> None:
    if not path.exists():
        raise ToolError(f"The tools folder {path} does not exist. Create it, or name another one (RELAY_TOOLS).")
    if not path.is_dir():
        raise ToolError(f"The tools folder {path} is a file. Name the folder that contains it (RELAY_TOOLS).")
    if reason := untrusted_reason(path, path):
        raise ToolError(f"The tools folder {path} is not trusted: {reason}.")


def _matching_files(roots: list[SearchRoot]) -> list[SourceFile]:
    """Return all matching files, trusted or not. Raises ToolError."""
    files = []
    for search_root in roots:
        _check_root(search_root.root)
        paths = sorted(_matching_paths(search_root), key=collation_key)
        files += [
            SourceFile(search_root.root / path, search_root.root, f"{search_root.label}/{path}") for path in paths
        ]
    return files


def _permission_warnings(roots: list[SearchRoot]) -> Iterator[str]:
    """Yield warnings about the permissions of the roots that are not a reason to refuse them."""
    for reason in world_writable_parents(
        folder for search_root in roots for folder in (search_root.root, *search_root.configured_paths)
    ):
        yield f"Other users could replace your tools: {reason}."
    for search_root in roots:
        if file_mode(search_root.root) & stat.S_IWGRP:
            yield f"The tools folder {search_root.label} may be written by its group. Run `chmod g-w` on it."


def _drop_untrusted(files: list[SourceFile], warnings: list[str]) -> Iterator[SourceFile]:
    """Yield the trusted files; adds one warning for each reason why others are not."""
    sources_by_reason: dict[str, list[str]] = {}
    for file in files:
        reason = untrusted_reason(file.path, file.root)
        if reason is None:
            yield file
        else:
            sources_by_reason.setdefault(reason, []).append(file.source)
    for reason, sources in sources_by_reason.items():
        others = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        warnings.append(f"{sources[0]}{others} was not loaded: {reason}.")


def _matching_paths(search_root: SearchRoot) -> list[str]:
    """Return the relative paths of the matching files. Raises ToolError if there are too many."""
    paths = list(itertools.islice(_walk(search_root, search_root.root, ""), MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise ToolError(f"{search_root.root} has more than {MAX_FILES} Python files. Choose a smaller folder.")
    return paths


def _walk(search_root: SearchRoot, folder: Path, prefix: str) -> Iterator[str]:
    """Yield the matching files below a folder; names that begin with "_" or "." are private."""
    for entry in os.scandir(folder):
        path = f"{prefix}{entry.name}"
        if entry.name.startswith((".", "_")) or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(search_root, folder / entry.name, f"{path}/")
        elif entry.name.lower().endswith(".py") and search_root.matches(path) and entry.is_file():
            yield path


def _unique_files(files: Iterable[SourceFile]) -> list[SourceFile]:
    return list({file.path.resolve(): file for file in reversed(list(files))}.values())[::-1]
