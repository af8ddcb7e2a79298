"""One session's recording as it happens: fed by the session's tap, handed to the thread that writes.

The loop's side copies what will not stay (audio), writes its lines, and hands all of it over twice a second; it opens,
writes and waits for nothing. A tape never raises into its session.
"""

import asyncio
import contextlib
import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pybase64

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.journal_lines import (
    MAX_LIVE_REDACTED_BYTES,
    audio_line,
    end_line,
    event_line,
    event_object,
    input_lines,
    live_line,
    passed_lines,
    realtime_object,
    sent_line,
    voice_line,
    words_line,
)
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.passed import Passed
from relay.core.realtime_events import CONSENT, ClientSaid, PassDown, UpstreamSaid
from relay.core.values import DeviceOptions
from relay.recording.header import Header
from relay.recording.writer import Batch, Files, Missing, Writer
from relay.wire.append import decode_audio

FLUSH_S = 0.7
"""With the writer's own delay, what `kill -9` can cost."""
FLUSH_BYTES = 256 * 1024
MAX_PRELUDE = 64
"""Events of the upstream's greeting that may wait for consent; they hold nothing that anybody said."""

_PRELUDE = (
    ev.UpstreamOpened, ev.SessionCreated, ev.SessionUpdated, ev.UnknownUpstream, ev.Tick, ev.VoiceOpened, ev.VoiceFailed
)  # fmt: skip

_log = logging.getLogger("relay.recordings")


