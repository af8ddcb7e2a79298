"""The Azure session for pages, and its four companions, below `RELAY_AZURE_PREFIX` (`/api/ai-assistant`).

A page fetches an ephemeral key here and dials Azure itself. Failures keep the shape `{error, details}`, with a status
of their own.
"""

import asyncio
import json
import secrets

from aiohttp import web

from relay.app.context import AZURE_SESSIONS, PAID_ROUTE_QUOTA, TOOLS
from relay.app.middleware import ErrorResponse
from relay.app.toolbox import tool_spec
from relay.endpoints.bodies import NO_STORE, check_csrf, client_address, number_field, read_json_object, string_field
from relay.endpoints.navai_handlers import describe_failure
from relay.errors import AccessDenied, BadRequest, NotConfigured, UpstreamError
from relay.json_types import JsonObject
from relay.session.common.policy import Principal
from relay.toolkit.context import ToolContext
from relay.toolkit.running.runner import ToolCall
from relay.upstreams.clients.browser_secrets import (
    AZURE_NOT_CONFIGURED_TEXT,
    AzureSessionRequest,
    permitted_azure_request,
)


async def azure_session(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/session`: an ephemeral key and the address to dial with it."""
    check_csrf(request)
    sessions = request.app.get(AZURE_SESSIONS)
    if sessions is None:
        raise NotConfigured(AZURE_NOT_CONFIGURED_TEXT)
    body = await read_json_object(request)
    session_request = AzureSessionRequest(
        voice=string_field(body, "voice"),
        instructions=string_field(body, "instructions"),
        temperature=number_field(body, "temperature"),
    )
    permitted_azure_request(
        principal.policy, sessions.resource, session_request
    )  # what is refused anyway costs no quota
    now = asyncio.get_running_loop().time()
    request.app[PAID_ROUTE_QUOTA].charge("mint", principal.identity, client_address(request), now)
    try:
        session = await sessions.create(session_request, principal.policy)
    except UpstreamError as error:
        error_body = ErrorResponse.from_error(error)
        return _failure_response(
            "Failed to create realtime session", error_body.message, error_body.status, error_body.headers
        )
    return web.json_response(session, headers=NO_STORE)


async def azure_tools(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET …/realtime/tools`: the tools as a session takes them."""
    offered = [one for one in request.app[TOOLS].registry.exposed_to("http") if principal.policy.allows_tool(one.name)]
    return web.json_response({"tools": [tool_spec(tool).definition() for tool in offered]})


async def azure_tools_exec(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST …/realtime/tools/exec`: run one tool for a page whose model asked for it."""
    tools = request.app[TOOLS]
    body = await read_json_object(request)
    name = string_field(body, "name")
    if name is None:
        raise BadRequest("Tool name is required", "name")
    tool = tools.registry.get(name)
    if tool is None or not principal.policy.allows_tool(name):
        return ErrorResponse(404, f"Tool not found: {name:.80}").to_response()
    if "http" not in tool.expose:
        raise AccessDenied(f"The tool {name} is not for use over HTTP.", status=403)
    context = ToolContext(session_id="", identity=principal.identity)
    call = ToolCall(f"http_{secrets.token_hex(8)}", name, json.dumps(_arguments(body)))
    result = await tools.runner.run(call, context, audience="http", is_offered=principal.policy.allows_tool)
    if result.code is not None:
        status, details = describe_failure(result)
        return _failure_response("Tool execution failed", details, status)
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


def _failure_response(error: str, details: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": error, "details": details}, status=status, headers=headers)
