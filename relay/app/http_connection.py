"""The relay's HTTP connections: request deadlines, JSON errors for invalid requests, and a limit of idle connections.

`HttpConnection` is a subclass of aiohttp's `RequestHandler`. Undocumented parts of it in use, held by
tests/app/test_http_connection.py: `finish_response`, `handle_error`, `_request_count`, `_message_tail`,
`_reading_paused` and `_buffer_paused`.
"""

import asyncio
import json
from time import thread_time
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from relay.app.connection_limiter import ConnectionLimiter
from relay.app.middleware import LINGERING_BYTES, log_connection_refusal
from relay.auth.refusals import RefusalLog
from relay.errors import RequestTimeout

RESPONSE_STALL_S = 10.0
MIN_RESPONSE_READ_BYTES = 64 * 1024
"""A client must read this much of a response in `RESPONSE_STALL_S`, else it is disconnected to free the buffer."""
_MAX_LINE_BYTES = 8190
PARSE_CHUNK_BYTES = 8 * 1024
"""The data that is parsed at once: 1,400 of the shortest chunks."""
COSTLY_PARSE_S, PAUSE_FACTOR = 0.0005, 9
"""A longer parse delays the next one by `PAUSE_FACTOR` times its duration: tiny chunks could fill a core."""
FULL_BUFFER_POLL_S = 0.005
"""The interval for checking whether the route has read the buffered body."""


