"""Both ends of the sessions under load: devices, and a model that speaks OpenAI Realtime and never thinks.

A session-second is 50 frames of 20 ms up, 10 deltas of 100 ms and 5 pieces of transcript down.
"""

import os
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pybase64
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from relay.recording.derive.percentiles import percentile

FRAME_MS = 20
DELTA_MS = 100
UPSTREAM_BYTES_PER_MS = 48
"""24 kHz PCM16, what a model speaks."""

LoadProtocol = Literal["device", "realtime"]
"""What the clients speak: the device protocol, or, through a proxy that passes all bytes on, the model's own."""

_APPEND_PREFIX = b'{"type":"input_audio_buffer.append","audio":"'
_DELTA_PREFIX = b'{"type":"response.output_audio.delta"'
_DELTA_FIELD = b'"delta":"'
_IDS = b'"response_id":"resp_1","item_id":"item_1","output_index":0,"content_index":0,'
_VOICE_NAME = re.compile(r"bench-(\d{1,6})")
_TRANSCRIPT_DELTA = (
    b'{"type":"response.output_audio_transcript.delta","event_id":"event_words",' + _IDS + b'"delta":"and so on "}'
)


def voice_name(index: int) -> str:
    """The voice that session `index` asks for: by it the model's end knows whose connection it has."""
    return f"bench-{index}"


def decoded_size(base64: bytes) -> int:
    """How many bytes a base64 text stands for."""
    return len(base64) // 4 * 3 - base64[-2:].count(b"=")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies in ms; None where nothing was measured."""

    p50: float | None
    p99: float | None
    worst: float | None

    @classmethod
    def from_latencies(cls, milliseconds: Sequence[float]) -> "Percentiles":
        """Nearest-rank percentiles: each is a latency that did occur."""
        if not milliseconds:
            return cls(None, None, None)
        return cls(*(round(percentile(milliseconds, percent), 3) for percent in (50, 99, 100)))


