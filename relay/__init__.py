"""Relay: a self-hosted gateway between anything with a microphone and a realtime voice model."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.app.server import create_app
    from relay.config.navai_options import NavaiOptions
    from relay.config.settings import Settings
    from relay.endpoints.navai import add_routes
    from relay.errors import ToolError
    from relay.toolkit.context import ToolContext
    from relay.toolkit.loading.loader import load_tools
    from relay.toolkit.registry import tool
    from relay.toolkit.running.results import ClientResult

__version__ = "0.1.0"

__all__ = [
    "ClientResult",
    "NavaiOptions",
    "Settings",
    "ToolContext",
    "ToolError",
    "__version__",
    "add_routes",
    "create_app",
    "load_tools",
    "tool",
]

# Names are resolved on first use, so that `import relay` loads neither pydantic nor anything else.
_MODULES = {
    "ClientResult": "relay.toolkit.running.results",
    "NavaiOptions": "relay.config.navai_options",
    "Settings": "relay.config.settings",
    "ToolContext": "relay.toolkit.context",
    "ToolError": "relay.errors",
    "add_routes": "relay.endpoints.navai",
    "create_app": "relay.app.server",
    "load_tools": "relay.toolkit.loading.loader",
    "tool": "relay.toolkit.registry",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
