"""What a tool may know about the call it serves, and the way its progress takes back to the session."""

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
    """The callback of a context that belongs to no running call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """Whom a tool works for: see `ToolContext`."""

    id: str
    identity: str | None
    language: str | None
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """The session and the call a tool works for; given to every parameter annotated `ToolContext`.

    `identity` is who the session belongs to, `language` a tag such as "en" or "pt-BR"; either is None when
    unknown. `metadata` is what else is known: over HTTP, where there is no session and its id is empty, the request
    as "req". The model neither sees nor fills any of it.
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
        """The session in one piece."""
        return SessionInfo(id=self.session_id, identity=self.identity, language=self.language, metadata=self.metadata)

    def progress(self, text: str) -> None:
        """Tells the client how far this call is; from any thread, at any time."""
        self.on_progress(text)

    def end_session(self, reason: str) -> None:
        """Ends the session once the model has answered this call and the client has heard it; from any thread.

        A device gets a `goodbye` with `reason`, a Realtime client a normal close with it. Where there is no session,
        over HTTP, it does nothing.
        """
        self.on_end(reason)


class ProgressReporter:
    """Carries one call's reports to `callback` on the loop's thread.

    Holds one text: where a tool reports faster than the loop turns, the latest wins. After `close`, or after
    200 reports, further ones are dropped; a text is cut at 500 characters.
    """

    def __init__(self, callback: Callable[[str], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # reports come from tool threads
        self._pending_text: str | None = None
        self._reports_left = MAX_PROGRESS_REPORTS
        self._closed = False

    def report(self, text: str) -> None:
        """Hands over one text, from any thread."""
        text = str(text)[:MAX_PROGRESS_CHARS]
        with self._lock:
            if self._closed or self._reports_left == 0:
                return
            self._reports_left -= 1
            scheduled = self._pending_text is not None
            self._pending_text = text
            if not scheduled:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                    self._loop.call_soon_threadsafe(self._deliver)

    def close(self) -> None:
        """The call is over: what comes now, from a thread left behind perhaps, is dropped."""
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
            log.exception("the listener for a tool's progress failed")
