"""Pronunciations: the recognizer's own dictionary, and letter-to-sound rules for words that it lacks.

The dictionary file (135,000 lines, sorted by bytes) is memory-mapped and searched in place.
"""

import mmap
import re
from functools import lru_cache
from pathlib import Path

from relay.local_engine.nlu.english import PHONES

_SPELLABLE = re.compile(r"[a-z]{2,24}")


class Lexicon:
    """A dictionary file with lines "word PHONE PHONE"; alternative pronunciations are lines "word(2) PHONE"."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._cache: dict[str, tuple[str, ...]] = {}

    def pronunciations(self, word: str) -> tuple[str, ...]:
        """Return the pronunciations of a lower-case word: those in the file, else one by its letters, else none."""
        phones = self._cache.get(word)
        if phones is None:
            phones = self._look_up(word) or letter_to_sound(word)
            if len(self._cache) < 4096:
                self._cache[word] = phones
        return phones

    def _look_up(self, word: str) -> tuple[str, ...]:
        key = word.encode()
        low, high = 0, len(self._map)
        while low < high:
            middle = (low + high) // 2
            line = self._map.rfind(b"\n", 0, middle) + 1
            if _entry_word(self._line(line)) < key:
                low = self._next(middle)
            else:
                high = line
        readings: list[str] = []
        while low < len(self._map) and _entry_word(self._line(low)) == key:
            readings.append(self._line(low).partition(b" ")[2].decode("ascii").strip())
            low = self._next(low)
        return tuple(readings)

    def _line(self, start: int) -> bytes:
        return self._map[start : self._next(start)]

    def _next(self, position: int) -> int:
        newline = self._map.find(b"\n", position)
        return len(self._map) if newline < 0 else newline + 1


def _entry_word(line: bytes) -> bytes:
    return line.split(b" ", 1)[0].split(b"(", 1)[0].strip()


def letter_to_sound(word: str) -> tuple[str, ...]:
    """Return one pronunciation derived from the letters; nothing if the word has other characters than a-z."""
    if not _SPELLABLE.fullmatch(word):
        return ()
    word = re.sub(r"([^aeiou])\1", r"\1", word)
    if len(word) > 3 and word.endswith("e") and word[-2] not in "aeiou":
        word = word[:-1]
    phones: list[str] = []
    index = 0
    while index < len(word):
        letters, phone = next(pair for pair in PHONES.items() if word.startswith(pair[0], index))
        phones.append(phone)
        index += len(letters)
    return (" ".join(phones),)


@lru_cache(maxsize=1)
def english_lexicon() -> Lexicon:
    """Open the dictionary that comes with pocketsphinx."""
    from pocketsphinx import get_model_path

    return Lexicon(Path(get_model_path("en-us/cmudict-en-us.dict")))
