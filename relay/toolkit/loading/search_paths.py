"""Where tools are looked for: words of a setting in, the Python files that they mean out.

A word is a folder (everything below it), `folder/...` (the same, whatever the agents filter says), a pattern with `*`
or `**` for files or folders, or one file. Words of NAVAI_FUNCTIONS_FOLDERS always lie below `src`; those of RELAY_TOOLS
may lie anywhere. Links that lead out of a root, and what everyone may write to, are left out with a warning. Of a
root's parents that everyone may write to there is only a warning (`relay.toolkit.loading.trust`).
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
    """A root folder, its name in sources, and what of it is wanted (by path below the root, with "/").

    `root` is resolved; `configured_paths` are the paths by which settings name it.
    """

    root: Path
    label: str
    matchers: list[PathMatcher] = field(default_factory=list)
    configured_paths: list[Path] = field(default_factory=list)

    def matches(self, path: str) -> bool:
        """Whether a file is meant by one of the words."""
        return any(matches(path) for matches in self.matchers)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to load: where it is, below which root, and how sources call it."""

    path: Path
    root: Path
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSources:
    """What the settings say about where tools are.

    `navai_folders`, once set, alone decides. `base_dir` is what relative paths start from; the working folder if None.
    `navai_only` is for whoever mounts NAVAI's routes alone: nothing configured then means the fallback folder.
    """

    folders: str = "tools"
    navai_folders: str | None = None
    agents: str | None = None
    base_dir: Path | None = None
    navai_only: bool = False

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return (self.base_dir or Path()).resolve()

    @property
    def uses_navai_rules(self) -> bool:
        """Whether NAVAI's rules hold."""
        return self.navai_only or self.navai_folders is not None

    def check(self) -> None:
        """Raises ToolError where a folder that was named is missing, is a file, or may be written by everyone."""
        if self.uses_navai_rules:
            if not self.base.is_dir():
                raise ToolError(f"There is no folder {self.base}. Correct NAVAI_FUNCTIONS_BASE_DIR.")
            return
        for place in self._search_roots():
            _check_root(place.root)

    def find_files(self, warnings: list[str]) -> list[SourceFile]:
        """All files that are meant, each once, in the order of the words and of their paths. Raises ToolError."""
        self.check()
        if self.uses_navai_rules:
            return self._find_navai(warnings)
        places = self._search_roots()
        files = _matching_files(places)
        warnings += _permission_warnings(places)
        if not files:
            warnings.append(f'RELAY_TOOLS did not match any module: "{self.folders}".')
        return _unique_files(_drop_untrusted(files, warnings))

    def _search_roots(self) -> list[SearchRoot]:
        """The roots of RELAY_TOOLS; words with the same root share it."""
        places: dict[Path, SearchRoot] = {}
        for word in _split_list(self.folders):
            way, rest = _split_root(self.base / Path(word).expanduser())
            root = way.resolve()
            label = root.relative_to(self.base).as_posix() if root.is_relative_to(self.base) else root.name
            place = places.setdefault(root, SearchRoot(root, root.name if label == "." else label))
            place.matchers.append(path_matcher(rest, self._agents))
            place.configured_paths.append(way)
        return list(places.values())

    def _find_navai(self, warnings: list[str]) -> list[SourceFile]:
        raw = FALLBACK_FOLDER if self.navai_folders is None else self.navai_folders
        words = [_under_src(word) for word in _split_list(raw)]
        places = self._navai_search_roots(words or [FALLBACK_FOLDER])
        files = _matching_files(places)
        if not files and words:  # a value of nothing but commas means the default, in silence
            text = f'NAVAI_FUNCTIONS_FOLDERS did not match any module: "{raw}". Falling back to "{FALLBACK_FOLDER}".'
            warnings.append(text)
            files = _matching_files(self._navai_search_roots([FALLBACK_FOLDER]))
        warnings += _permission_warnings(places)
        return _unique_files(_drop_untrusted(files, warnings))

    def _navai_search_roots(self, words: list[str]) -> list[SearchRoot]:
        matchers = [path_matcher(word.removeprefix("src").lstrip("/"), self._agents) for word in words]
        root = self.base / "src"
        return [SearchRoot(root.resolve(), "src", matchers, [root])] if root.is_dir() else []

    @property
    def _agents(self) -> frozenset[str]:
        return frozenset(name for word in _split_list(self.agents or "") if (name := word.strip("/\\ ")))


