"""Client secrets: what they say, every way in which they are not good, and what they cost."""

import string

import jwt
import pytest

from relay.auth.client_secrets import MAX_SECRET_CHARS, ClientSecretIssuer, signing_key
from relay.errors import AccessDenied, RateLimited
from relay.session.common.policy import Policy
from relay.session.common.redact import redact
from relay.testing import FakeClock

KEYS = ("the-first-key-0123456789", "the-second-key-0123456789")
SESSION = {"type": "realtime", "instructions": "Be kind."}


def issuer(*keys: str, at: float = 1000.0, **options: int) -> ClientSecretIssuer:
    return ClientSecretIssuer(keys or KEYS, FakeClock(at), **options)


def test_a_secret_says_what_it_was_made_for() -> None:
    issued = issuer()
    text, minted = issued.mint("key-1/visitor", Policy("kiosk"), 600)
    assert text.startswith("ek_relay_")
    assert issued.verify(text) == minted
    assert (minted.identity, minted.policy, minted.expires_at) == ("key-1/visitor", "kiosk", 1600)
    assert minted.scopes == {"session", "tools"}


def test_it_gives_no_more_than_its_policy() -> None:
    narrow = Policy("kiosk", scopes=frozenset({"session", "mint", "provider_secret"}))
    assert issuer().mint("a", narrow)[1].scopes == {"session"}


