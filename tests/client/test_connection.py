from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.connection import TalkError, target_of


@pytest.mark.parametrize(
    ("url", "dialled", "shown", "rate_hz"),
    [
        ("ws://host:8080/", "ws://host:8080/?rate=24000", "ws://host:8080/", 24000),
        ("https://host/ws?voice=a%20b", "wss://host/ws?voice=a%20b&rate=24000", "wss://host/ws", 24000),
        ("host:9", "ws://host:9/?rate=24000", "ws://host:9/", 24000),
        ("ws://host/?rate=16000", "ws://host/?rate=16000", "ws://host/", 16000),
        ("ws://host/?format=pcma", "ws://host/?format=pcma&rate=8000", "ws://host/", 8000),
        ("wss://me:secret@host/#part", "wss://me:secret@host/?rate=24000", "wss://host/", 24000),
        ("ws://[::1]:8080", "ws://[::1]:8080/?rate=24000", "ws://[::1]:8080/", 24000),
    ],
)
def test_urls(url: str, dialled: str, shown: str, rate_hz: int) -> None:
    target = target_of(url, 24000)
    assert (target.url, target.shown, target.rate_hz) == (dialled, shown, rate_hz)


@given(st.text(max_size=40), st.sampled_from(["", "ws://", "http://h/?", "ws://h/?rate="]))
def test_any_other_text_is_a_sentence_at_worst(url: str, prefix: str) -> None:
    with suppress(TalkError):
        assert target_of(prefix + url, 24000).url.startswith(("ws://", "wss://"))
