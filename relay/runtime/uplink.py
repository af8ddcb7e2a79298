"""The client's audio on its way to the upstream, the only one there is.

    limit → align → ledger → recorder → gate → transcode → encode → upstream

Every frame takes each of these steps, whoever the client is and whether or not it is recorded. The rules set the gate
(`SetInputGate`) and release what was held (`ReleaseInput`); they read the ledger and never see a frame.

The steps stand in one method, and what they need in one object: a relay sleeps between any two frames, so that each
function and each object that a frame touches has to come from memory.
"""

from collections.abc import Callable

from pybase64 import b64encode

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core.events import UpstreamStuck
from relay.peers.frames import LONG_BYTES
from relay.peers.throttle import ReadThrottle
from relay.peers.upstream import UpstreamSocket
from relay.runtime.media_recorder import MediaRecorder
from relay.session.common.held_input import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate
from relay.wire.append import APPEND
from relay.wire.device import DeviceCodec
from relay.wire.front import canonical_append

MAX_UNSENT_BYTES = 1024 * 1024
"""Some 16 s of audio: what an upstream that does not read may hold up; more is dropped."""


class Uplink:
    """What all clients share: the gate, and what becomes of audio while it is not open."""

    __slots__ = (
        "_clock",
        "_gate",
        "_held",
        "_is_open",
        "_ledger",
        "_record",
        "_send_text",
        "_throttle",
        "_upstream",
        "dropped_bytes",
    )

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamSocket,
        throttle: ReadThrottle,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
    ) -> None:
        self._ledger = ledger
        self._upstream = upstream
        self._throttle = throttle
        self._clock = clock
        self._record = recorder.input if recorder is not None else None
        self._gate: InputGate = "held"
        self._is_open = False
        self._send_text = upstream.send_text
        self._held = HeldInput()
        self.dropped_bytes = 0
        """What was dropped since the upstream last read."""

    def execute(self, command: cmd.InputCommand) -> None:
        """Carry out what the rules want of the client's audio."""
        self._send_text = self._upstream.send_text  # bound once the connection stands, as it does by now
        if isinstance(command, cmd.ReleaseInput):
            self._release(command.until_bytes)
            return
        self._gate = command.gate
        self._is_open = command.gate == "open"
        if command.gate != "held":
            self._release(None)

    def upstream_reads_again(self) -> None:
        """What is dropped from here on is told again."""
        self.dropped_bytes = 0

    def _keep_back(self, payload: Chunk, n_bytes: int) -> None:
        """Audio came while the gate is not open."""
        if self._gate == "held":
            dropped_bytes = self._held.add(payload, n_bytes, self._ledger.input_bytes, self._input_bytes_per_ms)
            self._ledger.drop_input(dropped_bytes)
        elif self._gate == "muted":
            self._send(self._silence(payload))

    def _release(self, until_bytes: int | None) -> None:
        for payload in self._held.take(until_bytes):
            if self._gate == "muted":
                self._send(self._silence(payload))
            elif self._gate != "closed":
                self._send(payload)

    @property
    def _input_bytes_per_ms(self) -> int:
        raise NotImplementedError

    def _silence(self, payload: Chunk) -> Chunk:
        raise NotImplementedError

    def _send(self, payload: Chunk) -> None:
        raise NotImplementedError


class DeviceUplink(Uplink):
    """From a device's binary messages to the upstream's appends."""

    __slots__ = ("_codec", "_dispatch")

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamSocket,
        throttle: ReadThrottle,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
        codec: DeviceCodec,
        dispatch: Callable[[UpstreamStuck], None],
    ) -> None:
        super().__init__(ledger, upstream, throttle, clock, recorder)
        self._codec = codec
        self._dispatch = dispatch

    def take(self, message: bytes) -> None:
        """One binary message of the client's."""
        throttle, codec = self._throttle, self._codec
        n_bytes = len(message)
        if n_bytes < throttle.least_bytes:
            throttle.audio.hurry()
            throttle.take(n_bytes)
            if codec.gather(message):
                return
        else:
            allowance = throttle.audio
            allowance.left -= n_bytes
            if allowance.left < 0:
                throttle.slow_down(allowance, "audio")
        aligner = codec.aligner
        self._push(aligner.feed(message) if aligner.carry or n_bytes % aligner.sample_bytes else message)

    def flush(self) -> None:
        """Send on the short messages that were gathered: what comes next was said after them."""
        if self._codec.aligner.carry:
            self._push(self._codec.aligner.feed(b""))

    def _push(self, samples: Chunk) -> None:
        n_bytes = len(samples)
        if not n_bytes:
            return
        self._ledger.input_bytes += n_bytes
        if self._record is not None:
            self._record(samples, self._clock())
        if self._is_open:
            self._send(samples)
        else:
            self._keep_back(samples, n_bytes)

    @property
    def _input_bytes_per_ms(self) -> int:
        return self._codec.options.input.bytes_per_ms

    def _silence(self, payload: Chunk) -> Chunk:
        return self._codec.options.input.silence(len(payload))

    def _send(self, payload: Chunk) -> None:
        codec, upstream = self._codec, self._upstream
        samples = payload if codec.passes_up else codec.to_upstream(payload)
        if upstream.is_writable or upstream.unsent_bytes <= MAX_UNSENT_BYTES:
            if samples:
                self._send_text(APPEND % b64encode(samples))
            return
        is_first, self.dropped_bytes = not self.dropped_bytes, self.dropped_bytes + len(samples)
        if is_first:  # told once, until the upstream reads again
            self._dispatch(UpstreamStuck(self.dropped_bytes))


class RealtimeUplink(Uplink):
    """A Realtime client's appends, which are the upstream's already. An upstream that does not read holds it back."""

    __slots__ = ("_on_event",)
    _input_bytes_per_ms = 48

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamSocket,
        throttle: ReadThrottle,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
        on_event: Callable[[bytes], None],
    ) -> None:
        """`on_event` takes the messages that are no appends of the usual shape; they have been charged."""
        super().__init__(ledger, upstream, throttle, clock, recorder)
        self._on_event = on_event

    def take(self, message: bytes) -> None:
        """One text message of the client's."""
        throttle, n_bytes = self._throttle, len(message)
        allowance, least_bytes = throttle.audio, throttle.least_bytes
        allowance.left -= n_bytes if n_bytes > least_bytes else least_bytes
        if allowance.left < 0:
            throttle.slow_down(allowance, "audio")
        n_audio_bytes = canonical_append(message)
        if n_audio_bytes < 0:
            self._on_event(message)
            return
        self._ledger.input_bytes += n_audio_bytes
        if self._record is not None:
            self._record(message, self._clock())
        if not self._is_open:
            self._keep_back(message, n_audio_bytes)
        elif n_bytes <= LONG_BYTES:
            self._send_text(message)
        else:
            self._upstream.send_long_text(message)

    def _send(self, payload: Chunk) -> None:
        self._upstream.send_whole_text(payload)
