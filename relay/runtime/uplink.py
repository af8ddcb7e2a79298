"""The one path of client audio to the upstream.

    limit → align → ledger → recorder → gate → transcode → encode → upstream

Every frame takes each of these steps, for every client, recorded or not. The rules set the gate (`SetInputGate`) and
release held audio (`ReleaseInput`). They read the ledger and never see a frame.

The steps are in few methods of one object. The relay sleeps between two frames, so each function and object that a
frame touches is loaded from memory, not from the CPU's caches.
"""

from collections.abc import Callable

from pybase64 import b64encode

from audio.formats import PCM16_24K
from audio.framing import BytesLike, SampleAligner
from audio.transcode import Transcoder
from relay.protocols.openai.proxy import append_audio_bytes
from relay.runtime.media_recorder import MediaRecorder
from relay.session.common.input_control import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate
from relay.session.common.model import DeviceOptions
from relay.session.common.read_allowance import device_allowance
from relay.session.device import commands as cmd
from relay.session.device.events import UpstreamBackpressure
from relay.transport.read_limiter import ReadLimiter
from relay.transport.upstream import UpstreamConnection
from relay.transport.websocket import LONG_MESSAGE_BYTES

MAX_UNSENT_BYTES = 1024 * 1024
"""About 16 s of audio. Beyond this, audio for an upstream that does not read is dropped."""
COALESCED_MS = 10
"""Shorter messages are combined into appends of this length."""


class Uplink:
    """The steps that all clients share: limit, gate, and handling of audio while the gate is not open."""

    __slots__ = (
        "_allowance", "_clock", "_gate", "_held_input", "_is_blocked", "_is_open", "_ledger", "_min_message_bytes",
        "_read_limiter", "_record", "_send_text", "_upstream", "dropped_bytes",
    )  # fmt: skip

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamConnection,
        read_limiter: ReadLimiter,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
    ) -> None:
        self._read_limiter = read_limiter
        self._allowance, self._min_message_bytes = read_limiter.audio, read_limiter.min_message_bytes
        self._ledger = ledger
        self._record = recorder.record_input if recorder is not None else None
        self._clock = clock
        self._gate: InputGate = "held"
        self._is_open = self._is_blocked = False
        self._held_input = HeldInput()
        self.dropped_bytes = 0
        """Audio dropped since the upstream last read."""
        self._upstream = upstream
        self._send_text = upstream.send_text

    def execute(self, command: cmd.InputCommand) -> None:
        """Execute a command of the rules about client audio."""
        self._send_text = self._upstream.send_text  # the bound method changes when the connection opens
        if isinstance(command, cmd.ReleaseInput):
            self._release(command.until_bytes)
            return
        self._gate = command.gate
        self._is_open = command.gate == "open"
        if command.gate != "held":
            self._release(None)

    def set_writable(self, is_writable: bool) -> None:
        """Set whether the upstream's socket accepts data; audio dropped afterwards is reported again."""
        self._is_blocked = not is_writable
        self.dropped_bytes = 0 if is_writable else self.dropped_bytes

    def _hold_or_mute(self, payload: BytesLike, n_bytes: int) -> None:
        if self._gate == "held":
            dropped_bytes = self._held_input.add(payload, n_bytes, self._ledger.input_bytes, self._input_bytes_per_ms)
            self._ledger.drop_input(dropped_bytes)
        elif self._gate == "muted":
            self._send(self._to_silence(payload))

    def _release(self, until_bytes: int | None) -> None:
        for payload in self._held_input.take(until_bytes):
            if self._gate == "muted":
                self._send(self._to_silence(payload))
            elif self._gate != "closed":
                self._send(payload)

    @property
    def _input_bytes_per_ms(self) -> int:
        raise NotImplementedError

    def _to_silence(self, payload: BytesLike) -> BytesLike:
        raise NotImplementedError

    def _send(self, payload: BytesLike) -> None:
        raise NotImplementedError