class AudioFlow:
    """One direction of one session; times are seconds on any clock that both ends share.

    Latency without a mark in the sound, which no resampler would leave alone: every chunk that goes in at one end is a
    known number of bytes at the other. The n-th has arrived when n times as many have.
    """

    __slots__ = ("_chunk_bytes", "_received_at", "_received_bytes", "_sent_at", "_window")

    def __init__(self, chunk_bytes: int) -> None:
        """`chunk_bytes`: what one chunk is where it arrives."""
        self._chunk_bytes = chunk_bytes
        self._received_bytes = 0
        self._sent_at = array("d")
        self._received_at = array("d")
        self._window = (0, 0)

    def record_sent(self, now: float) -> None:
        """A chunk was sent."""
        self._sent_at.append(now)

    def record_received(self, n_bytes: int, now: float) -> None:
        """So many bytes arrived, in whatever pieces."""
        self._received_bytes += n_bytes
        for _ in range(self._received_bytes // self._chunk_bytes - len(self._received_at)):
            self._received_at.append(now)

    def open_window(self) -> None:
        """From here on chunks that leave are counted."""
        self._window = (len(self._sent_at), len(self._sent_at))

    def close_window(self) -> None:
        """Chunks that leave from here on are not counted any more."""
        self._window = (self._window[0], len(self._sent_at))

    @property
    def sent_chunks(self) -> int:
        """Chunks that left within the window."""
        return self._window[1] - self._window[0]

    def latencies_ms(self) -> list[float]:
        """Of each chunk that left within the window and has arrived by now."""
        first, last = self._window
        pairs = zip(self._sent_at[first:last], self._received_at[first:last], strict=False)
        return [(reached - left) * 1000 for left, reached in pairs]


class LoadSession:
    """One session under load, both of its ends."""

    def __init__(self, proto: LoadProtocol, rate_hz: int) -> None:
        frame_bytes = FRAME_MS * rate_hz * 2 // 1000
        heard_bytes_per_ms = rate_hz * 2 // 1000 if proto == "device" else UPSTREAM_BYTES_PER_MS
        self.up = AudioFlow(FRAME_MS * UPSTREAM_BYTES_PER_MS)
        self.down = AudioFlow(DELTA_MS * heard_bytes_per_ms)
        self.client: WSTransport | None = None
        self.upstream: WSTransport | None = None
        self.is_ready = False
        self.is_alive = False
        sound = os.urandom(max(frame_bytes, DELTA_MS * UPSTREAM_BYTES_PER_MS))
        if proto == "device":
            self._frame = (WSMsgType.BINARY, sound[:frame_bytes])
        else:
            append = _APPEND_PREFIX + pybase64.b64encode(sound[: FRAME_MS * UPSTREAM_BYTES_PER_MS]) + b'"}'
            self._frame = (WSMsgType.TEXT, append)
        self._delta_base64 = pybase64.b64encode(sound[: DELTA_MS * UPSTREAM_BYTES_PER_MS])
        self._n_deltas = 0

    def send_frame(self, now: float) -> None:
        """The device sends one frame of its microphone."""
        if self.client is not None:
            self.client.send(*self._frame)
            self.up.record_sent(now)

    def start_response(self) -> None:
        """The model begins a response that lasts as long as the load does."""
        item = {"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "event_id": "e1", "response": {"id": "resp_1", "output": []}},
            {"type": "response.output_item.added", "event_id": "e2", "response_id": "resp_1", "item": item},
            {"type": "conversation.item.added", "event_id": "e3", "previous_item_id": None, "item": item},
        ]
        for event in events:
            self._send_event(orjson.dumps(event))

    def send_delta(self, now: float) -> None:
        """The model sends one delta of sound, and words with every second one."""
        if self.upstream is None:
            return
        self._n_deltas += 1
        head = b'%b,"event_id":"event_%d",%b"delta":"' % (_DELTA_PREFIX, self._n_deltas, _IDS)
        self._send_event(head + self._delta_base64 + b'"}')
        self.down.record_sent(now)
        if self._n_deltas % 2:
            self._send_event(_TRANSCRIPT_DELTA)

    def _send_event(self, event: bytes) -> None:
        if self.upstream is not None:
            self.upstream.send(WSMsgType.TEXT, event)


class FakeClient(WSListener):
    """A device's side of its connection; `on_ready` is called once the session may begin."""

    def __init__(
        self, session: LoadSession, index: int, clock: Callable[[], float], on_ready: Callable[[], None]
    ) -> None:
        self._session = session
        self._index = index
        self._clock = clock
        self._on_ready = on_ready

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._session.client = transport
        self._session.is_alive = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._session.down.record_received(frame.payload_size, self._clock())
        elif frame.msg_type == WSMsgType.TEXT:
            self._on_text(transport, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._session.is_alive = False
        self._session.client = None

    def _on_text(self, transport: WSTransport, text: bytes) -> None:
        if text.startswith(_DELTA_PREFIX):
            sound = text[text.index(_DELTA_FIELD) + len(_DELTA_FIELD) : -2]
            self._session.down.record_received(decoded_size(sound), self._clock())
        elif self._session.is_ready:
            return
        elif b'"session.created"' in text:
            wish = {"type": "session.update", "session": {"audio": {"output": {"voice": voice_name(self._index)}}}}
            transport.send(WSMsgType.TEXT, orjson.dumps(wish))
        elif b'"AIConnected"' in text or b'"session.updated"' in text:
            self._session.is_ready = True
            self._on_ready()


class FakeUpstream(WSListener):
    """The model's side of one connection. It learns whose it is from the voice that is asked for."""

    def __init__(self, _: WSUpgradeRequest, sessions: dict[int, LoadSession], clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._session: LoadSession | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Say hello first, as the real one does."""
        created = {"type": "session.created", "event_id": "e0", "session": {"type": "realtime", "model": "bench"}}
        transport.send(WSMsgType.TEXT, orjson.dumps(created))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            text = frame.get_payload_as_bytes()
            if text.startswith(_APPEND_PREFIX):
                if self._session is not None:
                    self._session.up.record_received(decoded_size(text[len(_APPEND_PREFIX) : -2]), self._clock())
            elif b'"session.update"' in text:
                self._on_session_update(transport, orjson.loads(text))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._session is not None:
            self._session.upstream = None

    def _on_session_update(self, transport: WSTransport, update: dict[str, Any]) -> None:
        session = update["session"]
        found = _VOICE_NAME.fullmatch(str(session.get("audio", {}).get("output", {}).get("voice")))
        if found is not None:
            self._session = self._sessions[int(found[1])]
            self._session.upstream = transport
        transport.send(WSMsgType.TEXT, orjson.dumps({"type": "session.updated", "event_id": "e", "session": session}))
