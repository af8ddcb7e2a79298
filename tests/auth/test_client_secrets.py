"""Tickets: what they say, and every way in which they are not good."""

import base64

import orjson
import pytest
from relay.tickets import MAX_STORED, MAX_TICKET_CHARS, TicketDesk

from relay.core.redact import redact
from relay.errors import AccessDenied, Full
from relay.testing import FakeClock

KEYS = ("the-first-key-0123456789", "the-second-key-0123456789")


def desk(*keys: str, at: float = 1000.0) -> TicketDesk:
    return TicketDesk(keys or KEYS, FakeClock(at))


def test_a_ticket_says_what_it_was_made_for() -> None:
    at = desk()
    text, minted = at.mint("key-1/visitor", "kiosk", 600)
    assert text.startswith("ek_relay_")
    assert at.read(text) == minted
    assert (minted.identity, minted.policy, minted.expires_at) == ("key-1/visitor", "kiosk", 1600)


def test_it_ends_with_its_time() -> None:
    clock = FakeClock(1000.0)
    at = TicketDesk(KEYS, clock)
    text, _ = at.mint("a", "default", 10)
    clock.advance(9.9)
    assert at.read(text)
    clock.advance(0.1)
    with pytest.raises(AccessDenied, match="expired"):
        at.read(text)


def test_keys_can_be_exchanged_without_a_gap() -> None:
    old, _ = desk("old-key-0123456789abc").mint("a", "default")
    assert desk("new-key-0123456789abc", "old-key-0123456789abc").read(old)
    with pytest.raises(AccessDenied, match="not one of this relay"):
        desk("new-key-0123456789abc").read(old)


def test_without_keys_each_start_makes_its_own() -> None:
    text, _ = TicketDesk().mint("a", "default")
    with pytest.raises(AccessDenied):
        TicketDesk().read(text)


def test_nothing_of_it_can_be_changed() -> None:
    at = desk()
    text, _ = at.mint("a", "default", 600)
    head, payload = text[: 9 + 8 + 43], text[9 + 8 + 43 :]
    claims = orjson.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(orjson.dumps(claims | {"pol": "admin"})).rstrip(b"=").decode()
    positions = range(len("ek_relay_"), len(text))
    flipped = [text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in positions]
    hostile = ["", "ek_relay_", "ek_relay_" + "x" * 60, "ek_relay_ü" + "x" * 80, head, text * 50, "sk-" + text]
    for bad in (head + forged, text + "A", *flipped, *hostile):
        with pytest.raises(AccessDenied):
            at.read(bad)
    assert len(text) < MAX_TICKET_CHARS


def test_a_single_use_ticket_works_once_and_is_the_only_kind_for_a_url() -> None:
    at = desk()
    once, _ = at.mint("a", "default", 60, single_use=True)
    assert at.read(once, in_url=True)
    with pytest.raises(AccessDenied, match="used already"):
        at.read(once)
    for many, _ in (at.mint("a", "default", 60), at.mint("a", "default", 61, single_use=True)):
        with pytest.raises(AccessDenied, match="In a URL"):
            at.read(many, in_url=True)


def test_what_it_configures_stays_here() -> None:
    at = desk()
    text, ticket = at.mint("a", "default", session={"type": "realtime", "instructions": "Be kind."})
    assert at.session_of(at.read(text).id) == {"type": "realtime", "instructions": "Be kind."}
    assert at.session_of(None) is None
    payload = base64.urlsafe_b64decode(text[9 + 8 + 43 :] + "==")
    assert b"kind" not in payload
    with pytest.raises(AccessDenied, match="restarted"):
        desk().read(text)
    assert at.session_of(ticket.id)


def test_the_memory_is_bounded_and_expired_tickets_make_room() -> None:
    clock = FakeClock(1000.0)
    at = TicketDesk(KEYS, clock)
    for _ in range(MAX_STORED):
        at.mint("a", "default", 600, session={"type": "realtime"})
    with pytest.raises(Full):
        at.mint("a", "default", 600, session={"type": "realtime"})
    clock.advance(601)
    assert at.mint("a", "default", 600, session={"type": "realtime"})


def test_it_is_taken_out_of_every_text() -> None:
    text, _ = desk().mint("a", "default")
    assert text[20:] not in redact(f"tried {text} in vain")
    assert text[20:] not in redact(f"GET /ws?ticket={text}")
