"""The recorder of one session: consent, records, and the end of the recording.

A recorder does no I/O itself, never blocks, never calls its session and never raises into it. The service flushes it
regularly.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from relay.recording.batch_builder import BatchBuilder, RealtimeBatchBuilder, realtime_event_line
from relay.recording.journal_buffer import JournalBuffer
from relay.recording.store.header import RecordingHeader
from relay.recording.store.writer import RecordingFiles, RecordingWriter
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import CONSENT_EVENT_TYPE, RealtimeClientEvent, RealtimeServerEvent

_log = logging.getLogger("relay.recordings")

MAX_PRE_CONSENT_EVENTS: Final = 64
"""Upstream handshake events that may be buffered before consent; they contain no text or audio."""

_HANDSHAKE_EVENTS = (
    ev.UpstreamOpened, ev.SessionCreated, ev.SessionUpdated, ev.IgnoredUpstreamEvent, ev.DeadlineReached,
    ev.TtsConnected, ev.TtsFailed
)  # fmt: skip
_REALTIME_HANDSHAKE_TYPES = ("session.created", "session.updated")

RecordedEvent = tuple[Any, float, Sequence[Any]]
"""An event, its time and its commands."""


class ConsentGate:
    """Holds back the events of a session until its client consents to recording.

    Before consent nothing of the conversation is stored, not even in memory. Only the upstream handshake is buffered:
    if consent follows directly, the recording contains the whole session and can be replayed.
    """

    def __init__(self, *, is_open: bool) -> None:
        """`is_open`: no consent is needed."""
        self.is_open = is_open
        self._pre_consent_events: list[RecordedEvent] | None = []  # None: an event was dropped

    @property
    def from_start(self) -> bool:
        """Whether the recording can start with the session: no event was dropped."""
        return self._pre_consent_events is not None

    def opens_with(self, event: Any, now: float, commands: Sequence[Any] | None) -> bool:
        """Return whether recording starts with this event; a handshake event is buffered meanwhile."""
        if _get_consent(event):
            self.is_open = True
            return True
        buffered_events = self._pre_consent_events
        if buffered_events is None:
            return False
        if commands is not None and _is_handshake(event) and len(buffered_events) < MAX_PRE_CONSENT_EVENTS:
            buffered_events.append((event, now, commands))
        else:
            self._pre_consent_events = None
        return False

    def take_pre_consent_events(self) -> list[RecordedEvent]:
        """Return and clear the buffered events."""
        buffered, self._pre_consent_events = self._pre_consent_events or [], []
        return buffered

    def is_revoked_by(self, event: Any) -> bool:
        """Return whether the client revokes its consent with this event."""
        return _get_consent(event) is False


def _get_consent(event: Any) -> bool | None:
    """Return whether an event grants or revokes consent; None: neither."""
    if isinstance(event, ev.Hello | ev.Consent):
        return event.consent
    if type(event) is not RealtimeClientEvent or event.body.get("type") != CONSENT_EVENT_TYPE:
        return None
    is_granted = event.body.get("granted")
    return is_granted if isinstance(is_granted, bool) else None


def _is_handshake(event: Any) -> bool:
    if type(event) is RealtimeServerEvent:
        return event.body.get("type") in _REALTIME_HANDSHAKE_TYPES
    return isinstance(event, _HANDSHAKE_EVENTS)


class SessionRecorder:
    """Records the session of a device."""

    _batch_builder = BatchBuilder

    def __init__(
        self,
        header: RecordingHeader,
        folder: Path,
        writer: RecordingWriter,
        clock: Callable[[], float],
        on_closed: Callable[[], None],
        secrets: KnownSecrets = NO_SECRETS,
        max_bytes: float | None = None,
    ) -> None:
        """`max_bytes`: the limit; the recording ends with the batch that reaches it."""
        self.folder = folder
        self._header = header
        self._writer = writer
        self._clock = clock
        self._on_closed = on_closed
        self._secrets = secrets
        self._max_bytes = max_bytes
        self._gate = ConsentGate(is_open=header.record_mode != "consent")
        buffer = JournalBuffer(writer, folder.name, max_bytes, lambda: self._batch_builder(secrets), self.flush)
        self._options = header.setup.options
        buffer.stores_sent_audio = _converts_output(self._options)
        self._buffer = buffer
        self._files: RecordingFiles | None = None
        self._pending_tts_audio = b""
        self._holds_files = False  # the recording ended early: its files stay locked until the session ends
        self._is_closed = False
        # Audio is frequent: these are the bound methods of the buffer, without another call in between.
        self.record_input, self.record_output, self.record_raw_delta, self.record_sent_audio = (
            buffer.record_input, buffer.record_output, buffer.record_raw_delta, buffer.record_sent_audio
        )  # fmt: skip
        if self._gate.is_open:
            self._open_files()

    # -- the session's interface --------------------------------------------------------------------------------------

    def record_event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """Record an event and its commands; None if the rules raised."""
        try:
            if not self._gate.is_open:
                if not self._is_closed and self._gate.opens_with(event, now, commands):
                    self._start_after_consent()
                    self._record(event, now, commands)
                else:
                    self._track_options(commands)
            elif self._gate.is_revoked_by(event):
                self._on_consent_revoked()
            elif self._buffer.is_open:
                self._record(event, now, commands)
        except Exception:
            self._abandon()

    def record_tts_audio(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        """Record TTS audio; unless it is `discarded`, its `TtsAudio` event follows."""
        if discarded:
            self._buffer.record_discarded_tts_audio(context_id, samples, now)
        else:
            self._pending_tts_audio = samples

    def flush(self) -> None:
        """Submit the buffered records to the writer."""
        if not self._buffer.is_open or self._files is None:
            return
        try:
            self._buffer.flush(self._files)
            if self._buffer.is_full:
                self._end_full()
        except Exception:
            self._abandon()

    def close(self, reason: str = "closed") -> None:
        """End the recording with its session, and release the files."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._end(reason)
        except Exception:
            _log.exception("recording failed: recording=%s", self.folder.name)
        if self._files is not None and self._buffer.has_begun:  # a refused connection leaves no recording
            self._writer.submit_job(self._files.close, self._files)
            self._writer.submit_job(self._on_closed, self._files)

    # -- lifecycle ----------------------------------------------------------------------------------------------------

    def _start_after_consent(self) -> None:
        from_start = self._gate.from_start and not self._buffer.has_skipped_audio
        self._header = replace(self._header, from_start=from_start)
        if not from_start:  # a reader does not see the hello that set them
            self._header = replace(self._header, setup=replace(self._header.setup, options=self._options))
        self._open_files()
        buffered = self._gate.take_pre_consent_events()
        for event, now, commands in buffered if from_start else ():
            self._record(event, now, commands)

    def _open_files(self) -> None:
        self._files = RecordingFiles(self.folder, self._secrets.redact_json(self._header.to_json()))
        self._buffer.is_open = True

    def _end(self, reason: str) -> None:
        """Write the end line; the files stay open."""
        if not self._buffer.is_open:
            return
        self._buffer.is_open = False
        if self._files is not None and self._buffer.has_begun:
            self._buffer.end(self._files, self._clock(), reason)

    def _end_full(self) -> None:
        max_mb = (self._max_bytes or 0) / 1e6
        _log.warning(
            "recording ended: recording=%s reason=limit of %g MB reached (RELAY_RECORDING_MAX_MB)",
            self.folder.name, max_mb,
        )  # fmt: skip
        self._holds_files = True
        self._end(f"the recording has reached {max_mb:g} MB (RELAY_RECORDING_MAX_MB)")

    def _on_consent_revoked(self) -> None:
        """Delete the recording of this session."""
        if not self._buffer.is_open and not self._holds_files:
            return
        files, self._files = self._files, None
        self._buffer.is_open = self._holds_files = False
        self._buffer.clear()
        if files is not None:
            from relay.recording.store.retention import remove_recording

            self._writer.submit_job(files.close, files)
            self._writer.submit_job(lambda: remove_recording(files.folder), files)
            _log.info("recording deleted: recording=%s reason=consent revoked", files.folder.name)

    def _abandon(self) -> None:
        # Our own failure costs the recording, never the session; the client may still revoke its consent.
        _log.exception("recording failed: recording=%s", self.folder.name)
        self._holds_files = True
        with contextlib.suppress(Exception):
            self._end("the recorder failed")

    def _record(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        speech = b""
        if type(event) is ev.TtsAudio:
            speech, self._pending_tts_audio = self._pending_tts_audio, b""
        self._track_options(commands)
        self._buffer.record_event(event, now, commands, _current_error() if commands is None else "", speech)

    def _track_options(self, commands: Sequence[Any] | None) -> None:
        for command in commands or ():
            if type(command) is cmd.ApplyOptions:
                self._options = command.options
                self._buffer.stores_sent_audio = _converts_output(command.options)


class RealtimeSessionRecorder(SessionRecorder):
    """Records the session of a Realtime client, whose audio is inside of events."""

    _batch_builder = RealtimeBatchBuilder

    def _record(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        raised = _current_error() if commands is None else ""
        line, samples = realtime_event_line(self._secrets, event, now, commands, raised)
        self._buffer.record_line(line, now, samples)


def _converts_output(options: DeviceOptions) -> bool:
    """Return whether the client gets another format than the upstream sends."""
    return options.output != options.upstream_output


def _current_error() -> str:
    error = sys.exc_info()[1]
    return f"{type(error).__name__}: {error}" if error is not None else "unknown"