class DeviceUplink(Uplink):
    """Sends a device's audio to the upstream as appends."""

    __slots__ = ("_aligner", "_coalesced_bytes", "_convert", "_dispatch", "_options", "_sample_bytes", "_template")

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamConnection,
        read_limiter: ReadLimiter,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
        options: DeviceOptions,
        append_template: bytes,
        dispatch: Callable[[UpstreamBackpressure], None],
    ) -> None:
        super().__init__(ledger, upstream, read_limiter, clock, recorder)
        self._template = append_template
        self._dispatch = dispatch
        self._options = options
        self._set_up_format()

    def apply_options(self, options: DeviceOptions) -> None:
        """Use other options from here on; buffered audio is kept unless its format changes."""
        old, self._options = self._options, options
        self._read_limiter.set_audio_allowance(*device_allowance(options.input, self._clock()))
        self._allowance, self._min_message_bytes = self._read_limiter.audio, self._read_limiter.min_message_bytes
        if (old.input, old.upstream_input) != (options.input, options.upstream_input):
            self._set_up_format()

    def _set_up_format(self) -> None:
        source, target = self._options.input, self._options.upstream_input
        self._aligner = SampleAligner(source.bytes_per_sample)
        self._sample_bytes = source.bytes_per_sample
        self._coalesced_bytes = COALESCED_MS * source.bytes_per_ms
        transcoder = Transcoder(source, target)
        self._convert = None if transcoder.is_identity else transcoder.direct_feed

    def receive(self, message: bytes) -> None:
        """Handle one message of client audio."""
        n_bytes = len(message)
        if n_bytes < self._min_message_bytes:
            self._receive_short(message)
            return
        allowance, aligner = self._allowance, self._aligner
        allowance.remaining -= n_bytes
        if allowance.remaining < 0:
            self._read_limiter.throttle(allowance, "audio")
        self._accept(aligner.feed(message) if aligner.carry or n_bytes % self._sample_bytes else message)

    def _receive_short(self, message: bytes) -> None:
        """Buffer a message too short to be sent as a separate append."""
        self._allowance.use_short_slices()
        self._read_limiter.count_bytes(len(message))
        if not self._aligner.hold(message, self._coalesced_bytes):
            self._accept(self._aligner.feed(message))

    def flush(self) -> None:
        """Send buffered short messages; call it before handling what the client sent after them."""
        if self._aligner.carry:
            self._accept(self._aligner.feed(b""))

    def _accept(self, samples: BytesLike) -> None:
        n_bytes = len(samples)
        if not n_bytes:
            return
        self._ledger.input_bytes += n_bytes
        if self._record is not None:
            self._record(samples, self._clock())
        if self._is_open:
            self._send(samples)
        else:
            self._hold_or_mute(samples, n_bytes)

    @property
    def _input_bytes_per_ms(self) -> int:
        return self._options.input.bytes_per_ms

    def _to_silence(self, payload: BytesLike) -> BytesLike:
        return self._options.input.silence(len(payload))

    def _send(self, payload: BytesLike) -> None:
        samples = payload if self._convert is None else self._convert(payload)
        if self._is_blocked and self._upstream.unsent_bytes > MAX_UNSENT_BYTES:
            is_first, self.dropped_bytes = not self.dropped_bytes, self.dropped_bytes + len(samples)
            if is_first:  # reported once, until the upstream reads again
                self._dispatch(UpstreamBackpressure(self.dropped_bytes))
        elif samples:
            self._send_text(self._template % b64encode(samples))


class RealtimeUplink(Uplink):
    """Forwards a Realtime client's appends; an upstream that does not read pauses the client (backpressure)."""

    __slots__ = ("_on_event",)
    _input_bytes_per_ms = PCM16_24K.bytes_per_ms

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamConnection,
        read_limiter: ReadLimiter,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
        on_event: Callable[[bytes], None],
    ) -> None:
        """`on_event` receives all messages but plain appends; their bytes have been charged already."""
        super().__init__(ledger, upstream, read_limiter, clock, recorder)
        self._on_event = on_event

    def receive(self, message: bytes) -> None:
        """Handle one text message from the client."""
        n_bytes, min_bytes, allowance = len(message), self._min_message_bytes, self._allowance
        allowance.remaining -= n_bytes if n_bytes > min_bytes else min_bytes
        if allowance.remaining < 0:
            self._read_limiter.throttle(allowance, "audio")
        n_audio_bytes = append_audio_bytes(message)
        if n_audio_bytes < 0:
            self._on_event(message)
            return
        self._ledger.input_bytes += n_audio_bytes
        if self._record is not None:
            self._record(message, self._clock())
        if not self._is_open:
            self._hold_or_mute(message, n_audio_bytes)
        elif n_bytes <= LONG_MESSAGE_BYTES:
            self._send_text(message)
        else:
            self._upstream.send_long_text(message)

    def _send(self, payload: BytesLike) -> None:
        self._upstream.send_text_any_size(payload)
