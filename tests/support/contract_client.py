"""A relay or another application whose providers are scripted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from relay.app.server import create_app
from relay.config.navai_options import NavaiOptions
from relay.toolkit.registry import ToolRegistry
from tests.support.relay_server import RunningRelay, serve_app, settings_for
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

SECRET_PATH = "/navai/realtime/client-secret"
SPEECH_PATH = "/navai/speech/synthesize"
SESSION_PATH = "/api/ai-assistant/realtime/session"

BACKEND_KEY = "sk-backend-0001"
ELEVENLABS_KEY = "el-key-0003"
AZURE_KEY = "azure-key-0123456789abcdef"


class ContractClient:
    """A running relay, its scripted provider, and an HTTP client."""

    def __init__(self, relay: RunningRelay, provider: ScriptedProvider, http: aiohttp.ClientSession) -> None:
        self.relay = relay
        self.provider = provider
        self.http = http

    async def call(
        self, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, Any, "aiohttp.typedefs.LooseHeaders"]:
        """Send one request; returns status, JSON body and headers."""
        async with self.http.request(method, self.relay.http(path), json=json, **options) as response:
            return response.status, await response.json(), response.headers

    async def post(self, path: str, json: Any = None, **options: Any) -> tuple[int, Any]:
        status, body, _ = await self.call("POST", path, {} if json is None else json, **options)
        return status, body


def navai_env(provider: ScriptedProvider) -> dict[str, str]:
    """Return an environment with the scripted provider as OpenAI."""
    return {"OPENAI_API_KEY": BACKEND_KEY, "OPENAI_BASE_URL": f"{provider.url}/v1"}


def elevenlabs_env(provider: ScriptedProvider) -> dict[str, str]:
    """Return the same with an ElevenLabs voice of the scripted provider."""
    return navai_env(provider) | {
        "NAVAI_TTS_PROVIDER": "elevenlabs",
        "ELEVENLABS_API_KEY": ELEVENLABS_KEY,
        "ELEVENLABS_VOICE_ID": "voice-1",
        "ELEVENLABS_BASE_URL": provider.url,
    }


@asynccontextmanager
async def contract_client(
    env: dict[str, str] | None = None,
    *,
    elevenlabs: bool = False,
    timeout_s: float = 15.0,
    registry: ToolRegistry | None = None,
    **settings: Any,
) -> AsyncIterator[ContractClient]:
    """Run a relay with the NAVAI options of `env`; Azure is the provider too if a deployment is set.

    `{provider}` in a value of `env` is the provider's address.
    """
    async with scripted_provider() as provider, aiohttp.ClientSession() as http:
        environment = (elevenlabs_env if elevenlabs else navai_env)(provider)
        environment |= {key: value.replace("{provider}", provider.url) for key, value in (env or {}).items()}
        options = NavaiOptions.from_env(environment, upstream_timeout_s=timeout_s)
        if "azure_deployment" in settings:
            settings = {"azure_endpoint": provider.url, "azure_api_key": AZURE_KEY} | settings
        settings = {"upstream": "ws://127.0.0.1:9/"} | settings
        app = create_app(settings_for(**settings), registry if registry is not None else ToolRegistry(), options)
        async with serve_app(app) as port:
            yield ContractClient(RunningRelay(app, port), provider, http)
