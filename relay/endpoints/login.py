"""Admin login in a browser: `GET /login` with its form, sign-in by code or key for a cookie, and sign-out.

Only the relay's own pages may use these routes: they have no CORS headers and refuse cross-site requests.
"""

import asyncio
import logging
import time

from aiohttp import web

from relay.app.context import AUTHENTICATOR, LOGINS, SETTINGS
from relay.auth import admin_login
from relay.auth.keyring import key_identity
from relay.endpoints.console import asset_response
from relay.endpoints.request_body import NO_STORE, read_json_object, string_field
from relay.errors import AccessDenied, BadRequest, ConfigError, NotConfigured, RateLimited
from relay.session.common.policy import Principal
from relay.session.common.rate_limit import KeyedRateLimiter, address_key
from relay.web import PAGE_HEADERS

ATTEMPTS_PER_MINUTE = 10
LOGIN_ATTEMPTS = web.AppKey("login_attempts", KeyedRateLimiter)
"""The rate limit of sign-in attempts per address."""
_log = logging.getLogger("relay.access")


async def login_page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /login`: the form; a link of `relay console` already has a code."""
    return login_form(200)


def login_form(status: int) -> web.Response:
    """Return the login form, also in place of an admin page."""
    return asset_response("login.html", "text/html", PAGE_HEADERS | NO_STORE, status)


def accepts_html(request: web.Request) -> bool:
    """Whether the client accepts HTML."""
    return "text/html" in request.headers.get("Accept", "")


async def sign_in(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST /login`: exchange `{"code"}` of `relay console`, or `{"key"}` of RELAY_ADMIN_KEYS, for a cookie."""
    _refuse_cross_site(request)
    address, now = request.app[AUTHENTICATOR].client_address(request), asyncio.get_running_loop().time()
    wait_s = request.app[LOGIN_ATTEMPTS].take(address_key(address), now)
    if wait_s:
        raise RateLimited(f"Too many sign-in attempts from this address; wait {wait_s:.0f} s.", wait_s)
    if request.content_type != "application/json":
        raise BadRequest("Send the body as JSON, with Content-Type: application/json.", "Content-Type")
    identity = await _authenticate_admin(request.app, await read_json_object(request))
    _log.info("admin signed in: identity=%s client=%s", identity, address)
    response = web.json_response({"signedIn": True}, headers=NO_STORE)
    response.set_cookie(
        admin_login.cookie_name(request),
        request.app[LOGINS].issue_cookie(request, identity),
        max_age=admin_login.LOGIN_TTL_S,
        httponly=True,
        samesite="Strict",
        secure=admin_login.needs_secure_cookie(request),
    )
    return response


async def sign_out(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`POST /logout`: revoke the cookie, including its copies."""
    _refuse_cross_site(request)
    request.app[LOGINS].sign_out(request)
    response = web.json_response({"signedIn": False}, headers=NO_STORE)
    response.del_cookie(
        admin_login.cookie_name(request),
        httponly=True,
        samesite="Strict",
        secure=admin_login.needs_secure_cookie(request),
    )
    return response


def _refuse_cross_site(request: web.Request) -> None:
    """Raise AccessDenied for a cross-site request of a browser (CSRF); other programs send none of these headers."""
    headers = request.headers
    if ("Sec-Fetch-Site" in headers or "Origin" in headers) and not admin_login.is_same_origin_request(request):
        raise AccessDenied("Only the relay's own pages may sign in and out.", status=403)


async def _authenticate_admin(app: web.Application, body: dict[str, object]) -> str:
    """Return the identity of the admin. Raises AccessDenied, BadRequest, NotConfigured."""
    code, key = string_field(body, "code"), string_field(body, "key")
    if (code is None) == (key is None):
        raise BadRequest("Send either code or key.", "code")
    if key is not None:
        if app[AUTHENTICATOR].keys.classify(key) != "admin":
            raise AccessDenied("The key is not an admin key; use one of RELAY_ADMIN_KEYS.", status=401)
        return key_identity(key)
    try:
        is_good = await asyncio.to_thread(
            admin_login.redeem_login_code, app[SETTINGS].access.state_dir, code or "", time.time()
        )
    except ConfigError as error:
        _log.error("%s", error)
        raise NotConfigured("This relay cannot check login codes; see its log.") from None
    if not is_good:
        raise AccessDenied("The link is already used or older than a minute; run `relay console` again.", 401)
    return admin_login.CONSOLE_IDENTITY
