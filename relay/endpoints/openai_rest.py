"""OpenAI's REST surface, as far as Realtime applications use it: client secrets, models, clear refusals."""

import functools
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from relay.app.context import AUTHENTICATOR, CLIENT_SECRETS, SETTINGS
from relay.auth.client_secrets import DEFAULT_SECONDS, MAX_SECONDS, MAX_SESSION_BYTES, MIN_SECONDS
from relay.config.policy_file import Policies
from relay.endpoints.bodies import NO_STORE, read_api_object
from relay.errors import ApiError
from relay.session.common.policy import Policy, Principal, literal_names
from relay.session.realtime.policy_table import Denied, check_session

MAX_IDENTITY_CHARS = 128
_BODY_FIELDS = frozenset({"expires_after", "session", "policy", "identity", "single_use"})


async def client_secrets(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST /v1/realtime/client_secrets`: a client secret of this relay, in the shape of OpenAI's.

    Three fields are the relay's own: `policy`, `identity` (who the secret is for) and `single_use`.
    """
    body = await read_api_object(request)
    unknown = next((name for name in body if name not in _BODY_FIELDS), None)
    if unknown is not None:
        raise ApiError(f"Unknown parameter: '{unknown[:80]}'.", 400, "unknown_parameter", unknown[:80])
    seconds = _seconds(body.get("expires_after"))
    policy = _policy(request.app[AUTHENTICATOR].policies, principal, body.get("policy"))
    identity = _identity(principal, body.get("identity"))
    single_use = body.get("single_use", False)
    if not isinstance(single_use, bool):
        raise ApiError("single_use is true or false.", 400, "invalid_type", "single_use")
    session = _session(policy, body.get("session"))
    value, secret = request.app[CLIENT_SECRETS].mint(identity, policy, seconds, session=session, single_use=single_use)
    shown = {"id": f"sess_{secret.id}", "object": "realtime.session", "type": "realtime", **(session or {})}
    answer = {"value": value, "expires_at": secret.expires_at, "session": shown}
    return web.json_response(answer, headers=NO_STORE)


async def models(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /v1/models`: the models that the caller's policy names, and the relay's own if it is among them."""
    own = request.app[SETTINGS].session.model
    policy = principal.policy.realtime
    named = literal_names(policy.models)
    names = dict.fromkeys(([own] if policy.allows_model(own) else []) + named)
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "relay"} for name in names]
    return web.json_response({"object": "list", "data": data})


async def not_implemented(request: web.Request, principal: Principal, what: str) -> web.StreamResponse:
    """What the API has and this relay has not yet."""
    raise ApiError(f"This relay has no {what} yet; conversations are at /v1/realtime.", 501, "not_implemented")


calls = functools.partial(not_implemented, what="WebRTC or SIP calls")
translations = functools.partial(not_implemented, what="translation sessions")


def _seconds(expires_after: Any) -> int:
    if expires_after is None:
        return DEFAULT_SECONDS
    seconds = expires_after.get("seconds", DEFAULT_SECONDS) if isinstance(expires_after, Mapping) else None
    if type(seconds) is not int or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        text = f"expires_after is {{anchor: 'created_at', seconds: {MIN_SECONDS} to {MAX_SECONDS}}}."
        raise ApiError(text, 400, "invalid_value", "expires_after.seconds")
    if expires_after.get("anchor", "created_at") != "created_at":
        raise ApiError("expires_after.anchor must be 'created_at'.", 400, "invalid_value", "expires_after.anchor")
    return seconds


def _policy(policies: Policies, principal: Principal, wanted: Any) -> Policy:
    """The policy of the secret: the caller's own, or another one that the caller's may mint."""
    own = principal.policy
    if wanted is None or wanted == own.name:
        return own
    found = policies.get(wanted) if isinstance(wanted, str) else None
    if found is None:
        raise ApiError(f"There is no policy {str(wanted)[:80]!r}.", 400, "invalid_value", "policy")
    if not own.allows_minting(found.name):
        may = ", ".join((own.name, *own.may_mint))
        text = f"This caller may make client secrets of {may} only: see may_mint of its policy in RELAY_POLICIES."
        raise ApiError(text, 403, "insufficient_permissions", "policy")
    return found


def _identity(principal: Principal, wanted: Any) -> str:
    if wanted is None:
        return principal.identity
    if not isinstance(wanted, str) or not 0 < len(wanted) <= MAX_IDENTITY_CHARS or not wanted.isprintable():
        text = f"identity is 1 to {MAX_IDENTITY_CHARS} printable characters."
        raise ApiError(text, 400, "invalid_value", "identity")
    return f"{principal.identity}/{wanted}"


def _session(policy: Policy, session: Any) -> dict[str, Any] | None:
    """What the secret configures, held against its policy already here."""
    if session is None:
        return None
    if isinstance(session, Mapping) and session.get("type") == "transcription":
        raise ApiError("This relay holds conversations only.", 501, "not_implemented", "session.type")
    try:
        n_bytes = len(orjson.dumps(session))
    except TypeError as error:  # nested deeper than anything can be sent on
        raise ApiError("session is nested too deeply.", 400, "invalid_value", "session") from error
    if n_bytes > MAX_SESSION_BYTES:
        raise ApiError(f"session may have {MAX_SESSION_BYTES} bytes, not {n_bytes}.", 400, "invalid_value", "session")
    try:
        return check_session(session, policy.realtime)
    except Denied as denied:
        raise ApiError(str(denied), 400, denied.code, denied.param) from denied
