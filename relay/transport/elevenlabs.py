"""Text to speech by ElevenLabs: one WebSocket per session, or an HTTP stream where a whole text is synthesized at once.

Uses the `websockets` package: there are only a few dozen messages per turn, and its `InvalidStatus` has the response
body, which names the reason.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from audio.formats import AudioFormat
from audio.framing import SampleAligner
from relay.errors import UpstreamError
from relay.protocols.elevenlabs import PERMANENT_ERROR_CODES, ElevenLabsCodec, TtsOutput, output_format_name, stream_url
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.redact import redact
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.transport.http_client import REDIRECT_TEXT, HttpRequest, ProviderHttpClient, error_code
from relay.transport.no_redirects import NoRedirectConnect, is_redirect

CONNECT_TIMEOUT_S = 5.0
PING_INTERVAL_S = 20.0
CLOSE_TIMEOUT_S = 1.0
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_AUDIO_BYTES = 64 * 1024 * 1024
MAX_UNSENT_MESSAGES = 4096
"""More means that ElevenLabs does not read; the connection is then closed."""
STREAM_TIMEOUT_S = 10.0

_FATAL_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 410, 422})
_log = logging.getLogger("relay.voice")


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevenLabsOptions:
    """Endpoint, key and synthesis options of ElevenLabs; None means ElevenLabs' default."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    model_id: str | None = None
    voice_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {"xi-api-key": self.api_key} if self.api_key else {}


