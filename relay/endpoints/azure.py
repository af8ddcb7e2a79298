"""The Azure session for pages, and its four companions, below `RELAY_AZURE_PREFIX` (`/api/ai-assistant`).

A page fetches an ephemeral key here and dials Azure itself. Failures keep the shape `{error, details}`, with a status
of their own.
"""

import asyncio
import json
import secrets

from aiohttp import web

from relay.app.context import AZURE_SESSIONS, SPENDING, TOOLS
from relay.app.middleware import ErrorAnswer
from relay.app.toolbox import tool_spec
from relay.endpoints.bodies import NO_STORE, address_of, check_sender, number_of, read_object, text_of
from relay.endpoints.navai_handlers import why_not
from relay.errors import AccessDenied, BadRequest, NotConfigured, UpstreamError
from relay.json_types import JsonObject
from relay.session.common.policy import Principal
from relay.toolkit.context import ToolContext
from relay.toolkit.running.runner import ToolCall
from relay.upstreams.clients.browser_secrets import AZURE_NOT_CONFIGURED, AzureSessionRequest, permitted_azure_session


async def azure_session(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/session`: an ephemeral key and the address to dial with it."""
    check_sender(request)
    sessions = request.app.get(AZURE_SESSIONS)
    if sessions is None:
        raise NotConfigured(AZURE_NOT_CONFIGURED)
    body = await read_object(request)
    wanted = AzureSessionRequest(
        voice=text_of(body, "voice"),
        instructions=text_of(body, "instructions"),
        temperature=number_of(body, "temperature"),
    )
    permitted_azure_session(principal.policy, sessions.resource, wanted)  # what is refused anyway costs no quota
    now = asyncio.get_running_loop().time()
    request.app[SPENDING].buy("mint", principal.identity, address_of(request), now)
    try:
        session = await sessions.create(wanted, principal.policy)
    except UpstreamError as error:
        answer = ErrorAnswer.of(error)
        return _failed("Failed to create realtime session", answer.message, answer.status, answer.headers)
    return web.json_response(session, headers=NO_STORE)


async def azure_tools(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET …/realtime/tools`: the tools as a session takes them."""
    offered = [one for one in request.app[TOOLS].registry.exposed_to("http") if principal.policy.allows_tool(one.name)]
    return web.json_response({"tools": [tool_spec(tool).definition() for tool in offered]})


async def azure_tools_exec(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/tools/exec`: run one tool for a page whose model asked for it."""
    tools = request.app[TOOLS]
    body = await read_object(request)
    name = text_of(body, "name")
    if name is None:
        raise BadRequest("Tool name is required", "name")
    tool = tools.registry.get(name)
    if tool is None or not principal.policy.allows_tool(name):
        return ErrorAnswer(404, f"Tool not found: {name:.80}").response()
    if "http" not in tool.expose:
        raise AccessDenied(f"The tool {name} is not for use over HTTP.", status=403)
    context = ToolContext(session_id="", identity=principal.identity)
    call = ToolCall(f"http_{secrets.token_hex(8)}", name, json.dumps(_arguments(body)))
    result = await tools.runner.run(call, context, audience="http", offers=principal.policy.allows_tool)
    if result.code is not None:
        status, details = why_not(result)
        return _failed("Tool execution failed", details, status)
    return web.json_response({"output": json.loads(result.output)})


def _arguments(body: JsonObject) -> JsonObject:
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
