"""A device client's session at run time: the only place where its rules, the languages and the sockets meet."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, assert_never, cast

from audio.formats import AudioFormat
from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.events import Forwarded
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.limits import LEAST_FRAME_MS, Allowance, audio_allowance, message_allowance, message_cost
from relay.live_base import LiveBase, Tap, Tools
from relay.passing import Listener, Passing, Piecewise
from relay.peers.outbox import MAX_QUEUED_MS, Outbox
from relay.peers.passage import DeviceClientSocket, DeviceUpstreamSocket
from relay.peers.throttle import ReadThrottle
from relay.peers.upstream import UpstreamSocket
from relay.wire.device import DeviceCodec
from relay.wire.realtime import RealtimeCodec
from relay.wire.weight import MAX_CLIENT_MEMBERS, count_members

MAX_UNSENT_UPSTREAM_BYTES = 1024 * 1024
"""Some 16 s of audio: what an upstream that does not read may hold up; more is left out."""
MAX_UNREAD_COMMANDS_BYTES = 4 * 1024 * 1024
"""With more than this unread, whatever it is, the upstream is given up at once."""

_HOT = (Forwarded, ev.TextDelta)


class VoicePeer(Protocol):
    """What a session needs of an external voice: do as it is asked, and feed what comes of it."""

    def carry_out(self, command: cmd.VoiceCommand) -> None:
        """Carry out a command; returns at once."""

    async def stop(self) -> None:
        """End everything, in bounded time."""


class LiveSession(LiveBase[DeviceSession]):
    """Joins one client's socket, one upstream and the tools by the rules of `core`."""

    _hot = _HOT

    def __init__(
        self,
        core: DeviceSession,
        client: DeviceClientSocket,
        upstream_codec: RealtimeCodec,
        dial: Callable[[UpstreamSocket], Awaitable[None]],
        tools: Tools,
        *,
        clock: Callable[[], float] | None = None,
        tap: Tap | None = None,
        max_queued_ms: float = MAX_QUEUED_MS,
        listeners: Sequence[Listener] | None = None,
        voice: Callable[[Callable[[ev.VoiceEvent], None]], VoicePeer] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`listeners` are told of what passed unseen, instead of the tap; without them, the tap is, piece by piece.
        `voice` makes the way to an external voice, given where its events go."""
        clock = clock or asyncio.get_running_loop().time
        self._microphone = client
        speech = DeviceUpstreamSocket(clock, upstream_codec.more_words, DeviceCodec.encode_text)
        super().__init__(core, client, dial, tools, clock=clock, tap=tap, upstream=speech, secrets=secrets)
        self._client_codec = DeviceCodec(core.options, secrets)
        self._outbox = Outbox(client, self._client_codec, core.options, self.feed, self._clock, max_queued_ms)
        messages = message_allowance(self._clock())
        microphone = self._allowance_of(core.options.input)
        self._throttle = ReadThrottle(client, *microphone, messages, self.feed, self._clock)
        self._upstream_codec = upstream_codec
        self._encode_audio = upstream_codec.encode_audio
        if listeners is None:
            listeners = [Piecewise(tap)] if tap is not None else []
        codecs = (self._client_codec, upstream_codec)
        self._passing = Passing(core, client, speech, codecs, self._outbox, self._throttle, listeners)
        self._decode = upstream_codec.decode
        self._voice = voice(self.feed) if voice is not None else None
        client.on_text = self._client_text
        client.on_binary = self._client_binary
        client.on_fragment = self._client_fragment
        self._upstream.on_text = self._paced.take

    async def run(self) -> None:
        """Live until the client is gone, and leave nothing behind: no voice that still speaks either."""
        try:
            await super().run()
        finally:
            if self._voice is not None:
                await self._voice.stop()

    def _allowance_of(self, microphone: AudioFormat) -> tuple[Allowance, int]:
        """How many bytes of audio the client may send, and what a frame is charged at least."""
        bytes_per_ms = microphone.bytes_per_ms
        return audio_allowance(bytes_per_ms, self._clock()), LEAST_FRAME_MS * bytes_per_ms

    def _stop(self) -> None:
        self._outbox.stop()
        self._throttle.stop()

    # -- sockets to events --------------------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> None:
        """Let something happen to the session; see `LiveBase.feed`."""
        self._passing.close()
        super().feed(event)
        if not self._busy:
            self._passing.open_microphone()

    def catch_up(self) -> None:
        """Tell whoever listens what has not been told yet."""
        self._passing.tell()

    def _client_binary(self, frame: memoryview) -> None:
        """A frame that may not take the short way, or no more of them."""
        passing, throttle = self._passing, self._throttle
        passing.note()
        n_bytes, allowance = len(frame), throttle.audio
        is_short = n_bytes < throttle.least_bytes
        if is_short:
            allowance.hurry()
        allowance.left -= max(n_bytes, throttle.least_bytes)
        if allowance.left < 0:
            throttle.slow_down(allowance, "audio")
        if is_short and self._client_codec.gather(frame):
            self._microphone.close_passage()  # what comes next waits its turn behind it; the model's sound goes on
            return
        is_usual = not self._busy and passing.open_microphone()
        if is_usual and n_bytes and not n_bytes & 1:
            self.core.turns.input_bytes += n_bytes
            self._microphone.keep(frame)
            codec = self._client_codec
            self._upstream.send_text(self._encode_audio(frame if codec.passes_up else codec.to_upstream(frame)))
            return
        event = self._client_codec.decode_audio(frame)
        if event is not None:
            self.feed(event)
        else:
            passing.close()  # half a sample waits for its other half

    def _client_fragment(self) -> None:
        self._passing.note()
        self._throttle.fragment()

    def _upstream_writable(self, is_writable: bool) -> None:
        self._passing.close()
        super()._upstream_writable(is_writable)
        if not self._busy:
            self._passing.open_microphone()

    def _client_text(self, frame: memoryview) -> None:
        n_members = count_members(bytes(frame), MAX_CLIENT_MEMBERS)
        self._throttle.message(message_cost(MAX_CLIENT_MEMBERS if n_members is None else n_members))
        codec = self._client_codec
        if codec.aligner.carry and (gathered := codec.decode_audio(b"")) is not None:
            self.feed(gathered)  # it was said before
        self.feed(codec.decode_text(frame))

    def _upstream_text(self, frame: memoryview) -> None:
        event = self._decode(frame)
        if type(event) in _HOT and self.core.streaming_out and not self._busy:
            # The short way of what `feed` does with more of a clip, or of a text, that is under way.
            self._passing.close_speech()
            now = self._clock()
            if type(event) is Forwarded:
                if self.core.turns.more_audio(event, now):
                    if self._tap is not None:
                        self._tap(event, now, (event,))
                    self._outbox.play(event, now)
                    if not self._busy:
                        self._passing.open_speech(event)
                    return
            elif self.core.turns.more_text(cast(ev.TextDelta, event), now):
                if self._tap is not None:
                    self._tap(event, now, (cmd.TellText(cast(ev.TextDelta, event).text),))
                self._client.send_text(self._client_codec.encode_text(cast(ev.TextDelta, event).text))
                return
        self.feed(event)

    # -- commands to sockets ------------------------------------------------------------------------------------------

    def _append(self, raw: Chunk) -> None:
        codec = self._client_codec
        samples = raw if codec.passes_up else codec.to_upstream(raw)
        upstream = self._upstream
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNSENT_UPSTREAM_BYTES:
            self._dropped_bytes += len(samples)
            if self._dropped_bytes == len(samples):  # told once, until the upstream reads again
                self.feed(ev.UpstreamStuck(self._dropped_bytes))
        elif samples:
            upstream.send_text(self._encode_audio(samples))

    def _send_upstream(self, message: bytes) -> None:
        """Nothing but audio may be left out: an upstream that asks and asks and does not read is hung up on."""
        upstream = self._upstream
        upstream.send_text(message)
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNREAD_COMMANDS_BYTES:
            self.feed(ev.UpstreamStuck(self._dropped_bytes, final=True))

    def _carry_out(self, command: cmd.Command, now: float) -> None:
        kind = type(command)
        if type(command) is Forwarded:
            if command.kind == "output_audio":
                self._outbox.play(command, now)
            else:
                self._append(command.raw)
        elif kind in cmd.CLIENT_MESSAGES:
            self._outbox.tell(cast(cmd.ClientMessage, command))
        elif kind in cmd.UPSTREAM_COMMANDS:
            self._send_upstream(self._upstream_codec.encode(cast(cmd.UpstreamCommand, command)))
        elif kind in cmd.PLAY_COMMANDS:
            self._play(cast(cmd.PlayCommand, command))
        elif kind in cmd.VOICE_COMMANDS:
            if self._voice is not None:
                self._voice.carry_out(cast(cmd.VoiceCommand, command))
        else:
            self._manage(cast(cmd.ManageCommand, command))

    def _manage(self, command: cmd.ManageCommand) -> None:
        match command:
            case cmd.CloseUpstream():
                self._upstream.close(1000)
            case cmd.RunTool():
                self._spawn(self._run_tool(command))
            case cmd.CancelTool(call_id):
                self._tools.cancel(call_id)
            case cmd.CancelTools():
                self._cancel_tasks()
            case cmd.CloseClient(code, reason):
                self._outbox.close(code, reason)
            case _:
                assert_never(command)

    def _play(self, command: cmd.PlayCommand) -> None:
        match command:
            case cmd.PlayStart():
                self._outbox.start(command)
            case cmd.PlayEnd():
                self._outbox.end(command)
            case cmd.DropAudio():
                self._outbox.drop()
            case cmd.SyncPlayhead(item_id, played_ms):
                self._outbox.sync(item_id, played_ms)
            case cmd.UseOptions(options):
                self._throttle.use(*self._allowance_of(options.input))
                self._outbox.use(options)
            case _:
                assert_never(command)
