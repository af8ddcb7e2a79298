"""The context of a tool call: its session, its progress reports, and the request to end the session."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

log = logging.getLogger(__name__)

MAX_PROGRESS_CHARS = 500
MAX_PROGRESS_REPORTS = 200


def _noop(_text: str) -> None:
    """Default callback of a context without a running call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """The session of a tool call; the fields are those of `ToolContext`."""

    id: str
    identity: str | None
    language: str | None
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The session and the call that a tool runs for; passed to every parameter annotated `ToolContext`.

    `identity` is the owner of the session, `language` a tag such as "en" or "pt-BR"; either is None if unknown.
    Over HTTP there is no session: `session_id` is empty, and `metadata["req"]` is the request. The model neither sees
    nor sets any field.
    """

    session_id: str
    call_id: str = ""
    identity: str | None = None
    language: str | None = None
    metadata: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    on_progress: Callable[[str], None] = field(default=_noop, repr=False, compare=False)
    on_end: Callable[[str], None] = field(default=_noop, repr=False, compare=False)

    @property
    def session(self) -> SessionInfo:
        """The fields of the session as one object."""
        return SessionInfo(id=self.session_id, identity=self.identity, language=self.language, metadata=self.metadata)

    def progress(self, text: str) -> None:
        """Report the progress of this call to the client; from any thread, at any time."""
        self.on_progress(text)

    def end_session(self, reason: str) -> None:
        """End the session after the model has answered this call and the client has played the answer.

        May be called from any thread. A device receives a `goodbye` with `reason`, a Realtime client a normal close
        with it. Does nothing over HTTP, where there is no session.
        """
        self.on_end(reason)


class ProgressReporter:
    """Passes the progress reports of one call to `callback` on the event loop's thread.

    Keeps only the latest report until the loop delivers it. Cuts a text at 500 characters. Drops reports after
    `close` and after the first 200.
    """

    def __init__(self, callback: Callable[[str], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # reports come from tool threads
        self._pending_text: str | None = None
        self._reports_left = MAX_PROGRESS_REPORTS
        self._closed = False

    def report(self, text: str) -> None:
        """Schedule the delivery of one text; from any thread."""
        text = str(text)[:MAX_PROGRESS_CHARS]
        with self._lock:
            if self._closed or self._reports_left == 0:
                return
            self._reports_left -= 1
            scheduled = self._pending_text is not None
            self._pending_text = text
            if not scheduled:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._deliver)

    def close(self) -> None:
        """Drop pending and later reports; an abandoned thread may still send some."""
        with self._lock:
            self._closed = True
            self._pending_text = None

    def _deliver(self) -> None:
        with self._lock:
            text, self._pending_text = self._pending_text, None
        if text is None:
            return
        try:
            self._callback(text)
        except Exception:
            log.exception("tool progress callback failed")
