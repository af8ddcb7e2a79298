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
from relay.toolkit.loading.names import reading_order
from relay.toolkit.loading.trust import distrust, mode_of, open_parents

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
        places = self._places()
        files = _meant(places)
        warnings += _warnings_of_modes(places)
        if not files:
            warnings.append(f'RELAY_TOOLS did not match any module: "{self.folders}".')
        return _once(_trusted(files, warnings))

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
        places = self._navai_places(words or [FALLBACK_FOLDER])
        files = _meant(places)
        if not files and words:  # a value of nothing but commas means the default, in silence
            text = f'NAVAI_FUNCTIONS_FOLDERS did not match any module: "{raw}". Falling back to "{FALLBACK_FOLDER}".'
            warnings.append(text)
            files = _meant(self._navai_places([FALLBACK_FOLDER]))
        warnings += _warnings_of_modes(places)
        return _once(_trusted(files, warnings))

    def _navai_places(self, words: list[str]) -> list[Place]:
        matchers = [matcher(word.removeprefix("src").lstrip("/"), self._agents) for word in words]
        root = self.base / "src"
        return [Place(root.resolve(), "src", matchers, [root])] if root.is_dir() else []

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
    if why := distrust(path, path):
        raise ToolError(f"The tools folder {path} is refused, for what is in it is run: {why}.")


def _meant(places: list[Place]) -> list[SourceFile]:
    """The files that are meant, whether they may be run or not. Raises ToolError."""
    files = []
    for place in places:
        _check_root(place.root)
        paths = sorted(_found(place), key=reading_order)
        files += [SourceFile(place.root / path, place.root, f"{place.label}/{path}") for path in paths]
    return files


def _warnings_of_modes(places: list[Place]) -> Iterator[str]:
    """What others may do to the roots, where that is no reason to refuse them."""
    for why in open_parents(folder for place in places for folder in (place.root, *place.ways)):
        yield f"Others could replace your tools: {why}."
    for place in places:
        if mode_of(place.root) & stat.S_IWGRP:
            yield f"The tools folder {place.label} may be written by its group; `chmod g-w` on it keeps it yours."


def _trusted(files: list[SourceFile], warnings: list[str]) -> Iterator[SourceFile]:
    """Those of the files that may be run; one warning for each reason why others may not."""
    refused: dict[str, list[str]] = {}
    for file in files:
        why = distrust(file.path, file.root)
        if why is None:
            yield file
        else:
            refused.setdefault(why, []).append(file.source)
    for why, sources in refused.items():
        others = f" (and {len(sources) - 1} more)" if len(sources) > 1 else ""
        warnings.append(f"{sources[0]}{others} was not loaded: {why}.")


def _found(place: Place) -> list[str]:
    """The paths of a place's wanted files. Raises ToolError if there are too many."""
    found = list(itertools.islice(_walk(place, place.root, ""), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise ToolError(f"There are more than {MAX_FILES} Python files below {place.root}. Name a smaller folder.")
    return found


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


def _once(files: Iterable[SourceFile]) -> list[SourceFile]:
    return list({file.path.resolve(): file for file in reversed(list(files))}.values())[::-1]
