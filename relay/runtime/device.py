"""A device client's session at run time.

    client message → codec → event → rules → commands → playout (client), upstream codec (upstream), tools, voice
    client audio   → `uplink` → upstream          upstream audio → `downlink` → `playout` → client

Both codecs are given: which protocol a client or an upstream speaks is known here only as a few attributes of theirs. A
client's text is charged as a message, or by the audio that it holds. A command that an upstream has no message for is
left out, or answered by the event that its codec returns.
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
"""With more than this unread, commands and audio alike, the upstream is given up at once."""
MAX_UNCHARGED_OVERHEAD_BYTES = 512
"""A text message with more than this around its audio is charged as a message too."""


class TtsConnection(Protocol):
    """What a session needs of an external voice."""

    def execute(self, command: cmd.TtsCommand) -> None:
        """Carry out a command; returns at once."""

    async def stop(self) -> None:
        """End everything, in bounded time."""


class DeviceRuntime(SessionRuntime[DeviceSession]):
    """Joins one device's socket, one upstream and the tools by the rules of `core`."""

    _uplink: DeviceUplink

    def __init__(
        self,
        core: DeviceSession,
        client: WebSocketConnection,
        client_codec: ClientCodec,
        upstream_codec: UpstreamCodec,
        dial: Callable[[UpstreamConnection], Awaitable[None]],
        tools: ToolExecutor,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        max_queued_ms: float = MAX_QUEUED_MS,
        connect_tts: Callable[[Callable[[TtsOutput], None]], TtsConnection] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`connect_tts` makes the connection to an external voice; it is given what takes the voice's events and
        audio.
        """
        super().__init__(core, client, dial, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets)
        self._client_codec = client_codec
        self._upstream_codec = upstream_codec
        self._read_limiter = ReadLimiter(
            client,
            *device_allowance(core.options.input, self._clock()),
            message_allowance(self._clock()),
            self.dispatch,
            self._clock,
        )
        self._playout = PlayoutQueue(
            client,
            client_codec,
            core.options,
            self.dispatch,
            self._clock,
            max_queued_ms,
            recorder.record_sent_audio if recorder is not None else None,
        )
        self._uplink = DeviceUplink(
            core.ledger,
            self.upstream,
            self._read_limiter,
            self._clock,
            recorder,
            core.options,
            upstream_codec.append_template,
            self.dispatch,
        )
        self._downlink = DeviceDownlink(core, upstream_codec, self._playout, self._clock, self.dispatch, recorder)
        self._opened = upstream_codec.opened
        self._paced_reader.on_message = self._downlink.receive
        self.upstream.on_binary = self._paced_reader.feed
        self._tts = connect_tts(self._on_tts_output) if connect_tts is not None else None
        client.on_text = self._on_client_text
        client.on_binary = self._uplink.receive if client_codec.accepts_binary_audio else self._reject_binary

    async def run(self) -> None:
        """Live until the client is gone, and leave nothing behind, no external voice that still speaks either."""
        try:
            await super().run()
        finally:
            if self._tts is not None:
                await self._tts.stop()

    def _stop(self) -> None:
        self._playout.stop()
        self._read_limiter.stop()

    # -- messages to events and audio ---------------------------------------------------------------------------------

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
        self.dispatch(
            ev.ClientProtocolError("bad_message", "This protocol has no binary messages; send audio as text.")
        )

    def _on_tts_output(self, output: TtsOutput) -> None:
        if type(output) is not TtsAudioDelta:
            self.dispatch(output)
            return
        try:
            self._downlink.receive_tts(output)
        except Exception:
            self._on_callback_failure()

    def _send_upstream(self, message: bytes) -> None:
        """Only audio may be dropped: an upstream that leaves too many commands unread is disconnected."""
        upstream = self.upstream
        upstream.send_text(message)
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNREAD_COMMANDS_BYTES:
            self.dispatch(ev.UpstreamBackpressure(self._uplink.dropped_bytes, fatal=True))

    def _execute(self, command: cmd.Command, now: float) -> None:
        kind = type(command)
        if kind in cmd.CLIENT_MESSAGES:
            self._playout.send_now(command)  # type: ignore[arg-type]  # mypy does not narrow a union by a set
        elif kind in cmd.UPSTREAM_COMMANDS:
            message = self._upstream_codec.encode(cast(cmd.UpstreamCommand, command))
            if isinstance(message, bytes):
                self._send_upstream(message)
            elif message is not None:
                self.dispatch(message)
        elif kind in cmd.PLAYOUT_COMMANDS:
            self._play(cast(cmd.PlayoutCommand, command))
        elif kind in cmd.INPUT_COMMANDS:
            self._uplink.execute(cast(cmd.InputCommand, command))
        elif kind in cmd.TTS_COMMANDS:
            if self._tts is not None:
                self._tts.execute(cast(cmd.TtsCommand, command))
        elif isinstance(command, cmd.CloseClient):
            self._playout.close(command.code, command.reason)
        else:
            self._execute_common(cast(CommonCommand, command))

    def _play(self, command: cmd.PlayoutCommand) -> None:
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
