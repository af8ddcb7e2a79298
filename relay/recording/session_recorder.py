"""One session's recording as it happens: fed by its session, handed over to the thread that writes.

A recorder keeps what it is given, writes its lines, and hands all of it over twice a second. It opens, writes and waits
for nothing, never calls its session, and never raises into it.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.realtime_events import PassDown, UpstreamSaid
from relay.core.values import DeviceOptions
from relay.recording.consent import DEVICE_CONSENT, REALTIME_CONSENT, ConsentGate
from relay.recording.format.realtime import cut_append
from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    event_object,
    input_frame_line,
    live_line,
    output_frame_line,
    output_line,
    realtime_object,
    sent_line,
    speech_line,
    words_line,
)
from relay.recording.header import Header
from relay.recording.journal_buffer import CLIENT, SENT, UPSTREAM, VOICE, JournalBuffer, Stream
from relay.recording.writer import Files, Writer
from relay.session.common.media_types import AudioDelta, AudioFrame

FLUSH_S: Final = 0.5
"""With the writer's own delay, what `kill -9` can cost."""

_log = logging.getLogger("relay.recordings")


class SessionRecorder:
    """Records the session of a device."""

    _consent_rules = DEVICE_CONSENT

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
        self._gate = ConsentGate(self._consent_rules, is_open=header.mode != "consent")
        self._keeps_sent = _converts(header.beginning.options)
        self._speech = b""
        self._buffer = JournalBuffer(writer, folder.name, max_bytes)
        self._files: Files | None = None
        self._records = False  # between the beginning and the end of the recording
        self._is_held = False  # it ended before its session; until that ends its files stay locked
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        if self._gate.is_open:
            self._open()

    # -- what the session calls ---------------------------------------------------------------------------------------

    def event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """Something happened, and these commands followed; None if our own code failed at it."""
        try:
            if not self._gate.is_open:
                if not self._is_closed and self._gate.opens(event, now, commands):
                    self._begin()
                    self._add_event(event, now, commands)
            elif self._gate.withdraws(event):
                self._withdraw()
            elif self._records:
                self._add_event(event, now, commands)
        except Exception:
            self._give_up()

    def input(self, payload: Chunk, now: float) -> None:
        """The client sent audio: whole samples in its format."""
        if not self._records:
            self._gate.skip_audio()
            return
        try:
            self._add_input(payload if type(payload) is bytes else bytes(payload), now)
        except Exception:
            self._give_up()

    def output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """The upstream sent audio, in its format; `discarded`: the rules had given its response up."""
        if not self._records:
            self._gate.skip_audio()
            return
        try:
            response_id, item_id, content_index, _ = delta
            if self._buffer.add_output(samples, now, response_id, item_id, content_index, discarded):
                self.flush()
        except Exception:
            self._give_up()

    def output_frame(self, frame: AudioFrame, now: float) -> None:
        """The upstream sent audio to a Realtime client."""
        if not self._records:
            self._gate.skip_audio()
            return
        try:
            line, samples = output_frame_line(now, frame)
            self._add(self._secrets.redact_json(line), now, UPSTREAM, samples)
        except Exception:
            self._give_up()

    def speech(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        """An external voice sent audio; if it is not `discarded`, its line is that of the `VoiceSpoke` that follows."""
        if not self._records:
            self._gate.skip_audio()
            return
        try:
            if discarded:
                self._add(speech_line(now, len(samples), context_id, discarded=True), now, VOICE, samples)
            else:
                self._speech = samples
        except Exception:
            self._give_up()

    def sent(self, samples: Chunk, now: float) -> None:
        """Audio went to the client's socket, after pacing and conversion."""
        if not self._records:
            return
        try:
            if self._buffer.add_sent(samples if type(samples) is bytes else bytes(samples), now, is_kept=self._keeps_sent):
                self.flush()
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

    def flush(self) -> None:
        """Hand over what there is."""
        if not self._records or self._files is None:
            return
        try:
            self._buffer.hand_over(self._files)
            if self._buffer.is_full:
                self._fill()
        except Exception:
            self._give_up()

    # -- its life -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The client agrees."""
        self._header = replace(self._header, from_start=self._gate.from_start)
        self._open()
        for event, now, commands in self._gate.take_prelude():
            self._add_event(event, now, commands)

    def _open(self) -> None:
        self._files = Files(self.folder, self._secrets.redact_json(self._header.to_json()))
        self._records = True
        loop = asyncio.get_running_loop()
        # Recorders that begin together do not hand over together: so each has memory while others have none.
        self._timer = loop.call_later(FLUSH_S * (crc32(self.folder.name.encode()) % 16 + 1) / 16, self._on_timer)

    def _on_timer(self) -> None:
        self.flush()
        if self._records:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._on_timer)

    def _end(self, reason: str) -> None:
        """Write the last line; the files stay as they are."""
        if not self._records:
            return
        self._stop()
        if self._files is not None and self._buffer.has_begun:
            self._buffer.end(self._files, self._clock(), reason)

    def _stop(self) -> None:
        self._records = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fill(self) -> None:
        """The recording has reached its bound and ends."""
        max_mb = (self._max_bytes or 0) / 1e6
        _log.warning(
            "recording %s ends: it has reached %g MB (RELAY_RECORDING_MAX_MB); its session goes on",
            self.folder.name, max_mb,
        )  # fmt: skip
        self._is_held = True
        self._end(f"the recording has reached {max_mb:g} MB (RELAY_RECORDING_MAX_MB)")

    def _withdraw(self) -> None:
        """The client takes its consent back: what was recorded of this session goes."""
        if not self._records and not self._is_held:
            return
        files, self._files, self._is_held = self._files, None, False
        self._stop()
        self._buffer.clear()
        if files is not None:
            from relay.recording.retention import remove

            self._writer.do(files.close, files)
            self._writer.do(lambda: remove(files.folder), files)
            _log.info("recording %s is deleted: consent was withdrawn", files.folder.name)

    def _give_up(self) -> None:
        # A fault of ours costs the recording, never the session; the client may still take its consent back.
        _log.exception("recording %s ends early", self.folder.name)
        self._is_held = True
        with contextlib.suppress(Exception):
            self._end("the recorder failed")

    # -- lines --------------------------------------------------------------------------------------------------------

    def _add_input(self, payload: bytes, now: float) -> None:
        if self._buffer.add_input(payload, now):
            self.flush()

    def _add_event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        if type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
            if self._buffer.add_text(event, now, commands):
                self.flush()
            return
        if type(event) is ev.VoiceSpoke:
            samples, self._speech = self._speech, b""
            self._add_speech(event, samples, now, commands)
            if commands is not None:
                return
        for command in commands or ():
            if type(command) is cmd.UseOptions:
                self._keeps_sent = _converts(command.options)
        raised = "" if commands is not None else _what_failed()
        self._add(self._secrets.redact_json(live_line(event_object(event, now, commands, raised))), now)

    def _add_speech(
        self, event: ev.VoiceSpoke, samples: bytes, now: float, commands: Sequence[cmd.Command] | None
    ) -> None:
        line = speech_line(
            now, len(samples), event.context_id, event.alignment, commands or (), discarded=commands is None
        )
        self._add(line, now, VOICE, samples)

    def _add(self, line: bytes, now: float, stream: Stream = CLIENT, samples: bytes = b"") -> None:
        if self._buffer.add_line(line, now, stream, samples):
            self.flush()


