"""Tells the time in the cities of the world; works offline, with the IANA time zone database."""

import difflib
import functools
import re
import tomllib
import unicodedata
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from relay import ToolError, tool

_NAMES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))

# "Asia/Tokyo" names a city; "US/Eastern" and "Etc/GMT+5" do not.
_AREAS = (
    *("Africa", "America", "Antarctica", "Arctic", "Asia"),
    *("Atlantic", "Australia", "Europe", "Indian", "Pacific"),
)


@dataclass(frozen=True)
class _Place:
    name: str
    zone: str


@tool(
    examples=[
        "what time is it in {city}",
        "tell me the time in {city}",
        "what is the time in {city}",
        "how late is it in {city}",
    ],
    timeout_s=5,
    expose=["model", "http", "client"],
)
def current_time(
    city: Annotated[str, Field(min_length=1, max_length=80, description="A city.", examples=_NAMES["spoken"])],
) -> dict[str, object]:
    """Tell the current local time and day in a city."""
    return _time_in(city, datetime.now(UTC))


def _time_in(city: str, now: datetime) -> dict[str, object]:
    place = _find(city)
    local = now.astimezone(zoneinfo.ZoneInfo(place.zone))
    return {
        "city": place.name,
        "zone": place.zone,
        "local_time": local.isoformat(timespec="seconds"),
        "weekday": f"{local:%A}",
        "summary": f"In {place.name} it is {_spoken(local)} on {local:%A}.",
    }


def _spoken(local: datetime) -> str:
    """Format as "9:42 in the evening", "7 o'clock in the morning", "noon" or "midnight"."""
    if local.minute == 0 and local.hour in (0, 12):
        return "midnight" if local.hour == 0 else "noon"
    hour = local.hour % 12 or 12
    clock = f"{hour}:{local.minute:02}" if local.minute else f"{hour} o'clock"
    return f"{clock} {_part_of_day(local.hour)}"


def _part_of_day(hour: int) -> str:
    if hour == 0 or hour >= 22:
        return "at night"
    if hour < 12:
        return "in the morning"
    return "in the afternoon" if hour < 18 else "in the evening"


def _find(city: str) -> _Place:
    """Find a place by name; "Osaka, Japan" only if the country matches, as for "London, Ontario"."""
    places = _places()
    place = places.get(_normal(city))
    head, _, tail = city.rpartition(",")
    if place is None and head:
        place = places.get(_normal(head))
        if place is not None and place.zone.partition("/")[0] != _area_of(tail):
            place = None
    if place is None:
        raise ToolError(f"I do not know the time in {city.rstrip(' .')}. {_hint(city)}")
    return place


def _area_of(country: str) -> str | None:
    normal_country = _normal(country)
    zones: dict[str, list[str]] = _NAMES["countries"] | _NAMES["wide_countries"]
    areas = (zone.partition("/")[0] for zone, names in zones.items() if normal_country in map(_normal, names))
    return next(areas, None)


def _hint(city: str) -> str:
    """Suggest places: the beginning of the name, or similar names."""
    places = _places()
    words = _normal(city).split()
    heads = [head for n in range(len(words) - 1, 0, -1) if (head := " ".join(words[:n])) in places]
    near = heads[:1] or difflib.get_close_matches(" ".join(words), places, n=2, cutoff=0.7)
    if not near:
        return "Try a large city near it."
    return f"Did you mean {' or '.join(places[name].name for name in near)}?"


@functools.cache
def _places() -> dict[str, _Place]:
    """Return all places by normalized name; names of the tables override equal keys of the database."""
    places: dict[str, _Place] = {}
    for key in sorted(zoneinfo.available_timezones()):
        area, _, rest = key.partition("/")
        if area in _AREAS and rest:
            name = rest.rpartition("/")[2].replace("_", " ")
            places.setdefault(_normal(name), _Place(name, key))
    for table in (_NAMES["countries"], _NAMES["cities"]):
        for zone, names in table.items():
            for name in names:
                places[_normal(name)] = _Place(name, zone)
    return places


def _normal(name: str) -> str:
    """Remove case, accents, punctuation and a leading "the"; "St." becomes "saint"."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    words = re.sub(r"[^\w\s]|_", " ", re.sub(r"[.'’]", "", plain.casefold())).split()
    if len(words) > 1 and words[0] == "the":
        words = words[1:]
    return " ".join("saint" if word == "st" else word for word in words)
