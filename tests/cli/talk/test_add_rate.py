from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli.talk.talk import TalkError, add_rate
from relay.client import InvalidURL
from relay.client.handshake import parse_url


@pytest.mark.parametrize(
    ("url", "with_rate", "rate_hz"),
    [
        ("ws://host:8080/", "ws://host:8080/?rate=24000", 24000),
        ("https://host/ws?voice=a%20b", "https://host/ws?voice=a%20b&rate=24000", 24000),
        ("host:9", "ws://host:9?rate=24000", 24000),
        ("ws://host/?rate=16000", "ws://host/?rate=16000", 16000),
        ("ws://host/?format=pcma", "ws://host/?format=pcma&rate=8000", 8000),
    ],
)
def test_the_rate_is_asked_for_in_the_query(url: str, with_rate: str, rate_hz: int) -> None:
    assert add_rate(url, 24000) == (with_rate, rate_hz)


@given(st.text(max_size=40), st.sampled_from(["", "ws://", "http://h/?", "ws://h/?rate="]))
def test_any_other_text_is_a_sentence_at_worst(url: str, prefix: str) -> None:
    with suppress(TalkError, InvalidURL):
        assert parse_url(add_rate(prefix + url, 24000)[0]).url.startswith(("ws://", "wss://"))