class RealtimeSessionRecorder(SessionRecorder):
    """Records the session of a Realtime client, whose audio is inside of its events."""

    _consent_rules = REALTIME_CONSENT

    def _add_input(self, payload: bytes, now: float) -> None:
        """A whole append."""
        cut = cut_append(payload)
        if cut is not None and not cut[0]:
            super()._add_input(cut[1], now)
            return
        line, samples = input_frame_line(now, payload)
        self._add(self._secrets.redact_json(line), now, CLIENT, samples)

    def _add_event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        raised = "" if commands is not None else _what_failed()
        line_object, samples = realtime_object(event, now, commands, raised)
        line = live_line(line_object, len(event.raw) if type(event) is UpstreamSaid else 0)
        if not _was_searched(event, commands):
            line = self._secrets.redact_json(line)
        self._add(line, now, CLIENT, samples)


def _was_searched(event: Any, commands: Sequence[Any] | None) -> bool:
    """Whether the relay's secrets have been taken out already: the codec does so with what it reads of the upstream."""
    if commands is None:  # the text of what failed may hold anything
        return False
    is_passed_on = all(type(command) is PassDown for command in commands)
    return type(event) is UpstreamSaid and bool(event.body) and is_passed_on


def _converts(options: DeviceOptions) -> bool:
    """Whether what the client is sent is not what the upstream sent."""
    return options.output != options.upstream_output


def _what_failed() -> str:
    error = sys.exc_info()[1]
    return f"{type(error).__name__}: {error}" if error is not None else "unknown"
