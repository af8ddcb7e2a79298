"""Streams of WebSocket frames, right and wrong, and a connection of the relay's that takes them without a network."""

import itertools
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from websockets.frames import apply_mask

from relay.transport.upgrade import Keepalive, _ServerProtocol
from tests.support.raw_websocket import MAX_BYTES, RecordingConnection, upgrade_request

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"mask", cut: int = 0
) -> bytes:
    """One frame as it stands on the wire; `cut` leaves out so many of its last bytes."""
    masked = 0x80 if mask is not None else 0
    n = len(payload)
    if n < 126:
        length = bytes([masked | n])
    elif n < 65536:
        length = bytes([masked | 126]) + struct.pack("!H", n)
    else:
        length = bytes([masked | 127]) + struct.pack("!Q", n)
    if mask is not None:
        payload = mask + apply_mask(payload, mask)
    whole = bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length + payload
    return whole[: len(whole) - cut]


@dataclass
class FrameStream:
    """What a client sends, and in which pieces it arrives."""

    data: bytes
    pieces: list[int] = field(default_factory=list)
    is_cut: bool = False
    """Whether it ends within a frame: one side may then have seen enough of it, and the other not yet."""
    reads_ahead: bool = False
    """Whether a piece may hold several frames: picows looks at the next one before it hands over the one before."""

    def chunks(self) -> list[bytes]:
        """The pieces, in order."""
        edges = [0, *sorted({min(at, len(self.data)) for at in self.pieces}), len(self.data)]
        return [self.data[a:b] for a, b in itertools.pairwise(edges) if b > a]


UTF8 = ["a", "é", "✓", "🎙", "x" * 90, "", "\u0000"]
NOT_UTF8 = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x9c"]
SIZES = [0, 1, 5, 125, 126, 127, 400, 700, MAX_BYTES - 1, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES, 70_000]
CLOSES = [
    b"", b"\x03", struct.pack("!H", 1000) + b"bye", struct.pack("!H", 1000) + b"\xff", struct.pack("!H", 1001),
    *(struct.pack("!H", code) for code in (0, 999, *range(1002, 1017), 1100, 2999, 3000, 4999, 5000, 65535)),
]  # fmt: skip


def frame_stream(seed: int) -> FrameStream:
    """A stream by its number: a conversation that is mostly right, with as many faults as its `spite` wants."""
    chance = random.Random(seed)
    spite = chance.choice([0.0, 0.02, 0.1, 0.4])
    frames: list[bytes] = []
    is_open = False  # a fragmented message has begun

    def wrong() -> bool:
        return chance.random() < spite

    for _ in range(chance.randint(1, 14)):
        control = chance.random() < 0.25
        if control:
            opcode = chance.choice([PING, PING, PONG, CLOSE if chance.random() < 0.5 else PING])
            payload = chance.choice(CLOSES) if opcode == CLOSE else chance.randbytes(chance.choice([0, 3, 125]))
            if wrong():
                payload = bytes(chance.choice([126, 300]))
            fin = not wrong()
        else:
            opcode = CONT if is_open != wrong() else chance.choice([TEXT, BINARY])
            fin = chance.random() < 0.6
            is_open = not fin
            payload = "".join(chance.choices(UTF8, k=chance.randint(0, 4))).encode()
            if chance.random() < 0.2:  # a character may be cut where fragments meet
                payload = payload[: chance.randint(0, len(payload))]
            if wrong():
                payload = chance.choice(NOT_UTF8) + payload
            if wrong():
                payload = chance.randbytes(chance.choice(SIZES))
        if wrong():
            opcode = chance.randrange(16)
        rsv = chance.randrange(1, 8) if wrong() else 0
        if rsv and opcode == CLOSE:
            payload = b""  # one fault at a time: which of two is named is nobody's rule
        frames.append(frame(opcode, payload, fin=fin, rsv=rsv, mask=None if wrong() else chance.randbytes(4)))
    data = b"".join(frames)
    is_cut = False
    if chance.random() < spite:
        data += chance.randbytes(chance.randint(1, 40))
        is_cut = True  # whether the last of it is a whole frame, nobody knows
    if chance.random() < spite:
        data, is_cut = data[: chance.randint(0, len(data))], True
    overlong = overlong_length(data)
    if overlong is not None:
        data, is_cut = data[:overlong], True
    cuts = [chance.randint(0, len(data)) for _ in range(chance.choice([0, 0, 1, 3, 30]))]
    if chance.random() < 0.3:
        return FrameStream(data, cuts, is_cut, reads_ahead=True)
    return FrameStream(data, cuts + list(frame_edges(data)), is_cut)


