"""The client's audio on its way to the upstream, the only one there is.

    limit → align → ledger → recorder → gate → transcode → encode → upstream

Every frame takes each of these steps, whoever the client is and whether or not it is recorded. The rules set the gate
(`SetInputGate`) and release what was held (`ReleaseInput`); they read the ledger and never see a frame.
"""

from collections.abc import Callable

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core.events import UpstreamStuck
from relay.peers.throttle import ReadThrottle
from relay.peers.upstream import UpstreamSocket
from relay.runtime.media_recorder import MediaRecorder
from relay.session.common.held_input import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate
from relay.wire.append import encode_append
from relay.wire.device import DeviceCodec

MAX_UNSENT_BYTES = 1024 * 1024
"""Some 16 s of audio: what an upstream that does not read may hold up; more is dropped."""


class Uplink:
    """The part that all clients share: ledger, recorder and gate."""

    dropped_bytes = 0
    """What was dropped since the upstream last read."""

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamSocket,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
    ) -> None:
        self._ledger = ledger
        self._upstream = upstream
        self._clock = clock
        self._record = recorder.input if recorder is not None else None
        self._gate: InputGate = "held"
        self._held = HeldInput()

    def push(self, payload: Chunk, n_bytes: int) -> None:
        """Take `n_bytes` of audio, as samples or as the frame that they came in."""
        now = self._clock()
        self._ledger.add_input(n_bytes, now)
        if self._record is not None:
            self._record(payload, now)
        if self._gate == "open":
            self._send(payload)
        elif self._gate == "held":
            dropped = self._held.add(payload, n_bytes, self._ledger.input_bytes, self._input_bytes_per_ms)
            self._ledger.drop_input(dropped)
        elif self._gate == "muted":
            self._send(self._silence(payload))

    def execute(self, command: cmd.InputCommand) -> None:
        """Carry out what the rules want of the client's audio."""
        if isinstance(command, cmd.ReleaseInput):
            self._release(command.until_bytes)
            return
        self._gate = command.gate
        if command.gate != "held":
            self._release(None)

    def _release(self, until_bytes: int | None) -> None:
        for payload in self._held.take(until_bytes):
            if self._gate == "muted":
                self._send(self._silence(payload))
            elif self._gate != "closed":
                self._send(payload)

    @property
    def _input_bytes_per_ms(self) -> int:
        raise NotImplementedError

    def _silence(self, payload: Chunk) -> bytes:
        raise NotImplementedError

    def _send(self, payload: Chunk) -> None:
        raise NotImplementedError


class DeviceUplink(Uplink):
    """From a device's binary messages to the upstream's appends."""

    def __init__(
        self,
        ledger: MediaLedger,
        upstream: UpstreamSocket,
        clock: Callable[[], float],
        recorder: MediaRecorder | None,
        codec: DeviceCodec,
        throttle: ReadThrottle,
        dispatch: Callable[[UpstreamStuck], None],
    ) -> None:
        super().__init__(ledger, upstream, clock, recorder)
        self._codec = codec
        self._throttle = throttle
        self._dispatch = dispatch

    def take(self, message: bytes) -> None:
        """One binary message of the client's."""
        throttle, codec = self._throttle, self._codec
        allowance, n_bytes = throttle.audio, len(message)
        is_short = n_bytes < throttle.least_bytes
        if is_short:
            allowance.hurry()
        allowance.left -= throttle.least_bytes if is_short else n_bytes
        if allowance.left < 0:
            throttle.slow_down(allowance, "audio")
        if is_short and codec.gather(message):
            return
        samples = codec.aligner.feed(message)
        if samples:
            self.push(samples, len(samples))

    def flush(self) -> None:
        """Send on the short messages that were gathered: what comes next was said after them."""
        aligner = self._codec.aligner
        if aligner.carry and (samples := aligner.feed(b"")):
            self.push(samples, len(samples))

    @property
    def _input_bytes_per_ms(self) -> int:
        return self._codec.options.input.bytes_per_ms

    def _silence(self, payload: Chunk) -> bytes:
        return self._codec.options.input.silence(len(payload))

    def _send(self, payload: Chunk) -> None:
        codec, upstream = self._codec, self._upstream
        samples = payload if codec.passes_up else codec.to_upstream(payload)
        if not upstream.is_writable and upstream.unsent_bytes > MAX_UNSENT_BYTES:
            is_first, self.dropped_bytes = not self.dropped_bytes, self.dropped_bytes + len(samples)
            if is_first:  # told once, until the upstream reads again
                self._dispatch(UpstreamStuck(self.dropped_bytes))
        elif samples:
            upstream.send_text(encode_append(samples))


class RealtimeUplink(Uplink):
    """A Realtime client's appends, which are the upstream's already. An upstream that does not read holds it back."""

    _input_bytes_per_ms = 48

    def _send(self, payload: Chunk) -> None:
        self._upstream.send_whole_text(payload)
