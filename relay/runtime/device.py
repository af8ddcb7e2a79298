"""A device client's session at run time.

    client message → codec → event → rules → commands → playout (client), upstream codec (upstream), tools, TTS
    client audio   → `uplink` → upstream          upstream audio → `downlink` → `playout` → client

Both codecs are passed in: the runtime knows only a few attributes of the protocols. A client's text message is charged
as a message, or by the audio that it holds. A command without a message in the upstream's protocol is dropped, or
answered by an event that the codec returns.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, assert_never, cast

from relay.protocols.client_protocol import ClientCodec
from relay.protocols.elevenlabs import TtsOutput
from relay.protocols.json_limits import MAX_CLIENT_MEMBERS, count_members
from relay.runtime.base import CommonCommand, Observer, SessionRuntime, ToolExecutor
from relay.runtime.downlink import DeviceDownlink
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.playout import MAX_QUEUED_MS, PlayoutQueue
from relay.runtime.uplink import DeviceUplink
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.read_allowance import device_allowance, message_allowance, message_cost
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from relay.transport.read_limiter import ReadLimiter
from relay.transport.upstream import UpstreamConnection
from relay.transport.websocket import WebSocketConnection
from relay.upstreams.dialect import UpstreamCodec

MAX_UNREAD_COMMANDS_BYTES = 4 * 1024 * 1024
"""If more than this is unsent, commands and audio together, the upstream is disconnected at once."""
MAX_UNCHARGED_OVERHEAD_BYTES = 512
"""A text message with more than this around its audio is also charged as a message."""


class TtsConnection(Protocol):
    """The connection to an external TTS voice, as a session uses it."""

    def execute(self, command: cmd.TtsCommand) -> None:
        """Execute a command; returns at once."""

    async def stop(self) -> None:
        """Stop everything, in bounded time."""


class DeviceRuntime(SessionRuntime[DeviceSession]):
    """Connects one device's socket, one upstream and the tools with the rules in `core`."""

    _uplink: DeviceUplink

    def __init__(
        self,
        core: DeviceSession,
        client: WebSocketConnection,
        client_codec: ClientCodec,
        upstream_codec: UpstreamCodec,
        connect_upstream: Callable[[UpstreamConnection], Awaitable[None]],
        tools: ToolExecutor,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        max_queued_ms: float = MAX_QUEUED_MS,
        connect_tts: Callable[[Callable[[TtsOutput], None]], TtsConnection] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`connect_tts` creates the connection to an external voice; its argument receives the TTS events and audio."""
        super().__init__(
            core, client, connect_upstream, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets
        )
        self._client_codec = client_codec
        self._upstream_codec = upstream_codec
        now, options = self._clock(), core.options
        allowances = (*device_allowance(options.input, now), message_allowance(now))
        self._read_limiter = ReadLimiter(client, *allowances, self.dispatch, self._clock)
        on_sent = recorder.record_sent_audio if recorder is not None else None
        self._playout = PlayoutQueue(client, client_codec, options, self.dispatch, self._clock, max_queued_ms, on_sent)
        template, limiter = upstream_codec.append_template, self._read_limiter
        self._uplink = DeviceUplink(
            core.ledger, self.upstream, limiter, self._clock, recorder, options, template, self.dispatch
        )
        self._downlink = DeviceDownlink(core, upstream_codec, self._playout, self._clock, self.dispatch, recorder)
        self._opened_event = upstream_codec.opened
        self._paced_reader.on_message = self._downlink.receive
        self.upstream.on_binary = self._paced_reader.feed
        self._tts = connect_tts(self._on_tts_output) if connect_tts is not None else None
        client.on_text = self._on_client_text
        client.on_binary = self._uplink.receive if client_codec.accepts_binary_audio else self._reject_binary

    async def run(self) -> None:
        """Run until the client is gone, then release everything, including the TTS connection."""
        try:
            await super().run()
        finally:
            if self._tts is not None:
                await self._tts.stop()

    def _stop(self) -> None:
        self._playout.stop()
        self._read_limiter.stop()

    # -- messages -----------------------------------------------------------------------------------------------------

    def _on_client_text(self, message: bytes) -> None:
        decoded = self._client_codec.decode_text(message)
        audio = decoded if isinstance(decoded, bytes) else None
        if audio is None or len(message) > 2 * len(audio) + MAX_UNCHARGED_OVERHEAD_BYTES:
            n_members = count_members(message, MAX_CLIENT_MEMBERS)
            self._read_limiter.count_message(message_cost(MAX_CLIENT_MEMBERS if n_members is None else n_members))
        if audio is not None:
            self._uplink.receive(audio)
        elif decoded is not None:
            self._uplink.flush()
            self.dispatch(decoded)

    def _reject_binary(self, message: bytes) -> None:
        self._read_limiter.count_bytes(len(message))
        self._read_limiter.count_message()
        problem = "This protocol has no binary messages; send audio as text."
        self.dispatch(ev.ClientProtocolError("bad_message", problem))

    def _on_tts_output(self, output: TtsOutput) -> None:
        if type(output) is not TtsAudioDelta:
            self.dispatch(output)
            return
        try:
            self._downlink.receive_tts(output)
        except Exception:
            self._on_callback_failure()

    def _send_upstream(self, message: bytes) -> None:
        """Send a command. Only audio may be dropped, so an upstream with too many unread commands is disconnected."""
        upstream = self.upstream
        upstream.send_text(message)
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNREAD_COMMANDS_BYTES:
            self.dispatch(ev.UpstreamBackpressure(self._uplink.dropped_bytes, fatal=True))

    def _execute(self, command: cmd.Command, now: float) -> None:
        command_type = type(command)
        if command_type in cmd.CLIENT_MESSAGES:
            self._playout.send_now(command)  # type: ignore[arg-type]  # mypy does not narrow a union by a set
        elif command_type in cmd.UPSTREAM_COMMANDS:
            message = self._upstream_codec.encode(cast(cmd.UpstreamCommand, command))
            if isinstance(message, bytes):
                self._send_upstream(message)
            elif message is not None:
                self.dispatch(message)
        elif command_type in cmd.PLAYOUT_COMMANDS:
            self._execute_playout(cast(cmd.PlayoutCommand, command))
        elif command_type in cmd.INPUT_COMMANDS:
            self._uplink.execute(cast(cmd.InputCommand, command))
        elif command_type in cmd.TTS_COMMANDS:
            if self._tts is not None:
                self._tts.execute(cast(cmd.TtsCommand, command))
        elif isinstance(command, cmd.CloseClient):
            self._playout.close(command.code, command.reason)
        else:
            self._execute_common(cast(CommonCommand, command))

    def _execute_playout(self, command: cmd.PlayoutCommand) -> None:
        match command:
            case cmd.SendAudioStart(item_id, content_index):
                self.core.ledger.start_part((item_id, content_index))
                self._playout.start(command)
            case cmd.SendAudioEnd():
                self._playout.end(command)
            case cmd.ClearPlayout():
                self._playout.clear()
            case cmd.SyncPlayout(item_id, played_ms):
                self._playout.sync(item_id, played_ms)
            case cmd.ApplyOptions(options):
                self._uplink.apply_options(options)
                self._playout.apply_options(options)
            case _:
                assert_never(command)