class HttpConnection(web.RequestHandler):
    """One HTTP connection, until it closes or is upgraded to a WebSocket.

    The deadline runs while a request is received, but not while an earlier request is processed: then the relay itself
    may have paused reading.
    """

    __slots__ = (
        "_address",
        "_body",
        "_body_bytes_at_response",
        "_deadline",
        "_is_parsing_paused",
        "_is_responding",
        "_limiter",
        "_refusals",
        "_stall_timer",
        "_timeout_s",
        "_unparsed",
    )  # fmt: skip

    def __init__(
        self,
        server: web.Server,
        refusals: RefusalLog,
        limiter: ConnectionLimiter,
        request_timeout_s: float,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._refusals = refusals
        self._limiter = limiter
        self._timeout_s = request_timeout_s
        self._deadline: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unparsed = b""
        self._is_parsing_paused = False
        self._body: StreamReader | None = None
        self._is_responding = False
        self._body_bytes_at_response = 0
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add the connection to the limiter, which may evict another one."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._limiter.add_idle(self, self._address)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection from the limiter, and end the wait for a body."""
        self._limiter.remove(self)
        self._cancel_deadline()
        self._cancel_stall_timer()
        if self._body is not None and not self._body.is_eof() and not self._is_responding:
            self._body.set_exception(web.RequestPayloadError("the client disconnected"))
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when the client reads its response too slowly."""
        super().pause_writing()
        self._cancel_stall_timer()
        self._start_stall_timer()

    def resume_writing(self) -> None:
        """Called when the client has caught up."""
        super().resume_writing()
        self._cancel_stall_timer()

    def evict(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Start the deadline with the first byte of a request, and parse the data in chunks."""
        if data and self._deadline is None and not self._is_responding and not self._has_unread_body:
            self.keep_alive(True)  # cancels aiohttp's keep-alive timer, which could fire during a request
            self._start_deadline()
        was_empty = not self._unparsed
        self._unparsed += data
        if was_empty:
            self._parse_next_chunk()

    def set_parser(self, parser: Any, data_received_cb: Any = None) -> None:
        """Called at the upgrade to a WebSocket: data received already is passed on first."""
        self._message_tail += self._unparsed
        self._unparsed = b""
        super().set_parser(parser, data_received_cb)

    def _parse_next_chunk(self) -> None:
        if self.transport is None or not self._unparsed:
            return
        if self._is_paused_by_aiohttp:
            asyncio.get_running_loop().call_later(FULL_BUFFER_POLL_S, self._parse_next_chunk)
            return
        chunk, self._unparsed = self._unparsed[:PARSE_CHUNK_BYTES], self._unparsed[PARSE_CHUNK_BYTES:]
        started_s = thread_time()
        self._parse(chunk)
        if self.transport.is_closing():
            return
        if self._unparsed:
            self._is_parsing_paused = True
            self.transport.pause_reading()
            cost_s = thread_time() - started_s
            pause_s = PAUSE_FACTOR * cost_s if cost_s > COSTLY_PARSE_S else 0
            asyncio.get_running_loop().call_later(pause_s, self._parse_next_chunk)
        elif self._is_parsing_paused:
            self._is_parsing_paused = False
            if not self._is_paused_by_aiohttp:
                self.transport.resume_reading()

    @property
    def _is_paused_by_aiohttp(self) -> bool:
        return bool(self._reading_paused or self._buffer_paused)

    def _parse(self, data: bytes) -> None:
        """Let aiohttp parse; discard only a limited part of an unread body."""
        n_requests = self._request_count
        super().data_received(data)
        if self._body is None or self._body.is_eof():
            return
        if self._request_count > n_requests:  # aiohttp has queued an error response, and its reader would wait forever
            self._body.set_exception(web.RequestPayloadError("the body is malformed"))
        elif not self._is_responding and self._body.total_bytes - self._body_bytes_at_response > LINGERING_BYTES:
            self.evict()

    def on_request_head(self, body: StreamReader) -> None:
        """Called when the head of a request has arrived, before its handler runs."""
        self._body, self._is_responding = body, True
        self._limiter.mark_busy(self)
        if body.is_eof():
            self._cancel_deadline()
            return
        if self._deadline is None:  # it arrived while an earlier one was processed
            self._start_deadline()
        body.on_eof(self._cancel_deadline)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response, and close the connection afterwards if the body was not read."""
        if self._has_unread_body and isinstance(resp, web.StreamResponse):
            resp.force_close()
        # An unread response occupies a file descriptor, also that of an authorized client.
        self._limiter.add_idle(self, self._address)
        self._limiter.mark_busy(self)
        finished = await super().finish_response(request, resp, start_time)
        self._is_responding = False
        self._body_bytes_at_response = self._body.total_bytes if self._body is not None else 0
        if self.transport is not None:
            self._limiter.add_idle(self, self._address)
        return finished

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Respond to an invalid request with JSON and one log line, without repeating any of its text."""
        if isinstance(exc, HttpProcessingError):
            text = _parse_error_text(exc)
            log_connection_refusal(self._refusals, status, self._address, text)
        else:
            text = "Internal error; see the relay's log."
            self.log_exception("request failed: client=%s", self._address, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of a response was sent already")
        response = web.json_response({"error": text}, status=status)
        response.force_close()
        return response

    @property
    def _has_unread_body(self) -> bool:
        return self._body is not None and not self._body.is_eof()

    def _start_deadline(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self._on_deadline)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _start_stall_timer(self) -> None:
        unread_bytes = self.transport.get_write_buffer_size() if self.transport is not None else 0
        self._stall_timer = asyncio.get_running_loop().call_later(RESPONSE_STALL_S, self._check_stall, unread_bytes)

    def _check_stall(self, unread_bytes: int) -> None:
        self._stall_timer = None
        if self.transport is None:
            return
        if unread_bytes - self.transport.get_write_buffer_size() >= MIN_RESPONSE_READ_BYTES:
            self._start_stall_timer()
            return
        limit = f"less than {MIN_RESPONSE_READ_BYTES} bytes in {RESPONSE_STALL_S:g} s"
        text = f"The client reads its response too slowly: {limit}."
        log_connection_refusal(self._refusals, None, self._address, text)
        self.evict()

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _on_deadline(self) -> None:
        self._deadline = None
        error = RequestTimeout(f"The request and its body must arrive within {self._timeout_s:g} s.")
        if self._body is not None and self._has_unread_body:
            self._body.set_exception(error)  # raised in a handler that reads the body; others are not affected
            return
        log_connection_refusal(self._refusals, error.http_status, self._address, str(error))
        if self.transport is not None:
            self.transport.write(_raw_408_response(str(error)))
        self.force_close()


def _raw_408_response(text: str) -> bytes:
    """Build the whole response to an incomplete request head, for which aiohttp has no request object yet."""
    body = json.dumps({"error": text})
    return (
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


def _parse_error_text(error: HttpProcessingError) -> str:
    if isinstance(error, LineTooLong):
        return f"The request line and each header may have at most {_MAX_LINE_BYTES} bytes."
    return (
        "This is not a valid HTTP/1.1 request: its request line, a header or its body length is malformed. Is it TLS "
        "or another protocol?"
    )
