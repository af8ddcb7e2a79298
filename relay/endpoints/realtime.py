"""Realtime clients: sessions of OpenAI's Realtime protocol and its dialects, whose clients own the turns.

Without an `Origin` the upstream is dialled before the client is accepted, so that a refusal is an HTTP status; a page
sees a refused upgrade as nothing but 1006, so it is accepted first and gets an `error` event.
"""

from aiohttp import web

from relay.app.context import AUTHENTICATOR, SESSION_FACTORY, SESSIONS, UPSTREAM
from relay.auth.authenticator import offered_subprotocols
from relay.core.policy import Principal
from relay.endpoints.session_upgrade import accept, session_slot
from relay.errors import AccessDenied, ApiError, Full
from relay.peers.client_socket import check_upgrade, upgraded_response
from relay.peers.frames import StrictTextListener
from relay.peers.upstream import UpstreamRefusal
from relay.permissions import require_value
from relay.protocols.client_protocol import Opening, RealtimeClientProtocol
from relay.runtime.realtime import RealtimeRuntime

MAX_MODEL_CHARS = 200


async def realtime_socket(
    request: web.Request, principal: Principal, protocol: RealtimeClientProtocol
) -> web.StreamResponse:
    """Serve a Realtime client until it is gone."""
    app = request.app
    check_upgrade(request)
    refuse_other_kinds(request)
    opening = Opening(request.path, request.query, request.headers, offered_subprotocols(request))
    codec = app[SESSION_FACTORY].realtime_codec(protocol.dialect(opening))
    model = requested_model(request, principal, app[UPSTREAM].own_model)
    socket = StrictTextListener(protocol.max_message_bytes)
    async with session_slot(request, principal) as spend:
        live = app[SESSION_FACTORY].realtime(principal, model, codec, socket)
        with app[SESSIONS].registered(live, spend, f"Realtime, policy {principal.policy.name}"):
            if "Origin" not in request.headers:
                await _dial_first(request, live)
            owner = app[AUTHENTICATOR].owner(request, principal)
            if accept(request, socket, (app[SESSIONS].read_budget, owner)):
                await live.run()
            else:
                live.give_up()
    return upgraded_response()


def refuse_other_kinds(request: web.Request) -> None:
    """Raise ApiError (501) for what the protocol has besides conversations over this socket."""
    if "call_id" in request.query:
        raise ApiError("This relay does not attach to calls yet.", 501, "not_implemented", "call_id")
    if request.query.get("intent", "conversation") != "conversation":
        raise ApiError(
            "This relay holds conversations only, no transcription sessions yet.", 501, "not_implemented", "intent"
        )


def requested_model(request: web.Request, principal: Principal, own: str | None) -> str:
    """The model that the URL asks for, "" for the relay's own; `own` is its name, None if no policy matters to it.

    Raises ApiError for a model that the policy does not allow, AccessDenied where it allows none by itself.
    """
    query, policy = request.query, principal.policy
    model = query.get("model") or query.get("deployment") or ""
    if len(model) > MAX_MODEL_CHARS:
        raise ApiError(f"model may have at most {MAX_MODEL_CHARS} characters.", 400, "invalid_value", "model")
    if model and not policy.allows_model(model):
        raise ApiError(
            f"The model '{model}' does not exist or you do not have access to it.", 404, "model_not_found", "model"
        )
    if model or own is None:
        return model
    default = require_value("model", policy.default_model(own))
    return "" if default == own else default


async def _dial_first(request: web.Request, live: RealtimeRuntime) -> None:
    def is_gone() -> bool:
        return request.transport is None or request.transport.is_closing()

    try:
        await live.dial_first(is_gone)
    except UpstreamRefusal as refusal:
        status = _client_status(refusal.status)
        if not is_gone():
            live.not_accepted(status, str(refusal))
        raise ApiError(str(refusal), status, "upstream_refused") from refusal
    try:  # a session that has ended meanwhile could not tell its client so
        request.app[SESSIONS].check_still_admitted(live.core.principal)
    except (AccessDenied, Full) as late:
        live.give_up()
        live.not_accepted(late.status if isinstance(late, AccessDenied) else late.http_status, str(late))
        raise


def _client_status(status: int | None) -> int:
    """What the client is told of the upstream's status: its own requests' faults as they are, the relay's as 502."""
    if status in (400, 404, 429, 503):
        return status
    return 504 if status is None else 502
