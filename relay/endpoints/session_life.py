"""What every session does to the relay while it lasts, whatever its client speaks."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from relay.live_base import LiveBase
from relay.state import RelayState
from relay.tape import SessionTape

_log = logging.getLogger("relay.session")


@contextmanager
def registered(
    relay: RelayState, live: LiveBase[Any], tape: SessionTape | None, spend: Callable[[], None]
) -> Iterator[None]:
    """Count the session among the relay's. At its end spend its client secret if the client had a session."""
    relay.add(live)
    try:
        yield
    finally:
        relay.remove(live)
        if live.core.was_ready:
            spend()
        if tape is not None:
            relay.recorder.done(tape)
        _log.info("session %s ends: %s", live.core.session_id, live.ending)
