"""A city and a moment in, a sentence out."""

import zoneinfo
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import ToolError

SATURDAY = datetime(2026, 11, 21, 12, 42, 30, tzinfo=UTC)


def summary(clock: Any, city: str, now: datetime = SATURDAY) -> str:
    return str(clock._time_in(city, now)["summary"])


def test_all_that_is_told(clock: Any) -> None:
    assert clock._time_in("tokyo", SATURDAY) == {
        "city": "Tokyo",
        "zone": "Asia/Tokyo",
        "local_time": "2026-11-21T21:42:30+09:00",
        "weekday": "Saturday",
        "summary": "In Tokyo it is 9:42 in the evening on Saturday.",
    }


@pytest.mark.parametrize(
    ("hour", "minute", "spoken"),
    [
        (0, 0, "midnight"),
        (0, 5, "12:05 at night"),
        (1, 0, "1 o'clock in the morning"),
        (7, 30, "7:30 in the morning"),
        (12, 0, "noon"),
        (12, 1, "12:01 in the afternoon"),
        (17, 59, "5:59 in the afternoon"),
        (18, 0, "6 o'clock in the evening"),
        (22, 15, "10:15 at night"),
    ],
)
def test_how_a_time_is_spoken(clock: Any, hour: int, minute: int, spoken: str) -> None:
    assert summary(clock, "UTC", datetime(2026, 11, 21, hour, minute, tzinfo=UTC)) == (
        f"In UTC it is {spoken} on Saturday."
    )


def test_the_day_is_that_of_the_city_and_summer_is_minded(clock: Any) -> None:
    late = datetime(2026, 7, 3, 23, 30, tzinfo=UTC)
    assert summary(clock, "Auckland", late) == "In Auckland it is 11:30 in the morning on Saturday."
    assert summary(clock, "San Francisco", late) == "In San Francisco it is 4:30 in the afternoon on Friday."
    assert summary(clock, "Berlin", late) == "In Berlin it is 1:30 in the morning on Saturday."


@pytest.mark.parametrize(
    ("said", "zone"),
    [
        ("Mumbai", "Asia/Kolkata"),
        ("beijing", "Asia/Shanghai"),
        ("WASHINGTON", "America/New_York"),
        ("Washington, D.C.", "America/New_York"),
        ("new york city", "America/New_York"),
        ("munich", "Europe/Berlin"),
        ("München", "Europe/Berlin"),
        ("São Paulo", "America/Sao_Paulo"),
        ("sao paulo", "America/Sao_Paulo"),
        ("St. Louis", "America/Chicago"),
        ("saint petersburg", "Europe/Moscow"),
        ("St. John's", "America/St_Johns"),
        ("The Hague", "Europe/Amsterdam"),
        ("port au prince", "America/Port-au-Prince"),
        ("Buenos Aires", "America/Argentina/Buenos_Aires"),
        ("Japan", "Asia/Tokyo"),
        ("Osaka, Japan", "Asia/Tokyo"),
        ("Istanbul, Turkey", "Europe/Istanbul"),
        ("Lisbon, Portugal", "Europe/Lisbon"),
        ("Boston, USA", "America/New_York"),
        ("Sydney, Australia", "Australia/Sydney"),
    ],
)
def test_names_as_people_say_them(clock: Any, said: str, zone: str) -> None:
    there = datetime.fromisoformat(clock._time_in(said, SATURDAY)["local_time"])
    assert there.utcoffset() == SATURDAY.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Berlim", "I do not know the time in Berlim. Did you mean Berlin or Belgium?"),
        ("London, Ontario", "I do not know the time in London, Ontario. Did you mean London?"),
        ("Paris, Texas", "I do not know the time in Paris, Texas. Did you mean Paris?"),
        ("Boston Massachusetts", "I do not know the time in Boston Massachusetts. Did you mean Boston?"),
        ("Xyzzyplugh", "I do not know the time in Xyzzyplugh. Try a large city near it."),
        ("Australia", "I do not know the time in Australia. Did you mean Austria?"),
    ],
)
def test_a_city_it_does_not_know_is_not_guessed(clock: Any, said: str, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        clock._time_in(said, SATURDAY)
    assert str(caught.value).startswith(message)


def test_every_name_of_the_tables_is_in_the_time_zone_data(clock: Any) -> None:
    known = zoneinfo.available_timezones()
    places = clock._places()
    assert len(places) > 500
    assert [one for one in places.values() if one.zone not in known] == []


def test_the_tool_itself_reads_the_clock(clock: Any) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = datetime.fromisoformat(clock.current_time("Tokyo")["local_time"])
    assert before <= told <= datetime.now(UTC)


@settings(deadline=None)
@given(said=st.text(max_size=80))
def test_any_text_is_a_city_or_a_refusal(clock: Any, said: str) -> None:
    try:
        assert clock._time_in(said, SATURDAY)["zone"]
    except ToolError as refusal:
        assert "I do not know the time in" in str(refusal)  # noqa: PT017 - either outcome is right
