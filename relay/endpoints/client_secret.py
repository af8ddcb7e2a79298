"""`POST /navai/realtime/client-secret`: a short-lived secret, with which a browser dials OpenAI by itself."""

import asyncio
from typing import Any

from aiohttp import web

from relay.core.policy import Principal
from relay.endpoints.bodies import NO_STORE, address_of, check_sender, key_of, read_object, text_of
from relay.endpoints.navai_backend import NavaiBackend
from relay.upstreams.clients.openai_secrets import (
    ClientSecretRequest,
    choose_key,
    create_client_secret,
    permitted_request,
)


def request_of(body: dict[str, Any]) -> ClientSecretRequest:
    """Read a JSON body; unknown fields are ignored. Raises BadRequest naming the field."""
    return ClientSecretRequest(
        model=text_of(body, "model"),
        voice=text_of(body, "voice"),
        instructions=text_of(body, "instructions"),
        language=text_of(body, "language"),
        voice_accent=text_of(body, "voiceAccent"),
        voice_tone=text_of(body, "voiceTone"),
        api_key=key_of(body, "apiKey"),
    )


async def client_secret(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Mint a secret for a page, within the caller's quota."""
    check_sender(request)
    wanted = request_of(await read_object(request))
    choose_key(backend.options, wanted.api_key)  # what is refused anyway costs no quota
    permitted_request(principal.policy, backend.options, wanted)
    backend.spending.buy("mint", principal.identity, address_of(request), asyncio.get_running_loop().time())
    secret = await create_client_secret(backend.options, wanted, provider=backend.provider, policy=principal.policy)
    return web.json_response(secret, headers=NO_STORE)
