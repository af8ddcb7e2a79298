"""One line for each refusal, bounded, and nobody else's lines in it."""

import pytest

from relay.auth.refusals import LINES_PER_MINUTE, MAX_ADDRESSES, RefusalLog


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_line_names_the_address_the_path_the_status_and_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    RefusalLog().log_refusal("203.0.113.7", "GET", "/ws", 401, "A key is needed.", 0.0)
    assert lines(caplog) == ["refused 203.0.113.7 GET /ws: 401 A key is needed."]


def test_a_connection_that_was_closed_without_an_answer_has_no_status(caplog: pytest.LogCaptureFixture) -> None:
    RefusalLog().log_refusal("203.0.113.7", "?", "?", None, "Too many.", 0.0)
    assert lines(caplog) == ["refused 203.0.113.7 ? ?: closed Too many."]


def test_a_flood_of_one_address_is_counted_and_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for _ in range(1000):
        log.log_refusal("203.0.113.7", "GET", "/ws", 401, "no", 0.0)
    assert len(lines(caplog)) == LINES_PER_MINUTE
    log.log_refusal("203.0.113.8", "GET", "/ws", 401, "no", 0.0)
    assert "203.0.113.8" in lines(caplog)[-1]
    log.log_refusal("203.0.113.7", "GET", "/ws", 401, "no", 60.0)
    assert f"({1000 - LINES_PER_MINUTE} refusals of this address before it were not logged)" in lines(caplog)[-1]


def test_a_flood_of_addresses_stays_bounded(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for n in range(3 * MAX_ADDRESSES):
        for _ in range(2):
            log.log_refusal(f"10.{n >> 8}.{n & 255}.1", "GET", "/", 401, "no", 0.0)
    assert len(log) <= 2 * MAX_ADDRESSES


def test_foreign_text_makes_no_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    path = "/ws\n12:00:00 ERROR forged\x1b[2J" + "x" * 1000
    RefusalLog().log_refusal("203.0.113.7", "GET", path, 404, "no\r\nmore", 0.0)
    [line] = lines(caplog)
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert len(line) < 500
