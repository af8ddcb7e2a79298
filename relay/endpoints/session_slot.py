"""Session slots and the upgrade, for the WebSocket routes of all client protocols."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from relay.app import context
from relay.auth.authenticator import select_subprotocol
from relay.session.common.policy import Principal
from relay.transport.read_budget import ReadBudget
from relay.transport.upgrade import upgrade_to_websocket
from relay.transport.websocket import WebSocketConnection


@asynccontextmanager
async def session_slot(request: web.Request, principal: Principal) -> AsyncIterator[Callable[[], None]]:
    """Hold a session slot and reserve the client's secret. Yields a callback that consumes the secret.

    Raises CapacityExceeded, and AccessDenied if the secret or the key is not valid any more.
    """
    app = request.app
    app[context.SESSIONS].check_not_draining()
    with (
        app[context.SESSION_LIMITER].acquire_session(app[context.AUTHENTICATOR].client_address(request)),
        app[context.CLIENT_SECRETS].reserve(principal.secret_id) as consume_secret,
    ):
        await app[context.SESSION_LIMITER].wait_session_turn()
        app[context.SESSIONS].check_still_authorized(principal)
        yield consume_secret


def accept_websocket(
    request: web.Request, socket: WebSocketConnection, read_budget: tuple[ReadBudget, str] | None = None
) -> bool:
    """Accept the upgrade and hand the connection over to `socket`; returns False if the client has disconnected."""
    subprotocol = select_subprotocol(request)
    return upgrade_to_websocket(
        request, socket, request.app[context.KEEPALIVE], subprotocol=subprotocol, read_budget=read_budget
    )
