"""The console page and its files."""

from collections.abc import Mapping

from aiohttp import web

from relay.session.common.policy import Principal
from relay.web import PAGE_HEADERS, STATIC_DIR, static_files

_FILES = static_files()


async def index_page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /`: the console page."""
    return _page_asset("index.html")


async def static_file(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /static/<file>`: a file of the console."""
    return _page_asset(request.match_info["name"])


def _page_asset(name: str) -> web.Response:
    content_type = _FILES.get(name)
    if content_type is None:
        raise web.HTTPNotFound(text=f"There is no file {name!r:.80}.")
    return asset_response(name, content_type, {**PAGE_HEADERS, "Cache-Control": "no-cache"})


def asset_response(name: str, content_type: str, headers: Mapping[str, str], status: int = 200) -> web.Response:
    """Return one of the files that ship with the relay."""
    body = (STATIC_DIR / name).read_bytes()  # a small local file: not worth a thread
    return web.Response(status=status, body=body, content_type=content_type, charset="utf-8", headers=headers)
