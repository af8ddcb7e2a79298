"""Where tools are looked for: words of a setting in, the Python files that they mean out.

A word is a folder (everything below it), `folder/...` (the same, whatever the agents filter says), a pattern with `*`
or `**` for files or folders, or one file. Words of NAVAI_FUNCTIONS_FOLDERS always lie below `src`; those of RELAY_TOOLS
may lie anywhere. Links that lead out of a root, and what everyone may write to, are left out with a warning
(`relay.toolkit.trust`).
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relay.errors import ToolError
from relay.toolkit.names import reading_order
from relay.toolkit.trust import distrust, distrust_parents

FALLBACK_FOLDER = "src/ai/functions-modules"
SKIPPED_FOLDERS = frozenset({"node_modules", "dist", ".venv", "__pycache__"})
MAX_FILES = 10_000

Matcher = Callable[[str], bool]


@dataclass(slots=True)
class Place:
    """A root folder, its name in sources, and what of it is wanted (by path below the root, with "/").

    `root` is resolved; `ways` are the paths by which settings name it.
    """

    root: Path
    label: str
    matchers: list[Matcher] = field(default_factory=list)
    ways: list[Path] = field(default_factory=list)

    def wants(self, path: str) -> bool:
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
    def by_navai(self) -> bool:
        """Whether NAVAI's rules hold."""
        return self.navai_only or self.navai_folders is not None

    def check(self) -> None:
        """Raises ToolError where a folder that was named is missing, is a file, or may be written by everyone."""
        if self.by_navai:
            if not self.base.is_dir():
                raise ToolError(f"There is no folder {self.base}. Correct NAVAI_FUNCTIONS_BASE_DIR.")
            return
        for place in self._places():
            _check_root(place.root)

    def find(self, warnings: list[str]) -> list[SourceFile]:
        """All files that are meant, each once, in the order of the words and of their paths. Raises ToolError."""
        self.check()
        if self.by_navai:
            return self._find_navai(warnings)
        files = [file for place in self._places() for file in _files_of(place, warnings)]
        if not files:
            warnings.append(f'RELAY_TOOLS did not match any module: "{self.folders}".')
        return _once(files)

    def _places(self) -> list[Place]:
        """The roots of RELAY_TOOLS; words with the same root share it."""
        places: dict[Path, Place] = {}
        for word in _words(self.folders):
            way, rest = _split(self.base / Path(word).expanduser())
            root = way.resolve()
            label = root.relative_to(self.base).as_posix() if root.is_relative_to(self.base) else root.name
            place = places.setdefault(root, Place(root, root.name if label == "." else label))
            place.matchers.append(matcher(rest, self._agents))
            place.ways.append(way)
        return list(places.values())

    def _find_navai(self, warnings: list[str]) -> list[SourceFile]:
        raw = FALLBACK_FOLDER if self.navai_folders is None else self.navai_folders
        words = [_below_src(word) for word in _words(raw)]
        files = self._match_navai(words or [FALLBACK_FOLDER], warnings)
        if not files and words:  # a value of nothing but commas means the default, in silence
            text = f'NAVAI_FUNCTIONS_FOLDERS did not match any module: "{raw}". Falling back to "{FALLBACK_FOLDER}".'
            warnings.insert(0, text)
            files = self._match_navai([FALLBACK_FOLDER], warnings)
        return files

    def _match_navai(self, words: list[str], warnings: list[str]) -> list[SourceFile]:
        matchers = [matcher(word.removeprefix("src").lstrip("/"), self._agents) for word in words]
        root = self.base / "src"
        if not matchers or not root.is_dir():
            return []
        return _once(_files_of(Place(root.resolve(), "src", matchers, [root]), warnings))

    @property
    def _agents(self) -> frozenset[str]:
        return frozenset(name for word in _words(self.agents or "") if (name := word.strip("/\\ ")))


def matcher(word: str, agents: frozenset[str] = frozenset()) -> Matcher:
    """What one word means, as a test of a path below the root; the empty word is the root itself."""
    if word == "..." or word.endswith("/..."):
        return _below(word.removesuffix("...").rstrip("/"))
    if "*" in word:
        pattern = _pattern(word.rstrip("/"))
        return lambda path: any(pattern.fullmatch(part) for part in (path, *_parents(path)))
    if word.lower().endswith(".py"):
        return lambda path: path == word
    below = _below(word)
    if not agents:
        return below
    depth = len(Path(word).parts)
    return lambda path: below(path) and path.split("/")[depth] in agents


def _below(folder: str) -> Matcher:
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return lambda path: path.startswith(prefix)


def _pattern(word: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", word)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _words(value: str) -> list[str]:
    return [word for part in value.split(",") if (word := part.strip())]


def _below_src(word: str) -> str:
    word = re.sub(r"^(\.{0,2}/)+", "", word.replace("\\", "/"))
    return word if word == "src" or word.startswith("src/") else f"src/{word}"


def _split(path: Path) -> tuple[Path, str]:
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
    if _mode(path) & stat.S_IWOTH:
        raise ToolError(
            f"The tools folder {path} may be written by everyone on this machine, and what is in it is run. "
            f"Correct that with `chmod o-w {path}`."
        )


def _files_of(place: Place, warnings: list[str]) -> Iterator[SourceFile]:
    _check_root(place.root)
    if why := distrust_parents([place.root, *place.ways]):
        warnings.append(f"The tools folder {place.label} was not loaded: {why}.")
        return
    if _mode(place.root) & stat.S_IWGRP:
        warnings.append(
            f"The tools folder {place.label} may be written by its group; `chmod g-w` on it keeps it yours."
        )
    found = []
    for path in _walk(place, place.root, ""):
        found.append(path)
        if len(found) > MAX_FILES:
            raise ToolError(f"There are more than {MAX_FILES} Python files below {place.root}. Name a smaller folder.")
    refused: dict[str, list[str]] = {}
    for path in sorted(found, key=reading_order):
        source = f"{place.label}/{path}"
        why = distrust(place.root / path, place.root)
        if why is None:
            yield SourceFile(place.root / path, place.root, source)
        else:
            refused.setdefault(why, []).append(source)
    for why, sources in refused.items():
        others = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        warnings.append(f"{sources[0]}{others} was not loaded: {why}.")


def _walk(place: Place, folder: Path, prefix: str) -> Iterator[str]:
    """The wanted files below a folder; names that begin with "_" or "." are private to their neighbours."""
    for entry in os.scandir(folder):
        path = f"{prefix}{entry.name}"
        if entry.name.startswith((".", "_")) or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(place, folder / entry.name, f"{path}/")
        elif entry.name.lower().endswith(".py") and place.wants(path) and entry.is_file():
            yield path


def _mode(path: Path) -> int:
    return path.stat().st_mode if os.name == "posix" else 0


def _once(files: Iterable[SourceFile]) -> list[SourceFile]:
    return list({file.path.resolve(): file for file in reversed(list(files))}.values())[::-1]
