"""The handlers of sessions: of device clients, whose turns the relay owns, and of Realtime clients, who own theirs.

In the query of the URL the relay's own device protocol may have `rate`, `format` and `voice`. A Realtime client without
an `Origin` is accepted after the upstream was dialled, so that a refusal is an HTTP status. A page sees a refused
upgrade as nothing but 1006, so it is accepted first and gets an `error` event.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web
from picows import WSCloseCode

from audio.formats import AudioFormat
from relay.app import context
from relay.auth.authenticator import offered_subprotocols, select_subprotocol
from relay.config.policy_file import require_value
from relay.errors import AccessDenied, BadRequest, CapacityExceeded, OpenAIError
from relay.protocols.client_protocol import DeviceClientProtocol, OpeningHandshake, RealtimeClientProtocol
from relay.runtime.realtime import RealtimeRuntime
from relay.session.common.model import ELEVENLABS_PREFIX, DeviceOptions
from relay.session.common.policy import Policy, Principal
from relay.session.device.commands import SendError
from relay.transport.read_budget import ReadBudget
from relay.transport.upgrade import check_upgrade, upgrade_to_websocket, upgraded_response
from relay.transport.upstream import UpstreamConnectError
from relay.transport.websocket import StrictTextListener

MAX_VOICE_CHARS = 128
MAX_MODEL_CHARS = 200


@asynccontextmanager
async def session_slot(request: web.Request, principal: Principal) -> AsyncIterator[Callable[[], None]]:
    """Hold a session slot and the client's secret, after waiting for a turn. Yields what spends the secret.

    Raises Full, TooOften, and AccessDenied where the secret or the key is not valid any more.
    """
    app = request.app
    app[context.SESSIONS].check_not_draining()
    with (
        app[context.SESSION_LIMITER].acquire_session(app[context.AUTHENTICATOR].client_address(request)),
        app[context.CLIENT_SECRETS].reserve(principal.secret_id) as spend,
    ):
        await app[context.SESSION_LIMITER].wait_session_turn()
        app[context.SESSIONS].check_still_authorized(principal)
        yield spend


def accept_websocket(
    request: web.Request, socket: StrictTextListener, read_budget: tuple[ReadBudget, str] | None = None
) -> bool:
    """Answer the upgrade and give the connection to `socket`; False if the client has left."""
    subprotocol = select_subprotocol(request)
    return upgrade_to_websocket(
        request, socket, request.app[context.KEEPALIVE], subprotocol=subprotocol, read_budget=read_budget
    )


async def serve_device(
    request: web.Request, principal: Principal, protocol: DeviceClientProtocol
) -> web.StreamResponse:
    """Accept a device client, then dial its upstream; returns when the client is gone."""
    app = request.app
    check_upgrade(request)
    options, voice = protocol.options, None
    if protocol.accepts_query_options:
        has_voices = app[context.VOICES].tts_options is not None
        options, voice = read_device_query(request, principal.policy, options, has_voices=has_voices)
    initial = app[context.SESSION_FACTORY].initial_session(principal.policy, voice)
    socket = StrictTextListener(protocol.max_message_bytes)
    try:
        async with session_slot(request, principal) as spend:
            live = app[context.SESSION_FACTORY].create_device_session(protocol, principal, initial, options, socket)
            audio = options.input
            with app[context.SESSIONS].register(live, spend, f"{audio.encoding} {audio.rate_hz} Hz"):
                if accept_websocket(request, socket):
                    await live.run()
    except CapacityExceeded as full:
        if "Origin" not in request.headers:
            raise
        await _reject_with_error(request, protocol, full)
    return upgraded_response()


async def _reject_with_error(request: web.Request, protocol: DeviceClientProtocol, error: CapacityExceeded) -> None:
    """Accept a page's connection to say why there is no session: a refused upgrade shows a browser only 1006."""
    socket = StrictTextListener(protocol.max_message_bytes)
    closed = asyncio.Event()
    socket.on_closed = lambda code, reason: closed.set()
    if upgrade_to_websocket(request, socket, request.app[context.KEEPALIVE]):
        codec = protocol.codec(request.app[context.KNOWN_SECRETS])
        message = codec.encode(SendError("full", str(error), retryable=True))
        if message is not None:
            socket.send_text(message)
        socket.close(WSCloseCode.TRY_AGAIN_LATER.value, str(error))
        await closed.wait()


