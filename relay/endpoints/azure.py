"""The Azure session for pages, and its four companions, below `RELAY_AZURE_PREFIX` (`/api/ai-assistant`).

A page fetches an ephemeral key here and dials Azure itself. GA by default; the preview protocol where
AZURE_OPENAI_API_VERSION is set. Failures keep the shape `{error, details}`, with a status of their own.
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-webrtc
"""

import asyncio
import json
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from relay.azure import AzureResource
from relay.core.policy import PROVIDER_SECRET, Policy, Principal
from relay.core.realtime_events import Obj
from relay.endpoints.bodies import NO_STORE, address_of, check_sender, number_of, text_of
from relay.endpoints.navai_backend import read_body
from relay.endpoints.navai_functions import why_not
from relay.endpoints.permissions import no_default, permitted, permitted_instructions, require_value
from relay.errors import AccessDenied, BadRequest, NotConfigured, UpstreamError
from relay.peers.provider import Call, ProviderClient
from relay.session_tools import tool_spec
from relay.state import RELAY
from relay.toolkit.context import ToolContext
from relay.toolkit.runner import ToolCall

TIMEOUT_S = 15.0
DEFAULT_VOICE = "alloy"
PREVIEW_VOICES = ("alloy", "echo", "shimmer")
NAME = "Azure OpenAI Realtime API"
NOT_CONFIGURED = (
    "Azure is not configured: set AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT and AZURE_OPENAI_API_KEY (or "
    "RELAY_AZURE_TOKEN)."
)
GA_TEMPERATURE = "temperature is not part of the GA protocol and was left out; it needs AZURE_OPENAI_API_VERSION."


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSessionRequest:
    """What a page asks for; None is the default for the voice, and leaves the others to the model."""

    voice: str | None = None
    instructions: str | None = None
    temperature: float | None = None

    @classmethod
    def from_body(cls, body: Obj, resource: AzureResource) -> "AzureSessionRequest":
        """Read a JSON body; unknown fields are ignored. Raises BadRequest naming the field."""
        voice = text_of(body, "voice")
        if resource.is_preview and voice is not None and voice not in PREVIEW_VOICES:
            raise BadRequest(f"Invalid voice: {voice:.80}. Must be one of: {', '.join(PREVIEW_VOICES)}", "voice")
        return cls(
            voice=voice,
            instructions=text_of(body, "instructions"),
            temperature=number_of(body, "temperature"),
        )


async def create_azure_session(
    resource: AzureResource,
    headers: dict[str, str],
    wanted: AzureSessionRequest,
    provider: ProviderClient,
    policy: Policy | None = None,
) -> Obj:
    """Make a session at Azure: the five fields that pages know, and `warning` for what was left out.

    The session is the one that `policy` allows; the default is one without restrictions. Raises AccessDenied,
    UpstreamError.
    """
    policy = policy or Policy()
    wanted = permitted_request(policy, resource, wanted)
    call = Call(
        name=NAME,
        url=resource.mint_url,
        headers=headers,
        body=_session_body(resource, wanted, policy),
        timeout_s=TIMEOUT_S,
    )
    answer = (await provider.fetch(call)).json_object()
    session_id, secret = (answer.get("id"), answer.get("client_secret")) if resource.is_preview else _of_ga(answer)
    if not isinstance(secret, dict) or not isinstance(secret.get("value"), str):
        raise UpstreamError(f"{NAME} failed: there is no client secret in the answer.")
    session: Obj = {
        "sessionId": session_id,
        "webrtcUrl": resource.webrtc_url,
        "ephemeralKey": secret["value"],
        "expiresAt": secret.get("expires_at"),
        "model": resource.deployment,
    }
    ignored = wanted.temperature is not None and not resource.is_preview
    return session | ({"warning": GA_TEMPERATURE} if ignored else {})


def permitted_request(policy: Policy, resource: AzureResource, wanted: AzureSessionRequest) -> AzureSessionRequest:
    """What the policy leaves of a request, with its default for the voice. Raises AccessDenied.

    The model is the configured deployment, which no page can choose.
    """
    voice = permitted(policy, "voice", wanted.voice, policy.allows_voice)
    voice = require_value("voice", voice or policy.default_voice(DEFAULT_VOICE, kind="model"))
    if resource.is_preview and voice not in PREVIEW_VOICES:
        raise no_default("voice")
    instructions = permitted_instructions(policy, wanted.instructions)
    return replace(wanted, voice=voice, instructions=policy.instructions_with(instructions) or None)


