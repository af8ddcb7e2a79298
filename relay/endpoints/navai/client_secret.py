"""The NAVAI route that creates provider secrets."""

import asyncio

from aiohttp import web

from relay.endpoints.navai.backend import NavaiBackend
from relay.endpoints.request_body import NO_STORE, check_csrf, client_address, key_field, read_json_object, string_field
from relay.session.common.policy import Principal
from relay.upstreams.clients.browser_secrets import (
    ClientSecretRequest,
    choose_key,
    create_client_secret,
    permitted_secret_request,
)


async def client_secret(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Create a provider secret for a browser, within the caller's quota."""
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
    choose_key(backend.options, secret_request.api_key)  # a refused request does not use up quota
    permitted_secret_request(principal.policy, backend.options, secret_request)
    backend.quota.charge("mint", principal.identity, client_address(request), asyncio.get_running_loop().time())
    secret = await create_client_secret(
        backend.options, secret_request, provider=backend.provider, policy=principal.policy
    )
    return web.json_response(secret, headers=NO_STORE)
