"""All recordings of one relay: which sessions are recorded, who finishes the recordings, and how long they are kept."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from relay.child_environment import python_command, python_environment
from relay.recording.session_recorder import RealtimeSessionRecorder, SessionRecorder
from relay.recording.store.header import RecordingHeader, SessionSetup
from relay.recording.store.layout import folder_name
from relay.recording.store.writer import RecordingWriter
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.policy import RecordMode

STOP_TIMEOUT_S = 3.0
FINALIZE_INTERVAL_S = 3600.0

_log = logging.getLogger("relay.recordings")


FLUSH_INTERVAL_S: Final = 0.5
"""With the writer's own delay, what `kill -9` can cost."""
N_FLUSH_GROUPS: Final = 32
"""So many that a group of a busy relay does not keep the loop from its frames: 3 of 100 sessions, 0.2 ms."""


class FlushTimer:
    """Flushes each recorder once in `FLUSH_INTERVAL_S`: calls its `flush`, which never raises.

    Recorders go in groups that take turns. So few of them hold much at a time, and the work of one group is done in one
    go: it costs a fraction of what it costs one by one, each after other work.
    """

    def __init__(self) -> None:
        self._groups: list[list[Callable[[], None]]] = [[] for _ in range(N_FLUSH_GROUPS)]
        self._turn = 0
        self._turn_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, flush: Callable[[], None]) -> None:
        """Flush a recorder from now on."""
        min(self._groups, key=len).append(flush)
        if self._timer is None:
            self._turn_at = asyncio.get_running_loop().time()
        self._arm()

    def remove(self, flush: Callable[[], None]) -> None:
        """Leave a recorder alone from now on."""
        for group in self._groups:
            if flush in group:
                group.remove(flush)
        self._arm()

    def _arm(self) -> None:
        """Wake up for the next group that is not empty."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for n in range(1, N_FLUSH_GROUPS + 1):
            if self._groups[(self._turn + n) % N_FLUSH_GROUPS]:
                at = self._turn_at + n * FLUSH_INTERVAL_S / N_FLUSH_GROUPS
                self._timer = asyncio.get_running_loop().call_at(at, self._flush, (self._turn + n) % N_FLUSH_GROUPS, at)
                return

    def _flush(self, turn: int, at: float) -> None:
        self._turn, self._turn_at = turn, max(at, asyncio.get_running_loop().time() - FLUSH_INTERVAL_S)
        for flush in tuple(self._groups[turn]):
            flush()
        self._arm()


class RecordingService:
    """All recordings of one relay: makes recorders, has recordings finished, keeps to the retention."""

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
        """`secrets` are never written down, but where they come in pieces (deltas).

        `max_mb` is the bound of all recordings, `recording_max_mb` that of each one.
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
        """A recorder for a session, as its policy says or else RELAY_RECORD; None if it is not to be recorded.

        `model`: another one than the settings' is dialled.
        """
        mode = setup.principal.policy.record or self.mode
        if mode == "off":
            return None
        self._start_once()
        kind = SessionRecorder if setup.realtime is None else RealtimeSessionRecorder
        header = RecordingHeader(setup, datetime.now(UTC), self._upstream, model or self._model, mode)
        loop = asyncio.get_running_loop()
        folder = self.root / folder_name(header.timestamp, setup.session_id)
        on_closed = partial(_call_in_loop, loop, self._finalize_due.set)
        recorder = kind(header, folder, self.writer, clock, on_closed, self._secrets, self._max_bytes)
        self._recorders[setup.session_id] = recorder
        self._flush_timer.add(recorder.flush)
        return recorder

    def close(self, session_id: str) -> None:
        """A session has ended; nothing happens if it was not recorded."""
        recorder = self._recorders.pop(session_id, None)
        if recorder is not None:
            self._flush_timer.remove(recorder.flush)
            recorder.close()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Finish what an earlier run left behind, and keep to the retention from now on."""
        if self.mode != "off":
            self._start_once()
            if self.root.is_dir():
                self._finalize_due.set()

    async def stop(self) -> None:
        """Write what is left, in bounded time; what is not finished then is finished at the next start."""
        for session_id in list(self._recorders):
            self.close(session_id)
        if self._finalize_task is not None:
            self._finalize_task.cancel()
            await asyncio.wait([self._finalize_task])
        if not await asyncio.to_thread(self.writer.stop, STOP_TIMEOUT_S):
            _log.error("the disk did not take the last of the recordings in %.0f s", STOP_TIMEOUT_S)

    def _start_once(self) -> None:
        if self._finalize_task is None:
            self.writer.start()
            self._finalize_task = asyncio.get_running_loop().create_task(self._finalize_periodically())

    async def _finalize_periodically(self) -> None:
        """After each session, and once an hour: tracks and transcripts by a process of its own, off this one's CPU."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINALIZE_INTERVAL_S):
                    await self._finalize_due.wait()
            self._finalize_due.clear()
            await self.finalize_recordings()

    async def finalize_recordings(self) -> None:
        """Run a process that finishes recordings and removes those over the limits. Problems are logged."""
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
            _log.error("recordings stay unfinished, for no process can be started: %s", error.strerror or error)
            return
        try:
            removed, problems = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for line in removed.decode(errors="replace").splitlines():
            _log.info("recording %s", line)
        for line in problems.decode(errors="replace").splitlines()[-20:]:
            _log.warning("finishing recordings: %s", line)


def _call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """From the writer's thread to the loop, which may be gone."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
