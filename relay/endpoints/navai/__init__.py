"""The NAVAI backend for its frontends: `add_routes` mounts it in any aiohttp application.

add_routes(app)                                            # everything from the environment
add_routes(app, NavaiOptions(openai_api_key=…), load_tools("my_tools"))
"""

from relay.config.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.navai.routes import NAVAI, add_routes, client_secret_handler, resolve_runtime_config
from relay.upstreams.clients.browser_secrets import create_client_secret
from relay.upstreams.clients.elevenlabs import synthesize_speech

__all__ = [
    "NAVAI",
    "NavaiOptions",
    "NavaiPaths",
    "add_routes",
    "client_secret_handler",
    "create_client_secret",
    "resolve_runtime_config",
    "synthesize_speech",
]
