"""A device client's session at run time."""

from collections.abc import Awaitable, Callable
from typing import Protocol, assert_never, cast

from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.peers.frames import MessageListener
from relay.peers.read_limiter import ReadLimiter
from relay.peers.upstream import UpstreamSocket
from relay.runtime.base import Observer, SessionRuntime, Tools
from relay.runtime.downlink import DeviceDownlink
from relay.runtime.media_recorder import MediaRecorder
from relay.runtime.playout import MAX_QUEUED_MS, PlayoutQueue
from relay.runtime.uplink import DeviceUplink
from relay.session.common.media_types import SpeechDelta
from relay.session.common.read_allowance import device_allowance, message_allowance, message_cost
from relay.wire.device import DeviceCodec
from relay.wire.elevenlabs import VoiceOutput
from relay.wire.realtime import RealtimeCodec
from relay.wire.weight import MAX_CLIENT_MEMBERS, count_members

MAX_UNREAD_COMMANDS_BYTES = 4 * 1024 * 1024
"""With more than this unread, commands and audio alike, the upstream is given up at once."""


class VoicePeer(Protocol):
    """What a session needs of an external voice."""

    def carry_out(self, command: cmd.VoiceCommand) -> None:
        """Carry out a command; returns at once."""

    async def stop(self) -> None:
        """End everything, in bounded time."""


class DeviceRuntime(SessionRuntime[DeviceSession]):
    """Joins one device's socket, one upstream and the tools by the rules of `core`."""

    _uplink: DeviceUplink

    def __init__(
        self,
        core: DeviceSession,
        client: MessageListener,
        upstream_codec: RealtimeCodec,
        dial: Callable[[UpstreamSocket], Awaitable[None]],
        tools: Tools,
        *,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        recorder: MediaRecorder | None = None,
        max_queued_ms: float = MAX_QUEUED_MS,
        voice: Callable[[Callable[[VoiceOutput], None]], VoicePeer] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`voice` makes the connection to an external voice; it is given what takes the voice's events and audio."""
        super().__init__(core, client, dial, tools, clock=clock, observer=observer, recorder=recorder, secrets=secrets)
        self._client_codec = DeviceCodec(core.options, secrets)
        self._upstream_codec = upstream_codec
        self._throttle = ReadLimiter(
            client,
            *device_allowance(core.options.input, self._clock()),
            message_allowance(self._clock()),
            self.dispatch,
            self._clock,
        )
        self._playout = PlayoutQueue(
            client,
            self._client_codec,
            core.options,
            self.dispatch,
            self._clock,
            max_queued_ms,
            recorder.sent if recorder is not None else None,
        )
        self._uplink = DeviceUplink(
            core.ledger, self.upstream, self._throttle, self._clock, recorder, core.options, self.dispatch
        )
        self._downlink = DeviceDownlink(core, upstream_codec, self._playout, self._clock, self.dispatch, recorder)
        self._paced.handle = self._downlink.take
        self._voice = voice(self._take_voice) if voice is not None else None
        client.on_text = self._client_text
        client.on_binary = self._uplink.take

    async def run(self) -> None:
        """Live until the client is gone, and leave nothing behind, no external voice that still speaks either."""
        try:
            await super().run()
        finally:
            if self._voice is not None:
                await self._voice.stop()

    def _stop(self) -> None:
        self._playout.stop()
        self._throttle.stop()

    # -- messages to events and audio ---------------------------------------------------------------------------------

    def _client_text(self, message: bytes) -> None:
        n_members = count_members(message, MAX_CLIENT_MEMBERS)
        self._throttle.message(message_cost(MAX_CLIENT_MEMBERS if n_members is None else n_members))
        self._uplink.flush()
        self.dispatch(self._client_codec.decode_text(message))

    def _take_voice(self, output: VoiceOutput) -> None:
        if type(output) is not SpeechDelta:
            self.dispatch(output)
            return
        try:
            self._downlink.speak(output)
        except Exception:
            self._line_failed()

    # -- commands -----------------------------------------------------------------------------------------------------

    def _send_upstream(self, message: bytes) -> None:
        """Only audio may be dropped: an upstream that leaves too many commands unread is disconnected."""
        upstream = self.upstream
        upstream.send_text(message)
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNREAD_COMMANDS_BYTES:
            self.dispatch(ev.UpstreamStuck(self._uplink.dropped_bytes, final=True))

    def _execute(self, command: cmd.Command, now: float) -> None:
        kind = type(command)
        if kind in cmd.CLIENT_MESSAGES:
            self._playout.send_now(command)  # type: ignore[arg-type]  # mypy does not narrow a union by a set
        elif kind in cmd.UPSTREAM_COMMANDS:
            self._send_upstream(self._upstream_codec.encode(cast(cmd.UpstreamCommand, command)))
        elif kind in cmd.PLAY_COMMANDS:
            self._play(cast(cmd.PlayCommand, command))
        elif kind in cmd.INPUT_COMMANDS:
            self._uplink.execute(cast(cmd.InputCommand, command))
        elif kind in cmd.VOICE_COMMANDS:
            if self._voice is not None:
                self._voice.carry_out(cast(cmd.VoiceCommand, command))
        else:
            self._manage(cast(cmd.ManageCommand, command))

    def _manage(self, command: cmd.ManageCommand) -> None:
        match command:
            case cmd.CloseUpstream():
                self.upstream.close(1000)
            case cmd.RunTool():
                self._spawn(self._run_tool(command))
            case cmd.CancelTool(call_id):
                self._tools.cancel(call_id)
            case cmd.CancelTools():
                self._cancel_tasks()
            case cmd.CloseClient(code, reason):
                self._playout.close(code, reason)
            case _:
                assert_never(command)

    def _play(self, command: cmd.PlayCommand) -> None:
        match command:
            case cmd.PlayStart(item_id, content_index):
                self.core.ledger.start_part((item_id, content_index))
                self._playout.start(command)
            case cmd.PlayEnd():
                self._playout.end(command)
            case cmd.DropAudio():
                self._playout.clear()
            case cmd.SyncPlayhead(item_id, played_ms):
                self._playout.sync(item_id, played_ms)
            case cmd.UseOptions(options):
                self._uplink.use(options)
                self._playout.use(options)
            case _:
                assert_never(command)
