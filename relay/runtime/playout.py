"""Sends messages and audio to a device client: messages at once, audio in order and paced.

`relay.session.device.playout_pacing` decides how much audio may be sent. The rest waits here. So the client never
buffers more than `max_ahead_ms`, and even one that ignores `interrupted` falls silent within that time.

Audio is converted on arrival and queued in the client's format. If the codec has `encode_audio`, it is sent as text
messages, otherwise as binary. The start and end of a part are queued with its audio; all other messages overtake it.
Acknowledgements from the client update the pacing (`sync`).
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
"""Audio that may be queued; beyond it the oldest is dropped."""
MAX_QUEUED_ENTRIES = 20_000
"""Queued chunks, starts and ends: 300 s in chunks of 15 ms, far shorter than any model sends."""


class PlayoutQueue:
    """One device client's playout. `dispatch` receives its events; `clock` is the session's."""

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
        """`on_sent` is called with all audio sent to the socket, and the time."""
        self._socket = socket
        self._encode = codec.encode
        self._encode_audio = codec.encode_audio
        self._dispatch = dispatch
        self._clock = clock
        self._max_queued_ms = max_queued_ms
        self._on_sent = on_sent
        self._transcoder = PlayoutTranscoder(options)
        self._pacer = PlayoutPacer(options)
        self._bytes_per_ms = options.output.bytes_per_ms
        self._half_duplex = options.half_duplex
        self._queue: deque[tuple[PartKey, BytesLike] | cmd.SendAudioStart | cmd.SendAudioEnd] = deque()
        self._queued_bytes = 0
        self._open_part: PartKey | None = None  # the resampler may hold the end of its audio
        self._overflowed_part: PartKey | None = None
        self._alarm = Alarm(self._on_alarm, clock)
        self._stall_watch = StallWatch(socket, lambda unsent_bytes: dispatch(ClientBackpressure(unsent_bytes)))
        self._end_timer = PlayoutEndTimer(self._unplayed_ms, lambda: dispatch(PlayoutFinished()))
        socket.on_writable = self._on_writable

    @property
    def n_queued(self) -> int:
        """Queued chunks, starts and ends."""
        return len(self._queue)

    # -- messages -----------------------------------------------------------------------------------------------------

    def send_now(self, message: cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd) -> None:
        """Send a message ahead of queued audio, if the client's protocol has it."""
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
        """Stop all timers and drop the queue."""
        self._socket.on_writable = noop
        self._stall_watch.stop()
        self._end_timer.stop()
        self._alarm.stop()
        self._queue.clear()
        self._queued_bytes = 0

    def apply_options(self, options: DeviceOptions) -> None:
        """Use other options for pacing and encoding from here on."""
        self._transcoder.apply_options(options)
        self._pacer.apply_options(options)
        self._bytes_per_ms = options.output.bytes_per_ms
        self._half_duplex = options.half_duplex

    # -- audio --------------------------------------------------------------------------------------------------------

    def start(self, command: cmd.SendAudioStart) -> None:
        """Start the audio of a part."""
        self._flush_transcoder()
        self._open_part = (command.item_id, command.content_index)
        self._enqueue(command)

    def play(self, key: PartKey, samples: BytesLike, now: float) -> None:
        """Send or queue audio of a part: whole samples in the upstream's format, in a buffer that is not reused."""
        transcoder = self._transcoder
        if not transcoder.is_identity:
            samples = transcoder.convert(samples)
        n_bytes = len(samples)
        if not n_bytes:
            return
        socket = self._socket
        # The most common case: ten times a second per session.
        if not self._queue and socket.is_writable and self._pacer.send_more(key, n_bytes, now):
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
        """End the audio of a part."""
        if self._open_part == (command.item_id, command.content_index):
            self._flush_transcoder()
        self._enqueue(command)

    def sync(self, item_id: str, played_ms: int) -> None:
        """Update the pacing with the position that the client reported."""
        now = self._clock()
        self._pacer.sync(item_id, played_ms, now)
        self._drain(now)

    def clear(self) -> None:
        """Drop all queued audio; dispatches `PlayoutCleared`."""
        sent_audio = self._pacer.clear(self._clock(), self._queued_parts())
        self._queue.clear()
        self._queued_bytes = 0
        self._transcoder.discard_part()
        self._open_part = self._overflowed_part = None
        self._dispatch(PlayoutCleared(sent_audio))

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
        if key is not None and (tail := self._transcoder.flush_part()):
            self._enqueue_audio(key, tail, self._clock())

    def _queued_parts(self) -> Iterator[PartKey]:
        for entry in self._queue:
            yield entry[0] if isinstance(entry, tuple) else (entry.item_id, entry.content_index)

    def _drop_oldest(self, key: PartKey | None, now: float) -> None:
        """Drop the oldest audio while too much is queued. Starts and ends are sent instead, so they are never lost."""
        max_bytes = self._max_queued_ms * self._bytes_per_ms
        dropped_bytes = 0
        while self._queued_bytes > max_bytes or len(self._queue) > MAX_QUEUED_ENTRIES:
            entry = self._queue.popleft()
            if isinstance(entry, tuple):
                self._queued_bytes -= len(entry[1])
                dropped_bytes += len(entry[1])
                key = key or entry[0]
            else:
                self._send_boundary(entry, now)
        if key is not None and dropped_bytes and self._overflowed_part != key:
            self._overflowed_part = key
            self._dispatch(PlayoutOverflow(key[0], dropped_bytes // self._bytes_per_ms))

    def _drain(self, now: float) -> None:
        while self._queue and self._socket.is_writable:
            entry = self._queue[0]
            if not isinstance(entry, tuple):
                self._queue.popleft()
                self._send_boundary(entry, now)
                continue
            key, samples = entry
            previous_part = self._pacer.latest_part
            n_bytes = self._pacer.send(key, len(samples), now)
            if not n_bytes:
                self._alarm.set(self._pacer.next_chunk_at(len(samples), now))
                return
            if n_bytes < len(samples):
                view = memoryview(samples)
                samples, self._queue[0] = view[:n_bytes], (key, view[n_bytes:])
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
            self._pacer.end_part((message.item_id, message.content_index))
            if self._half_duplex:
                self._end_timer.start(self._pacer.ahead_ms(now))
        self.send_now(message)

    # -- timers and backpressure --------------------------------------------------------------------------------------

    def _on_alarm(self) -> None:
        try:
            self._drain(self._clock())
        except Exception:  # no caller handles it
            self._socket.on_internal_error()

    def _on_writable(self, is_writable: bool) -> None:
        self._stall_watch.set_writable(is_writable)
        if is_writable:
            self._on_alarm()

    def _unplayed_ms(self) -> float | None:
        is_more_to_come = self._queue or self._open_part is not None
        return None if is_more_to_come else self._pacer.ahead_ms(self._clock())
