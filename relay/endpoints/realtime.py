"""WebSocket route of Realtime clients, which control their own turns.

A client without an `Origin` is accepted after its upstream is connected, so that a failure is an HTTP status. A browser
sees only close code 1006 after a refused upgrade, so it is accepted first and gets an `error` event.
"""

from aiohttp import web

from relay.app import context
from relay.auth.authenticator import offered_subprotocols
from relay.config.policy_checks import require_value
from relay.endpoints.session_slot import accept_websocket, session_slot
from relay.errors import AccessDenied, CapacityExceeded, OpenAIError
from relay.protocols.client_protocol import OpeningHandshake, RealtimeClientProtocol
from relay.runtime.realtime import RealtimeRuntime
from relay.session.common.policy import Principal
from relay.transport.upgrade import check_upgrade, upgraded_response
from relay.transport.upstream import UpstreamConnectError
from relay.transport.websocket import WebSocketConnection

MAX_MODEL_CHARS = 200


async def serve_realtime(
    request: web.Request, principal: Principal, protocol: RealtimeClientProtocol
) -> web.StreamResponse:
    """Serve a Realtime client; returns when the session has ended."""
    app = request.app
    check_upgrade(request)
    refuse_unsupported(request)
    handshake = OpeningHandshake(request.path, request.query, request.headers, offered_subprotocols(request))
    codec = app[context.SESSION_FACTORY].create_realtime_codec(protocol.select_dialect(handshake))
    model = requested_model(request, principal, app[context.UPSTREAM].default_model)
    socket = WebSocketConnection(protocol.max_message_bytes, strict_utf8=True)
    async with session_slot(request, principal) as consume_secret:
        runtime = app[context.SESSION_FACTORY].create_realtime_session(principal, model, codec, socket)
        with app[context.SESSIONS].register(
            runtime, consume_secret, f"protocol={protocol.name} policy={principal.policy.name}"
        ):
            if "Origin" not in request.headers:
                await _connect_upstream_first(request, runtime)
            owner = app[context.AUTHENTICATOR].quota_key(request, principal)
            if accept_websocket(request, socket, (app[context.SESSIONS].read_budget, owner)):
                await runtime.run()
            else:
                runtime.abandon()
    return upgraded_response()


def refuse_unsupported(request: web.Request) -> None:
    """Raise OpenAIError (501) for sessions that the protocol has and this relay does not support."""
    if "call_id" in request.query:
        raise OpenAIError("call_id is not supported yet; connect with ?model=.", 501, "not_implemented", "call_id")
    if request.query.get("intent", "conversation") != "conversation":
        raise OpenAIError("Only conversations are supported yet; leave out intent.", 501, "not_implemented", "intent")


def requested_model(request: web.Request, principal: Principal, relay_model: str | None) -> str:
    """Return the model of the URL, "" for the relay's default, which is `relay_model` (None if the URL fixes it).

    Raises OpenAIError for a model that the policy does not allow, AccessDenied if it has no default model.
    """
    query, policy = request.query, principal.policy
    model = query.get("model") or query.get("deployment") or ""
    if len(model) > MAX_MODEL_CHARS:
        raise OpenAIError(f"model may have at most {MAX_MODEL_CHARS} characters.", 400, "invalid_value", "model")
    if model and not policy.allows_model(model):
        raise OpenAIError(
            f"The model '{model}' does not exist or you do not have access to it.", 404, "model_not_found", "model"
        )
    if model or relay_model is None:
        return model
    default = require_value("model", policy.default_model(relay_model))
    return "" if default == relay_model else default


async def _connect_upstream_first(request: web.Request, runtime: RealtimeRuntime) -> None:
    def is_client_gone() -> bool:
        return request.transport is None or request.transport.is_closing()

    try:
        await runtime.connect_upstream_first(is_client_gone)
    except UpstreamConnectError as error:
        status = _status_for_client(error.status)
        if not is_client_gone():
            runtime.on_handshake_refused(status, str(error))
        raise OpenAIError(str(error), status, "upstream_refused") from error
    try:  # nothing could report later why the session ended
        request.app[context.SESSIONS].check_still_authorized(runtime.core.principal)
    except (AccessDenied, CapacityExceeded) as error:
        runtime.abandon()
        runtime.on_handshake_refused(error.http_status, str(error))
        raise


def _status_for_client(status: int | None) -> int:
    """Return the status for the client: errors of its own request unchanged, errors of the relay's as 502."""
    if status in (400, 404, 429, 503):
        return status
    return 504 if status is None else 502
