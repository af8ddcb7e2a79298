from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client import InvalidURL
from relay.client.handshake import parse_url


@pytest.mark.parametrize(
    ("url", "dialled", "address"),
    [
        ("ws://host:8080/", "ws://host:8080/", "ws://host:8080/"),
        ("https://host/ws?voice=a%20b", "wss://host/ws?voice=a%20b", "wss://host/ws"),
        ("host:9", "ws://host:9/", "ws://host:9/"),
        ("ws://host/?rate=16000", "ws://host/?rate=16000", "ws://host/"),
        ("wss://me:secret@host/#part", "wss://me:secret@host/", "wss://host/"),
        ("ws://[::1]:8080", "ws://[::1]:8080/", "ws://[::1]:8080/"),
    ],
)
def test_urls(url: str, dialled: str, address: str) -> None:
    target = parse_url(url)
    assert (target.url, target.address) == (dialled, address)


@given(st.text(max_size=40), st.sampled_from(["", "ws://", "http://h/?", "ws://h/?rate="]))
def test_any_other_text_is_a_sentence_at_worst(url: str, prefix: str) -> None:
    with suppress(InvalidURL):
        assert parse_url(prefix + url).url.startswith(("ws://", "wss://"))