def path_matcher(word: str, agents: frozenset[str] = frozenset()) -> PathMatcher:
    """What one word means, as a test of a path below the root; the empty word is the root itself."""
    if word == "..." or word.endswith("/..."):
        return _folder_matcher(word.removesuffix("...").rstrip("/"))
    if "*" in word:
        pattern = _glob_to_regex(word.rstrip("/"))
        return lambda path: any(pattern.fullmatch(part) for part in (path, *_parents(path)))
    if word.lower().endswith(".py"):
        return lambda path: path == word
    below = _folder_matcher(word)
    if not agents:
        return below
    depth = len(Path(word).parts)
    return lambda path: below(path) and path.split("/")[depth] in agents


def _folder_matcher(folder: str) -> PathMatcher:
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return lambda path: path.startswith(prefix)


def _glob_to_regex(word: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", word)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _split_list(value: str) -> list[str]:
    return [word for part in value.split(",") if (word := part.strip())]


def _under_src(word: str) -> str:
    word = re.sub(r"^(\.{0,2}/)+", "", word.replace("\\", "/"))
    return word if word == "src" or word.startswith("src/") else f"src/{word}"


def _split_root(path: Path) -> tuple[Path, str]:
    """The folder that a word of RELAY_TOOLS begins with, and what is wanted below it."""
    parts = path.parts
    first = next((n for n, part in enumerate(parts) if part == "..." or "*" in part), len(parts))
    root, rest = Path(*parts[:first]), "/".join(parts[first:])
    if not rest and (root.is_file() or (root.suffix.lower() == ".py" and not root.is_dir())):
        return root.parent, root.name
    return root, rest


# -- what lies there --------------------------------------------------------------------------------------------------


def _check_root(path: Path) -> None:
    if not path.exists():
        raise ToolError(f"There is no tools folder {path}. Create it, or name the folder that holds your tools.")
    if not path.is_dir():
        raise ToolError(f"The tools folder {path} is a file. Name the folder that holds it.")
    if why := untrusted_reason(path, path):
        raise ToolError(f"The tools folder {path} is refused, for what is in it is run: {why}.")


def _matching_files(places: list[SearchRoot]) -> list[SourceFile]:
    """The files that are meant, whether they may be run or not. Raises ToolError."""
    files = []
    for place in places:
        _check_root(place.root)
        paths = sorted(_matching_paths(place), key=collation_key)
        files += [SourceFile(place.root / path, place.root, f"{place.label}/{path}") for path in paths]
    return files


def _permission_warnings(places: list[SearchRoot]) -> Iterator[str]:
    """What others may do to the roots, where that is no reason to refuse them."""
    for why in world_writable_parents(folder for place in places for folder in (place.root, *place.configured_paths)):
        yield f"Others could replace your tools: {why}."
    for place in places:
        if file_mode(place.root) & stat.S_IWGRP:
            yield f"The tools folder {place.label} may be written by its group; `chmod g-w` on it keeps it yours."


def _drop_untrusted(files: list[SourceFile], warnings: list[str]) -> Iterator[SourceFile]:
    """Those of the files that may be run; one warning for each reason why others may not."""
    refused: dict[str, list[str]] = {}
    for file in files:
        why = untrusted_reason(file.path, file.root)
        if why is None:
            yield file
        else:
            refused.setdefault(why, []).append(file.source)
    for why, sources in refused.items():
        others = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        warnings.append(f"{sources[0]}{others} was not loaded: {why}.")


def _matching_paths(place: SearchRoot) -> list[str]:
    """The paths of a place's wanted files. Raises ToolError if there are too many."""
    found = list(itertools.islice(_walk(place, place.root, ""), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise ToolError(f"There are more than {MAX_FILES} Python files below {place.root}. Name a smaller folder.")
    return found


def _walk(place: SearchRoot, folder: Path, prefix: str) -> Iterator[str]:
    """The wanted files below a folder; names that begin with "_" or "." are private to their neighbours."""
    for entry in os.scandir(folder):
        path = f"{prefix}{entry.name}"
        if entry.name.startswith((".", "_")) or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(place, folder / entry.name, f"{path}/")
        elif entry.name.lower().endswith(".py") and place.matches(path) and entry.is_file():
            yield path


def _unique_files(files: Iterable[SourceFile]) -> list[SourceFile]:
    return list({file.path.resolve(): file for file in reversed(list(files))}.values())[::-1]
