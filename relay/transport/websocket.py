"""One WebSocket connection on picows: reassembly, UTF-8, reserved bits, size limits, closing handshake (RFC 6455).

picows parses and unmasks frames and checks opcodes, masks and lengths. This module does the rest, for clients and
upstreams.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from audio.framing import BytesLike
from relay.session.common.redact import close_reason

if TYPE_CHECKING:
    from picows.picows import WSCloseHandshake  # only in the stubs

CLOSE_TIMEOUT_S = 2.0
MAX_FRAGMENTS = 4096
LONG_MESSAGE_BYTES = 64 * 1024
"""Longer text messages are sent by `send_long_text`."""
_HEADER_BYTES = 14
"""Length of the longest frame header (RFC 6455, 5.2)."""
MAX_FRAMES_AFTER_CLOSE = 300
"""How many frames may still arrive after our close frame; after that the peer is no longer read. The connection is not
aborted before `CLOSE_TIMEOUT_S`: a reset could discard our close frame before the peer has read it."""

_CONTINUATION, _TEXT, _BINARY = WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY
_CLOSE, _PING, _PONG = WSMsgType.CLOSE, WSMsgType.PING, WSMsgType.PONG

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux only; elsewhere it is noticed a little later
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8

for _name in ("picows", "picows.server", "picows.client"):
    # picows logs every connection at INFO and every invalid frame at ERROR; the session's own log line is enough.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def noop(*_args: object) -> None:
    """Do nothing: the default of every callback."""


class WebSocketConnection(WSListener):
    """One WebSocket connection: `on_text` and `on_binary` get whole messages, `on_closed(code, reason)` its end, once.

    `code` is the peer's close code, 1005 if it sent none, 1006 if there was no closing handshake. It is the local code
    if this side closed first.
    """

    def __init__(self, max_message_bytes: int, *, strict_utf8: bool = False) -> None:
        """`strict_utf8` closes with 1007 for text that is not UTF-8 (RFC 6455, 8.1): for peers that are not trusted."""
        # The attributes that every message needs come first: they are adjacent in memory in this order.
        self.partial_frame_bytes = 0
        """Bytes received since the last whole frame; counted only for connections with a read budget."""
        self._fragment_type: WSMsgType | None = None
        self._strict_utf8 = strict_utf8
        self.on_text: Callable[[bytes], None] = noop
        self.on_binary: Callable[[bytes], None] = noop
        self.send_text: Callable[[BytesLike], None] = noop
        """Send one text message; does nothing before the connection is open and once it is closing."""
        self.send_binary: Callable[[BytesLike], None] = noop
        """Send one binary message; does nothing before the connection is open and once it is closing."""
        self.is_writable = True
        self.fragment_bytes = 0
        """Bytes of the fragments of an unfinished message."""
        self.transport: WSTransport | None = None
        self.on_closed: Callable[[int, str], None] = noop
        self.on_writable: Callable[[bool], None] = noop
        self.on_internal_error: Callable[[], None] = _reraise
        """Called in the `except` block after a message callback raised."""
        self.on_control_frame: Callable[[], None] = noop
        """A ping or a pong arrived; a ping has been answered if the connection is writable."""
        self.on_fragment: Callable[[], None] = noop
        """A fragment of a message arrived, and more follow."""
        self.on_message_stalled: Callable[[], None] = noop
        """A long message took too long while others waited for the budget (`relay.transport.read_budget`)."""
        self.unforwarded_bytes: Callable[[], int] = int
        """Bytes of whole messages that wait until their receiver reads them."""
        self.update_read_budget: Callable[[], None] = noop
        """Call this after forwarding some of the unforwarded bytes."""
        self.throttle_reads: Callable[[], None] = noop
        """Read in small pieces from now on, because everything that one read returns is parsed in one go."""
        self.on_reading_resumed: Callable[[], None] = noop
        """Reading has resumed."""
        self.is_open = False
        self._pause_reasons: frozenset[str] = frozenset()
        self.max_message_bytes = max_message_bytes
        """picows enforces it for single frames: it closes with 1009 and ignores later frames."""
        self._fragments: list[bytes] = []
        self._frames_after_close = 0
        self._is_close_reported = False
        self._local_close: tuple[int, str] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Called by picows after the opening handshake."""
        self.transport = transport
        self.is_open = True
        # Bound once: this saves a Python call for every message sent.
        self.send_text = partial(transport.send, _TEXT)
        self.send_binary = partial(transport.send, _BINARY)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one frame. Raises WSProtocolError, for which picows closes the connection with its code."""
        self.partial_frame_bytes = 0
        kind = frame.msg_type
        try:
            if (
                (kind is not _BINARY and kind is not _TEXT)
                or not frame.fin
                or frame.rsv1
                or frame.rsv2
                or frame.rsv3
                or self._fragment_type is not None
                or transport.is_close_frame_sent
            ):
                self._control_or_fragment(kind, transport, frame)
                return
            payload = frame.get_payload_as_bytes()
            if kind is _BINARY:
                self.on_binary(payload)
                return
            if self._strict_utf8 and not payload.isascii():
                _check_utf8(payload)
            self.on_text(payload)
        except WSProtocolError:
            raise
        except Exception:
            self.on_internal_error()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Called by picows when the connection is gone."""
        self.is_open = False
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        if self._is_close_reported:
            return
        self._is_close_reported = True
        self.on_closed(*(self._local_close or _close_code_and_reason(transport)))

    def pause_writing(self) -> None:
        """Called when the write buffer is over its high-water mark: the peer reads too slowly."""
        self.is_writable = False
        self.on_writable(False)

    def resume_writing(self) -> None:
        """Called when the write buffer is below its low-water mark again."""
        self.is_writable = True
        self.on_writable(True)

    @property
    def unsent_bytes(self) -> int:
        """Size of the write buffer: bytes that the peer has not read yet."""
        return self.transport.underlying_transport.get_write_buffer_size() if self.transport else 0

    def close(self, code: int, reason: str = "") -> None:
        """Close with `code`; the connection is aborted if the peer does not answer within `CLOSE_TIMEOUT_S`."""
        transport = self.transport
        if transport is None or transport.is_close_frame_sent or not self.is_open:
            return
        self._local_close = (code, close_reason(reason))
        self.throttle_reads()  # a flooding peer does not stop for our close frame
        transport.send_close(cast(WSCloseCode, code), self._local_close[1].encode())
        self._abort_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)

    @property
    def is_reading_paused(self) -> bool:
        """Whether reading is paused."""
        return bool(self._pause_reasons)

    @property
    def buffered_input_bytes(self) -> int:
        """Bytes of the peer's messages that are incomplete or wait to be forwarded."""
        return self.partial_frame_bytes + self.fragment_bytes + self.unforwarded_bytes()

    def send_long_text(self, message: BytesLike) -> None:
        """Send one text message from a temporary buffer: picows' own send buffer never shrinks."""
        if self.transport is not None and self.is_open:
            frame_buffer = bytearray(_HEADER_BYTES) + message
            self.transport.send_reuse_external_bytearray(_TEXT, frame_buffer, _HEADER_BYTES)

    def send_text_any_size(self, message: BytesLike) -> None:
        """Send one text message of any length."""
        if len(message) > LONG_MESSAGE_BYTES:
            self.send_long_text(message)
        else:
            self.send_text(message)

    def pause_reading(self, reason: str) -> None:
        """Pause reading until `resume_reading` for the same reason; TCP flow control then makes the peer wait."""
        self._pause_reasons |= {reason}
        if self.transport is not None and self.is_open and not self.transport.is_disconnected:
            self.transport.underlying_transport.pause_reading()

    def resume_reading(self, reason: str) -> None:
        """Resume reading, unless another reason to pause remains."""
        self._pause_reasons -= {reason}
        if self.is_reading_paused:
            return
        if self.transport is not None and self.is_open and not self.transport.is_disconnected:
            self.transport.underlying_transport.resume_reading()
            self.on_reading_resumed()

    @property
    def peer_closed(self) -> bool:
        """Whether the peer closed the TCP connection, although its last data is not read yet."""
        transport = self.transport
        if transport is None or not self.is_open or _TCP_INFO is None:
            return False
        tcp_socket = transport.underlying_transport.get_extra_info("socket")
        state: int = tcp_socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
        return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)

    def abort(self) -> None:
        """Close the TCP connection at once."""
        if self.transport is not None and not self.transport.is_disconnected:
            self.transport.disconnect(False)

    def _control_or_fragment(self, kind: WSMsgType, transport: WSTransport, frame: WSFrame) -> None:
        if kind is _CLOSE:
            self._on_close_frame(transport, frame)
            return
        if transport.is_close_frame_sent:
            self._frames_after_close += 1
            if self._frames_after_close >= MAX_FRAMES_AFTER_CLOSE:
                self.pause_reading("closing")
            return  # it was sent before the peer saw our close frame
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if kind is _PING:
            if self.is_writable:  # a peer that sends pings and does not read must not fill our memory with pongs
                transport.send_pong(frame.get_payload_as_bytes())
            self.on_control_frame()
        elif kind is _PONG:
            self.on_control_frame()
        else:
            self._on_fragment_frame(kind, frame)

    def _on_fragment_frame(self, kind: WSMsgType, frame: WSFrame) -> None:
        if (kind == _CONTINUATION) == (self._fragment_type is None):
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "fragments are out of order")
        if self._fragment_type is None:
            self._fragment_type = kind
        self.fragment_bytes += frame.payload_size
        if self.fragment_bytes > self.max_message_bytes:
            raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, f"the message exceeds {self.max_message_bytes} bytes")
        if len(self._fragments) >= MAX_FRAGMENTS:
            raise WSProtocolError(WSCloseCode.POLICY_VIOLATION, "the message exceeds 4096 fragments")
        self._fragments.append(frame.get_payload_as_bytes())
        if not frame.fin:
            self.on_fragment()
        else:
            kind, payload = self._fragment_type, b"".join(self._fragments)
            self._fragments.clear()
            self.fragment_bytes, self._fragment_type = 0, None
            if kind == _BINARY:
                self.on_binary(payload)
                return
            if self._strict_utf8:
                _check_utf8(payload)
            self.on_text(payload)

    def _on_close_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            code = frame.get_close_code()
            # Codes that a close frame may carry (RFC 6455, 7.4); picows has refused 1004, 1005 and 1015 already.
            may_be_sent = 1000 <= code.value < 5000 and code.value != 1006
            if frame.rsv1 or frame.rsv2 or frame.rsv3 or (frame.payload_size and not may_be_sent):
                self._local_close = (WSCloseCode.PROTOCOL_ERROR.value, "invalid close frame")
                raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, self._local_close[1])
            transport.send_close(code if frame.payload_size else WSCloseCode.OK, b"")
        transport.disconnect()


def _check_utf8(payload: bytes) -> None:
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise WSProtocolError(WSCloseCode.INVALID_TEXT, "text messages must be UTF-8") from error


def _close_code_and_reason(transport: WSTransport) -> tuple[int, str]:
    handshake: WSCloseHandshake | None = transport.close_handshake
    if handshake is not None and handshake.recv is not None and (handshake.sent is None or handshake.recv_then_sent):
        return handshake.recv.code.value or 1005, handshake.recv.reason or ""
    if handshake is not None and handshake.sent is not None:
        return handshake.sent.code.value or 1006, handshake.sent.reason or ""
    return 1006, ""


def _reraise() -> None:
    raise  # called while an exception is being handled
