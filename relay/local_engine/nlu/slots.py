"""Slots: the values that a tool's parameter can take, their spoken forms, and how to read them from words.

A slot is derived from the JSON Schema of one property: `enum`, `const`, `examples`, `minimum`, `maximum`, `default`,
`type`, `anyOf`, `$ref`. Strings without known values can be typed but not spoken: the recognizer needs a word list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from relay.local_engine.nlu.english import CITIES, SYNONYMS, UNIT_NAMES
from relay.local_engine.nlu.text_normalization import Word, parse_number, spoken_words

SlotKind = Literal["integer", "number", "choice", "flag", "free", "unfillable"]

_PLACE_WORDS = frozenset(("city", "cities", "town", "location", "place", "where", "destination", "origin"))
_KINDS: dict[str, SlotKind] = {"integer": "integer", "number": "number", "boolean": "flag", "object": "unfillable"}
_MAX_FREE_WORDS = 8
_DEFAULT_RANGE = (0, 100)


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """One value of a slot and its spoken form."""

    words: tuple[str, ...]
    value: Any


_FLAG_WORDS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_FLAG_CHOICES = tuple(SlotChoice((word,), value) for word, value in _FLAG_WORDS.items())


@dataclass(frozen=True)
class Slot:
    """One parameter of a tool; `is_closed` means that only the choices count (an `enum`).

    `minimum` and `maximum` are those of the schema; `spoken_range` is what the recognizer accepts, never infinite.
    """

    name: str
    kind: SlotKind
    required: bool
    choices: tuple[SlotChoice, ...] = ()
    is_closed: bool = False
    minimum: float = float("-inf")
    maximum: float = float("inf")
    spoken_range: tuple[float, float] = (0, 100)
    default: Any = None
    is_list: bool = False

    def read(self, words: Sequence[Word], start: int, text: str) -> Iterator[tuple[int, Any, float]]:
        """Yield every way to read this slot at `start`: (index after it, value, cost); guesses cost more."""
        for end, value, cost in self._read_value(words, start, text):
            yield end, [value] if self.is_list else value, cost

    def _read_value(self, words: Sequence[Word], start: int, text: str) -> Iterator[tuple[int, Any, float]]:
        if self.kind in ("integer", "number"):
            for end, value in parse_number([word.text for word in words[start : start + 16]]):
                if self.minimum <= value <= self.maximum and (self.kind == "number" or value.is_integer()):
                    yield start + end, int(value) if value.is_integer() else value, 0.0
            return
        for choice in self._by_first_word.get(words[start].text, ()) if start < len(words) else ():
            end = start + len(choice.words)
            if tuple(word.text for word in words[start:end]) == choice.words:
                yield end, choice.value, 0.0
        if self.kind == "free" or (self.kind == "choice" and not self.is_closed):
            for end in range(start + 1, min(start + _MAX_FREE_WORDS, len(words)) + 1):
                yield end, text[words[start].start : words[end - 1].end], 2.0 + (end - start)

    @cached_property
    def _by_first_word(self) -> dict[str, list[SlotChoice]]:
        table: dict[str, list[SlotChoice]] = {}
        for choice in sorted(self.choices, key=lambda choice: -len(choice.words)):
            table.setdefault(choice.words[0], []).append(choice)
        return table

    def fallback_value(self) -> Any:
        """Return the value of a forced call without one: the default, the first choice or the minimum."""
        if self.default is not None:
            return self.default
        value: Any = ""
        if self.choices:
            value = self.choices[0].value
        elif self.kind in ("integer", "number"):
            value = 1 if self.minimum <= 1 <= self.maximum else int(max(self.minimum, -(10**9)))
        return [value] if self.is_list else value

    def sample_text(self) -> str:
        """Return a value in words, for an example sentence."""
        if self.kind in ("integer", "number"):
            value = next((n for n in (2, 5, 20) if self.minimum <= n <= self.maximum), self.fallback_value())
            return " ".join(spoken_words(str(value)))
        if self.choices:
            return str(self.choices[0].value) if self.kind != "flag" else "yes"
        return " ".join(spoken_words(self.name)) or "something"


def slots_from_schema(parameters: Any, max_choices: int = 400) -> dict[str, Slot]:
    """Return the slots of a tool's `parameters` schema, by name; none if it is not an object schema.

    Only the first `max_choices` known values of a property are used.
    """
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties"), dict):
        return {}
    required = parameters.get("required")
    names = set(required) if isinstance(required, list) and all(isinstance(n, str) for n in required) else set()
    properties = list(parameters["properties"].items())[:64]
    return {name: _slot(name, schema, name in names, parameters, max_choices) for name, schema in properties}


def _slot(name: str, schema: Any, required: bool, root: dict[str, Any], max_choices: int) -> Slot:
    """Derive a slot from a property's schema; `root` is the document that `$ref` refers to."""
    schema = _resolved(schema, root)
    default = schema.get("default")
    kind = _KINDS.get(str(schema.get("type")), "free")
    if schema.get("type") == "array":
        items = schema.get("items")
        if isinstance(items, dict) and items.get("type") == "array":
            items = {"type": "object"}  # lists of lists cannot be spoken
        inner = _slot(name, items, required, root, max_choices)
        return replace(inner, default=default, is_list=True)
    low, high = _bounds(schema)
    values, closed = _values(name, schema, kind)
    if values and kind not in ("integer", "number", "flag"):
        kind = "choice"
    choices = _FLAG_CHOICES if kind == "flag" else tuple(_choices(name, values[:max_choices]))
    return Slot(name, kind, required, choices, closed, low, high, _spoken_range(schema, low, high), default)


