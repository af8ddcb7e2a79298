"""Device clients: sessions whose turns the relay owns, in any protocol that is a `DeviceClientProtocol`.

In the relay's own protocol the query of the URL may hold `rate`, `format` and `voice`.
"""

import asyncio
from dataclasses import replace

from aiohttp import web
from picows import WSCloseCode

from audio.formats import AudioFormat
from relay.app.context import KEEPALIVE, KNOWN_SECRETS, SESSION_FACTORY, SESSIONS, VOICES
from relay.core.commands import TellError
from relay.core.policy import Policy, Principal
from relay.core.values import EXTERNAL_VOICE, DeviceOptions
from relay.endpoints.session_upgrade import accept, session_slot
from relay.errors import BadRequest, Full
from relay.peers.client_socket import check_upgrade, take_over, upgraded_response
from relay.peers.frames import StrictTextListener
from relay.protocols.client_protocol import DeviceClientProtocol

MAX_VOICE_CHARS = 128


async def device_socket(
    request: web.Request, principal: Principal, protocol: DeviceClientProtocol
) -> web.StreamResponse:
    """Accept a device client, then dial its upstream; returns when the client is gone."""
    app = request.app
    check_upgrade(request)
    options, voice = protocol.options, None
    if protocol.reads_query:
        has_voices = app[VOICES].rules is not None
        options, voice = read_query(request, principal.policy, options, has_voices=has_voices)
    initial = app[SESSION_FACTORY].initial_session(principal.policy, voice)
    socket = StrictTextListener(protocol.max_message_bytes)
    try:
        async with session_slot(request, principal) as spend:
            live = app[SESSION_FACTORY].device(protocol, principal, initial, options, socket)
            audio = options.input
            with app[SESSIONS].registered(live, spend, f"{audio.encoding} {audio.rate_hz} Hz"):
                if accept(request, socket):
                    await live.run()
    except Full as full:
        if "Origin" not in request.headers:
            raise
        await _turn_away(request, protocol, full)
    return upgraded_response()


async def _turn_away(request: web.Request, protocol: DeviceClientProtocol, full: Full) -> None:
    """Accept a page's connection to say why there is no session: a refused upgrade shows a browser only 1006."""
    socket = StrictTextListener(protocol.max_message_bytes)
    gone = asyncio.Event()
    socket.on_closed = lambda code, reason: gone.set()
    if take_over(request, socket, request.app[KEEPALIVE]):
        codec = protocol.codec(request.app[KNOWN_SECRETS])
        message = codec.encode(TellError("full", str(full), retryable=True))
        if message is not None:
            socket.send_text(message)
        socket.close(WSCloseCode.TRY_AGAIN_LATER.value, str(full))
        await gone.wait()


def read_query(
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
    if voice.startswith(EXTERNAL_VOICE):
        if not has_voices:
            raise BadRequest(
                "This relay has no ElevenLabs voices; leave voice out, or name one of the model's.", "voice"
            )
        if not voice.removeprefix(EXTERNAL_VOICE).strip():
            raise BadRequest("voice must name an ElevenLabs voice behind elevenlabs:", "voice")
    return replace(defaults, input=audio_format, output=audio_format), voice or None
