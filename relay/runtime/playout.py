"""Sends a device client everything it gets: messages at once, audio in order and paced.

`relay.session.device.playout_pacing` decides how much audio may go. What may not go yet waits here. So the client never
holds more than `max_ahead_ms`, and even one that ignores `interrupted` falls silent within that time.

Audio is converted when it comes, and waits in the client's format. The codec makes text messages of it as it is sent;
without `encode_audio` it goes as binary. A part's start and end wait in the queue with its audio; all other messages
overtake it. Acknowledgements from the client move the pacing on (`sync`).
"""

from collections import deque
from collections.abc import Callable, Iterator

from audio.framing import BytesLike
from relay.protocols.client_protocol import ClientCodec
from relay.runtime.timers import Alarm, PlayoutEndTimer, StallWatch
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device.events import (
    ClientBackpressure,
    Event,
    FirstAudioSent,
    PlayoutCleared,
    PlayoutFinished,
    PlayoutOverflow,
)
from relay.session.device.playout_pacing import PlayoutPacer
from relay.session.device.playout_transcoder import PlayoutTranscoder
from relay.transport.websocket import WebSocketConnection, noop

MAX_QUEUED_MS = 300_000
"""Audio that may wait; over it the oldest is dropped."""
MAX_QUEUED_ENTRIES = 20_000
"""Chunks of audio, starts and ends that may wait: 300 s in chunks of 15 ms, far shorter than any model sends."""


