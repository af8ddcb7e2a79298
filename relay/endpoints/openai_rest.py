"""The routes of OpenAI's REST API that Realtime applications use: client secrets, models, and 501 for the rest."""

import functools
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from relay.app.context import AUTHENTICATOR, CLIENT_SECRETS, SETTINGS
from relay.auth.client_secrets import DEFAULT_TTL_S, MAX_SESSION_BYTES, MAX_TTL_S, MIN_TTL_S
from relay.config.policy_file import Policies
from relay.endpoints.request_body import NO_STORE, read_openai_object
from relay.errors import OpenAIError
from relay.session.common.policy import Policy, Principal, literal_names
from relay.session.realtime.policy_table import PolicyViolation, check_session

MAX_IDENTITY_CHARS = 128
_BODY_FIELDS = frozenset({"expires_after", "session", "policy", "identity", "single_use"})


async def client_secrets(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST /v1/realtime/client_secrets`: create a client secret of this relay, in OpenAI's shape.

    Three fields are the relay's own: `policy`, `identity` (a suffix for the caller's) and `single_use`.
    """
    body = await read_openai_object(request)
    unknown = next((name for name in body if name not in _BODY_FIELDS), None)
    if unknown is not None:
        raise OpenAIError(f"Unknown parameter: '{unknown[:80]}'.", 400, "unknown_parameter", unknown[:80])
    seconds = _parse_ttl_s(body.get("expires_after"))
    policy = _select_policy(request.app[AUTHENTICATOR].policies, principal, body.get("policy"))
    identity = _secret_identity(principal, body.get("identity"))
    single_use = body.get("single_use", False)
    if not isinstance(single_use, bool):
        raise OpenAIError("single_use must be true or false.", 400, "invalid_type", "single_use")
    session = _check_session_config(policy, body.get("session"))
    value, secret = request.app[CLIENT_SECRETS].mint(identity, policy, seconds, session=session, single_use=single_use)
    session_body = {"id": f"sess_{secret.id}", "object": "realtime.session", "type": "realtime", **(session or {})}
    response_body = {"value": value, "expires_at": secret.expires_at, "session": session_body}
    return web.json_response(response_body, headers=NO_STORE)


async def models(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /v1/models`: the models that the caller's policy names, and the relay's own if allowed."""
    default_model = request.app[SETTINGS].session.model
    policy = principal.policy.realtime
    named = literal_names(policy.models)
    names = dict.fromkeys(([default_model] if policy.allows_model(default_model) else []) + named)
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "relay"} for name in names]
    return web.json_response({"object": "list", "data": data})


async def not_implemented(request: web.Request, principal: Principal, feature: str) -> web.StreamResponse:
    """Respond with 501 to a part of the API that this relay does not support yet."""
    text = f"This relay does not support {feature} yet; use conversations at /v1/realtime."
    raise OpenAIError(text, 501, "not_implemented")


calls = functools.partial(not_implemented, feature="WebRTC or SIP calls")
translations = functools.partial(not_implemented, feature="translation sessions")


def _parse_ttl_s(expires_after: Any) -> int:
    if expires_after is None:
        return DEFAULT_TTL_S
    seconds = expires_after.get("seconds", DEFAULT_TTL_S) if isinstance(expires_after, Mapping) else None
    if type(seconds) is not int or not MIN_TTL_S <= seconds <= MAX_TTL_S:
        text = f"expires_after must be {{anchor: 'created_at', seconds: {MIN_TTL_S} to {MAX_TTL_S}}}."
        raise OpenAIError(text, 400, "invalid_value", "expires_after.seconds")
    if expires_after.get("anchor", "created_at") != "created_at":
        raise OpenAIError("expires_after.anchor must be 'created_at'.", 400, "invalid_value", "expires_after.anchor")
    return seconds


def _select_policy(policies: Policies, principal: Principal, policy_name: Any) -> Policy:
    """Return the policy of the secret: the caller's own, or another one that it may mint."""
    own = principal.policy
    if policy_name is None or policy_name == own.name:
        return own
    policy = policies.get(policy_name) if isinstance(policy_name, str) else None
    if policy is None:
        raise OpenAIError(f"There is no policy {str(policy_name)[:80]!r}.", 400, "invalid_value", "policy")
    if not own.allows_minting(policy.name):
        allowed = ", ".join((own.name, *own.may_mint))
        text = f"This caller may only mint client secrets of the policies {allowed}; see may_mint in RELAY_POLICIES."
        raise OpenAIError(text, 403, "insufficient_permissions", "policy")
    return policy


def _secret_identity(principal: Principal, identity_suffix: Any) -> str:
    if identity_suffix is None:
        return principal.identity
    if (
        not isinstance(identity_suffix, str)
        or not 0 < len(identity_suffix) <= MAX_IDENTITY_CHARS
        or not identity_suffix.isprintable()
    ):
        text = f"identity must have 1 to {MAX_IDENTITY_CHARS} printable characters."
        raise OpenAIError(text, 400, "invalid_value", "identity")
    return f"{principal.identity}/{identity_suffix}"


def _check_session_config(policy: Policy, session: Any) -> dict[str, Any] | None:
    """Check the secret's session against its policy."""
    if session is None:
        return None
    if isinstance(session, Mapping) and session.get("type") == "transcription":
        text = "Transcription sessions are not supported yet; use session.type realtime."
        raise OpenAIError(text, 501, "not_implemented", "session.type")
    try:
        n_bytes = len(orjson.dumps(session))
    except TypeError as error:  # nested too deeply to serialize
        raise OpenAIError("session is nested too deeply.", 400, "invalid_value", "session") from error
    if n_bytes > MAX_SESSION_BYTES:
        raise OpenAIError(
            f"session may have {MAX_SESSION_BYTES} bytes, not {n_bytes}.", 400, "invalid_value", "session"
        )
    try:
        return check_session(session, policy.realtime)
    except PolicyViolation as denied:
        raise OpenAIError(str(denied), 400, denied.code, denied.param) from denied
