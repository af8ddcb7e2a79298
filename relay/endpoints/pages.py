"""The page and its files, and what tells whether the relay is up and ready."""

from collections.abc import Mapping

from aiohttp import web

from relay import __version__
from relay.app.context import SESSIONS, UPSTREAM
from relay.session.common.policy import Principal
from relay.web import PAGE_HEADERS, STATIC_DIR, static_files

_FILES = static_files()


async def index_page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /`: the page that talks."""
    return _page_asset("index.html")


async def static_file(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /static/<file>`: a file of the page."""
    return _page_asset(request.match_info["name"])


async def healthz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /healthz`: the process is alive."""
    return web.json_response({"status": "ok", "version": __version__})


async def readyz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /readyz`: 200 if a session can be had now, else 503 with the reason."""
    upstream = request.app[UPSTREAM]
    reason = "the relay is shutting down" if request.app[SESSIONS].is_draining else upstream.unavailable_reason
    if reason is not None:
        return web.json_response({"status": "not ready", "reason": reason}, status=503)
    return web.json_response({"status": "ready", "upstream": upstream.endpoint.kind})


def _page_asset(name: str) -> web.Response:
    content_type = _FILES.get(name)
    if content_type is None:
        raise web.HTTPNotFound(text=f"there is no file {name!r:.80}")
    return asset_response(name, content_type, {**PAGE_HEADERS, "Cache-Control": "no-cache"})


def asset_response(name: str, content_type: str, headers: Mapping[str, str], status: int = 200) -> web.Response:
    """One of the files that come with the relay."""
    body = (STATIC_DIR / name).read_bytes()  # a few KB of a local file: not worth a thread
    return web.Response(status=status, body=body, content_type=content_type, charset="utf-8", headers=headers)


def is_websocket_upgrade(request: web.Request) -> bool:
    """Whether a request wants to become a WebSocket."""
    return "websocket" in request.headers.get("Upgrade", "").lower()
