"""The sessions of one relay that are alive, and whether there may be new ones."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from relay.auth.authenticator import Authenticator
from relay.core.events import Draining, KeyRevoked
from relay.core.policy import Principal
from relay.errors import AccessDenied, Full
from relay.peers.read_budget import ReadBudget
from relay.recording.service import RecordingService
from relay.runtime.base import SessionRuntime

DRAIN_TIMEOUT_S = 4.0

_log = logging.getLogger("relay.session")


class SessionRegistry:
    """The sessions that are alive, by their ids; `all_gone` is set while there are none."""

    def __init__(self, authenticator: Authenticator, recordings: RecordingService) -> None:
        self._authenticator = authenticator
        self._recordings = recordings
        self.alive: dict[str, SessionRuntime[Any]] = {}
        self.draining = False
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self.read_budget = ReadBudget()
        """The room for long messages, which the clients of all sessions share."""

    @contextmanager
    def registered(self, live: SessionRuntime[Any], spend: Callable[[], None], description: str) -> Iterator[None]:
        """Count a session while it lasts. At its end spend its client secret if the client had a session."""
        session_id = live.core.session_id
        _log.info("session %s begins: %s, %s", session_id, live.core.principal.identity, description)
        self.alive[session_id] = live
        self.all_gone.clear()
        try:
            yield
        finally:
            del self.alive[session_id]
            if not self.alive:
                self.all_gone.set()
            if live.core.life.was_ready:
                spend()
            self._recordings.close(session_id)
            _log.info("session %s ends: %s", session_id, live.ending)

    def end_revoked(self) -> int:
        """End the sessions whose keys were revoked; returns how many there are."""
        revoked = [live for live in self.alive.values() if self._authenticator.has_revoked(live.core.principal)]
        for live in revoked:
            live.dispatch(KeyRevoked())
        return len(revoked)

    async def drain(self) -> None:
        """Say goodbye to all sessions and take no new ones; returns when they are gone, in bounded time."""
        self.draining = True
        for live in list(self.alive.values()):
            live.dispatch(Draining())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self.all_gone.wait()

    def check_still_admitted(self, principal: Principal) -> None:
        """Check again after a wait. Raises AccessDenied if the key was revoked, Full if the relay is shutting down.

        Both are events to a session that has begun, and a session that still waits gets no events.
        """
        if self._authenticator.has_revoked(principal):
            raise AccessDenied("The key was revoked; connect with another one.", status=401)
        self.refuse_when_draining()

    def refuse_when_draining(self) -> None:
        """Raise Full if the relay is shutting down."""
        if self.draining:
            raise Full("The relay is shutting down; try again in a moment.")