class SessionTape:
    """Records one session. `tap` and `sent` are called by the session; both do little, and neither raises."""

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
        self.catch_up: Callable[[], None] = _no_matter
        """Makes the session call `tap` and `sent` for all that it has not told yet."""
        self._header = header
        self._writer = writer
        self._clock = clock
        self._on_closed = on_closed
        self._secrets = secrets
        self._files: Files | None = None
        self._waiting = header.mode == "consent"
        self._prelude: list[tuple[ev.Event, float, Sequence[cmd.Command]]] | None = []
        self._over = self._began = False
        self._is_held = False  # it ended before its session; until that ends its files stay locked
        self._max_bytes, self._n_bytes = max_bytes, 0
        self._keeps_sent = _converts(header.beginning.options)
        self._client, self._upstream, self._voice, self._sent = bytearray(), bytearray(), bytearray(), bytearray()
        self._journal: list[bytes] = []
        self._run: list[float] = []  # the times of microphone frames in a row, all of one length, that are no lines yet
        self._run_bytes = 0
        self._records = 0
        self._pending_bytes = 0
        self._first = self._last = 0.0
        self._missing = Missing()
        self._timer: asyncio.TimerHandle | None = None
        if not self._waiting:
            self._files = self._new_files()

    # -- what the session calls ---------------------------------------------------------------------------------------

    def tap(self, event: ev.Event, now: float, commands: Sequence[cmd.Command] | None) -> None:
        """Something happened, and these commands followed; None if our own code failed at it."""
        if self._over:
            self._late(event)
            return
        try:
            if self._waiting and not self._consented(event, now, commands):
                return
            if type(event) is ev.Forwarded and event.kind == "input_audio" and commands == (event,) and self._records:
                # Fifty times a second: only kept, and written down with the others of its kind.
                if event.n_bytes != self._run_bytes:
                    self._end_run()
                    self._run_bytes = event.n_bytes
                self._client += event.raw
                self._run.append(now)
                self._records += 1
                self._last = now
                self._pending_bytes += event.n_bytes + 32
                if self._pending_bytes > FLUSH_BYTES:
                    self._hand_over()
                return
            if type(event) is ev.Forwarded and commands is not None:
                self._audio(event, now, commands)
            elif type(event) is ev.VoiceSpoke and commands is not None:
                self._spoken(event, now, commands)
            elif type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
                self._note(words_line(event, now, commands), now, 0)
            else:
                self._other(event, now, commands)
        except Exception:
            self._give_up()

    def sent(self, samples: Chunk, now: float) -> None:
        """Audio went to the client's socket."""
        if self._over or self._waiting:
            return
        self.catch_up()  # what came before this stands before it
        try:
            if self._keeps_sent:
                self._sent += samples
            self._note(sent_line(now, len(samples), crc32(samples), kept=self._keeps_sent), now, len(samples))
        except Exception:
            self._give_up()

    @property
    def wants(self) -> bool:
        """Whether what happens is recorded at all, by consent and as long as nothing failed."""
        return not self._over and not self._waiting

    def passed(self, passed: Passed) -> None:
        """This went on without being handled: the microphone's audio up, the model's down and to the socket."""
        if not self.wants:
            return
        try:
            n_frame_bytes = set(map(len, passed.frames))
            if self._began and len(n_frame_bytes) <= 1:
                self._passed(passed, *n_frame_bytes)
                return
            sent = iter(passed.sent)
            for now, event, commands in passed.events():
                self.tap(event, now, commands)
                if type(event) is ev.Forwarded and event.kind == "output_audio" and (samples := next(sent)):
                    self.sent(samples, now)
        except Exception:
            self._give_up()

    def _passed(self, passed: Passed, n_frame_bytes: int = 0) -> None:
        """Many events a second, with as little work for each as can be."""
        frame_times, written = passed.frame_times, 0
        if frame_times and n_frame_bytes != self._run_bytes:
            self._end_run()
            self._run_bytes = n_frame_bytes
        told = passed_lines(passed, kept=self._keeps_sent)
        if not self._records:
            self._first = min([*frame_times[:1], *(now for now, _ in told[:1])])
        for now, lines in told:
            upto = bisect_left(frame_times, now, written)
            self._run += frame_times[written:upto]
            written = upto
            self._end_run()
            self._journal.append(lines)
            self._last = now
        self._run += frame_times[written:]
        self._last = max([self._last, *self._run[-1:]])
        frames, sound = b"".join(passed.frames), b"".join(passed.sound)
        self._client += frames
        self._upstream += sound
        if self._keeps_sent:
            self._sent += b"".join(passed.sent)
        n_sent = sum(map(bool, passed.sent))
        self._records += len(frame_times) + len(passed.pieces) + n_sent + len(passed.words)
        self._pending_bytes += len(frames) + 2 * len(sound) + 32 * len(frame_times)
        if self._pending_bytes > FLUSH_BYTES:
            self._hand_over()

    def close(self, reason: str = "closed") -> None:
        """The session is over: write what is left and let go of the files."""
        if self._over and not self._is_held:
            return
        if not self._over:
            self._end(reason)
        if self._files is None or not self._began:
            return  # what never began, as a dial that was refused, leaves nothing
        self._is_held = False
        self._writer.do(self._files.close, self._files)
        self._writer.do(self._on_closed, self._files)

    def _end(self, reason: str) -> None:
        """Write the last line; the files stay as they are."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._files is None or not self._began:
            return
        self._hand_over()
        now = self._clock()
        # Not by `put`: a gap and an end are so small that they need no room, whatever waits already.
        end = Batch((b"", b"", b"", b""), self._missing.take() + end_line(now, reason), 1, now, now)
        self._writer.do(partial(self._files.put, end), self._files)

    def _fill(self, max_bytes: float) -> None:
        """The recording has reached its bound and ends."""
        self._is_held = True
        _log.warning(
            "recording %s ends: it has reached %g MB (RELAY_RECORDING_MAX_MB); its session goes on",
            self.folder.name, max_bytes / 1e6,
        )  # fmt: skip
        self._end(f"the recording has reached {max_bytes / 1e6:g} MB (RELAY_RECORDING_MAX_MB)")

    # -- consent ------------------------------------------------------------------------------------------------------

    def _consented(self, event: ev.Event, now: float, commands: Sequence[cmd.Command] | None) -> bool:
        """Whether the recording begins with this event; until then nothing that anybody said is even kept in memory."""
        if not self._consent_in(event):
            prelude = self._prelude
            if prelude is not None:
                if self._greets(event) and commands is not None and len(prelude) < MAX_PRELUDE:
                    prelude.append((event, now, commands))
                else:
                    self._prelude = None
            return False
        self._waiting = False
        self._header = replace(self._header, from_start=self._prelude is not None)
        self._files = self._new_files()
        for early, when, done in self._prelude or ():
            self._other(early, when, done)
        self._prelude = None
        return True

    def _consent_in(self, event: Any) -> bool | None:
        """What an event says about consent; None if nothing."""
        return event.consent if isinstance(event, ev.Hello | ev.Consent) else None

    def _greets(self, event: Any) -> bool:
        """Whether an event belongs to the upstream's greeting, which holds nothing that anybody said."""
        return isinstance(event, _PRELUDE)

    def _late(self, event: Any) -> None:
        """What happens behind the end of a recording: the client may still take its consent back."""
        if self._is_held and self._consent_in(event) is False:
            self._withdrawn()

    def _withdrawn(self) -> None:
        """The client takes its consent back: what was recorded of this session goes."""
        files, self._over, self._is_held = self._files, True, False
        if self._timer is not None:
            self._timer.cancel()
        self._forget()
        if files is not None:
            from relay.recording.retention import remove

            self._writer.do(files.close, files)
            self._writer.do(lambda: remove(files.folder), files)
            _log.info("recording %s is deleted: consent was withdrawn", files.folder.name)

    def _new_files(self) -> Files:
        return Files(self.folder, self._secrets.redact_json(self._header.to_json()))

    # -- lines --------------------------------------------------------------------------------------------------------

    def _audio(self, event: ev.Forwarded, now: float, commands: Sequence[cmd.Command]) -> None:
        if event.kind == "input_audio":
            self._client += event.raw
        else:
            try:
                samples = decode_audio(event.raw)
            except ValueError:
                samples = b""
            if len(samples) != event.n_bytes:  # no usual base64: it stands in its line as it came
                self._note(event_line(event._replace(raw=bytes(event.raw)), now, commands), now, event.n_bytes)
                return
            self._upstream += samples
        self._note(audio_line(event, now, commands), now, event.n_bytes)

    def _spoken(self, event: ev.VoiceSpoke, now: float, commands: Sequence[cmd.Command]) -> None:
        try:
            samples = decode_audio(event.raw)
        except ValueError:
            samples = b""
        if pybase64.b64encode(samples) == event.raw:
            self._voice += samples
            line = voice_line(event, now, commands)
        else:  # no usual base64: it stands in its line as it came
            line = event_line(event._replace(raw=bytes(event.raw)), now, commands)
        self._note(line, now, event.n_bytes)

    def _other(self, event: ev.Event, now: float, commands: Sequence[cmd.Command] | None) -> None:
        if self._consent_in(event) is False:
            self._withdrawn()
            return
        for command in commands or ():
            if type(command) is cmd.UseOptions:
                self._keeps_sent = _converts(command.options)
        raised = "" if commands is not None else _what_failed()
        line = live_line(event_object(event, now, commands, raised))
        self._note(self._secrets.redact_json(line), now, 0)

    def _note(self, line: bytes, now: float, n_audio_bytes: int) -> None:
        if self._over:  # it was filled by what came just before
            return
        if not self._records:
            self._first = now
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        self._began = True
        self._end_run()
        self._journal.append(line)
        self._records += 1
        self._last = now
        self._pending_bytes += len(line) + n_audio_bytes
        if self._pending_bytes > FLUSH_BYTES:
            self._hand_over()

    def _end_run(self) -> None:
        if self._run:
            self._journal.append(input_lines(self._run, self._run_bytes))
            self._run.clear()

    # -- to the writer ------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self.catch_up()
        self._hand_over()
        if not self._over:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _hand_over(self) -> None:
        if not self._records or self._files is None:
            return
        self._end_run()
        missing = Missing(self._missing.records, self._missing.first, self._missing.last)
        batch = Batch(
            audio=(self._client, self._upstream, self._voice, self._sent),
            journal=missing.take() + b"".join(self._journal),
            records=self._records,
            first=self._first,
            last=self._last,
        )
        self._forget()
        if self._writer.put(self._files, batch):
            self._missing.records = 0
            self._n_bytes += batch.n_bytes
            if self._max_bytes is not None and self._n_bytes >= self._max_bytes and not self._over:
                self._fill(self._max_bytes)
            return
        if not self._missing.records:
            _log.error("recording %s has a gap: the disk is too slow", self.folder.name)
        self._missing.add(batch)

    def _forget(self) -> None:
        # The writer has the old ones now, or nobody needs them.
        self._client, self._upstream, self._voice, self._sent = bytearray(), bytearray(), bytearray(), bytearray()
        self._journal.clear()
        self._run.clear()
        self._pending_bytes = self._records = 0

    def _give_up(self) -> None:
        # A fault of ours costs the recording, never the session; the client may still take its consent back.
        _log.exception("recording %s ends early", self.folder.name)
        self._is_held = True
        with contextlib.suppress(Exception):
            if not self._over:
                self._end("the recorder failed")


