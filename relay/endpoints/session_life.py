"""What every session does to the relay while it lasts, whatever its client speaks."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from relay.recording.session_recorder import SessionRecorder
from relay.runtime.base import SessionRuntime
from relay.state import RelayState

_log = logging.getLogger("relay.session")


@contextmanager
def registered(
    relay: RelayState, live: SessionRuntime[Any], recorder: SessionRecorder | None, spend: Callable[[], None]
) -> Iterator[None]:
    """Count the session among the relay's. At its end spend its client secret if the client had a session."""
    relay.add(live)
    try:
        yield
    finally:
        relay.remove(live)
        if live.core.was_ready:
            spend()
        if recorder is not None:
            relay.recordings.close(recorder)
        _log.info("session %s ends: %s", live.core.session_id, live.ending)
