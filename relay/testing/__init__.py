"""Test helpers, also for users' tests: a scripted upstream, fault injection, and a clock that the test advances.

    from relay.testing import ScriptedUpstream

`relay.testing.scripted_upstream` has an example. The names are imported on first use, because the local engine needs
only the faults.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.testing.fake_clock import FakeClock
    from relay.testing.scripted_upstream import ScriptedSession, ScriptedUpstream

__all__ = ["FakeClock", "ScriptedSession", "ScriptedUpstream"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "fake_clock" if name == "FakeClock" else "scripted_upstream"
    return getattr(import_module(f"relay.testing.{module}"), name)
