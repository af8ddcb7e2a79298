"""One session's recording as it happens: consent, what is recorded, and its end.

A recorder opens, writes and waits for nothing, never calls its session, and never raises into it. The service flushes
it regularly.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from relay.recording.journal_buffer import BatchBuilder, JournalBuffer, RealtimeBatchBuilder, realtime_line
from relay.recording.store.header import Header
from relay.recording.store.writer import Files, Writer
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import CONSENT, ClientSaid, UpstreamSaid

_log = logging.getLogger("relay.recordings")

MAX_PRELUDE: Final = 64
"""Events of the upstream's greeting that may wait for consent; they hold no text or audio of the conversation."""

_GREETING = (
    ev.UpstreamOpened, ev.SessionCreated, ev.SessionUpdated, ev.IgnoredUpstreamEvent, ev.DeadlineReached,
    ev.TtsConnected, ev.TtsFailed
)  # fmt: skip
_REALTIME_GREETING = ("session.created", "session.updated")

Record = tuple[Any, float, Sequence[Any]]
"""An event, when it happened, and its commands."""


class ConsentGate:
    """Lets a session's events through from its client's consent on.

    Until the client agrees, nothing that a user or the model said is kept, not even in memory. The upstream's greeting
    may be: where consent comes right after it, the recording begins with its session, and can be replayed.
    """

    def __init__(self, *, is_open: bool) -> None:
        """`is_open`: nobody has to be asked."""
        self.is_open = is_open
        self._prelude: list[Record] | None = []  # None: something was left out

    @property
    def from_start(self) -> bool:
        """Whether all that has happened so far may be recorded."""
        return self._prelude is not None

    def opens(self, event: Any, now: float, commands: Sequence[Any] | None) -> bool:
        """Whether the recording begins with this event; one of the greeting is kept for `take_prelude` meanwhile."""
        if _consent_in(event):
            self.is_open = True
            return True
        prelude = self._prelude
        if prelude is None:
            return False
        if commands is not None and _is_greeting(event) and len(prelude) < MAX_PRELUDE:
            prelude.append((event, now, commands))
        else:
            self._prelude = None
        return False

    def take_prelude(self) -> list[Record]:
        """What happened before consent and may be recorded."""
        prelude, self._prelude = self._prelude or [], []
        return prelude

    def withdraws(self, event: Any) -> bool:
        """Whether the client takes its consent back with this event."""
        return _consent_in(event) is False


def _consent_in(event: Any) -> bool | None:
    """Whether an event grants consent or takes it back; None: neither."""
    if isinstance(event, ev.Hello | ev.Consent):
        return event.consent
    if type(event) is not ClientSaid or event.body.get("type") != CONSENT:
        return None
    granted = event.body.get("granted")
    return granted if isinstance(granted, bool) else None


def _is_greeting(event: Any) -> bool:
    """Whether an event belongs to the upstream's greeting."""
    if type(event) is UpstreamSaid:
        return event.body.get("type") in _REALTIME_GREETING
    return isinstance(event, _GREETING)


