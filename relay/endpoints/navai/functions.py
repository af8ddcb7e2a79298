"""The NAVAI routes that list and execute functions."""

import itertools
import json
from types import MappingProxyType

from aiohttp import web

from relay.app.middleware import ErrorResponse
from relay.endpoints.navai.backend import NavaiBackend
from relay.endpoints.request_body import read_json_object
from relay.errors import AccessDenied, BadRequest
from relay.session.common.policy import Policy, Principal
from relay.session.common.redact import redact
from relay.toolkit.context import ToolContext
from relay.toolkit.registry import Tool
from relay.toolkit.running.navai_payload import NavaiPayload
from relay.toolkit.running.results import shorten_paths
from relay.toolkit.running.runner import ToolCall, ToolOutcome

RETRY_AFTER_S = 1
MAX_ERROR_CHARS = 1_000
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "xi-api-key", "x-api-key"})
_STATUS = {"invalid_arguments": 400, "invalid_json": 400, "busy": 429, "timeout": 504, "shutdown": 503}
"""Statuses of failed calls; any other failure is 500: the tool itself failed."""
_numbers = itertools.count(1)
WARNING_PREFIX = "[navai]"


async def list_functions(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """List the tools that are exposed to HTTP and offered to the caller, with the warnings of loading.

    A caller with a restricted list of tools gets no warnings, because they may name the other tools.
    """
    await backend.load_tools()
    items = [
        {"name": tool.name, "description": tool.description, "source": tool.source, "parameters": tool.parameters}
        for tool in _offered_tools(backend, principal.policy)
    ]
    registry_warnings = backend.registry.warnings if principal.policy.realtime.tools is None else []
    warnings = [f"{WARNING_PREFIX} {shorten_paths(redact(warning))}" for warning in registry_warnings]
    return web.json_response({"items": items, "warnings": warnings})


async def execute_function(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Run one tool with the arguments in `payload`."""
    body = await read_json_object(request)
    function_name = body.get("function_name")
    name = function_name.strip().lower() if isinstance(function_name, str) else ""
    if not name:
        raise BadRequest("function_name is required.")
    await backend.load_tools()
    tool = _find_tool(backend, name, principal.policy)
    if tool is None:
        available = [tool.name for tool in _offered_tools(backend, principal.policy)]
        refusal = {"error": "Unknown or disallowed function.", "available_functions": available}
        return web.json_response(refusal, status=404)
    if "http" not in tool.expose:
        raise AccessDenied(f'The function "{tool.name}" is not exposed to HTTP.', status=403)
    call = ToolCall(f"http_{next(_numbers)}", tool.name, NavaiPayload(body.get("payload")))
    context, offers = _tool_context(request, principal), principal.policy.allows_tool
    result = await backend.runner.run(call, context, audience="http", is_offered=offers)
    return _tool_response(tool, result)


def _offered_tools(backend: NavaiBackend, policy: Policy) -> list[Tool]:
    return [tool for tool in backend.registry.exposed_to("http") if policy.allows_tool(tool.name)]


def _find_tool(backend: NavaiBackend, name: str, policy: Policy) -> Tool | None:
    """Find an offered tool by its lower-case name; `@tool(name=…)` allows upper case."""
    exact = backend.registry.get(name)
    candidates = ([exact] if exact else []) + [tool for tool in backend.registry if tool.name.lower() == name]
    return next((tool for tool in candidates if policy.allows_tool(tool.name)), None)


def _tool_context(request: web.Request, principal: Principal) -> ToolContext:
    headers = {key.lower(): value for key, value in request.headers.items() if key.lower() not in _CREDENTIALS}
    req = MappingProxyType({"path": request.path, "headers": MappingProxyType(headers)})
    return ToolContext(session_id="", identity=principal.identity, metadata=MappingProxyType({"req": req}))


def _tool_response(tool: Tool, result: ToolOutcome) -> web.Response:
    if result.code is None:
        head = json.dumps({"ok": True, "function_name": tool.name, "source": tool.source})
        has_no_result = tool.is_void and result.output == "null"
        text = head if has_no_result else f'{head[:-1]}, "result": {result.output}}}'
        return web.Response(text=text, content_type="application/json")
    status, message = describe_failure(result)
    field = "payload" if result.code == "invalid_arguments" else None
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else None
    return ErrorResponse(status, message, field, headers=headers).to_response()


def describe_failure(result: ToolOutcome) -> tuple[int, str]:
    """Return status and message for a failed call."""
    return _STATUS.get(result.code or "", 500), redact(shorten_paths(result.message), MAX_ERROR_CHARS)