class RealtimeTape(SessionTape):
    """Records the session of a Realtime client, whose sound is inside of its events."""

    def tap(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """As with a device, but nothing is so frequent that it would need a short way."""
        if self._over:
            self._late(event)
            return
        try:
            if not self._waiting or self._consented(event, now, commands):
                self._other(event, now, commands)
        except Exception:
            self._give_up()

    def _consent_in(self, event: Any) -> bool | None:
        if type(event) is not ClientSaid or event.body.get("type") != CONSENT:
            return None
        granted = event.body.get("granted")
        return granted if isinstance(granted, bool) else None

    def _greets(self, event: Any) -> bool:
        if type(event) is UpstreamSaid:
            return event.body.get("type") in ("session.created", "session.updated")
        return isinstance(event, _PRELUDE)

    def _other(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        if self._consent_in(event) is False:
            self._withdrawn()
            return
        raised = "" if commands is not None else _what_failed()
        told, samples, is_clients = realtime_object(event, now, commands, raised)
        line = live_line(told, len(event.raw) if type(event) is UpstreamSaid and not samples else 0)
        if not _was_searched(event, commands):
            line = self._secrets.redact_json(line)
        if samples:
            (self._client if is_clients else self._upstream).extend(samples)
        self._note(line, now, len(samples))


def _was_searched(event: Any, commands: Sequence[Any] | None) -> bool:
    """Whether the relay's secrets have been taken out already: the codec does so with what it reads of the upstream."""
    if commands is None:  # the text of what failed may hold anything
        return False
    is_passed_on = all(type(command) is PassDown for command in commands)
    return type(event) is UpstreamSaid and bool(event.body) and is_passed_on


def _converts(options: DeviceOptions) -> bool:
    """Whether what the client is sent is not what the model sent."""
    return options.output != options.upstream_output


def _what_failed() -> str:
    error = sys.exc_info()[1]
    return f"{type(error).__name__}: {error}" if error is not None else "unknown"


def _no_matter() -> None:
    """Nothing is ever told late."""
