"""WebSocket route of device clients, whose turns the relay controls.

The query of the relay's own device protocol may have `rate`, `format` and `voice`. A browser sees only close code 1006
after a refused upgrade, so it is accepted first and gets an `error` event.
"""

import asyncio
from dataclasses import replace

from aiohttp import web
from picows import WSCloseCode

from audio.formats import AudioFormat
from relay.app import context
from relay.endpoints.session_slot import accept_websocket, session_slot
from relay.errors import BadRequest, CapacityExceeded
from relay.protocols.client_protocol import DeviceClientProtocol
from relay.session.common.model import ELEVENLABS_PREFIX, DeviceOptions
from relay.session.common.policy import Policy, Principal
from relay.session.device.commands import SendError
from relay.transport.upgrade import check_upgrade, upgrade_to_websocket, upgraded_response
from relay.transport.websocket import WebSocketConnection

MAX_VOICE_CHARS = 128


async def serve_device(
    request: web.Request, principal: Principal, protocol: DeviceClientProtocol
) -> web.StreamResponse:
    """Accept a device client, then connect its upstream; returns when the session has ended."""
    app = request.app
    check_upgrade(request)
    options, voice = protocol.options, None
    if protocol.accepts_query_options:
        has_voices = app[context.VOICES].tts_options is not None
        options, voice = read_device_query(request, principal.policy, options, has_voices=has_voices)
    initial = app[context.SESSION_FACTORY].initial_session(principal.policy, voice)
    socket = WebSocketConnection(protocol.max_message_bytes, strict_utf8=True)
    try:
        async with session_slot(request, principal) as consume_secret:
            runtime = app[context.SESSION_FACTORY].create_device_session(protocol, principal, initial, options, socket)
            audio = options.input
            with app[context.SESSIONS].register(
                runtime, consume_secret, f"protocol={protocol.name} input={audio.encoding} rate_hz={audio.rate_hz}"
            ):
                if accept_websocket(request, socket):
                    await runtime.run()
    except CapacityExceeded as error:
        if "Origin" not in request.headers:
            raise
        await _reject_with_error(request, protocol, error)
    return upgraded_response()


async def _reject_with_error(request: web.Request, protocol: DeviceClientProtocol, error: CapacityExceeded) -> None:
    """Accept a browser's connection to send an error: after a refused upgrade it sees only close code 1006."""
    socket = WebSocketConnection(protocol.max_message_bytes, strict_utf8=True)
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
    """Read audio format and voice from the query string. Raises BadRequest with the field and its valid values."""
    query = request.query
    encoding = query.get("format", "pcm16")
    rate = query.get("rate", "8000" if encoding in ("pcmu", "pcma") else "16000")
    if not rate.isascii() or not rate.isdigit() or len(rate) > 6:
        raise BadRequest(f"rate must be a sample rate in Hz such as 24000, not {rate!r:.40}", "rate")
    try:
        audio_format = AudioFormat(encoding, int(rate))  # type: ignore[arg-type]  # checked in there
    except ValueError as error:
        raise BadRequest(f"rate, format: {error}", "rate") from error
    voice = query.get("voice", "").strip()
    if len(voice) > MAX_VOICE_CHARS:
        raise BadRequest(f"voice may have at most {MAX_VOICE_CHARS} characters", "voice")
    if voice and ("voice" not in policy.hello_fields or not policy.allows_voice(voice)):
        raise BadRequest("This client may not choose this voice; leave out voice.", "voice")
    if voice.startswith(ELEVENLABS_PREFIX):
        if not has_voices:
            raise BadRequest(
                "This relay has no ElevenLabs voices; leave out voice, or use one of the model's.", "voice"
            )
        if not voice.removeprefix(ELEVENLABS_PREFIX).strip():
            raise BadRequest("voice must be elevenlabs: followed by the id of an ElevenLabs voice", "voice")
    return replace(defaults, input=audio_format, output=audio_format), voice or None
