"""For tests, ours and yours: a scripted upstream, faults of an endpoint, and a clock that the test moves.

    from relay.testing import ScriptedUpstream

`relay.testing.scripted_upstream` shows how a test uses it. The names are resolved on first use: the local engine needs
the faults alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.testing.scripted_upstream import FakeClock, ScriptedSession, ScriptedUpstream

__all__ = ["FakeClock", "ScriptedSession", "ScriptedUpstream"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("relay.testing.scripted_upstream"), name)
