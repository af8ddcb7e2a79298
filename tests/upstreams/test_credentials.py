"""Bearer tokens from a callable: asked for each dial, shared by dials at the same time, given up when it hangs."""

import asyncio
import threading
import traceback

import pytest

from relay.errors import ConfigError
from relay.upstreams.credentials import (
    MAX_HUNG_FETCHES,
    KeyCredential,
    TokenCredential,
    TokenUnavailable,
    load_token_provider,
)

TIMEOUT_S = 10.0


async def test_a_key_goes_into_its_header_and_out_of_sight() -> None:
    assert await KeyCredential("api-key", "secret-1").headers() == {"api-key": "secret-1"}
    assert await KeyCredential("bearer", "secret-1").headers() == {"Authorization": "Bearer secret-1"}
    assert "secret-1" not in repr(KeyCredential("api-key", "secret-1"))


async def test_a_callable_is_asked_each_time() -> None:
    tokens = iter(["one", "two"])
    credential = TokenCredential(lambda: next(tokens))
    assert await credential.headers() == {"Authorization": "Bearer one"}
    assert await credential.headers() == {"Authorization": "Bearer two"}


async def test_it_may_be_async_or_give_an_awaitable() -> None:
    async def token() -> str:
        return "async-token"

    for source in (token, lambda: token()):
        assert await TokenCredential(source).headers() == {"Authorization": "Bearer async-token"}


async def test_a_blocking_one_blocks_nobody_else_and_is_shared() -> None:
    go, calls = threading.Event(), []

    def token() -> str:
        calls.append(threading.current_thread())
        assert go.wait(TIMEOUT_S)
        return "slow-token"

    credential = TokenCredential(token)
    dials = [asyncio.create_task(credential.headers()) for _ in range(20)]
    await asyncio.sleep(0)  # all have asked
    dials[0].cancel()
    go.set()
    found = await asyncio.gather(*dials, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [{"Authorization": "Bearer slow-token"}] * 19
    assert len(calls) == 1
    assert calls[0] is not threading.main_thread()


def raising() -> str:
    raise RuntimeError("tenant 123 said: client_secret=abc-very-secret")


@pytest.mark.parametrize(
    "source", [raising, lambda: None, lambda: 5, lambda: "", lambda: "a b", lambda: "a\r\nX: 1", lambda: next(iter([]))]
)
async def test_what_is_no_token_is_told_without_its_words(source) -> None:
    with pytest.raises(TokenUnavailable) as error:
        await TokenCredential(source).headers()
    assert "very-secret" not in "".join(traceback.format_exception(error.value))


async def test_one_that_hangs_is_given_up_and_does_not_pile_up() -> None:
    go, calls = threading.Event(), []

    def hang() -> str:
        calls.append(1)
        go.wait(TIMEOUT_S)
        return "late"

    credential = TokenCredential(hang, timeout_s=0.01)
    try:
        for _ in range(MAX_HUNG_FETCHES + 3):
            with pytest.raises(TokenUnavailable):
                await credential.headers()
        assert len(calls) == MAX_HUNG_FETCHES
    finally:
        go.set()


def test_a_callable_is_found_by_its_name() -> None:
    assert load_token_provider("tests.upstreams.test_credentials:raising", "RELAY_AZURE_TOKEN") is raising
    for name in ("no.such.module:x", "os:no_such_name", "os:sep"):
        with pytest.raises(ConfigError, match=f"RELAY_AZURE_TOKEN={name}"):
            load_token_provider(name, "RELAY_AZURE_TOKEN")
