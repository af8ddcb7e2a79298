"""Tells the time in the cities of the world; works offline, from the time zone data of the IANA."""

import difflib
import functools
import re
import unicodedata
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from relay import ToolError, tool

# Well-known cities that are no keys of the time zone data, and other names of those that are.
_CITIES = {
    "Africa/Johannesburg": ("Cape Town", "Durban", "Pretoria"),
    "Africa/Casablanca": ("Marrakesh", "Rabat"),
    "America/Chicago": ("Dallas", "Houston", "Austin", "San Antonio", "New Orleans", "Minneapolis",
                        "Milwaukee", "Nashville", "Memphis", "St. Louis", "Kansas City", "Oklahoma City"),
    "America/Denver": ("Salt Lake City", "Albuquerque"),
    "America/Edmonton": ("Calgary",),
    "America/Los_Angeles": ("San Francisco", "Seattle", "San Diego", "Las Vegas", "San Jose", "Sacramento",
                            "Oakland", "Silicon Valley"),
    "America/New_York": ("New York City", "Washington", "Washington DC", "Boston", "Miami", "Atlanta",
                         "Philadelphia", "Baltimore", "Orlando", "Tampa", "Charlotte", "Cleveland",
                         "Pittsburgh", "Columbus", "Brooklyn", "Manhattan"),
    "America/Sao_Paulo": ("Rio de Janeiro", "Rio", "Brasília"),
    "America/Toronto": ("Ottawa", "Quebec", "Quebec City"),
    "Asia/Dubai": ("Abu Dhabi",),
    "Asia/Ho_Chi_Minh": ("Hanoi", "Ho Chi Minh City"),
    "Asia/Jerusalem": ("Haifa",),
    "Asia/Karachi": ("Islamabad", "Lahore"),
    "Asia/Kolkata": ("Mumbai", "Bombay", "Delhi", "New Delhi", "Bangalore", "Bengaluru", "Chennai",
                     "Hyderabad", "Pune"),
    "Asia/Riyadh": ("Mecca", "Medina", "Jeddah"),
    "Asia/Seoul": ("Busan",),
    "Asia/Shanghai": ("Beijing", "Peking", "Shenzhen", "Guangzhou", "Chengdu", "Wuhan"),
    "Asia/Tokyo": ("Osaka", "Kyoto", "Yokohama", "Nagoya", "Sapporo", "Hiroshima"),
    "Europe/Amsterdam": ("Rotterdam", "The Hague", "Utrecht"),
    "Europe/Berlin": ("Munich", "München", "Hamburg", "Cologne", "Köln", "Frankfurt", "Stuttgart",
                      "Düsseldorf", "Leipzig", "Dresden", "Nuremberg"),
    "Europe/Brussels": ("Antwerp", "Bruges"),
    "Europe/Istanbul": ("Istanbul", "Ankara", "Izmir"),
    "Europe/Kyiv": ("Kiev", "Odessa", "Lviv"),
    "Europe/Lisbon": ("Porto",),
    "Europe/London": ("Edinburgh", "Manchester", "Birmingham", "Liverpool", "Glasgow", "Cardiff", "Oxford"),
    "Europe/Madrid": ("Barcelona", "Valencia", "Seville", "Bilbao"),
    "Europe/Moscow": ("Saint Petersburg",),
    "Europe/Paris": ("Lyon", "Marseille", "Nice", "Toulouse", "Bordeaux", "Strasbourg"),
    "Europe/Rome": ("Milan", "Milano", "Naples", "Venice", "Florence", "Turin"),
    "Europe/Stockholm": ("Gothenburg",),
    "Europe/Vienna": ("Salzburg",),
    "Europe/Warsaw": ("Krakow",),
    "Europe/Zurich": ("Geneva", "Basel", "Bern"),
    "Pacific/Auckland": ("Wellington", "Christchurch"),
    "UTC": ("UTC", "GMT", "Greenwich Mean Time"),
}  # fmt: skip

