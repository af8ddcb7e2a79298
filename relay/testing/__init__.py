"""Test helpers, also for users' tests: a scripted upstream, fault injection, and a clock that the test advances.

    from relay.testing import ScriptedUpstream

`relay.testing.scripted_upstream` has an example. The names are imported on first use, because the local engine needs
only the faults.
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
