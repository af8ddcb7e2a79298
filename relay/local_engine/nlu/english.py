"""The English that the engine speaks and understands: words, phrases and spellings, from `english.toml`."""

import tomllib
from importlib.resources import files
from typing import Any

_DATA: dict[str, Any] = tomllib.loads(files(__package__).joinpath("english.toml").read_text("utf-8"))

CITIES: tuple[str, ...] = tuple(_DATA["cities"])
UNIT_NAMES: tuple[str, ...] = tuple(_DATA["unit_names"])
SYNONYMS: dict[str, list[str]] = _DATA["also_said"]
SMALL_TALK: dict[str, list[str]] = _DATA["small_talk"]
STORY: tuple[str, ...] = tuple(_DATA["story"])
ANSWERS: dict[str, tuple[str, ...]] = {topic: tuple(texts) for topic, texts in _DATA["answers"].items()}
ANSWERS["story"] = STORY
LEADS, TAILS = ([tuple(phrase.split()) for phrase in _DATA[name]] for name in ("leads", "tails"))
OPTIONAL, COMMON = (frozenset[str](_DATA[name]) for name in ("optional", "common"))
CONTRACTIONS: dict[str, str] = _DATA["contractions"]
PHONES: dict[str, str] = _DATA["phones"]
"""Phones of the CMU set by spelling, the longest spelling first."""
