"""The handlers of the NAVAI routes, and the backend that they share."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any

from aiohttp import web

from relay.app.middleware import ErrorResponse
from relay.app.session_limiter import PaidRouteQuota
from relay.config.navai_options import ElevenLabsVoiceSettings, NavaiOptions
from relay.endpoints.bodies import (
    NO_STORE,
    check_csrf,
    client_address,
    key_field,
    number_field,
    read_json_object,
    string_field,
)
from relay.errors import AccessDenied, BadRequest, NotConfigured, ToolError, UpstreamError
from relay.session.common.policy import Policy, Principal
from relay.session.common.redact import redact
from relay.toolkit.context import ToolContext
from relay.toolkit.loading.library import ToolLoader
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.results import shorten_paths
from relay.toolkit.running.runner import NavaiPayload, ToolCall, ToolOutcome, ToolRunner
from relay.transport.http_client import HttpRequest, ProviderHttpClient
from relay.upstreams.clients.browser_secrets import (
    ClientSecretRequest,
    choose_key,
    create_client_secret,
    permitted_secret_request,
)
from relay.upstreams.clients.elevenlabs import (
    SPEECH_NOT_CONFIGURED_TEXT,
    SpeechRequest,
    build_speech_request,
    permitted_speech_request,
    synthesize_speech,
)

_log = logging.getLogger("relay.navai")
WARNING_PREFIX = "[navai]"
RETRY_AFTER_S = 1
MAX_ERROR_CHARS = 1_000
MAX_TEXT_CHARS = 40_000
"""What the fastest of ElevenLabs' models take in one request; the others take less, and say so."""
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "api-key", "xi-api-key", "x-api-key"})
_STATUS = {"invalid_arguments": 400, "invalid_json": 400, "busy": 429, "timeout": 504, "shutdown": 503}
"""Statuses of calls without a result; all others are 500: the tool itself failed."""
_numbers = itertools.count(1)


class NavaiBackend:
    """One NAVAI backend: what its routes need, for as long as their application lives."""

    def __init__(
        self,
        options: NavaiOptions,
        registry: ToolRegistry,
        runner: ToolRunner | None = None,
        library: ToolLoader | None = None,
        *,
        quota: PaidRouteQuota | None = None,
        provider: ProviderHttpClient | None = None,
    ) -> None:
        self.options = options
        self.registry = registry
        self.library = library
        self.runner = runner or ToolRunner(registry)
        self.quota = quota or PaidRouteQuota()
        self.provider = provider or ProviderHttpClient()
        self._owns_runner = runner is None
        self._owns_provider = provider is None

    async def load_tools(self) -> None:
        """Load the tools where that has not happened, or has failed; raises ToolError without a path of ours."""
        if self.library is None:
            return
        try:
            await self.library.ensure_loaded()
        except ToolError:
            _log.exception("the functions could not be loaded")
            raise ToolError("The functions could not be loaded; the server's log says why.") from None

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """For `app.cleanup_ctx`: closes with the application what was opened for it."""
        yield
        if self._owns_provider:
            await self.provider.close()
        if self._owns_runner:
            await self.runner.close(2.0)


