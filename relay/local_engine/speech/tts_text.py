"""Text preparation for synthesis: chunks of sentences, and plain ASCII.

The first chunk is short, so that audio starts early; no chunk is long enough to block for long.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

FIRST_CHUNK_CHARS = 18
"""About 1.2 s of speech: the slowest voice takes about 25 ms of an idle core per second of speech."""
MAX_CHUNK_CHARS = 50
_MIN_CHUNK_CHARS = 10
_PAUSES = (",", ";", ":")
_UNSPEAKABLE = re.compile(r"[^A-Za-z0-9 .,;:?!'%$&+/=-]")
_MAX_WORD_CHARS, _MAX_SENTENCE_CHARS = 60, 800


def split_for_synthesis(sentences: Iterable[str]) -> Iterator[str]:
    """Yield the same words in chunks; split at pauses where possible, never within a word."""
    max_chars = FIRST_CHUNK_CHARS
    for sentence in sentences:
        words = sentence.split()
        chunk: list[str] = []
        for index, word in enumerate(words):
            chunk.append(word)
            length = len(" ".join(chunk))
            at_pause = word.endswith(_PAUSES) and length >= _MIN_CHUNK_CHARS
            if index + 2 < len(words) and (at_pause or length >= max_chars):
                yield " ".join(chunk)
                chunk, max_chars = [], MAX_CHUNK_CHARS
        if chunk:
            yield " ".join(chunk)
            max_chars = MAX_CHUNK_CHARS


def to_plain_ascii(sentence: str) -> str:
    """Return text that is safe for a C library: ASCII without control characters, words and text of bounded length."""
    ascii_only = unicodedata.normalize("NFKD", sentence).encode("ascii", "ignore").decode()
    words = _UNSPEAKABLE.sub(" ", ascii_only).split()
    return " ".join(word[:_MAX_WORD_CHARS] for word in words)[:_MAX_SENTENCE_CHARS]
