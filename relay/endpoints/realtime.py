"""The Realtime protocol's way in: `/v1/realtime?model=`, and Azure's `/openai/v1/realtime` and `/openai/realtime`.

Without an `Origin` the upstream is dialled before the client is accepted, so that a refusal is an HTTP status; a page
sees a refused upgrade as nothing but 1006, so it is accepted first and told in an `error` event.
"""

import functools
import logging
from collections.abc import Callable

from aiohttp import web

from relay.auth.authenticator import chosen_subprotocol, offered_subprotocols
from relay.core.policy import Principal, is_open
from relay.core.policy_table import names_voice, with_voice
from relay.endpoints.permissions import require_value
from relay.endpoints.session_life import registered
from relay.errors import AccessDenied, ApiError, Full
from relay.peers.client_socket import check_upgrade, take_over, upgraded_response
from relay.peers.frames import StrictTextListener
from relay.peers.upstream import UpstreamRefusal
from relay.recording.beginning import Beginning, RealtimeStart
from relay.recording.session_recorder import SessionRecorder
from relay.runtime.realtime import RealtimeRuntime
from relay.session.realtime.session import RealtimeSession
from relay.state import RELAY, RelayState
from relay.wire.beta import BetaClient, BetaUpstream
from relay.wire.front import FrontCodec

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The API takes 15 MiB of audio in one event."""
MAX_MODEL_CHARS = 200
BETA_HEADER = "realtime=v1"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"

_log = logging.getLogger("relay.session")


async def realtime_socket(request: web.Request, principal: Principal) -> web.StreamResponse:
    """Serve a Realtime client until it is gone."""
    relay = request.app[RELAY]
    check_upgrade(request)
    refuse_other_kinds(request)
    model = requested_model(request, principal, relay.own_model)
    relay.refuse_when_draining()
    with (
        relay.admission.session(relay.auth.address(request)),
        relay.client_secrets.in_use(principal.secret_id) as spend,
    ):
        await relay.turn(principal)
        return await _converse(request, relay, principal, model, spend)


async def _converse(
    request: web.Request, relay: RelayState, principal: Principal, model: str, spend: Callable[[], None]
) -> web.StreamResponse:
    session_id, start = relay.new_session_id(), _start(relay, principal, model)
    beginning = Beginning.of_realtime(
        session_id, relay.tool_specs(), start, principal, relay.now(), relay.settings.session_limits()
    )
    recorder = relay.recordings.open(beginning, relay.now, start.model)
    socket = StrictTextListener(MAX_MESSAGE_BYTES)
    live = _live_session(relay, beginning.realtime_session(), start.model, socket, recorder, speaks_beta(request))
    with registered(relay, live, recorder, spend):
        _log.info("session %s begins: %s, Realtime, policy %s", session_id, principal.identity, principal.policy.name)
        if "Origin" not in request.headers:
            await _dial_first(request, live)
        subprotocol = chosen_subprotocol(request)
        owner = relay.auth.owner(request, principal)
        if take_over(
            request,
            socket,
            relay.keepalive,
            subprotocol=subprotocol,
            read_within=(relay.read_budget, owner),
        ):
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


def speaks_beta(request: web.Request) -> bool:
    """Whether the client speaks the beta dialect: by header, by a page's subprotocol, or by Azure's preview path."""
    if BETA_HEADER in request.headers.get("OpenAI-Beta", "") or BETA_SUBPROTOCOL in offered_subprotocols(request):
        return True
    return request.path.rstrip("/") == "/openai/realtime" and "api-version" in request.query


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
        request.app[RELAY].check_still_admitted(live.core.principal)
    except (AccessDenied, Full) as late:
        live.give_up()
        live.not_accepted(late.status if isinstance(late, AccessDenied) else late.http_status, str(late))
        raise


def _client_status(status: int | None) -> int:
    """What the client is told of the upstream's status: its own requests' faults as they are, the relay's as 502."""
    if status in (400, 404, 429, 503):
        return status
    return 504 if status is None else 502


def _start(relay: RelayState, principal: Principal, model: str) -> RealtimeStart:
    """What the session begins with. Raises AccessDenied where nobody may speak: the upstream's own voice would."""
    initial = relay.client_secrets.session_of(principal.secret_id)
    policy = principal.policy
    if is_open(policy.realtime.voices) or names_voice(initial):
        return RealtimeStart(model, initial)
    voice = require_value("voice", policy.realtime.first_voice(policy.voice, relay.settings.voice))
    return RealtimeStart(model, with_voice(initial, voice))


def _live_session(
    relay: RelayState,
    core: RealtimeSession,
    model: str,
    socket: StrictTextListener,
    recorder: SessionRecorder | None,
    beta: bool,
) -> RealtimeRuntime:
    return RealtimeRuntime(
        core,
        socket,
        FrontCodec(
            BetaClient() if beta else None,
            BetaUpstream() if relay.upstream.speaks_beta else None,
            relay.known_secrets,
        ),
        functools.partial(relay.dial, model=model or None),
        relay.tools_for(core.session_id, core.principal),
        observer=relay.observer,
        recorder=recorder,
        secrets=relay.known_secrets,
    )
