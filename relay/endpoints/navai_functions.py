"""`GET /navai/functions` and `POST /navai/functions/execute`: the tools over HTTP, for NAVAI's frontends."""

import itertools
import json
from types import MappingProxyType
from typing import Any

from aiohttp import web

from relay.app.errors import ErrorAnswer
from relay.core.policy import Policy, Principal
from relay.core.redact import redact
from relay.endpoints.bodies import read_object
from relay.endpoints.navai_backend import NavaiBackend
from relay.errors import AccessDenied, BadRequest
from relay.toolkit.context import ToolContext
from relay.toolkit.outputs import without_paths
from relay.toolkit.registry import Tool
from relay.toolkit.runner import Payload, ToolCall, ToolResult

PREFIX = "[navai]"
RETRY_AFTER_S = 1
MAX_ERROR_CHARS = 1_000

_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "xi-api-key", "x-api-key"})
_STATUS = {"invalid_arguments": 400, "invalid_json": 400, "busy": 429, "timeout": 504, "shutdown": 503}
"""Statuses of calls without a result; all others are 500: the tool itself failed."""

_numbers = itertools.count(1)


async def list_functions(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """The tools that are exposed to HTTP and offered to the caller, and what went wrong when they were loaded.

    Who is offered a part of the tools gets no warnings, which can name the others.
    """
    await backend.load_tools()
    items = [
        {"name": one.name, "description": one.description, "source": one.source, "parameters": one.parameters}
        for one in _offered(backend, principal.policy)
    ]
    told = backend.registry.warnings if principal.policy.realtime.tools is None else []
    warnings = [f"{PREFIX} {without_paths(redact(warning))}" for warning in told]
    return web.json_response({"items": items, "warnings": warnings})


async def execute_function(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Runs one tool with the arguments of `payload`."""
    body = await read_object(request)
    name = _name_of(body)
    await backend.load_tools()
    tool = _find(backend, name, principal.policy)
    if tool is None:
        available = [one.name for one in _offered(backend, principal.policy)]
        refusal = {"error": "Unknown or disallowed function.", "available_functions": available}
        return web.json_response(refusal, status=404)
    if "http" not in tool.expose:
        raise AccessDenied(f'The function "{tool.name}" is not exposed to HTTP.', status=403)
    call = ToolCall(f"http_{next(_numbers)}", tool.name, Payload(body.get("payload")))
    context, offers = _context(request, principal), principal.policy.allows_tool
    result = await backend.runner.run(call, context, audience="http", offers=offers)
    return _answer(tool, result)


def _name_of(body: dict[str, Any]) -> str:
    name = body.get("function_name")
    name = name.strip().lower() if isinstance(name, str) else ""
    if not name:
        raise BadRequest("function_name is required.")
    return name


def _offered(backend: NavaiBackend, policy: Policy) -> list[Tool]:
    return [one for one in backend.registry.exposed_to("http") if policy.allows_tool(one.name)]


def _find(backend: NavaiBackend, name: str, policy: Policy) -> Tool | None:
    """The tool of a name in lower case; `@tool(name=…)` may have given it another. One not offered is not there."""
    exact = backend.registry.get(name)
    found = ([exact] if exact else []) + [one for one in backend.registry if one.name.lower() == name]
    return next((one for one in found if policy.allows_tool(one.name)), None)


def _context(request: web.Request, principal: Principal) -> ToolContext:
    headers = {key.lower(): value for key, value in request.headers.items() if key.lower() not in _CREDENTIALS}
    req = MappingProxyType({"path": request.path, "headers": MappingProxyType(headers)})
    return ToolContext(session_id="", identity=principal.identity, metadata=MappingProxyType({"req": req}))


def _answer(tool: Tool, result: ToolResult) -> web.Response:
    if result.code is None:
        head = json.dumps({"ok": True, "function_name": tool.name, "source": tool.source})
        is_nothing = tool.is_void and result.output == "null"
        text = head if is_nothing else f'{head[:-1]}, "result": {result.output}}}'
        return web.Response(text=text, content_type="application/json")
    status, message = why_not(result)
    field = "payload" if result.code == "invalid_arguments" else None
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else None
    return ErrorAnswer(status, message, field, headers=headers).response()


def why_not(result: ToolResult) -> tuple[int, str]:
    """The status and the message that answer a call without a result."""
    return _STATUS.get(result.code or "", 500), redact(without_paths(result.message), MAX_ERROR_CHARS)