async def list_functions(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """The tools that are exposed to HTTP and offered to the caller, and what went wrong when they were loaded.

    Who is offered a part of the tools gets no warnings, which can name the others.
    """
    await backend.load_tools()
    items = [
        {"name": one.name, "description": one.description, "source": one.source, "parameters": one.parameters}
        for one in _offered_tools(backend, principal.policy)
    ]
    registry_warnings = backend.registry.warnings if principal.policy.realtime.tools is None else []
    warnings = [f"{WARNING_PREFIX} {shorten_paths(redact(warning))}" for warning in registry_warnings]
    return web.json_response({"items": items, "warnings": warnings})


async def execute_function(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Runs one tool with the arguments of `payload`."""
    body = await read_json_object(request)
    function_name = body.get("function_name")
    name = function_name.strip().lower() if isinstance(function_name, str) else ""
    if not name:
        raise BadRequest("function_name is required.")
    await backend.load_tools()
    tool = _find_tool(backend, name, principal.policy)
    if tool is None:
        available = [one.name for one in _offered_tools(backend, principal.policy)]
        refusal = {"error": "Unknown or disallowed function.", "available_functions": available}
        return web.json_response(refusal, status=404)
    if "http" not in tool.expose:
        raise AccessDenied(f'The function "{tool.name}" is not exposed to HTTP.', status=403)
    call = ToolCall(f"http_{next(_numbers)}", tool.name, NavaiPayload(body.get("payload")))
    context, offers = _tool_context(request, principal), principal.policy.allows_tool
    result = await backend.runner.run(call, context, audience="http", is_offered=offers)
    return _tool_response(tool, result)


def _offered_tools(backend: NavaiBackend, policy: Policy) -> list[Tool]:
    return [one for one in backend.registry.exposed_to("http") if policy.allows_tool(one.name)]


def _find_tool(backend: NavaiBackend, name: str, policy: Policy) -> Tool | None:
    """The tool of a name in lower case; `@tool(name=…)` may have given it another. One not offered is not there."""
    exact = backend.registry.get(name)
    candidates = ([exact] if exact else []) + [one for one in backend.registry if one.name.lower() == name]
    return next((one for one in candidates if policy.allows_tool(one.name)), None)


def _tool_context(request: web.Request, principal: Principal) -> ToolContext:
    headers = {key.lower(): value for key, value in request.headers.items() if key.lower() not in _CREDENTIALS}
    req = MappingProxyType({"path": request.path, "headers": MappingProxyType(headers)})
    return ToolContext(session_id="", identity=principal.identity, metadata=MappingProxyType({"req": req}))


def _tool_response(tool: Tool, result: ToolOutcome) -> web.Response:
    if result.code is None:
        head = json.dumps({"ok": True, "function_name": tool.name, "source": tool.source})
        is_nothing = tool.is_void and result.output == "null"
        text = head if is_nothing else f'{head[:-1]}, "result": {result.output}}}'
        return web.Response(text=text, content_type="application/json")
    status, message = describe_failure(result)
    field = "payload" if result.code == "invalid_arguments" else None
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 429 else None
    return ErrorResponse(status, message, field, headers=headers).to_response()


def describe_failure(result: ToolOutcome) -> tuple[int, str]:
    """The status and the message that answer a call without a result."""
    return _STATUS.get(result.code or "", 500), redact(shorten_paths(result.message), MAX_ERROR_CHARS)


async def client_secret(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Mint a secret for a page, within the caller's quota."""
    check_csrf(request)
    body = await read_json_object(request)
    secret_request = ClientSecretRequest(
        model=string_field(body, "model"),
        voice=string_field(body, "voice"),
        instructions=string_field(body, "instructions"),
        language=string_field(body, "language"),
        voice_accent=string_field(body, "voiceAccent"),
        voice_tone=string_field(body, "voiceTone"),
        api_key=key_field(body, "apiKey"),
    )
    choose_key(backend.options, secret_request.api_key)  # what is refused anyway costs no quota
    permitted_secret_request(principal.policy, backend.options, secret_request)
    backend.quota.charge("mint", principal.identity, client_address(request), asyncio.get_running_loop().time())
    secret = await create_client_secret(
        backend.options, secret_request, provider=backend.provider, policy=principal.policy
    )
    return web.json_response(secret, headers=NO_STORE)


def parse_speech_request(body: dict[str, Any]) -> SpeechRequest:
    """Read a JSON body; unknown fields are ignored. Raises BadRequest naming the field."""
    text = string_field(body, "text")
    if text is None:
        raise BadRequest("text is required.", "text")
    if len(text) > MAX_TEXT_CHARS:
        raise BadRequest(f"text may have at most {MAX_TEXT_CHARS} characters, not {len(text)}.", "text")
    return SpeechRequest(
        text=text,
        voice_id=string_field(body, "voiceId"),
        model_id=string_field(body, "modelId"),
        output_format=string_field(body, "outputFormat"),
        optimize_streaming_latency=number_field(body, "optimizeStreamingLatency"),
        voice_settings=_voice_settings(body.get("voiceSettings")),
    )


def _voice_settings(body: Any) -> ElevenLabsVoiceSettings | None:
    """The settings of a body; they replace the options' as a whole, unless they hold none."""
    if body is None:
        return None
    if not isinstance(body, dict):
        raise BadRequest("voiceSettings must be an object.", "voiceSettings")
    boost = body.get("useSpeakerBoost")
    if boost is not None and not isinstance(boost, bool):
        raise BadRequest("voiceSettings.useSpeakerBoost must be true or false.", "voiceSettings.useSpeakerBoost")
    settings = ElevenLabsVoiceSettings(
        stability=_fraction_field(body, "stability"),
        similarity_boost=_fraction_field(body, "similarityBoost"),
        style=_fraction_field(body, "style"),
        use_speaker_boost=boost,
    )
    return settings if settings != ElevenLabsVoiceSettings() else None


def _fraction_field(body: dict[str, Any], name: str) -> float | None:
    value, field_name = number_field(body, name, "voiceSettings."), f"voiceSettings.{name}"
    if value is not None and not 0 <= value <= 1:
        raise BadRequest(f"{field_name} must be from 0 to 1.", field_name)
    return value


async def speech_synthesize(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Speak a text for a page, within the caller's quota."""
    check_csrf(request)
    as_audio = accepts_audio(request.headers.get("Accept", ""))
    if backend.options.tts_provider != "elevenlabs":
        raise NotConfigured(SPEECH_NOT_CONFIGURED_TEXT)
    speech_request = parse_speech_request(await read_json_object(request))
    speech_request = permitted_speech_request(principal.policy, backend.options, speech_request)
    backend.quota.charge("speech", principal.identity, client_address(request), asyncio.get_running_loop().time())
    if as_audio:
        return await _stream(request, backend, build_speech_request(backend.options, speech_request, stream=True))
    speech = await synthesize_speech(backend.options, speech_request, provider=backend.provider)
    return web.json_response(speech.to_json(), headers=NO_STORE)


def accepts_audio(accept: str) -> bool:
    """Whether an Accept header names sound, and not JSON as well."""
    ranges = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return any(one.startswith("audio/") for one in ranges) and not {"application/json", "application/*"} & {*ranges}


async def _stream(request: web.Request, backend: NavaiBackend, speech_request: HttpRequest) -> web.StreamResponse:
    """Pass the sound on as it comes; a break in the middle breaks the client's transfer as well."""
    async with backend.provider.stream(speech_request) as audio:
        response = web.StreamResponse(
            headers=NO_STORE | {"Content-Type": audio.content_type or speech_request.headers["Accept"]}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            with contextlib.suppress(ConnectionResetError):  # the client has gone: leaving ends the transfer too
                async for chunk in audio.chunks():
                    await response.write(chunk)
                await response.write_eof()
        except UpstreamError:
            # The head is sent: only a transfer that visibly breaks off can still say that this is not all of it.
            if request.transport is not None:
                request.transport.abort()
    return response