def test_it_is_a_json_web_token_of_the_usual_kind() -> None:
    text, minted = issuer().mint("key-1", Policy("kiosk"), 600)
    token = text.removeprefix("ek_relay_")
    assert jwt.get_unverified_header(token).keys() == {"alg", "kid", "typ"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {
        "aud": "relay-client", "jti": minted.id, "sub": "key-1", "pol": "kiosk", "scp": ["session", "tools"],
        "iat": 1000, "exp": 1600,
    }  # fmt: skip


def test_it_ends_with_its_time() -> None:
    clock = FakeClock(1000.0)
    issued = ClientSecretIssuer(KEYS, clock)
    text, _ = issued.mint("a", Policy("default"), 10)
    clock.advance(9.9)
    assert issued.verify(text)
    clock.advance(0.1)
    with pytest.raises(AccessDenied, match="expired"):
        issued.verify(text)


def test_keys_can_be_exchanged_without_a_gap() -> None:
    old, _ = issuer("old-key-0123456789abc").mint("a", Policy("default"))
    assert issuer("new-key-0123456789abc", "old-key-0123456789abc").verify(old)
    with pytest.raises(AccessDenied, match="not one of this relay"):
        issuer("new-key-0123456789abc").verify(old)
    reloaded = issuer("old-key-0123456789abc")
    reloaded.set_keys(("new-key-0123456789abc",))
    with pytest.raises(AccessDenied, match="RELAY_TICKET_KEYS"):
        reloaded.verify(old)


def test_without_keys_each_start_makes_its_own() -> None:
    text, _ = ClientSecretIssuer().mint("a", Policy("default"))
    with pytest.raises(AccessDenied):
        ClientSecretIssuer().verify(text)


def test_nothing_of_it_can_be_changed() -> None:
    issued = issuer()
    text, _ = issued.mint("a", Policy("default"), 600)
    positions = range(len("ek_relay_"), len(text))
    alphabet = string.ascii_letters + string.digits + "-_"
    flipped = [text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in positions]
    last = [text[:-1] + character for character in alphabet if character != text[-1]]
    token = text.removeprefix("ek_relay_")
    claims = jwt.decode(token, options={"verify_signature": False})
    header = {"kid": jwt.get_unverified_header(token)["kid"]}
    forged = [
        "ek_relay_" + jwt.encode(claims, "", "none", headers=header),
        "ek_relay_" + jwt.encode(claims | {"pol": "admin"}, KEYS[0] + "x" * 16, "HS256", headers=header),
        "ek_relay_" + jwt.encode(claims, signing_key("admin login", KEYS[0]), "HS256", headers=header),
        "ek_relay_" + jwt.encode(claims | {"aud": "other"}, signing_key("client secret", KEYS[0]), headers=header),
        *(
            "ek_relay_"
            + jwt.encode(
                {name: claim for name, claim in claims.items() if name != missing},
                signing_key("client secret", KEYS[0]),
                headers=header,
            )
            for missing in claims
        ),
    ]
    hostile = [
        "",
        "ek_relay_",
        "ek_relay_...",
        "ek_relay_" + "x" * 60,
        "ek_relay_ü" + "x" * 80,
        text * 50,
        "sk-" + text,
    ]
    for bad in (text + "A", text + "=", text + ".", *flipped, *last, *forged, *hostile):
        with pytest.raises(AccessDenied):
            issued.verify(bad)


def test_one_with_the_longest_of_everything_is_no_longer_than_4_kib() -> None:
    text, _ = issuer().mint(
        f"key-0123456789ab/{chr(0x1F600) * 128}", Policy("p" * 64), 7200, session=SESSION, single_use=True
    )
    assert len(text) < MAX_SECRET_CHARS


# -- single use -------------------------------------------------------------------------------------------------------


def test_a_single_use_secret_is_spent_once_there_is_a_session() -> None:
    issued = issuer()
    text, secret = issued.mint("a", Policy("default"), 60, single_use=True)
    with issued.reserve(issued.verify(text).id):
        with pytest.raises(AccessDenied, match="used already"):
            issued.verify(text)
        with pytest.raises(AccessDenied, match="used already"), issued.reserve(secret.id):
            pass
    # No session came of it: it is as good as before.
    with issued.reserve(issued.verify(text).id) as spend:
        spend()
    with pytest.raises(AccessDenied, match="used already"):
        issued.verify(text)


def test_a_session_that_fails_leaves_it_unspent() -> None:
    issued = issuer()
    text, secret = issued.mint("a", Policy("default"), 60, single_use=True)
    with pytest.raises(ZeroDivisionError), issued.reserve(secret.id):
        1 / 0  # noqa: B018
    assert issued.verify(text)


def test_any_other_secret_is_never_spent() -> None:
    issued = issuer()
    text, secret = issued.mint("a", Policy("default"), session=SESSION)
    for _ in range(2):
        with issued.reserve(secret.id) as spend, issued.reserve(secret.id):
            spend()
    assert issued.verify(text)


def test_it_works_at_the_process_that_made_it_alone() -> None:
    here, there = issuer(), issuer()
    once, _ = here.mint("a", Policy("default"), 60, single_use=True)
    for other in (there, issuer()):  # another process with the same keys, and this one after a restart
        with pytest.raises(AccessDenied, match="another relay process made it"):
            other.verify(once)
    many, _ = here.mint("a", Policy("default"), 60)
    assert there.verify(many)


def test_it_opens_a_session_and_nothing_else() -> None:
    assert issuer().mint("a", Policy("default"), 60, single_use=True)[1].scopes == {"session"}


def test_in_a_url_it_must_be_single_use_and_short_lived() -> None:
    issued = issuer()
    once, _ = issued.mint("a", Policy("default"), 60, single_use=True)
    assert issued.verify(once, in_url=True)
    for many, _ in (issued.mint("a", Policy("default"), 60), issued.mint("a", Policy("default"), 61, single_use=True)):
        with pytest.raises(AccessDenied, match="In a URL"):
            issued.verify(many, in_url=True)


# -- what a secret configures, and what that costs --------------------------------------------------------------------


def test_what_it_configures_stays_here() -> None:
    issued = issuer()
    text, secret = issued.mint("a", Policy("default"), session=SESSION)
    assert issued.session_config_for(issued.verify(text).id) == SESSION
    assert issued.session_config_for(None) is None
    assert "kind" not in str(jwt.decode(text.removeprefix("ek_relay_"), options={"verify_signature": False}))
    with pytest.raises(AccessDenied, match="restarted"):
        issuer().verify(text)
    assert issued.session_config_for(secret.id) == SESSION


def test_one_key_fills_its_own_share_and_no_other_keys() -> None:
    issued = issuer(minted_bytes=10 * 1024)
    for n in range(9):
        issued.mint(f"key-1/visitor-{n}", Policy("default"), 600, session=SESSION)
    with pytest.raises(RateLimited, match="RELAY_MINTED_MAX_MB") as refused:
        issued.mint("key-1/another", Policy("default"), 600, session=SESSION)
    assert refused.value.retry_after_s == 600
    assert issued.mint("key-2", Policy("default"), 600, session=SESSION)
    assert issued.mint("key-1", Policy("default"), 600), "what takes no memory is not counted"
    with pytest.raises(RateLimited):
        issued.mint("key-1", Policy("default"), 600, single_use=True)


def test_expired_secrets_make_room() -> None:
    clock = FakeClock(1000.0)
    issued = ClientSecretIssuer(KEYS, clock, minted_bytes=4 * 1024)
    kept, _ = issued.mint("key-1", Policy("default"), 900, session=SESSION)
    for _ in range(2):
        issued.mint("key-1", Policy("default"), 600, session=SESSION)
    with pytest.raises(RateLimited):
        issued.mint("key-1", Policy("default"), 600, session=SESSION)
    clock.advance(601)
    for _ in range(2):
        assert issued.mint("key-1", Policy("default"), 600, session=SESSION)
    assert issued.session_config_for(issued.verify(kept).id) == SESSION


def test_a_big_session_counts_by_its_bytes() -> None:
    issued = issuer(minted_bytes=100 * 1024)
    issued.mint("key-1", Policy("default"), session={"instructions": "x" * 60_000})
    with pytest.raises(RateLimited):
        issued.mint("key-1", Policy("default"), session={"instructions": "x" * 60_000})


def test_it_is_taken_out_of_every_text() -> None:
    text, _ = issuer().mint("a", Policy("default"))
    for part in text.removeprefix("ek_relay_").split("."):
        assert part not in redact(f"tried {text} in vain")
        assert part not in redact(f"GET /ws?ticket={text}")