def read_device_query(
    request: web.Request, policy: Policy, defaults: DeviceOptions, *, has_voices: bool
) -> tuple[DeviceOptions, str | None]:
    """The formats and the voice of the query string. Raises BadRequest naming the field and what is possible."""
    query = request.query
    encoding = query.get("format", "pcm16")
    rate = query.get("rate", "8000" if encoding in ("pcmu", "pcma") else "16000")
    if not rate.isascii() or not rate.isdigit() or len(rate) > 6:
        raise BadRequest(f"rate must be a number of Hz such as 24000, not {rate!r:.40}", "rate")
    try:
        audio_format = AudioFormat(encoding, int(rate))  # type: ignore[arg-type]  # checked in there
    except ValueError as error:
        raise BadRequest(f"rate, format: {error}", "rate") from error
    voice = query.get("voice", "").strip()
    if len(voice) > MAX_VOICE_CHARS:
        raise BadRequest(f"voice may have at most {MAX_VOICE_CHARS} characters", "voice")
    if voice and ("voice" not in policy.hello_fields or not policy.allows_voice(voice)):
        raise BadRequest("This client may not choose that voice; leave voice out.", "voice")
    if voice.startswith(ELEVENLABS_PREFIX):
        if not has_voices:
            raise BadRequest(
                "This relay has no ElevenLabs voices; leave voice out, or name one of the model's.", "voice"
            )
        if not voice.removeprefix(ELEVENLABS_PREFIX).strip():
            raise BadRequest("voice must name an ElevenLabs voice behind elevenlabs:", "voice")
    return replace(defaults, input=audio_format, output=audio_format), voice or None


async def serve_realtime(
    request: web.Request, principal: Principal, protocol: RealtimeClientProtocol
) -> web.StreamResponse:
    """Serve a Realtime client until it is gone."""
    app = request.app
    check_upgrade(request)
    refuse_unsupported(request)
    opening = OpeningHandshake(request.path, request.query, request.headers, offered_subprotocols(request))
    codec = app[context.SESSION_FACTORY].create_realtime_codec(protocol.select_dialect(opening))
    model = requested_model(request, principal, app[context.UPSTREAM].default_model)
    socket = StrictTextListener(protocol.max_message_bytes)
    async with session_slot(request, principal) as spend:
        live = app[context.SESSION_FACTORY].create_realtime_session(principal, model, codec, socket)
        with app[context.SESSIONS].register(live, spend, f"Realtime, policy {principal.policy.name}"):
            if "Origin" not in request.headers:
                await _connect_upstream_first(request, live)
            owner = app[context.AUTHENTICATOR].quota_key(request, principal)
            if accept_websocket(request, socket, (app[context.SESSIONS].read_budget, owner)):
                await live.run()
            else:
                live.abandon()
    return upgraded_response()


def refuse_unsupported(request: web.Request) -> None:
    """Raise ApiError (501) for what the protocol has besides conversations over this socket."""
    if "call_id" in request.query:
        raise OpenAIError("This relay does not attach to calls yet.", 501, "not_implemented", "call_id")
    if request.query.get("intent", "conversation") != "conversation":
        raise OpenAIError(
            "This relay holds conversations only, no transcription sessions yet.", 501, "not_implemented", "intent"
        )


def requested_model(request: web.Request, principal: Principal, relay_model: str | None) -> str:
    """The model that the URL asks for, "" for the relay's own; `relay_model` is its name, None if no policy matters to
    it.

    Raises ApiError for a model that the policy does not allow, AccessDenied where it allows none by itself.
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


async def _connect_upstream_first(request: web.Request, live: RealtimeRuntime) -> None:
    def is_gone() -> bool:
        return request.transport is None or request.transport.is_closing()

    try:
        await live.connect_upstream_first(is_gone)
    except UpstreamConnectError as refusal:
        status = _status_for_client(refusal.status)
        if not is_gone():
            live.on_handshake_refused(status, str(refusal))
        raise OpenAIError(str(refusal), status, "upstream_refused") from refusal
    try:  # a session that has ended meanwhile could not tell its client so
        request.app[context.SESSIONS].check_still_authorized(live.core.principal)
    except (AccessDenied, CapacityExceeded) as late:
        live.abandon()
        live.on_handshake_refused(late.status if isinstance(late, AccessDenied) else late.http_status, str(late))
        raise


def _status_for_client(status: int | None) -> int:
    """What the client is told of the upstream's status: its own requests' faults as they are, the relay's as 502."""
    if status in (400, 404, 429, 503):
        return status
    return 504 if status is None else 502
