"""What came of requests, seen inside the relay: those that were judged, and those that a handler was given."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from relay.app.server import all_routes
from relay.auth.access import Access
from relay.auth.authenticator import Authenticator
from relay.endpoints.pages import is_websocket_upgrade
from relay.errors import AccessDenied
from relay.session.common.policy import Principal

TIMEOUT_S = 10.0


@dataclass
class Witness:
    """`let_in` holds what came to a handler that is not open to all; `judged` the statuses, 200 for who was let in."""

    let_in: list[str] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until_judged(self, n: int) -> list[int]:
        """Wait until so many requests for routes that are not open were judged."""
        async with asyncio.timeout(TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: len(self.judged) >= n)
        return self.judged

    async def note(self, status: int) -> None:
        async with self._news:
            self.judged.append(status)
            self._news.notify_all()


def watch(monkeypatch: pytest.MonkeyPatch) -> Witness:
    """A witness in place of every handler of the relays that the test makes from here on. It answers 200."""
    witness = Witness()

    def handler(access: Access) -> Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]:
        async def let_in(request: web.Request, principal: Principal) -> web.StreamResponse:
            if access is not Access.OPEN:
                how = "upgrade " if is_websocket_upgrade(request) else ""
                witness.let_in.append(f"{how}{request.method} {request.path}")
            return web.Response(text="let in")

        return let_in

    witnessed = tuple(
        replace(
            route,
            handler=handler(route.access),
            websocket=(route.websocket[0], handler(route.websocket[0])) if route.websocket else None,
        )
        for route in all_routes()
    )
    monkeypatch.setattr("relay.app.server.all_routes", lambda: witnessed)
    admit = Authenticator.authenticate

    async def judge(self: Authenticator, request: web.Request, access: Access, *rest: Any) -> Principal:
        try:
            principal = await admit(self, request, access, *rest)
        except AccessDenied as denied:
            await witness.note(denied.status)
            raise
        if access is not Access.OPEN:
            await witness.note(200)
        return principal

    monkeypatch.setattr(Authenticator, "authenticate", judge)
    return witness