def _resolved(schema: Any, root: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return the schema with `$ref` resolved and reduced to its first alternative that is not null."""
    if not isinstance(schema, dict) or depth > 8:
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        schema = {**_resolved(target, root, depth + 1), **{k: v for k, v in schema.items() if k != "$ref"}}
    for key in ("anyOf", "oneOf", "allOf"):
        options = schema.get(key)
        if isinstance(options, list):
            alternatives = [o for o in options if isinstance(o, dict) and o.get("type") != "null"]
            if alternatives:
                outer = {k: v for k, v in schema.items() if k != key}
                schema = {**_resolved(alternatives[0], root, depth + 1), **outer}
    kinds = schema.get("type")
    if isinstance(kinds, list):
        schema = {**schema, "type": next((k for k in kinds if k != "null"), "string")}
    return dict(schema)


def _bounds(schema: dict[str, Any]) -> tuple[float, float]:
    """Return the minimum and the maximum, infinite where the schema has none."""

    def bound(key: str) -> float | None:
        value = schema.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    step = 1 if schema.get("type") == "integer" else 0
    low, above = bound("minimum"), bound("exclusiveMinimum")
    high, below = bound("maximum"), bound("exclusiveMaximum")
    low = above + step if low is None and above is not None else low
    high = below - step if high is None and below is not None else high
    return float("-inf") if low is None else low, float("inf") if high is None else high


def _spoken_range(schema: dict[str, Any], low: float, high: float) -> tuple[float, float]:
    """Return 0 to 100 (fractional: -999 to 999) where the schema has no bounds, widened to fit `examples`."""
    examples = schema.get("examples")
    values = [*(examples if isinstance(examples, list) else []), schema.get("default")]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    default_range = (-999, 999) if schema.get("type") == "number" else _DEFAULT_RANGE
    if low == float("-inf"):
        low = min([*numbers, default_range[0], high])
    if high == float("inf"):
        high = max([*numbers, default_range[1], low + default_range[1]])
    return low, high


def _values(name: str, schema: dict[str, Any], kind: SlotKind) -> tuple[list[Any], bool]:
    """Return the known values of a property, and whether they are the only ones."""
    if isinstance(schema.get("enum"), list):
        return schema["enum"], True
    if "const" in schema:
        return [schema["const"]], True
    if kind != "free":
        return [], False
    examples = schema.get("examples")
    values = [value for value in examples if isinstance(value, str)] if isinstance(examples, list) else []
    parts = set(spoken_words(name.replace("_", " ")))
    if not values and parts & _PLACE_WORDS:
        values = list(CITIES)
    elif not values and parts & {"unit", "units"}:
        values = list(UNIT_NAMES)
    return values, False


def _choices(name: str, values: list[Any]) -> Iterator[SlotChoice]:
    is_unit = "unit" in name.lower()
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        text = str(value).replace("_", " ")
        forms = [text, *SYNONYMS.get(text.lower(), ())]
        if is_unit and len(text) > 4 and text.endswith("s") and not text.endswith(("us", "ss", "ches")):
            forms.append(text[:-1])
        for form in forms:
            if words := tuple(spoken_words(form)):
                yield SlotChoice(words, value)