class SessionRecorder:
    """Records a device's session. `input`, `output`, `output_frame` and `sent` are those of its `JournalBuffer`."""

    _builder = BatchBuilder

    def __init__(
        self,
        header: Header,
        folder: Path,
        writer: Writer,
        clock: Callable[[], float],
        on_closed: Callable[[], None],
        secrets: KnownSecrets = NO_SECRETS,
        max_bytes: float | None = None,
    ) -> None:
        """`max_bytes`: the recording ends with the batch that reaches it."""
        self.folder = folder
        self._header = header
        self._writer = writer
        self._clock = clock
        self._on_closed = on_closed
        self._secrets = secrets
        self._max_bytes = max_bytes
        self._gate = ConsentGate(is_open=header.mode != "consent")
        buffer = JournalBuffer(writer, folder.name, max_bytes, lambda: self._builder(secrets), self.flush)
        self._options = header.beginning.options
        buffer.keeps_sent = _converts(self._options)
        self._buffer = buffer
        self._files: Files | None = None
        self._speech = b""
        self._is_held = False  # it ended before its session; until that ends its files stay locked
        self._is_closed = False
        # Audio comes so often that it goes without another call in between.
        self.input, self.output, self.output_frame, self.sent = (
            buffer.input, buffer.output, buffer.output_frame, buffer.sent
        )  # fmt: skip
        if self._gate.is_open:
            self._open()

    # -- what the session calls ---------------------------------------------------------------------------------------

    def event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """Something happened, and these commands followed; None if our own code failed at it."""
        try:
            if not self._gate.is_open:
                if not self._is_closed and self._gate.opens(event, now, commands):
                    self._begin()
                    self._record(event, now, commands)
                else:
                    self._follow_options(commands)
            elif self._gate.withdraws(event):
                self._withdraw()
            elif self._buffer.is_open:
                self._record(event, now, commands)
        except Exception:
            self._give_up()

    def speech(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        """An external voice sent audio; if it is not `discarded`, the `TtsAudio` that follows counts it."""
        if discarded:
            self._buffer.discarded_speech(context_id, samples, now)
        else:
            self._speech = samples

    def flush(self) -> None:
        """Hand over what there is."""
        if not self._buffer.is_open or self._files is None:
            return
        try:
            self._buffer.hand_over(self._files)
            if self._buffer.is_full:
                self._fill()
        except Exception:
            self._give_up()

    def close(self, reason: str = "closed") -> None:
        """The session is over: write what is left and let go of the files."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._end(reason)
        except Exception:
            _log.exception("recording %s ends early", self.folder.name)
        if self._files is not None and self._buffer.has_begun:  # a dial that was refused leaves nothing
            self._writer.do(self._files.close, self._files)
            self._writer.do(self._on_closed, self._files)

    # -- its life -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        from_start = self._gate.from_start and not self._buffer.has_skipped
        self._header = replace(self._header, from_start=from_start)
        if not from_start:  # nobody reads the hello that chose them
            self._header = replace(self._header, beginning=replace(self._header.beginning, options=self._options))
        self._open()
        prelude = self._gate.take_prelude()
        for event, now, commands in prelude if from_start else ():
            self._record(event, now, commands)

    def _open(self) -> None:
        self._files = Files(self.folder, self._secrets.redact_json(self._header.to_json()))
        self._buffer.is_open = True

    def _end(self, reason: str) -> None:
        """Write the last line; the files stay as they are."""
        if not self._buffer.is_open:
            return
        self._buffer.is_open = False
        if self._files is not None and self._buffer.has_begun:
            self._buffer.end(self._files, self._clock(), reason)

    def _fill(self) -> None:
        max_mb = (self._max_bytes or 0) / 1e6
        _log.warning(
            "recording %s ends: it has reached %g MB (RELAY_RECORDING_MAX_MB); its session goes on",
            self.folder.name, max_mb,
        )  # fmt: skip
        self._is_held = True
        self._end(f"the recording has reached {max_mb:g} MB (RELAY_RECORDING_MAX_MB)")

    def _withdraw(self) -> None:
        """The client takes its consent back: what was recorded of this session goes."""
        if not self._buffer.is_open and not self._is_held:
            return
        files, self._files = self._files, None
        self._buffer.is_open = self._is_held = False
        self._buffer.clear()
        if files is not None:
            from relay.recording.store.retention import remove

            self._writer.do(files.close, files)
            self._writer.do(lambda: remove(files.folder), files)
            _log.info("recording %s is deleted: consent was withdrawn", files.folder.name)

    def _give_up(self) -> None:
        # A fault of ours costs the recording, never the session; the client may still take its consent back.
        _log.exception("recording %s ends early", self.folder.name)
        self._is_held = True
        with contextlib.suppress(Exception):
            self._end("the recorder failed")

    def _record(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        speech = b""
        if type(event) is ev.TtsAudio:
            speech, self._speech = self._speech, b""
        self._follow_options(commands)
        self._buffer.event(event, now, commands, _what_failed() if commands is None else "", speech)

    def _follow_options(self, commands: Sequence[Any] | None) -> None:
        for command in commands or ():
            if type(command) is cmd.ApplyOptions:
                self._options = command.options
                self._buffer.keeps_sent = _converts(command.options)


class RealtimeSessionRecorder(SessionRecorder):
    """Records the session of a Realtime client, whose audio is inside of its events."""

    _builder = RealtimeBatchBuilder

    def _record(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        raised = _what_failed() if commands is None else ""
        line, samples = realtime_line(self._secrets, event, now, commands, raised)
        self._buffer.line(line, now, samples)


def _converts(options: DeviceOptions) -> bool:
    """Whether what the client is sent is not what the upstream sent."""
    return options.output != options.upstream_output


def _what_failed() -> str:
    error = sys.exc_info()[1]
    return f"{type(error).__name__}: {error}" if error is not None else "unknown"
