"""What goes past a device's session unseen (`relay.peers.passage`): opened when all is as usual, counted afterwards.

Whoever is about to look at the session, its outbox or its recording calls `note` first: then all is as if everything
had been handled when it came.
"""

from relay.core import commands as cmd
from relay.core.device_session import DeviceSession
from relay.core.events import Forwarded, TextDelta
from relay.live_base import Tap
from relay.peers.outbox import Outbox
from relay.peers.passage import DeviceClientSocket, DeviceUpstreamSocket
from relay.peers.throttle import ReadThrottle
from relay.wire.append import decode_audio, forwarded
from relay.wire.device import DeviceCodec
from relay.wire.realtime import RealtimeCodec

MAX_UNTOLD_MS = 500
"""What a tap is told late: a recording writes twice a second, and asks first."""

Told = tuple[float, Forwarded | TextDelta]


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
        tap: Tap | None,
    ) -> None:
        self._core = core
        self._microphone, self._speech = microphone, speech
        self._codec, self._upstream_codec = codecs
        self._outbox, self._throttle = outbox, throttle
        self._tap = tap
        self._item = ("", 0)
        microphone.keeps = speech.keeps = tap is not None

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
            if self._tap is not None:
                left_bytes = min(left_bytes, MAX_UNTOLD_MS * codec.options.input.bytes_per_ms)
            convert = None if codec.passes_up else codec.to_upstream
            self._microphone.open_for(left_bytes, throttle.least_bytes, upstream, convert)
        return is_usual

    def open_speech(self, audio: Forwarded, now: float) -> None:
        """Let more of a clip pass, if it is being handed over as it comes."""
        turns = self._core.turns
        if not self._core.streaming_out or not self._codec.passes_down or not turns.is_under_way(audio):
            return
        self._item = (audio.item_id, audio.content_index)
        room_bytes = self._outbox.room_bytes(self._item, now)
        head = self._upstream_codec.head_of(*self._item)
        if room_bytes and head:
            texts_of = audio.response_id if turns.takes_text(audio.response_id) else None
            self._speech.open_for(head, room_bytes, texts_of, self._microphone)

    def note(self) -> None:
        """Count all that has passed, and tell the tap."""
        frames = self._note_microphone()
        words, samples = self._speech.take_words(), self._speech.take_passed()
        for now, said in words:
            self._core.turns.more_text(said, now)
        if samples:
            for now, n_bytes, _ in samples:
                self._outbox.passed(n_bytes, now)
            self._core.turns.passed_audio(*self._item, sum(n_bytes for _, n_bytes, _ in samples), samples[-1][0])
        if self._tap is not None and (frames or words or samples):
            self._tell(self._tap, frames, words, samples)

    def _note_microphone(self) -> list[tuple[float, bytes]]:
        n_bytes, frames = self._microphone.take_passed()
        if n_bytes:
            self._core.turns.input_bytes += n_bytes
            self._throttle.audio.left -= n_bytes
        return frames

    def _tell(
        self,
        tap: Tap,
        frames: list[tuple[float, bytes]],
        words: list[tuple[float, TextDelta]],
        samples: list[tuple[float, int, bytes]],
    ) -> None:
        """Everything in the order in which it came: a journal's time does not run backwards."""
        told: list[Told] = [(now, forwarded(("input_audio", "", len(raw), raw, "", 0))) for now, raw in frames]
        told += words
        for now, _, raw in samples:
            audio = self._upstream_codec.find_audio(memoryview(raw))
            assert audio is not None, "it was one when it passed"
            told.append((now, audio))
        told.sort(key=_when)
        for now, event in told:
            if isinstance(event, TextDelta):
                tap(event, now, (cmd.TellText(event.text),))
                continue
            tap(event, now, (event,))
            if event.kind == "output_audio":
                self._microphone.tell_sent(decode_audio(event.raw), now)


def _when(told: Told) -> float:
    return told[0]
