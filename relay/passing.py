"""What goes past a device's session unseen (`relay.peers.passage`): opened when all is as usual, counted afterwards.

Whoever is about to look at the session, its outbox or its recording calls `note` first: then all is as if everything
had been handled when it came.
"""

from collections.abc import Callable

from relay.core.device_session import DeviceSession
from relay.core.events import Forwarded, TextDelta
from relay.core.passed import Passed
from relay.live_base import Tap
from relay.peers.outbox import Outbox
from relay.peers.passage import DeviceClientSocket, DeviceUpstreamSocket
from relay.peers.throttle import ReadThrottle
from relay.wire.device import DeviceCodec
from relay.wire.realtime import RealtimeCodec

MAX_UNTOLD_MS = 500
"""What a tap is told late: a recording writes twice a second, and asks first."""


def piecewise(tap: Tap) -> Callable[[Passed], None]:
    """Tells a tap of everything that has passed, piece by piece."""

    def tell(passed: Passed) -> None:
        for now, event, commands in passed.events():
            tap(event, now, commands)

    return tell


class Passing:
    """Both passages of one device session."""

    def __init__(
        self,
        core: DeviceSession,
        microphone: DeviceClientSocket,
        speech: DeviceUpstreamSocket,
        codecs: tuple[DeviceCodec, RealtimeCodec],
        outbox: Outbox,
        throttle: ReadThrottle,
        tell: Callable[[Passed], None] | None,
    ) -> None:
        """`tell` is told of everything, in the order in which it came, before anything else is told of."""
        self._core = core
        self._microphone, self._speech = microphone, speech
        self._codec, self._upstream_codec = codecs
        self._outbox, self._throttle = outbox, throttle
        self._tell = tell
        self._item = ("", 0, "")
        microphone.keeps = speech.keeps = tell is not None

    def close(self) -> None:
        """Let nothing pass, and note what did."""
        self._microphone.close_passage()
        self._speech.close_passage()
        self.note()

    def close_speech(self) -> None:
        """Let no more of the model's clip pass, and note what did, on both sides."""
        self._speech.close_passage()
        self.note()

    def open_microphone(self) -> bool:
        """Let the client's audio pass, if all is as usual; returns whether it is."""
        upstream, throttle, codec = self._speech, self._throttle, self._codec
        is_usual = self._core.streaming_in and upstream.is_writable and not codec.aligner.carry
        left_bytes = int(throttle.audio.left)
        if is_usual and left_bytes > 0:
            if self._tell is not None:
                left_bytes = min(left_bytes, MAX_UNTOLD_MS * codec.options.input.bytes_per_ms)
            convert = None if codec.passes_up else codec.to_upstream
            self._microphone.open_for(left_bytes, throttle.least_bytes, upstream, convert)
        return is_usual

    def open_speech(self, audio: Forwarded, now: float) -> None:
        """Let more of a clip pass, if it is being handed over as it comes."""
        turns = self._core.turns
        if not self._core.streaming_out or not self._codec.passes_down or not turns.is_under_way(audio):
            return
        room_bytes = self._outbox.room_bytes((audio.item_id, audio.content_index), now)
        head = self._upstream_codec.head_of(audio.item_id, audio.content_index)
        if room_bytes and head:
            self._item = (audio.item_id, audio.content_index, audio.response_id)
            texts_of = audio.response_id if turns.takes_text(audio.response_id) else None
            self._speech.open_for(head, room_bytes, texts_of, self._microphone)

    def note(self) -> None:
        """Count all that has passed, and tell the tap."""
        spoken_bytes = self._microphone.take_passed_bytes()
        if spoken_bytes:
            self._core.turns.input_bytes += spoken_bytes
            self._throttle.audio.left -= spoken_bytes
        words, pieces = self._speech.take_words(), self._speech.take_passed()
        for now, said in words:
            self._core.turns.more_text(said, now)
        if pieces:
            for now, n_bytes in pieces:
                self._outbox.passed(n_bytes, now)
            self._core.turns.passed_audio(*self._item[:2], sum(n_bytes for _, n_bytes in pieces), pieces[-1][0])
        if self._tell is not None and (spoken_bytes or words or pieces):
            self._tell(self._passed(words, pieces))

    def _passed(self, words: list[tuple[float, TextDelta]], pieces: list[tuple[float, int]]) -> Passed:
        item_id, content_index, response_id = self._item
        passed = Passed(
            item_id=item_id, content_index=content_index, response_id=response_id, pieces=pieces, words=words
        )
        self._microphone.take_kept(passed)
        self._speech.take_kept(passed)
        return passed
