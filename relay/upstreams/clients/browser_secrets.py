"""Provider secrets for browsers that connect to a provider directly: OpenAI's client secrets, Azure's sessions.

The session of a secret is a default and not enforced: the holder of the secret can change it. Azure's protocol is GA,
or the preview if the resource has an API version.
https://platform.openai.com/docs/api-reference/realtime-sessions/create-realtime-client-secret
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-webrtc
"""

from dataclasses import dataclass, field, replace
from typing import Any

from relay.config.navai_options import NavaiOptions
from relay.config.policy_checks import (
    no_default_error,
    permitted_instructions,
    permitted_phrase,
    permitted_value,
    require_value,
)
from relay.errors import AccessDenied, BadRequest, NotConfigured, UpstreamError
from relay.json_types import JsonObject
from relay.session.common.policy import Policy
from relay.transport.http_client import HttpRequest, ProviderHttpClient, fetch
from relay.upstreams.azure import AzureResource
from relay.upstreams.credentials import UpstreamCredential

MISSING_KEY_TEXT = "Missing API key. Configure openaiApiKey or send apiKey in request."
KEY_REFUSED_TEXT = "Passing apiKey from request is disabled. Set allowApiKeyFromRequest=true to enable it."
AZURE_TIMEOUT_S = 15.0
DEFAULT_AZURE_VOICE = "alloy"
PREVIEW_VOICES = ("alloy", "echo", "shimmer")
AZURE_NAME = "Azure OpenAI Realtime API"
AZURE_NOT_CONFIGURED_TEXT = (
    "Azure is not configured: set AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT and AZURE_OPENAI_API_KEY (or "
    "RELAY_AZURE_TOKEN)."
)
GA_TEMPERATURE_TEXT = "temperature is not part of the GA protocol and was left out; it needs AZURE_OPENAI_API_VERSION."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretRequest:
    """The fields of a request for a provider secret; None means the default of the options."""

    model: str | None = None
    voice: str | None = None
    instructions: str | None = None
    language: str | None = None
    voice_accent: str | None = None
    voice_tone: str | None = None
    api_key: str | None = field(default=None, repr=False)