def _session_body(resource: AzureResource, wanted: AzureSessionRequest, policy: Policy) -> Obj:
    instructions = {"instructions": wanted.instructions} if wanted.instructions else {}
    if not resource.is_preview:
        audio = {"output": {"voice": wanted.voice}}
        session = {"type": "realtime", "model": resource.deployment, "audio": audio} | instructions
        return {"session": session | policy.realtime.session_limits}
    temperature = {"temperature": wanted.temperature} if wanted.temperature is not None else {}
    most = policy.realtime.max_output_tokens
    limit = {"max_response_output_tokens": most} if most is not None else {}
    return {"model": resource.deployment, "voice": wanted.voice} | instructions | temperature | limit


def _of_ga(answer: Obj) -> tuple[Any, Obj]:
    session = answer.get("session")
    return session.get("id") if isinstance(session, dict) else None, answer


Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


async def azure_session(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/session`: an ephemeral key and the address to dial with it."""
    relay = request.app[RELAY]
    check_sender(request)
    resource, credential = relay.settings.azure, relay.azure_credential
    if resource is None or credential is None:
        raise NotConfigured(NOT_CONFIGURED)
    wanted = AzureSessionRequest.from_body(await read_body(request), resource)
    permitted_request(principal.policy, resource, wanted)  # what is refused anyway costs no quota
    relay.spending.buy("mint", principal.identity, address_of(request), asyncio.get_running_loop().time())
    try:
        headers = await credential.headers()
        session = await create_azure_session(resource, headers, wanted, relay.provider, principal.policy)
    except UpstreamError as error:
        retry = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s is not None else {}
        return _failed("Failed to create realtime session", str(error), error.http_status, retry)
    return web.json_response(session, headers=NO_STORE)


async def azure_tools(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET …/realtime/tools`: the tools as a session takes them."""
    offered = [one for one in request.app[RELAY].registry.exposed_to("http") if principal.policy.allows_tool(one.name)]
    return web.json_response({"tools": [tool_spec(tool).definition() for tool in offered]})


async def azure_tools_exec(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/tools/exec`: run one tool for a page whose model asked for it."""
    relay = request.app[RELAY]
    body = await read_body(request)
    name = text_of(body, "name")
    if name is None:
        raise BadRequest("Tool name is required", "name")
    tool = relay.registry.get(name)
    if tool is None or not principal.policy.allows_tool(name):
        return web.json_response({"error": f"Tool not found: {name:.80}"}, status=404)
    if "http" not in tool.expose:
        raise AccessDenied(f"The tool {name} is not for use over HTTP.", status=403)
    context = ToolContext(session_id="", identity=principal.identity)
    call = ToolCall(f"http_{secrets.token_hex(8)}", name, json.dumps(_arguments(body)))
    result = await relay.runner.run(call, context, audience="http", offers=principal.policy.allows_tool)
    if result.code is not None:
        status, details = why_not(result)
        return _failed("Tool execution failed", details, status)
    return web.json_response({"output": json.loads(result.output)})


def _arguments(body: Obj) -> Obj:
    arguments = body.get("arguments")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise BadRequest("arguments must be an object.", "arguments")
    return arguments


async def azure_user(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET …/realtime/user`: who the credential belongs to, as far as the relay knows."""
    identity = principal.identity
    if identity == "anonymous":
        raise AccessDenied("There is no user: send Authorization: Bearer <one of RELAY_API_KEYS>.", status=401)
    return web.json_response({"userEntityRef": f"user:default/{identity}", "displayName": identity, "email": None})


async def azure_health(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET …/realtime/health`: these routes are there."""
    return web.json_response({"status": "ok"})


def _failed(error: str, details: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": error, "details": details}, status=status, headers=headers)


AZURE_ROUTES: tuple[tuple[str, str, Handler, str | None], ...] = (
    ("POST", "/realtime/session", azure_session, PROVIDER_SECRET),
    ("GET", "/realtime/tools", azure_tools, "tools"),
    ("POST", "/realtime/tools/exec", azure_tools_exec, "tools"),
    ("GET", "/realtime/user", azure_user, None),
    ("GET", "/realtime/health", azure_health, None),
)
"""Method, path below the prefix, handler, and the scope that it asks of the caller's policy."""
