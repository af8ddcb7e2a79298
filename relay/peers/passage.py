"""The short way of audio: from one socket's frame to the other socket, in one call.

A relay sleeps between any two frames, and finds nothing in the processor's caches when it wakes: what a frame costs is
how much code and how many objects it touches. So a frame that nobody needs to look at is known by a few comparisons
and sent on, and all others take the long way, where everything is looked at.

The owner opens a passage when the session runs as usual, and closes it before anything else happens; what breaks the
order of whole messages (a fragment, a ping, a close) closes it here. The test for a usual frame stands in every
`on_ws_frame` in full, since a call for it would be one more in Python for each frame.
"""

import asyncio
from collections.abc import Callable

import pybase64
from picows import WSFrame, WSMsgType, WSProtocolError, WSTransport

from audio.framing import Chunk
from relay.core.events import TextDelta
from relay.core.passed import Passed, Piece
from relay.peers.frames import LONG_BYTES, MessageListener, StrictTextListener
from relay.peers.upstream import UpstreamSocket
from relay.wire.append import APPEND, TRANSCRIPT_HEAD, USUAL_HEAD
from relay.wire.front import USUAL_DELTAS, canonical_append

_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_encode, _decode = pybase64.b64encode, pybase64.b64decode

MAX_PASSING_WORDS = 64
"""Deltas of a text that pass before somebody looks: what the answer says must be kept until then."""
MAX_PASSING_TEXT_BYTES = 1024
"""A longer delta is no usual one, and has its bounds looked at."""
LEAST_PASSING_BYTES = 160
"""Shorter pieces of sound, less than 10 ms of any format but telephone quality, are too many to be counted later."""


class Passage(MessageListener):
    """A connection whose usual frames may go straight to another one."""

    pass_to: WSTransport | None = None
    """Where to; None while the passage is closed."""

    def open_passage(self, to: MessageListener) -> None:
        """Let usual frames through, if this end is read, both are between two messages and neither is closing."""
        transport = to.transport
        if self.takes_messages and not self.is_paused and transport is not None and not transport.is_close_frame_sent:
            self.pass_to = transport

    def close_passage(self) -> None:
        """Let everything take the long way."""
        self.pass_to = None

    def pause_reading(self, why: str) -> None:
        """Read no more; what has been read already takes the long way."""
        self.pass_to = None
        super().pause_reading(why)

    def close(self, code: int, reason: str = "") -> None:
        """Close with `code`; nothing passes any more."""
        self.pass_to = None
        super().close(code, reason)

    def _not_a_message(self, kind: WSMsgType, transport: WSTransport, frame: WSFrame) -> None:
        self.pass_to = None
        super()._not_a_message(kind, transport, frame)

    def _long_way(self, transport: WSTransport, frame: WSFrame) -> None:
        try:
            super().on_ws_frame(transport, frame)
        except WSProtocolError:
            self.pass_to = None  # what is still to come is not for anybody
            raise