async def create_client_secret(
    options: NavaiOptions,
    request: ClientSecretRequest | None = None,
    *,
    provider: ProviderHttpClient | None = None,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Create a provider secret: `{"value", "expires_at", "speech": {"provider"}}`, as far as OpenAI returns these.

    Pass a `provider` to reuse connections between calls. The session is restricted to what `policy` allows; the default
    policy has no restrictions. Raises AccessDenied, NotConfigured, UpstreamError.
    """
    policy = policy or Policy()
    permitted_request = permitted_secret_request(policy, options, request or ClientSecretRequest())
    call = HttpRequest(
        name="OpenAI client_secrets",
        url=f"{rest_base_url(options.openai_base_url)}/realtime/client_secrets",
        headers={"Authorization": f"Bearer {choose_key(options, permitted_request.api_key)}"},
        body={
            "expires_after": {"anchor": "created_at", "seconds": options.client_secret_ttl_s},
            "session": build_session(options, permitted_request, policy),
        },
        timeout_s=options.upstream_timeout_s,
    )
    response = (await fetch(call, provider)).json_object()
    secret = {key: response[key] for key in ("value", "expires_at") if key in response}
    return secret | {"speech": {"provider": options.tts_provider}}


def choose_key(options: NavaiOptions, from_request: str | None) -> str:
    """Return the backend's key, else the key of the request. Raises AccessDenied, NotConfigured."""
    if from_request is not None and not options.allow_api_key_from_request:
        raise AccessDenied(KEY_REFUSED_TEXT, status=403)
    key = options.openai_api_key or from_request
    if key is None:
        raise NotConfigured(MISSING_KEY_TEXT)
    return key


def permitted_secret_request(
    policy: Policy, options: NavaiOptions, request: ClientSecretRequest
) -> ClientSecretRequest:
    """Return the request with the policy's defaults for model and voice. Raises AccessDenied for a forbidden field."""
    model = permitted_value(policy, "model", request.model, policy.allows_model)
    voice = permitted_value(policy, "voice", request.voice, policy.allows_voice)
    if options.tts_provider == "openai":
        voice = require_value("voice", voice or policy.default_voice(options.default_voice, kind="model"))
    return replace(
        request,
        model=require_value("model", model or policy.default_model(options.default_model)),
        voice=voice,
        instructions=permitted_instructions(policy, request.instructions),
        language=permitted_phrase(policy, "language", request.language),
        voice_accent=permitted_phrase(policy, "voiceAccent", request.voice_accent),
        voice_tone=permitted_phrase(policy, "voiceTone", request.voice_tone),
    )


def build_session(options: NavaiOptions, request: ClientSecretRequest, policy: Policy | None = None) -> dict[str, Any]:
    """Return the session that the secret opens: with text output if ElevenLabs speaks, else with a voice."""
    policy = policy or Policy()
    session: dict[str, Any] = {
        "type": "realtime",
        "model": request.model or options.default_model,
        "instructions": build_instructions(options, request, policy),
        **policy.realtime.session_limits,
    }
    if options.tts_provider == "elevenlabs":
        return session | {"output_modalities": ["text"]}
    return session | {"audio": {"output": {"voice": request.voice or options.default_voice}}}


def build_instructions(options: NavaiOptions, request: ClientSecretRequest, policy: Policy) -> str:
    """Return the instructions, with a line each for language, accent and tone if set."""
    language = request.language or options.default_language
    accent = request.voice_accent or options.default_voice_accent
    tone = request.voice_tone or options.default_voice_tone
    lines = [
        policy.combine_instructions(request.instructions, options.default_instructions),
        f"Always reply in {language}." if language else "",
        f"Use a {accent} accent while speaking." if accent else "",
        f"Use a {tone} tone while speaking." if tone else "",
    ]
    return "\n".join(line for line in lines if line)


def rest_base_url(base: str) -> str:
    """Return the base URL of REST requests; settings may write it with a WebSocket scheme."""
    scheme, _, rest = base.rstrip("/").partition("://")
    return f"{ {'ws': 'http', 'wss': 'https'}.get(scheme, scheme) }://{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSessionRequest:
    """The fields of an Azure session request; None means the default voice, and the model's default for the others."""

    voice: str | None = None
    instructions: str | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class AzureSessionClient:
    """Creates browser sessions at one Azure resource."""

    resource: AzureResource
    credential: UpstreamCredential
    provider: ProviderHttpClient

    async def create(self, request: AzureSessionRequest, policy: Policy | None = None) -> JsonObject:
        """Create a session: the five fields that pages expect, and a `warning` if a field was ignored.

        The session is restricted to what `policy` allows; the default policy has no restrictions. Raises AccessDenied,
        BadRequest, UpstreamError.
        """
        policy, resource = policy or Policy(), self.resource
        request = permitted_azure_request(policy, resource, request)
        call = HttpRequest(
            name=AZURE_NAME,
            url=resource.client_secrets_url,
            headers=await self.credential.headers(),
            body=_session_body(resource, request, policy),
            timeout_s=AZURE_TIMEOUT_S,
        )
        response = (await self.provider.fetch(call)).json_object()
        session_id, secret = (
            (response.get("id"), response.get("client_secret")) if resource.is_preview else _parse_ga_response(response)
        )
        if not isinstance(secret, dict) or not isinstance(secret.get("value"), str):
            raise UpstreamError(f"{AZURE_NAME} failed: the response has no client secret.")
        session: JsonObject = {
            "sessionId": session_id,
            "webrtcUrl": resource.webrtc_url,
            "ephemeralKey": secret["value"],
            "expiresAt": secret.get("expires_at"),
            "model": resource.deployment,
        }
        is_temperature_ignored = request.temperature is not None and not resource.is_preview
        return session | ({"warning": GA_TEMPERATURE_TEXT} if is_temperature_ignored else {})


def permitted_azure_request(
    policy: Policy, resource: AzureResource, request: AzureSessionRequest
) -> AzureSessionRequest:
    """Return the request with the policy's default voice. Raises AccessDenied for a forbidden field, BadRequest.

    The model is always the configured deployment.
    """
    if resource.is_preview and request.voice is not None and request.voice not in PREVIEW_VOICES:
        raise BadRequest(f"Invalid voice: {request.voice:.80}. Must be one of: {', '.join(PREVIEW_VOICES)}", "voice")
    voice = permitted_value(policy, "voice", request.voice, policy.allows_voice)
    voice = require_value("voice", voice or policy.default_voice(DEFAULT_AZURE_VOICE, kind="model"))
    if resource.is_preview and voice not in PREVIEW_VOICES:
        raise no_default_error("voice")
    instructions = permitted_instructions(policy, request.instructions)
    return replace(request, voice=voice, instructions=policy.combine_instructions(instructions) or None)


def _session_body(resource: AzureResource, request: AzureSessionRequest, policy: Policy) -> JsonObject:
    instructions = {"instructions": request.instructions} if request.instructions else {}
    if not resource.is_preview:
        audio = {"output": {"voice": request.voice}}
        session = {"type": "realtime", "model": resource.deployment, "audio": audio} | instructions
        return {"session": session | policy.realtime.session_limits}
    temperature = {"temperature": request.temperature} if request.temperature is not None else {}
    max_output_tokens = policy.realtime.max_output_tokens
    limit = {"max_response_output_tokens": max_output_tokens} if max_output_tokens is not None else {}
    return {"model": resource.deployment, "voice": request.voice} | instructions | temperature | limit


def _parse_ga_response(response: JsonObject) -> tuple[Any, JsonObject]:
    session = response.get("session")
    return session.get("id") if isinstance(session, dict) else None, response