def frame_edges(data: bytes) -> Iterator[int]:
    """Where frames end, as far as their headers say."""
    at = 0
    while at + 2 <= len(data):
        length, header = _length_at(data, at)
        at += header + length
        yield at


def overlong_length(data: bytes) -> int | None:
    """Where a frame begins whose length could be written shorter, which RFC 6455 (5.2) forbids."""
    for at in [0, *frame_edges(data)]:
        if at + 2 <= len(data):
            flag, length = data[at + 1] & 0x7F, _length_at(data, at)[0]
            if (flag == 126 and length < 126) or (flag == 127 and length < 65536):
                return at
    return None


def _length_at(data: bytes, at: int) -> tuple[int, int]:
    """Lengths of the payload and of the header of the frame that begins there; a length that is cut counts as big."""
    flag = data[at + 1] & 0x7F
    more = {126: 2, 127: 8}.get(flag, 0)
    header = 2 + more + (4 if data[at + 1] & 0x80 else 0)
    if at + 2 + more > len(data):
        return 1 << 62, header
    return int.from_bytes(data[at + 2 : at + 2 + more]) if more else flag, header


class _FakeTransport:
    """A TCP connection as picows sees one: it writes to the file descriptor itself, and sets socket options."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return self.near.fileno()

    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return 0

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.near.sendall(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def written(self) -> bytes:
        """What has been sent since the last time."""
        sent = b""
        try:
            while got := self.far.recv(65536):
                sent += got
        except BlockingIOError:
            pass
        return sent


class _Handler:
    def connection_lost(self, exc: BaseException | None) -> None: ...


@dataclass
class Verdict:
    """What became of a stream: whole messages, the pongs, and the code that the connection was closed with."""

    messages: list[str | bytes]
    pongs: list[bytes]
    code: int | None
    closed_within_a_message: bool = field(default=False, compare=False)
    """A close between fragments: RFC 6455 (5.4) lets control frames stand there, the library takes it for a fault."""


def relay_verdict(sent: FrameStream) -> Verdict:
    """The verdict of the relay's frame layer, limits as in service: a frame may be as long as a message."""
    wire = _FakeTransport()
    listener = RecordingConnection(MAX_BYTES)
    protocol = _ServerProtocol(_Handler(), listener, Keepalive(), {})
    try:
        protocol.connection_made(wire)
        protocol.feed_data(upgrade_request())
        assert wire.written().startswith(b"HTTP/1.1 101 ")
        for chunk in sent.chunks():
            protocol.feed_data(chunk)
        pongs, code = _answers(wire.written())
        return Verdict(listener.messages, pongs, code)
    finally:
        protocol.connection_lost(None)
        wire.near.close()
        wire.far.close()


def _answers(written: bytes) -> tuple[list[bytes], int | None]:
    """The pongs and the first close code in what a server wrote; nothing else is there to be written."""
    pongs: list[bytes] = []
    while written:
        first, length = written[0], written[1]
        payload, written = written[2 : 2 + length], written[2 + length :]
        assert first in (0x80 | PONG, 0x80 | CLOSE)
        assert length < 126
        if first == 0x80 | CLOSE:
            assert not written, "nothing follows a close frame"
            return pongs, int.from_bytes(payload[:2]) if payload else 1005
        pongs.append(payload)
    return pongs, None