class ElevenLabsTts:
    """The text-to-speech connection of one session: executes its commands and dispatches the resulting events."""

    def __init__(
        self,
        options: ElevenLabsOptions,
        provider: ProviderHttpClient,
        dispatch: Callable[[TtsOutput], None],
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`secrets` are redacted from its errors."""
        self._secrets = secrets
        self._options = options
        self._provider = provider
        self._dispatch = dispatch
        self._codec = ElevenLabsCodec(secrets=secrets)
        self._send_queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._connection_task: asyncio.Task[None] | None = None
        self._request_tasks: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def execute(self, command: cmd.TtsCommand) -> None:
        """Execute a command of the session; returns immediately."""
        match command:
            case cmd.ConnectTts(voice_id, output):
                self._disconnect()
                self._codec = ElevenLabsCodec(self._options.voice_settings, self._secrets)
                self._send_queue = asyncio.Queue(MAX_UNSENT_MESSAGES)
                self._connection_task = self._spawn(
                    self._run_connection(voice_id, output, self._codec, self._send_queue)
                )
            case cmd.SynthesizeText():
                self._request_tasks[command.context_id] = self._spawn(self._synthesize_text(command))
            case cmd.CancelTtsContext(context_id) if context_id in self._request_tasks:
                self._request_tasks.pop(context_id).cancel()
            case cmd.DisconnectTts():
                self._disconnect()
                for request in self._request_tasks.values():
                    request.cancel()
                self._request_tasks.clear()
            case _:
                self._send(command)

    async def stop(self) -> None:
        """Cancel all tasks, in bounded time."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * CLOSE_TIMEOUT_S)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _disconnect(self) -> None:
        task, self._connection_task = self._connection_task, None
        if task is not None:
            task.cancel()

    def _send(self, command: cmd.TtsCommand) -> None:
        try:
            for message in self._codec.encode(command):
                self._send_queue.put_nowait(message)
        except asyncio.QueueFull:
            self._disconnect()
            self._dispatch(ev.TtsFailed("ElevenLabs stopped reading from the connection.", "stuck"))

    # -- the WebSocket ------------------------------------------------------------------------------------------------

    async def _run_connection(
        self, voice_id: str, output: AudioFormat, codec: ElevenLabsCodec, send_queue: "asyncio.Queue[bytes]"
    ) -> None:
        """Run one connection until it ends; a cancelled one reports nothing more."""
        try:
            failure = await self._connect(voice_id, output, codec, send_queue)
        except Exception as error:
            failure = _connect_failure(error, self._options.headers)
        if asyncio.current_task() is self._connection_task:
            self._connection_task = None
            _log.info("ElevenLabs connection ended: %s", failure.message)
            self._dispatch(failure)

    async def _connect(
        self, voice_id: str, output: AudioFormat, codec: ElevenLabsCodec, send_queue: "asyncio.Queue[bytes]"
    ) -> ev.TtsFailed:
        options = self._options
        url = stream_url(options.base_url, voice_id, output, options.model_id)
        connection = NoRedirectConnect(
            url,
            additional_headers=options.headers,
            open_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_INTERVAL_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            proxy=None,
        )
        async with connection as socket:
            self._dispatch(ev.TtsConnected())
            sender = self._spawn(_send_all(socket, send_queue))
            try:
                return await self._receive(socket, codec)
            finally:
                sender.cancel()

    async def _receive(self, socket: ClientConnection, codec: ElevenLabsCodec) -> ev.TtsFailed:
        failure: ev.TtsFailed | None = None
        try:
            async for message in socket:
                for event in codec.decode(message):
                    if isinstance(event, ev.TtsFailed) and not event.context_id:
                        failure = event  # the close frame that follows says less
                    elif asyncio.current_task() is self._connection_task:
                        self._dispatch(event)
        except ConnectionClosed:
            pass  # reported below, with its code
        if failure is not None:
            return failure
        reason = redact(self._secrets.redact_truncated(socket.close_reason or ""), 200).rstrip(".")
        text = f"ElevenLabs closed the connection{f': {reason}' if reason else ''}."
        return ev.TtsFailed(text, str(socket.close_code))

    # -- the HTTP stream ----------------------------------------------------------------------------------------------

    async def _synthesize_text(self, command: cmd.SynthesizeText) -> None:
        context_id = command.context_id
        try:
            aligner = SampleAligner(command.output_format.bytes_per_sample)
            async with self._provider.stream(self._http_request(command)) as stream:
                async for chunk in stream.chunks():
                    samples = aligner.feed(chunk)
                    if samples:
                        self._dispatch(TtsAudioDelta(context_id, bytes(samples)))
            end: ev.TtsEvent = ev.TtsContextDone(context_id)
        except UpstreamError as error:
            status = error.upstream_status
            code = error.code or (str(status) if status else None)
            retryable = status not in _FATAL_STATUSES and code not in PERMANENT_ERROR_CODES
            end = ev.TtsFailed(f"{error}".rstrip(".") + ".", code, retryable, context_id)
        if self._request_tasks.pop(context_id, None) is not None:
            self._dispatch(end)

    def _http_request(self, command: cmd.SynthesizeText) -> HttpRequest:
        options = self._options
        query = urlencode({"output_format": output_format_name(command.output_format)})
        voice = quote(command.voice_id, safe="")
        return HttpRequest(
            name="ElevenLabs",
            url=f"{options.base_url.rstrip('/')}/v1/text-to-speech/{voice}/stream?{query}",
            headers=options.headers,
            body={"text": command.text}
            | ({"model_id": options.model_id} if options.model_id else {})
            | ({"voice_settings": dict(options.voice_settings)} if options.voice_settings else {}),
            timeout_s=STREAM_TIMEOUT_S,
            max_bytes=MAX_AUDIO_BYTES,
        )


async def _send_all(socket: ClientConnection, send_queue: "asyncio.Queue[bytes]") -> None:
    with contextlib.suppress(ConnectionClosed):  # reported by the receiver
        while True:
            await socket.send(await send_queue.get(), text=True)


def _connect_failure(error: Exception, headers: Mapping[str, str]) -> ev.TtsFailed:
    """Describe why a connection attempt failed, with the provider's error code if any, and never its raw body."""
    match error:
        case InvalidStatus() if is_redirect(error):
            status = error.response.status_code
            return ev.TtsFailed(f"ElevenLabs {REDIRECT_TEXT} ({status}).", str(status), retryable=False)
        case InvalidStatus():
            status = error.response.status_code
            code = error_code(bytes(error.response.body or b""), headers) or str(status)
            return ev.TtsFailed(f"ElevenLabs refused the connection ({status}).", code, status not in _FATAL_STATUSES)
        case TimeoutError():
            return ev.TtsFailed("ElevenLabs did not answer in time.", "dial_timeout")
        case OSError():
            return ev.TtsFailed("ElevenLabs cannot be reached.", "unreachable")
        case InvalidHandshake():
            return ev.TtsFailed("ElevenLabs' URL is not a WebSocket server.", "handshake")
        case _:
            _log.error("ElevenLabs connection failed", exc_info=error)
            return ev.TtsFailed(f"The connection to ElevenLabs failed ({type(error).__name__}).", "failed")
