"""What a client's request for a session goes through before it is one, whatever protocol the client speaks."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from relay.app.context import ADMISSION, AUTHENTICATOR, CLIENT_SECRETS, KEEPALIVE, SESSIONS
from relay.auth.authenticator import chosen_subprotocol
from relay.core.policy import Principal
from relay.peers.client_socket import take_over
from relay.peers.frames import StrictTextListener
from relay.peers.read_budget import ReadBudget


@asynccontextmanager
async def session_slot(request: web.Request, principal: Principal) -> AsyncIterator[Callable[[], None]]:
    """Hold a session slot and the client's secret, after waiting for a turn. Yields what spends the secret.

    Raises Full, TooOften, and AccessDenied where the secret or the key is not valid any more.
    """
    app = request.app
    app[SESSIONS].refuse_when_draining()
    with (
        app[ADMISSION].session(app[AUTHENTICATOR].address(request)),
        app[CLIENT_SECRETS].in_use(principal.secret_id) as spend,
    ):
        await app[ADMISSION].turn()
        app[SESSIONS].check_still_admitted(principal)
        yield spend


def accept(request: web.Request, socket: StrictTextListener, read_within: tuple[ReadBudget, str] | None = None) -> bool:
    """Answer the upgrade and give the connection to `socket`; False if the client has left."""
    subprotocol = chosen_subprotocol(request)
    return take_over(request, socket, request.app[KEEPALIVE], subprotocol=subprotocol, read_within=read_within)
