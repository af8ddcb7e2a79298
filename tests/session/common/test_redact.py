"""No credential gets into a text that others may read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.session.common.redact import MAX_CHARS, close_reason, redact


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-Ab12_cd-34. Find yours in the settings.", "Ab12"),
        ("Incorrect API key provided: sk-abc*****wxyz.", "wxyz"),
        ("the secret ek_68af296e8e408191a1120ab6383263c2 has expired", "68af"),
        ("ticket ek_relay_v1.abc is not valid", "relay_v1"),
        ("xi-api-key: 0123456789abcdef", "0123456789abcdef"),
        ("Authorization: Bearer abc.def-ghi", "abc.def"),
        ("authorization: bearer   0123456789", "0123456789"),
        ("api-key: 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ('{"api_key": "0123456789abcdef"}', "0123456789abcdef"),
        ("wss://example.com/v1/realtime?api-key=0123456789&model=m", "0123456789"),
        ("ws://relay/?ticket=t1cket-value#x", "t1cket"),
        ("cannot reach wss://user:pa55word@example.com/v1", "pa55word"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl was refused", "c2lnbmF0dXJl"),
    ],
)
def test_a_credential_is_redacted_and_the_rest_stays(text: str, secret: str) -> None:
    redacted = redact(text)
    assert secret not in redacted
    assert "[…]" in redacted
    assert redacted.split()[0] == text.split()[0] or "[…]" in redacted.split()[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You must provide a model: task-force, desk-top and risk_free are no keys.",
        "wss://example.com:8443/v1/realtime?model=gpt-realtime",
        "Unknown parameter: 'session.type'.",
        "the key was not accepted; check the key in the relay's settings",
    ],
)
def test_a_harmless_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_several_credentials_in_one_text() -> None:
    assert redact("sk-aaaaaaaa or ?key=bbbb&x=1 or Bearer cccccc") == "[…] or ?[…]&x=1 or […]"


@pytest.mark.parametrize("n_chars", [0, MAX_CHARS - 1, MAX_CHARS, MAX_CHARS + 1, 10_000_000])
def test_a_text_has_a_bound(n_chars: int) -> None:
    assert redact("x" * n_chars) == "x" * min(n_chars, MAX_CHARS)


def test_the_cut_comes_after_the_search_so_that_half_a_key_is_never_left() -> None:
    assert redact("x" * 10 + " sk-0123456789", max_chars=16) == "x" * 10 + " […]"


@given(st.text(st.sampled_from("sk-e_/:@?=& keyBearer.\n\u00e4"), max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    assert len(redact(text)) <= MAX_CHARS


@pytest.mark.parametrize("text", ["", "bye", "ä" * 200, "a" + "ä" * 200, "aa" + "😀" * 60, "\U0010ffff" * 40])
def test_the_reason_of_a_close_frame_is_cut_between_characters(text: str) -> None:
    reason = close_reason(text)
    assert text.startswith(reason)
    n_bytes = len(reason.encode())
    assert n_bytes <= 123
    assert n_bytes > 123 - 4 or reason == text


def test_the_reason_of_a_close_frame_holds_no_key() -> None:
    assert close_reason("refused sk-abcdefgh") == "refused […]"


_PARTS = (
    "key", "KEY", "\u212aey", "ap\u0131", "api", "-", "_", "=", ":", " ", '"', "'", "sk", "ek", "ek_relay", "rk", "pk",
    "xi", "x\u0131", "bearer", "Bearer", "eyJ", "token", "to\u212aen", "ticket", "t\u0131cket", "T\u0130CKET", "://",
    "@", "a1b2", "0123456789", "\u017f",
)  # fmt: skip
"""Some with letters that an expression takes for k, i or s where case does not count."""


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(_PARTS), max_size=8).map("".join))
def test_the_quick_check_misses_nothing(text: str) -> None:
    """A text with a word of credentials in it is searched in full; one without must come out the same."""
    assert redact(text, 1000) == redact("key\n" + text, 1000)[4:]
