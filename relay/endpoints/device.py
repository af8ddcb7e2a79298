"""The device protocol's way in: `ws://host/` and `ws://host/ws`, with `rate`, `format` and `voice` in the query."""

import asyncio
import functools
import logging
from collections.abc import Callable

from aiohttp import web
from picows import WSCloseCode

from audio.formats import AudioFormat
from relay.auth.authenticator import chosen_subprotocol
from relay.core.commands import TellError
from relay.core.device_session import DeviceSession
from relay.core.hello import InitialSession, initial_session
from relay.core.policy import Policy, Principal
from relay.core.values import EXTERNAL_VOICE, DeviceOptions
from relay.endpoints.permissions import no_default
from relay.endpoints.session_life import registered
from relay.endpoints.voices import VOICES, Voices
from relay.errors import BadRequest, Full
from relay.peers.client_socket import check_upgrade, take_over, upgraded_response
from relay.peers.frames import StrictTextListener
from relay.recording.beginning import Beginning
from relay.recording.session_recorder import SessionRecorder
from relay.runtime.device import DeviceRuntime
from relay.state import RELAY, RelayState
from relay.wire.device_out import encode
from relay.wire.realtime import BetaRealtimeCodec, RealtimeCodec

MAX_FRAME_BYTES = 64 * 1024
MAX_VOICE_CHARS = 128

_log = logging.getLogger("relay.session")


async def device_socket(request: web.Request, principal: Principal) -> web.StreamResponse:
    """Accept a device client, then dial its upstream; returns when the client is gone."""
    relay = request.app[RELAY]
    check_upgrade(request)
    voices = request.app[VOICES]
    options, voice = read_query(request, principal.policy, has_voices=voices.rules is not None)
    initial = initial_session(
        relay.session_config(),
        principal.policy,
        model=relay.own_model,
        wanted_voice=voice,
        external_voice=voices.default_voice,
        has_voices=voices.rules is not None,
    )
    if initial.missing is not None:
        raise no_default(initial.missing)
    try:
        relay.refuse_when_draining()
        with (
            relay.admission.session(relay.auth.address(request)),
            relay.client_secrets.in_use(principal.secret_id) as spend,
        ):
            await relay.turn(principal)
            await _converse(request, principal, options, initial, spend)
    except Full as full:
        if "Origin" not in request.headers:
            raise
        await _turn_away(request, relay, full)
    return upgraded_response()


async def _converse(
    request: web.Request,
    principal: Principal,
    options: DeviceOptions,
    initial: InitialSession,
    spend: Callable[[], None],
) -> None:
    relay, voices = request.app[RELAY], request.app[VOICES]
    session_id, limits = relay.new_session_id(), relay.settings.session_limits()
    rules = voices.rules_for(principal.policy)
    beginning = Beginning(session_id, initial.config, options, principal, relay.now(), rules, limits)
    recorder = relay.recordings.open(beginning, relay.now, initial.model)
    socket = StrictTextListener(MAX_FRAME_BYTES)
    live = _live_session(relay, beginning.device_session(), initial.model, socket, voices, recorder)
    with registered(relay, live, recorder, spend):
        audio = options.input
        _log.info("session %s begins: %s, %s %d Hz", session_id, principal.identity, audio.encoding, audio.rate_hz)
        subprotocol = chosen_subprotocol(request)
        if take_over(request, socket, relay.keepalive, subprotocol=subprotocol):
            await live.run()


async def _turn_away(request: web.Request, relay: RelayState, full: Full) -> None:
    """Tell a page why there is no session: of a refused upgrade a browser shows nothing but 1006."""
    socket = StrictTextListener(MAX_FRAME_BYTES)
    gone = asyncio.Event()
    socket.on_closed = lambda code, reason: gone.set()
    if take_over(request, socket, relay.keepalive):
        socket.send_text(encode(TellError("full", str(full), retryable=True)))
        socket.close(WSCloseCode.TRY_AGAIN_LATER.value, str(full))
        await gone.wait()


def read_query(request: web.Request, policy: Policy, *, has_voices: bool) -> tuple[DeviceOptions, str | None]:
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
    if voice.startswith(EXTERNAL_VOICE):
        if not has_voices:
            raise BadRequest(
                "This relay has no ElevenLabs voices; leave voice out, or name one of the model's.", "voice"
            )
        if not voice.removeprefix(EXTERNAL_VOICE).strip():
            raise BadRequest("voice must name an ElevenLabs voice behind elevenlabs:", "voice")
    return DeviceOptions(input=audio_format, output=audio_format), voice or None


def _live_session(
    relay: RelayState,
    core: DeviceSession,
    model: str | None,
    socket: StrictTextListener,
    voices: Voices,
    recorder: SessionRecorder | None,
) -> DeviceRuntime:
    tools = relay.tools_for(core.session_id, core.principal, core.config)
    tools.follow(lambda: core.config)
    return DeviceRuntime(
        core,
        socket,
        (BetaRealtimeCodec if relay.upstream.speaks_beta else RealtimeCodec)(relay.known_secrets),
        functools.partial(relay.dial, model=model),
        tools,
        observer=relay.observer,
        recorder=recorder,
        max_queued_ms=relay.settings.max_queued_s * 1000,
        voice=voices.way(relay.provider, relay.known_secrets),
        secrets=relay.known_secrets,
    )