class RealtimeClientSocket(Passage, StrictTextListener):
    """A Realtime client's connection; what passes appends audio and does nothing else.

    The passage closes by itself after the bytes that it was opened for.
    """

    _left_bytes = _granted_bytes = -1
    _least_bytes = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, by which picows closes with its code."""
        self.unread_bytes = 0
        to = self.pass_to
        if to is not None and frame.msg_type is _TEXT and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            n_bytes, least_bytes = frame.payload_size, self._least_bytes
            left_bytes = self._left_bytes - (n_bytes if n_bytes > least_bytes else least_bytes)
            if left_bytes >= 0 and n_bytes <= LONG_BYTES:
                raw = frame.get_payload_as_bytes()
                if canonical_append(raw) >= 0:
                    self._left_bytes = left_bytes
                    to.send(_TEXT, raw)
                    return
        self._long_way(transport, frame)

    def open_for(self, n_bytes: int, least_bytes: int, to: MessageListener) -> None:
        """Let appends of up to `n_bytes` in all pass, each counted as at least `least_bytes`."""
        self._left_bytes = self._granted_bytes = n_bytes
        self._least_bytes = least_bytes
        self.open_passage(to)

    def take_passed_bytes(self) -> int:
        """How many bytes have passed since this was last asked, as they are counted."""
        passed_bytes = self._granted_bytes - self._left_bytes
        self._granted_bytes = self._left_bytes
        return passed_bytes


class DeviceClientSocket(Passage, StrictTextListener):
    """A device's connection; what passes is microphone audio, which becomes the upstream's events on the way.

    The passage closes by itself after the bytes that it was opened for. With `keeps`, what has passed is kept.
    `on_sent` sees all audio that goes to the client, and when.
    """

    keeps = False
    _left_bytes = _granted_bytes = -1
    _least_bytes = 0
    _convert: Callable[[Chunk], Chunk] | None = None

    def __init__(
        self,
        max_message_bytes: int,
        on_sent: Callable[[Chunk, float], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(max_message_bytes)
        self._clock = clock or asyncio.get_running_loop().time
        self._on_sent = on_sent
        self._times: list[float] = []
        self._frames: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is over."""
        super().on_ws_connected(transport)
        if self._on_sent is None:
            return
        send, seen, clock = self.send_binary, self._on_sent, self._clock

        def send_seen(samples: Chunk) -> None:
            send(samples)
            seen(samples, clock())

        self.send_binary = send_seen

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, by which picows closes with its code."""
        to = self.pass_to
        if to is not None and frame.msg_type is _BINARY and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            n_bytes = frame.payload_size
            left_bytes = self._left_bytes - n_bytes
            if left_bytes >= 0 and n_bytes >= self._least_bytes and not n_bytes & 1:
                self._left_bytes = left_bytes
                samples = frame.get_payload_as_bytes()
                if self.keeps:
                    self._times.append(self._clock())
                    self._frames.append(samples)
                to.send(_TEXT, APPEND % _encode(samples if self._convert is None else self._convert(samples)))
                return
        self._long_way(transport, frame)

    def open_for(
        self, n_bytes: int, least_bytes: int, to: MessageListener, convert: Callable[[Chunk], Chunk] | None
    ) -> None:
        """Let up to `n_bytes` pass in even lengths of at least `least_bytes` each, as `convert` makes it."""
        self._left_bytes = self._granted_bytes = n_bytes
        self._least_bytes, self._convert = least_bytes, convert
        self.open_passage(to)

    def keep(self, frame: Chunk) -> None:
        """Keep what went the long way with what passed, if anything is kept."""
        if self.keeps:
            self._times.append(self._clock())
            self._frames.append(bytes(frame))

    def take_passed_bytes(self) -> int:
        """How many bytes have passed since this was last asked."""
        passed_bytes = self._granted_bytes - self._left_bytes
        self._granted_bytes = self._left_bytes
        return passed_bytes

    def take_kept(self, into: Passed) -> None:
        """Hand over what was kept."""
        if self._times:
            into.frame_times, into.frames = self._times, self._frames
            self._times, self._frames = [], []


class DeviceUpstreamSocket(Passage, UpstreamSocket):
    """A device session's model; what passes is more of the clip that is being handed over, and of its words.

    After the bytes that it was opened for the passage asks `renew` how many more there may be. `more_words` reads more
    of a transcript (see `TranscriptDeltas.find`), `encode_words` makes the client's message of it. With `keeps`, sound
    that has passed is kept.
    """

    keeps = False
    _left_bytes = 0
    _head = b""
    _response_id: str | None = None
    _convert: Callable[[Chunk], Chunk] | None = None

    def __init__(
        self,
        clock: Callable[[], float],
        more_words: Callable[[bytes], TextDelta | None],
        encode_words: Callable[[str], bytes],
    ) -> None:
        super().__init__()
        self._clock = clock
        self._more_words, self._encode_words = more_words, encode_words
        self.renew: Callable[[], int] = int
        self._passed: list[Piece] = []
        self._sound: list[bytes] = []
        self._sent: list[Chunk] = []
        self._words: list[tuple[float, TextDelta]] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, by which picows closes with its code."""
        to = self.pass_to
        if to is not None and frame.msg_type is _TEXT and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            raw = frame.get_payload_as_bytes()
            if raw.startswith(USUAL_HEAD):
                if self._pass_samples(to, raw):
                    return
            elif raw.startswith(TRANSCRIPT_HEAD) and self._pass_words(to, raw):
                return
        self._long_way(transport, frame)

    def _pass_samples(self, to: WSTransport, raw: bytes) -> bool:
        head_at = raw.find(b'"', len(USUAL_HEAD))
        if not raw.startswith(self._head, head_at) or not raw.endswith(b'"}'):
            return False
        try:
            samples = _decode(raw[head_at + len(self._head) : -2], None, True)
        except ValueError:
            return False
        n_bytes = len(samples)
        if n_bytes > self._left_bytes:
            self._left_bytes = self.renew()
        if not LEAST_PASSING_BYTES <= n_bytes <= self._left_bytes:
            return False
        self._left_bytes -= n_bytes
        sent: Chunk = samples if self._convert is None else self._convert(samples)
        self._passed.append((self._clock(), n_bytes, len(sent)))
        if self.keeps:
            self._sound.append(samples)
            self._sent.append(sent)
        if sent:  # a filter may hold back what it is given
            to.send(_BINARY, sent)
        return True

    def _pass_words(self, to: WSTransport, raw: bytes) -> bool:
        if len(raw) > MAX_PASSING_TEXT_BYTES or len(self._words) >= MAX_PASSING_WORDS:
            return False
        words = self._more_words(raw)
        if words is None or words.response_id != self._response_id:
            return False
        self._words.append((self._clock(), words))
        to.send(_TEXT, self._encode_words(words.text))
        return True

    def open_for(
        self,
        head: bytes,
        n_bytes: int,
        response_id: str | None,
        to: MessageListener,
        convert: Callable[[Chunk], Chunk] | None,
    ) -> None:
        """Let up to `n_bytes` of sound pass, of deltas with `head` (see `AudioDeltas.head_of`), and a response's words.

        `response_id`: None to let no words pass. `convert` makes the client's samples of the model's.
        """
        self._head, self._left_bytes, self._response_id, self._convert = head, n_bytes, response_id, convert
        self.open_passage(to)

    def take_passed(self) -> list[Piece]:
        """What sound has passed since this was last asked."""
        passed = self._passed
        if passed:
            self._passed = []
        return passed

    def take_kept(self, into: Passed) -> None:
        """Hand over what was kept."""
        if self._sound:
            into.sound, into.sent = self._sound, self._sent
            self._sound, self._sent = [], []

    def take_words(self) -> list[tuple[float, TextDelta]]:
        """When which words have passed since this was last asked."""
        words = self._words
        if words:
            self._words = []
        return words


class RealtimeUpstreamSocket(Passage, UpstreamSocket):
    """A Realtime session's model; what passes are deltas, of sound and of text."""

    has_passed = False
    """Whether anything has, since this was last set to False."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; raises WSProtocolError, by which picows closes with its code."""
        to = self.pass_to
        if to is not None and frame.msg_type is _TEXT and frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            raw = frame.get_payload_as_bytes() if frame.payload_size <= LONG_BYTES else b""
            if raw.startswith(USUAL_DELTAS):
                self.has_passed = True
                to.send(_TEXT, raw)
                return
        self._long_way(transport, frame)
