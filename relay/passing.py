"""What goes past a device's session unseen (`relay.peers.passage`): opened when all is as usual, counted afterwards.

Whoever is about to look at the session, its outbox or its recording calls `note` first: then all is as if everything
had been handled when it came.
"""

from collections.abc import Sequence
from typing import Protocol

from relay.core.device_session import DeviceSession
from relay.core.events import Forwarded, TextDelta
from relay.core.passed import Passed, Piece
from relay.live_base import Tap
from relay.peers.outbox import Outbox
from relay.peers.passage import DeviceClientSocket, DeviceUpstreamSocket
from relay.peers.throttle import ReadThrottle
from relay.wire.device import DeviceCodec
from relay.wire.realtime import RealtimeCodec


class Listener(Protocol):
    """Somebody who has to know of everything, and can wait for it."""

    @property
    def wants(self) -> bool:
        """Whether what passes from here on is to be kept and told."""

    def passed(self, passed: Passed) -> None:
        """All that has passed since this was last called, in order with all else that there is to tell."""


class Piecewise:
    """Tells a tap of all that has passed, piece by piece."""

    wants = True

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def passed(self, passed: Passed) -> None:
        """Tell it."""
        for now, event, commands in passed.events():
            self._tap(event, now, commands)


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
        listeners: Sequence[Listener],
    ) -> None:
        self._core = core
        self._microphone, self._speech = microphone, speech
        self._codec, self._upstream_codec = codecs
        self._outbox, self._throttle = outbox, throttle
        self._listeners = listeners
        self._item = ("", 0, "")
        self._words: list[tuple[float, TextDelta]] = []
        self._pieces: list[Piece] = []
        speech.renew = self._renew_speech

    def close(self) -> None:
        """Let nothing pass, note what did, and tell the listeners."""
        self._microphone.close_passage()
        self.close_speech()

    def close_speech(self) -> None:
        """Let no more of the model's clip pass; note what has passed, on both sides, and tell the listeners."""
        self._speech.close_passage()
        self.tell()

    def open_microphone(self) -> bool:
        """Let the client's audio pass, if all is as usual; returns whether it is."""
        upstream, throttle, codec = self._speech, self._throttle, self._codec
        is_usual = self._core.streaming_in and upstream.is_writable and not codec.aligner.carry
        left_bytes = int(throttle.audio.left)
        if is_usual and left_bytes > 0:
            self._microphone.keeps = any(one.wants for one in self._listeners)
            convert = None if codec.passes_up else codec.to_upstream
            self._microphone.open_for(left_bytes, throttle.least_bytes, upstream, convert)
        return is_usual

    def open_speech(self, audio: Forwarded) -> None:
        """Let more of a clip pass, if it is being handed over as it comes."""
        turns = self._core.turns
        if not self._core.streaming_out or not turns.is_under_way(audio):
            return
        room_bytes = self._room_bytes(audio.item_id, audio.content_index)
        head = self._upstream_codec.head_of(audio.item_id, audio.content_index)
        if room_bytes and head:
            self._item = (audio.item_id, audio.content_index, audio.response_id)
            self._speech.keeps = any(one.wants for one in self._listeners)
            texts_of = audio.response_id if turns.takes_text(audio.response_id) else None
            convert = None if self._codec.passes_down else self._codec.to_client
            self._speech.open_for(head, room_bytes, texts_of, self._microphone, convert)

    def _renew_speech(self) -> int:
        self.note()
        return self._room_bytes(*self._item[:2])

    def _room_bytes(self, item_id: str, content_index: int) -> int:
        return self._outbox.room_ms((item_id, content_index)) * self._codec.options.upstream_output.bytes_per_ms

    def note(self) -> None:
        """Count all that has passed."""
        spoken_bytes = self._microphone.take_passed_bytes()
        if spoken_bytes:
            self._core.turns.input_bytes += spoken_bytes
            self._throttle.audio.left -= spoken_bytes
        words, pieces = self._speech.take_words(), self._speech.take_passed()
        for now, said in words:
            self._core.turns.more_text(said, now)
        if pieces:
            for now, _, n_sent_bytes in pieces:
                self._outbox.passed(n_sent_bytes, now)
            self._core.turns.passed_audio(*self._item[:2], sum(n_bytes for _, n_bytes, _ in pieces), pieces[-1][0])
        if self._speech.keeps:
            self._words += words
            self._pieces += pieces

    def tell(self) -> None:
        """Count all that has passed, and tell the listeners."""
        self.note()
        if not self._listeners:
            return
        item_id, content_index, response_id = self._item
        passed = Passed(item_id=item_id, content_index=content_index, response_id=response_id)
        self._microphone.take_kept(passed)
        self._speech.take_kept(passed)
        passed.words, self._words = self._words, []
        passed.pieces, self._pieces = self._pieces, []
        if passed.frames or passed.pieces or passed.words:
            for listener in self._listeners:
                listener.passed(passed)
