"""Credentials for an upstream: a key in a header, or a bearer token that is fetched for each connection."""

import asyncio
import functools
import importlib
import inspect
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from relay.errors import ConfigError, UpstreamError

TOKEN_TIMEOUT_S = 10.0
MAX_HUNG_FETCHES = 4

TokenProvider = Callable[[], str] | Callable[[], Awaitable[str]]
"""Returns a bearer token. It is called for every connection and may cache; a blocking one runs in its own thread."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class TokenUnavailable(UpstreamError):
    """The token provider raised, hung, or returned something other than a token."""


@dataclass(frozen=True, slots=True)
class KeyCredential:
    """A fixed key, sent as `Authorization: Bearer …` or `api-key: …`."""

    kind: Literal["bearer", "api-key"]
    secret: str = field(repr=False)

    async def headers(self) -> dict[str, str]:
        """Return the header to send."""
        return {"api-key": self.secret} if self.kind == "api-key" else {"Authorization": f"Bearer {self.secret}"}


class TokenCredential:
    """A bearer token from a token provider. Concurrent connections share one call; a call that hangs is abandoned.

    After `MAX_HUNG_FETCHES` abandoned calls, no other one starts until one of them returns.
    """

    def __init__(
        self,
        provider: TokenProvider,
        timeout_s: float = TOKEN_TIMEOUT_S,
        on_token: Callable[[str], None] | None = None,
    ) -> None:
        """`on_token` gets each token before it is used."""
        self._provider = provider
        self._on_token = on_token
        self._timeout_s = timeout_s
        self._fetch_task: asyncio.Task[str] | None = None
        self._n_running = 0

    async def headers(self) -> dict[str, str]:
        """Return the header to send. Raises TokenUnavailable, without the provider's text, which may have a secret."""
        task = self._fetch_task
        if task is None or task.done():
            task = self._fetch_task = asyncio.get_running_loop().create_task(self._fetch_token())
        # Shielded: one cancelled waiter must not cancel the call that others wait for.
        return {"Authorization": f"Bearer {await asyncio.shield(task)}"}

    async def _fetch_token(self) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                token = await self._call_provider()
        except TokenUnavailable:
            raise
        except TimeoutError:
            raise TokenUnavailable(
                f"The token provider did not return within {self._timeout_s:g} s; check RELAY_AZURE_TOKEN."
            ) from None
        except Exception as error:
            text = f"The token provider failed ({type(error).__name__}); check RELAY_AZURE_TOKEN."
            raise TokenUnavailable(text) from None
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            text = f"The token provider returned {type(token).__name__}, expected a non-empty ASCII string."
            raise TokenUnavailable(text)
        if self._on_token is not None:
            self._on_token(token)
        return token

    async def _call_provider(self) -> Any:
        if inspect.iscoroutinefunction(self._provider):
            return await self._provider()
        if self._n_running >= MAX_HUNG_FETCHES:
            raise TokenUnavailable(f"{MAX_HUNG_FETCHES} calls to the token provider hang; check RELAY_AZURE_TOKEN.")
        result = await self._call_in_thread()
        return await result if inspect.isawaitable(result) else result

    async def _call_in_thread(self) -> Any:
        # A daemon thread instead of the loop's executor: a hanging call must not delay the exit of the process.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def set_outcome(result: Any, error: BaseException | None) -> None:
            self._n_running -= 1
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            result: Any = None
            failure: Exception | None = None
            try:
                result = self._provider()
            except StopIteration:
                failure = RuntimeError("StopIteration")  # a future cannot hold it
            except Exception as error:
                failure = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(set_outcome, result, failure)

        self._n_running += 1
        threading.Thread(target=run, name="bearer-token", daemon=True).start()
        return await future


UpstreamCredential = KeyCredential | TokenCredential


def load_token_provider(name: str, setting: str) -> TokenProvider:
    """Import the callable that `package.module:function` names. Raises ConfigError with `setting` and the reason."""
    module_name, _, attribute = name.partition(":")
    try:
        provider = functools.reduce(getattr, attribute.split("."), importlib.import_module(module_name))
    except Exception as error:  # a module may raise anything while it loads
        raise ConfigError(f"{setting}={name} cannot be loaded ({type(error).__name__}: {error})") from error
    if not callable(provider):
        raise ConfigError(f"{setting}={name} is not a callable; it must name a function that returns a bearer token")
    source: TokenProvider = provider
    return source
