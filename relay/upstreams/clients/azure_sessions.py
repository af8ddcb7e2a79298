"""Sessions of an Azure resource for pages: an ephemeral key, with which a browser dials Azure itself.

GA by default; the preview protocol where the resource has an API version.
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-webrtc
"""

from dataclasses import dataclass, replace
from typing import Any

from relay.core.policy import Policy
from relay.errors import BadRequest, UpstreamError
from relay.json_types import JsonObject
from relay.peers.provider import Call, ProviderClient
from relay.permissions import no_default, permitted, permitted_instructions, require_value
from relay.upstreams.azure import AzureResource
from relay.upstreams.credentials import AnyCredential

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


@dataclass(frozen=True, slots=True)
class AzureSessions:
    """Makes sessions at one resource."""

    resource: AzureResource
    credential: AnyCredential
    provider: ProviderClient

    async def create(self, wanted: AzureSessionRequest, policy: Policy | None = None) -> JsonObject:
        """Make a session: the five fields that pages know, and `warning` for what was left out.

        The session is the one that `policy` allows; the default is one without restrictions. Raises AccessDenied,
        BadRequest, UpstreamError.
        """
        policy, resource = policy or Policy(), self.resource
        wanted = permitted_request(policy, resource, wanted)
        call = Call(
            name=NAME,
            url=resource.mint_url,
            headers=await self.credential.headers(),
            body=_session_body(resource, wanted, policy),
            timeout_s=TIMEOUT_S,
        )
        answer = (await self.provider.fetch(call)).json_object()
        session_id, secret = (answer.get("id"), answer.get("client_secret")) if resource.is_preview else _of_ga(answer)
        if not isinstance(secret, dict) or not isinstance(secret.get("value"), str):
            raise UpstreamError(f"{NAME} failed: there is no client secret in the answer.")
        session: JsonObject = {
            "sessionId": session_id,
            "webrtcUrl": resource.webrtc_url,
            "ephemeralKey": secret["value"],
            "expiresAt": secret.get("expires_at"),
            "model": resource.deployment,
        }
        ignored = wanted.temperature is not None and not resource.is_preview
        return session | ({"warning": GA_TEMPERATURE} if ignored else {})


def permitted_request(policy: Policy, resource: AzureResource, wanted: AzureSessionRequest) -> AzureSessionRequest:
    """What the policy leaves of a request, with its default for the voice. Raises AccessDenied, BadRequest.

    The model is the configured deployment, which no page can choose.
    """
    if resource.is_preview and wanted.voice is not None and wanted.voice not in PREVIEW_VOICES:
        raise BadRequest(f"Invalid voice: {wanted.voice:.80}. Must be one of: {', '.join(PREVIEW_VOICES)}", "voice")
    voice = permitted(policy, "voice", wanted.voice, policy.allows_voice)
    voice = require_value("voice", voice or policy.default_voice(DEFAULT_VOICE, kind="model"))
    if resource.is_preview and voice not in PREVIEW_VOICES:
        raise no_default("voice")
    instructions = permitted_instructions(policy, wanted.instructions)
    return replace(wanted, voice=voice, instructions=policy.instructions_with(instructions) or None)


def _session_body(resource: AzureResource, wanted: AzureSessionRequest, policy: Policy) -> JsonObject:
    instructions = {"instructions": wanted.instructions} if wanted.instructions else {}
    if not resource.is_preview:
        audio = {"output": {"voice": wanted.voice}}
        session = {"type": "realtime", "model": resource.deployment, "audio": audio} | instructions
        return {"session": session | policy.realtime.session_limits}
    temperature = {"temperature": wanted.temperature} if wanted.temperature is not None else {}
    most = policy.realtime.max_output_tokens
    limit = {"max_response_output_tokens": most} if most is not None else {}
    return {"model": resource.deployment, "voice": wanted.voice} | instructions | temperature | limit


def _of_ga(answer: JsonObject) -> tuple[Any, JsonObject]:
    session = answer.get("session")
    return session.get("id") if isinstance(session, dict) else None, answer