class PlayoutQueue:
    """What one device client is sent. `dispatch` takes the events that come of it; `clock` is the session's."""

    def __init__(
        self,
        socket: WebSocketConnection,
        codec: ClientCodec,
        options: DeviceOptions,
        dispatch: Callable[[Event], None],
        clock: Callable[[], float],
        max_queued_ms: float = MAX_QUEUED_MS,
        on_sent: Callable[[BytesLike, float], None] | None = None,
    ) -> None:
        """`on_sent` is called with all audio that goes to the socket, and the time."""
        self._socket = socket
        self._encode = codec.encode
        self._encode_audio = codec.encode_audio
        self._dispatch = dispatch
        self._clock = clock
        self._max_queued_ms = max_queued_ms
        self._on_sent = on_sent
        self._transcoder = PlayoutTranscoder(options)
        self._pacing = PlayoutPacer(options)
        self._bytes_per_ms = options.output.bytes_per_ms
        self._half_duplex = options.half_duplex
        self._queue: deque[tuple[PartKey, BytesLike] | cmd.SendAudioStart | cmd.SendAudioEnd] = deque()
        self._queued_bytes = 0
        self._open_part: PartKey | None = None  # the filter may hold the end of its audio
        self._overflowed_part: PartKey | None = None
        self._alarm = Alarm(self._on_alarm, clock)
        self._stall_watch = StallWatch(socket, lambda unsent_bytes: dispatch(ClientBackpressure(unsent_bytes)))
        self._played_out_wait = PlayoutEndTimer(self._unplayed_ms, lambda: dispatch(PlayoutFinished()))
        socket.on_writable = self._on_writable

    @property
    def n_queued(self) -> int:
        """Chunks of audio, starts and ends that wait."""
        return len(self._queue)

    # -- at once ------------------------------------------------------------------------------------------------------

    def send_now(self, message: cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd) -> None:
        """Send a message, if the client's protocol has it; it overtakes audio that waits."""
        encoded = self._encode(message)
        if encoded is None:
            return
        self._socket.send_text(encoded)
        if not self._socket.is_writable:
            self._stall_watch.check_unsent()

    def close(self, code: int, reason: str) -> None:
        """Close the client's connection."""
        self.stop()
        self._socket.close(code, reason)

    def stop(self) -> None:
        """Let no timer outlive the session."""
        self._socket.on_writable = noop
        self._stall_watch.stop()
        self._played_out_wait.stop()
        self._alarm.stop()
        self._queue.clear()
        self._queued_bytes = 0

    def apply_options(self, options: DeviceOptions) -> None:
        """Pace and encode by `options` from here on."""
        self._transcoder.apply_options(options)
        self._pacing.apply_options(options)
        self._bytes_per_ms = options.output.bytes_per_ms
        self._half_duplex = options.half_duplex

    # -- in order -----------------------------------------------------------------------------------------------------

    def start(self, command: cmd.SendAudioStart) -> None:
        """The audio of a part follows."""
        self._flush_transcoder()
        self._open_part = (command.item_id, command.content_index)
        self._enqueue(command)

    def play(self, key: PartKey, samples: BytesLike, now: float) -> None:
        """More audio of a part: whole samples in the upstream's format, in memory that may be kept."""
        transcoder = self._transcoder
        if not transcoder.is_identity:
            samples = transcoder.convert(samples)
        n_bytes = len(samples)
        if not n_bytes:
            return
        socket = self._socket
        # By far the most usual case, ten times a second for each session.
        if not self._queue and socket.is_writable and self._pacing.send_more(key, n_bytes, now):
            if self._encode_audio is None:
                socket.send_binary(samples)
            else:
                for message in self._encode_audio(key, samples):
                    socket.send_text(message)
            if self._on_sent is not None:
                self._on_sent(samples, now)
        else:
            self._enqueue_audio(key, samples, now)

    def end(self, command: cmd.SendAudioEnd) -> None:
        """The audio of a part is complete."""
        if self._open_part == (command.item_id, command.content_index):
            self._flush_transcoder()
        self._enqueue(command)

    def sync(self, item_id: str, played_ms: int) -> None:
        """The client reported its position."""
        now = self._clock()
        self._pacing.sync(item_id, played_ms, now)
        self._drain(now)

    def clear(self) -> None:
        """Drop all audio that waits; answers with `PlayoutCleared`."""
        handed = self._pacing.clear(self._clock(), self._queued_parts())
        self._queue.clear()
        self._queued_bytes = 0
        self._transcoder.discard_part()
        self._open_part = self._overflowed_part = None
        self._dispatch(PlayoutCleared(handed))

    # -- the queue ----------------------------------------------------------------------------------------------------

    def _enqueue(self, message: cmd.SendAudioStart | cmd.SendAudioEnd) -> None:
        now = self._clock()
        if self._queue:
            self._queue.append(message)
            self._drop_oldest(None, now)
        else:
            self._send_boundary(message, now)

    def _enqueue_audio(self, key: PartKey, samples: BytesLike, now: float) -> None:
        self._queue.append((key, samples))
        self._queued_bytes += len(samples)
        self._drain(now)
        self._drop_oldest(key, now)

    def _flush_transcoder(self) -> None:
        key, self._open_part = self._open_part, None
        if key is not None and (rest := self._transcoder.flush_part()):
            self._enqueue_audio(key, rest, self._clock())

    def _queued_parts(self) -> Iterator[PartKey]:
        for waiting in self._queue:
            yield waiting[0] if isinstance(waiting, tuple) else (waiting.item_id, waiting.content_index)

    def _drop_oldest(self, key: PartKey | None, now: float) -> None:
        """Let the oldest go while too much waits: audio is dropped; starts and ends are sent, they are never lost."""
        max_bytes = self._max_queued_ms * self._bytes_per_ms
        dropped_bytes = 0
        while self._queued_bytes > max_bytes or len(self._queue) > MAX_QUEUED_ENTRIES:
            oldest = self._queue.popleft()
            if isinstance(oldest, tuple):
                self._queued_bytes -= len(oldest[1])
                dropped_bytes += len(oldest[1])
                key = key or oldest[0]
            else:
                self._send_boundary(oldest, now)
        if key is not None and dropped_bytes and self._overflowed_part != key:
            self._overflowed_part = key
            self._dispatch(PlayoutOverflow(key[0], dropped_bytes // self._bytes_per_ms))

    def _drain(self, now: float) -> None:
        while self._queue and self._socket.is_writable:
            waiting = self._queue[0]
            if not isinstance(waiting, tuple):
                self._queue.popleft()
                self._send_boundary(waiting, now)
                continue
            key, samples = waiting
            previous_part = self._pacing.latest_part
            n_bytes = self._pacing.send(key, len(samples), now)
            if not n_bytes:
                self._alarm.set(self._pacing.next_chunk_at(len(samples), now))
                return
            if n_bytes < len(samples):
                whole = memoryview(samples)
                samples, self._queue[0] = whole[:n_bytes], (key, whole[n_bytes:])
            else:
                self._queue.popleft()
            self._queued_bytes -= n_bytes
            if self._encode_audio is None:
                self._socket.send_binary(samples)
            else:
                for message in self._encode_audio(key, samples):
                    self._socket.send_text(message)
            if self._on_sent is not None:
                self._on_sent(samples, now)
            if previous_part != key:
                self._dispatch(FirstAudioSent(key[0]))

    def _send_boundary(self, message: cmd.SendAudioStart | cmd.SendAudioEnd, now: float) -> None:
        if isinstance(message, cmd.SendAudioEnd):
            self._pacing.end_part((message.item_id, message.content_index))
            if self._half_duplex:
                self._played_out_wait.start(self._pacing.ahead_ms(now))
        self.send_now(message)

    # -- what wakes it ------------------------------------------------------------------------------------------------

    def _on_alarm(self) -> None:
        try:
            self._drain(self._clock())
        except Exception:  # nobody above handles it
            self._socket.on_internal_error()

    def _on_writable(self, is_writable: bool) -> None:
        self._stall_watch.set_writable(is_writable)
        if is_writable:
            self._on_alarm()

    def _unplayed_ms(self) -> float | None:
        is_more_to_come = self._queue or self._open_part is not None
        return None if is_more_to_come else self._pacing.ahead_ms(self._clock())
