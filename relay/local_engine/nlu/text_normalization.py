"""Text normalization: text to lower-case spoken words, digits to number words and back.

It makes recognized speech and typed text equal: "Roll 2 dice!" and "roll two dice" are the same request.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
UNITS += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

_UNIT_VALUE = {word: value for value, word in enumerate(UNITS)} | {"oh": 0}
_TENS_VALUE = {word: (index + 2) * 10 for index, word in enumerate(TENS)}
_MAX_SPOKEN = 999_999
_TOKEN = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)*", re.UNICODE)


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word and its span in the original text."""

    text: str
    start: int
    end: int


def fold(text: str) -> str:
    """Return the text in lower case, without accents and with a plain apostrophe: "São" -> "sao"."""
    decomposed = unicodedata.normalize("NFKD", text.replace("’", "'"))
    return "".join(char for char in decomposed if not unicodedata.combining(char)).lower()


def tokenize(text: str) -> list[Word]:
    """Split any text into spoken words; a number in digits becomes several words with the same span."""
    words: list[Word] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        start, end = match.span()
        if token[-1].isdecimal():
            # "one-2" and "10-20" contain a dash, not a minus.
            dash = token[0] == "-" and start > 0 and not text[start - 1].isspace()
            token_words = number_to_words(token[1:] if dash else token)
        else:
            token_words = [fold(token)]
        words.extend(Word(word, start, end) for word in token_words)
    return words


def spoken_words(text: str) -> list[str]:
    """Return the spoken words of a text, without their spans."""
    return [word.text for word in tokenize(text)]


def stem(word: str) -> str:
    """Return a word without the plural s."""
    return word.removesuffix("s") if len(word) > 3 else word


def name_to_words(name: str) -> list[str]:
    """Split an identifier into words: "rollDice_v2" -> ["roll", "dice", "v", "two"]."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", " ", name)
    return spoken_words(re.sub(r"[^0-9A-Za-z]+", " ", split))


def number_to_words(literal: str) -> list[str]:
    """Return a number in digits ("-1,234.5") as spoken words; from a million on digit by digit."""
    literal = literal.replace(",", "").removeprefix("+")
    sign = ["minus"] if literal.startswith("-") else []
    whole, _, fraction = literal.removeprefix("-").partition(".")
    value = int(whole) if len(whole) <= 7 else _MAX_SPOKEN + 1
    words = integer_to_words(value) if value <= _MAX_SPOKEN else [UNITS[int(digit)] for digit in whole[:40]]
    if fraction:
        words = [*words, "point", *(UNITS[int(digit)] for digit in fraction[:20])]
    return sign + words


def integer_to_words(value: int) -> list[str]:
    """Return an integer from 0 to 999999 as words, without "and"."""
    if value < 20:
        return [UNITS[value]]
    if value < 100:
        rest = [UNITS[value % 10]] if value % 10 else []
        return [TENS[value // 10 - 2], *rest]
    divisor, name = (100, "hundred") if value < 1000 else (1000, "thousand")
    rest = integer_to_words(value % divisor) if value % divisor else []
    return [*integer_to_words(value // divisor), name, *rest]


def parse_number(words: Sequence[str]) -> Iterator[tuple[int, float]]:
    """Yield every way to read a number at the beginning: (index after it, value), the longest first.

    Understands "minus", "a hundred", "one hundred and five", "two point five" and "two and a half".
    """
    index, sign = (1, -1.0) if words and words[0] in ("minus", "negative") else (0, 1.0)
    if index < len(words) and words[index] == "half":
        yield index + 1, sign * 0.5
    whole = list(_read_whole(words, index))
    for end, value in whole:
        yield from ((after, sign * (value + part)) for after, part in _read_fraction(words, end))
    yield from ((end, sign * value) for end, value in whole)


def _read_fraction(words: Sequence[str], start: int) -> Iterator[tuple[int, float]]:
    if tuple(words[start : start + 3]) == ("and", "a", "half"):
        yield start + 3, 0.5
    if start < len(words) and words[start] == "point":
        end = start + 1
        while end < len(words) and _UNIT_VALUE.get(words[end], 10) < 10 and end - start <= 12:
            end += 1
        for stop in range(end, start + 1, -1):
            digits = "".join(str(_UNIT_VALUE[word]) for word in words[start + 1 : stop])
            if digits:
                yield stop, float(f"0.{digits}")


def _read_whole(words: Sequence[str], start: int) -> Iterator[tuple[int, int]]:
    for end, thousands in _read_below_thousand(words, start):
        if end < len(words) and words[end] == "thousand" and thousands:
            after = end + 1
            for stop, rest in _read_below_thousand(words, _skip_and(words, after)):
                yield stop, thousands * 1000 + rest
            yield after, thousands * 1000
        yield end, thousands


def _skip_and(words: Sequence[str], index: int) -> int:
    return index + 1 if index < len(words) and words[index] == "and" else index


def _read_below_thousand(words: Sequence[str], start: int) -> Iterator[tuple[int, int]]:
    if start >= len(words):
        return
    if words[start] == "a" and start + 1 < len(words) and words[start + 1] in ("hundred", "thousand"):
        first: list[tuple[int, int]] = [(start + 1, 1)]
    else:
        first = list(_read_below_hundred(words, start))
    for end, value in first:
        if end < len(words) and words[end] == "hundred" and 0 < value < 100:
            for stop, rest in _read_below_hundred(words, _skip_and(words, end + 1)):
                yield stop, value * 100 + rest
            yield end + 1, value * 100
        if words[start] != "a" or (end < len(words) and words[end] == "thousand"):
            yield end, value


def _read_below_hundred(words: Sequence[str], start: int) -> Iterator[tuple[int, int]]:
    if start >= len(words):
        return
    word = words[start]
    if word in _TENS_VALUE:
        if start + 1 < len(words) and 0 < _UNIT_VALUE.get(words[start + 1], 0) < 10:
            yield start + 2, _TENS_VALUE[word] + _UNIT_VALUE[words[start + 1]]
        yield start + 1, _TENS_VALUE[word]
    elif word in _UNIT_VALUE:
        yield start + 1, _UNIT_VALUE[word]
