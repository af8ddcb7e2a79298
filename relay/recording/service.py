"""The recordings of one relay: which sessions are recorded, when recordings are finalized and deleted."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from relay.child_environment import python_command, python_environment
from relay.recording.flush_timer import FlushTimer
from relay.recording.session_recorder import RealtimeSessionRecorder, SessionRecorder
from relay.recording.store.header import RecordingHeader, SessionSetup
from relay.recording.store.layout import folder_name
from relay.recording.store.writer import RecordingWriter
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.policy import RecordMode

STOP_TIMEOUT_S = 3.0
FINALIZE_INTERVAL_S = 3600.0

_log = logging.getLogger("relay.recordings")


class RecordingService:
    """Creates the recorders of one relay, finalizes its recordings and applies the retention limits."""

    def __init__(
        self,
        root: Path,
        mode: RecordMode,
        *,
        max_days: float | None = None,
        max_mb: float | None = None,
        recording_max_mb: float | None = None,
        upstream: str = "",
        model: str = "",
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`max_mb` is the limit of all recordings together, `recording_max_mb` that of one recording.

        `secrets` are redacted, except where one is split across deltas.
        """
        self.root = root
        self.mode = mode
        self.writer = RecordingWriter()
        self._limits = (max_days, max_mb)
        self._max_bytes = None if recording_max_mb is None else recording_max_mb * 1e6
        self._upstream, self._model = upstream, model
        self._secrets = secrets
        self._finalize_due = asyncio.Event()
        self._finalize_task: asyncio.Task[None] | None = None
        self._recorders: dict[str, SessionRecorder] = {}
        self._flush_timer = FlushTimer()

    def open(self, setup: SessionSetup, clock: Callable[[], float], model: str | None = None) -> SessionRecorder | None:
        """Create a recorder for a session; None if neither its policy nor RELAY_RECORD wants it recorded.

        `model`: the model of the session, if it is not that of the settings.
        """
        mode = setup.principal.policy.record or self.mode
        if mode == "off":
            return None
        self._start_once()
        recorder_type = SessionRecorder if setup.realtime is None else RealtimeSessionRecorder
        header = RecordingHeader(setup, datetime.now(UTC), self._upstream, model or self._model, mode)
        loop = asyncio.get_running_loop()
        folder = self.root / folder_name(header.timestamp, setup.session_id)
        on_closed = partial(_call_in_loop, loop, self._finalize_due.set)
        recorder = recorder_type(header, folder, self.writer, clock, on_closed, self._secrets, self._max_bytes)
        self._recorders[setup.session_id] = recorder
        self._flush_timer.add(recorder.flush)
        return recorder

    def close(self, session_id: str) -> None:
        """Close the recorder of a session, if it has one."""
        recorder = self._recorders.pop(session_id, None)
        if recorder is not None:
            self._flush_timer.remove(recorder.flush)
            recorder.close()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Finalize the recordings of earlier runs and apply the retention limits from now on."""
        if self.mode != "off":
            self._start_once()
            if self.root.is_dir():
                self._finalize_due.set()

    async def stop(self) -> None:
        """Write buffered data, in bounded time. Recordings that are not finalized yet are so at the next start."""
        for session_id in list(self._recorders):
            self.close(session_id)
        if self._finalize_task is not None:
            self._finalize_task.cancel()
            await asyncio.wait([self._finalize_task])
        if not await asyncio.to_thread(self.writer.stop, STOP_TIMEOUT_S):
            _log.error("recording data lost: the disk did not write it within %.0f s", STOP_TIMEOUT_S)

    def _start_once(self) -> None:
        if self._finalize_task is None:
            self.writer.start()
            self._finalize_task = asyncio.get_running_loop().create_task(self._finalize_periodically())

    async def _finalize_periodically(self) -> None:
        """Finalize after each session and once an hour."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINALIZE_INTERVAL_S):
                    await self._finalize_due.wait()
            self._finalize_due.clear()
            await self.finalize_recordings()

    async def finalize_recordings(self) -> None:
        """Run a process that finalizes recordings and deletes those over the limits. Problems are logged."""
        arguments = [str(self.root)]
        for name, limit in zip(("--max-days", "--max-mb"), self._limits, strict=True):
            if limit is not None:
                arguments += [name, str(limit)]
        try:
            process = await asyncio.create_subprocess_exec(
                *python_command("relay.cli.finish_recordings", *arguments), env=python_environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            _log.error("recordings not finalized: cannot start a process: %s", error.strerror or error)
            return
        try:
            deletions, problems = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for line in deletions.decode(errors="replace").splitlines():
            _log.info("recording %s", line)
        for line in problems.decode(errors="replace").splitlines()[-20:]:
            _log.warning("recording not finalized: %s", line)


def _call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call from the writer thread into the event loop, which may be closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