# Countries with one time, by themselves ("in Japan") or behind a city ("Osaka, Japan").
_COUNTRIES = {
    "Africa/Cairo": ("Egypt",),
    "Africa/Casablanca": ("Morocco",),
    "Africa/Johannesburg": ("South Africa",),
    "Africa/Lagos": ("Nigeria",),
    "Africa/Nairobi": ("Kenya",),
    "America/Argentina/Buenos_Aires": ("Argentina",),
    "America/Bogota": ("Colombia",),
    "America/Havana": ("Cuba",),
    "America/Lima": ("Peru",),
    "Asia/Bangkok": ("Thailand",),
    "Asia/Dubai": ("United Arab Emirates",),
    "Asia/Ho_Chi_Minh": ("Vietnam",),
    "Asia/Jerusalem": ("Israel",),
    "Asia/Karachi": ("Pakistan",),
    "Asia/Kolkata": ("India",),
    "Asia/Kuala_Lumpur": ("Malaysia",),
    "Asia/Manila": ("Philippines",),
    "Asia/Riyadh": ("Saudi Arabia",),
    "Asia/Seoul": ("South Korea", "Korea"),
    "Asia/Shanghai": ("China",),
    "Asia/Taipei": ("Taiwan",),
    "Asia/Tehran": ("Iran",),
    "Asia/Tokyo": ("Japan",),
    "Atlantic/Reykjavik": ("Iceland",),
    "Europe/Amsterdam": ("Netherlands",),
    "Europe/Athens": ("Greece",),
    "Europe/Berlin": ("Germany",),
    "Europe/Brussels": ("Belgium",),
    "Europe/Budapest": ("Hungary",),
    "Europe/Copenhagen": ("Denmark",),
    "Europe/Dublin": ("Ireland",),
    "Europe/Helsinki": ("Finland",),
    "Europe/Istanbul": ("Turkey",),
    "Europe/Kyiv": ("Ukraine",),
    "Europe/Lisbon": ("Portugal",),
    "Europe/London": ("England", "Scotland", "Wales", "Great Britain", "United Kingdom", "UK"),
    "Europe/Madrid": ("Spain",),
    "Europe/Oslo": ("Norway",),
    "Europe/Paris": ("France",),
    "Europe/Prague": ("Czech Republic", "Czechia"),
    "Europe/Rome": ("Italy",),
    "Europe/Stockholm": ("Sweden",),
    "Europe/Vienna": ("Austria",),
    "Europe/Warsaw": ("Poland",),
    "Europe/Zurich": ("Switzerland",),
    "Pacific/Auckland": ("New Zealand",),
}

# Countries with several times: of use behind a city only.
_WIDE_COUNTRIES = {
    "America": ("USA", "US", "United States", "America", "Canada", "Mexico", "Brazil"),
    "Australia": ("Australia",),
}

# "Asia/Tokyo" names a city; "US/Eastern" and "Etc/GMT+5" do not.
_AREAS = (
    *("Africa", "America", "Antarctica", "Arctic", "Asia"),
    *("Atlantic", "Australia", "Europe", "Indian", "Pacific"),
)

_SPOKEN = [
    *("Amsterdam", "Athens", "Bangkok", "Barcelona", "Beijing", "Berlin", "Boston", "Buenos Aires", "Cairo"),
    *("Chicago", "Denver", "Dubai", "Dublin", "Hong Kong", "Istanbul", "Jakarta", "Johannesburg", "Lisbon"),
    *("London", "Los Angeles", "Madrid", "Melbourne", "Mexico City", "Miami", "Milan", "Moscow", "Mumbai"),
    *("Munich", "New York", "Oslo", "Paris", "Rome", "San Francisco", "Seattle", "Seoul", "Shanghai"),
    *("Singapore", "Stockholm", "Sydney", "Tokyo", "Toronto", "Vienna", "Washington", "Zurich"),
]


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
    city: Annotated[str, Field(min_length=1, max_length=80, description="A city.", examples=_SPOKEN)],
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
    """9:42 in the evening, 7 o'clock in the morning, noon, midnight."""
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
    """The place of that name; "Osaka, Japan" only if the country fits: London, Ontario is another London."""
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
    wanted = _normal(country)
    for table in (_COUNTRIES, _WIDE_COUNTRIES):
        for zone, names in table.items():
            if wanted in map(_normal, names):
                return zone.partition("/")[0]
    return None


def _hint(city: str) -> str:
    """What may have been meant: the beginning of what was said, or something that sounds alike."""
    places = _places()
    words = _normal(city).split()
    heads = [head for n in range(len(words) - 1, 0, -1) if (head := " ".join(words[:n])) in places]
    near = heads[:1] or difflib.get_close_matches(" ".join(words), places, n=2, cutoff=0.7)
    if not near:
        return "Try a large city near it."
    return f"Did you mean {' or '.join(places[one].name for one in near)}?"


@functools.cache
def _places() -> dict[str, _Place]:
    """All known names, normalised; those of the tables win over keys that read the same."""
    places: dict[str, _Place] = {}
    for key in sorted(zoneinfo.available_timezones()):
        area, _, rest = key.partition("/")
        if area in _AREAS and rest:
            name = rest.rpartition("/")[2].replace("_", " ")
            places.setdefault(_normal(name), _Place(name, key))
    for table in (_COUNTRIES, _CITIES):
        for zone, names in table.items():
            for name in names:
                places[_normal(name)] = _Place(name, zone)
    return places


def _normal(name: str) -> str:
    """Without case, accents and punctuation; "St." is "saint", and "the" in front says nothing."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    words = re.sub(r"[^\w\s]|_", " ", re.sub(r"[.'’]", "", plain.casefold())).split()
    if len(words) > 1 and words[0] == "the":
        words = words[1:]
    return " ".join("saint" if one == "st" else one for one in words)
