"""How the relay shows who it is to a model's end: a key in a header, or a bearer token that is fetched anew."""

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
"""Gives a bearer token; called for every dial, so it may cache. Blocking ones run in a thread of their own."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class TokenUnavailable(UpstreamError):
    """The callable that gives the bearer token raised, hung, or gave something else."""


@dataclass(frozen=True, slots=True)
class KeyCredential:
    """One way of showing who we are: `Authorization: Bearer …` or `api-key: …`, never both."""

    kind: Literal["bearer", "api-key"]
    secret: str = field(repr=False)

    async def headers(self) -> dict[str, str]:
        """The header to send."""
        return {"api-key": self.secret} if self.kind == "api-key" else {"Authorization": f"Bearer {self.secret}"}


class TokenCredential:
    """A bearer token from a callable. Dials at the same time share one call; one that hangs is given up.

    At most `MAX_HUNG_FETCHES` calls that hang are abandoned; then none is begun until one of them returns.
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
        """The header to send. Raises TokenUnavailable, without what the callable said: it may hold a secret."""
        task = self._fetch_task
        if task is None or task.done():
            task = self._fetch_task = asyncio.get_running_loop().create_task(self._fetch_token())
        # Shielded: whoever gives up waiting must not take the token from the others.
        return {"Authorization": f"Bearer {await asyncio.shield(task)}"}

    async def _fetch_token(self) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                token = await self._call_provider()
        except TokenUnavailable:
            raise
        except TimeoutError:
            raise TokenUnavailable(
                "The bearer token did not come in time; look at the callable that gives it."
            ) from None
        except Exception as error:
            raise TokenUnavailable(f"The bearer token could not be had ({type(error).__name__}).") from None
        if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
            raise TokenUnavailable("The callable that gives the bearer token returned something that is none.")
        if self._on_token is not None:
            self._on_token(token)
        return token

    async def _call_provider(self) -> Any:
        if inspect.iscoroutinefunction(self._provider):
            return await self._provider()
        if self._n_running >= MAX_HUNG_FETCHES:
            raise TokenUnavailable("The callable that gives the bearer token hangs.")
        result = await self._call_in_thread()
        return await result if inspect.isawaitable(result) else result

    async def _call_in_thread(self) -> Any:
        # A daemon thread rather than the loop's executor: one that hangs must not hold up the end of the process.
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
                failure = RuntimeError("StopIteration")  # which a future refuses to hold
            except Exception as error:
                failure = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(set_outcome, result, failure)

        self._n_running += 1
        threading.Thread(target=run, name="bearer-token", daemon=True).start()
        return await future


UpstreamCredential = KeyCredential | TokenCredential


def load_token_provider(name: str, setting: str) -> TokenProvider:
    """The callable that `package.module:function` names. Raises ConfigError with `setting` and the reason."""
    module_name, _, attribute = name.partition(":")
    try:
        provider = functools.reduce(getattr, attribute.split("."), importlib.import_module(module_name))
    except Exception as error:  # whatever a module raises while it loads
        raise ConfigError(f"{setting}={name} cannot be loaded ({type(error).__name__}: {error})") from error
    if not callable(provider):
        raise ConfigError(f"{setting}={name} is no callable that gives a bearer token")
    source: TokenProvider = provider
    return source
