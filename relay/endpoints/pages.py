"""The page and its files, the viewer of recordings for admins, and what tells whether the relay is up and ready."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from relay import __version__
from relay.app.context import RECORDINGS, SESSIONS, UPSTREAM
from relay.core.policy import Principal
from relay.endpoints.bodies import NO_STORE
from relay.recording.finish import is_finished
from relay.recording.folder import (
    ASSISTANT_TRACK,
    PEAKS,
    TIMELINE,
    TRANSCRIPT,
    USER_TRACK,
    RecordingError,
    all_recordings,
    size_bytes,
)
from relay.recording.header import read_header
from relay.recording.lock import is_live
from relay.web import CONTENT_SECURITY_POLICY, PAGE_HEADERS, STATIC_DIR, static_files

_FILES = static_files()
MAX_LISTED = 500
_VIEWER_HEADERS: Final = {
    **PAGE_HEADERS,
    "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; media-src 'self'",
    "Cache-Control": "no-store",  # voices are nobody's cache's business
}
_DERIVED_TYPES: Final = {
    TIMELINE: "application/json",
    PEAKS: "application/octet-stream",
    TRANSCRIPT: "text/vtt",
    USER_TRACK: "audio/flac",
    ASSISTANT_TRACK: "audio/flac",
}


async def page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /`: the page that talks."""
    return _asset("index.html")


async def static(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /static/<file>`: a file of the page."""
    return _asset(request.match_info["name"])


async def healthz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /healthz`: the process is alive."""
    return web.json_response({"status": "ok", "version": __version__})


async def readyz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /readyz`: 200 if a session can be had now, else 503 with the reason."""
    upstream = request.app[UPSTREAM]
    reason = "the relay is shutting down" if request.app[SESSIONS].draining else upstream.not_ready
    if reason is not None:
        return web.json_response({"status": "not ready", "reason": reason}, status=503)
    return web.json_response({"status": "ready", "upstream": upstream.endpoint.kind})


def _asset(name: str) -> web.Response:
    content_type = _FILES.get(name)
    if content_type is None:
        raise web.HTTPNotFound(text=f"there is no file {name!r:.80}")
    return asset(name, content_type, {**PAGE_HEADERS, "Cache-Control": "no-cache"})


def asset(name: str, content_type: str, headers: Mapping[str, str], status: int = 200) -> web.Response:
    """One of the files that come with the relay."""
    body = (STATIC_DIR / name).read_bytes()  # a few KB of a local file: not worth a thread
    return web.Response(status=status, body=body, content_type=content_type, charset="utf-8", headers=headers)


def is_upgrade(request: web.Request) -> bool:
    """Whether a request wants to become a WebSocket."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


async def recordings_page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings`: the page that draws them."""
    return asset("recordings.html", "text/html", _VIEWER_HEADERS)


async def recordings_list(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings/list`: the newest recordings, newest first."""
    root = request.app[RECORDINGS].root
    rows = await asyncio.to_thread(_rows, root)
    return web.json_response({"recordings": rows}, headers=NO_STORE)


async def recording_file(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings/<name>/<file>`: one of the derived files, in ranges if asked."""
    name, file = request.match_info["name"], request.match_info["file"]
    path = await asyncio.to_thread(_path, request.app[RECORDINGS].root, name, file)
    headers = NO_STORE | {"Content-Type": _DERIVED_TYPES[file], "X-Content-Type-Options": "nosniff"}
    return web.FileResponse(path, headers=headers)


def _rows(root: Path) -> list[dict[str, Any]]:
    return [_row(folder) for folder in reversed(all_recordings(root)[-MAX_LISTED:])]


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "bytes": size_bytes(folder)}
    try:
        header = read_header(folder)
    except RecordingError as error:
        return row | {"state": "broken", "why": str(error)}
    state = "live" if is_live(folder) else "finished" if is_finished(folder) else "unfinished"
    return row | {
        "state": state,
        "started": header.started.isoformat(),
        "identity": header.beginning.principal.identity,
        "model": header.model,
    }


def _path(root: Path, name: str, file: str) -> Path:
    """The file of a recording that is really there; names are compared, never joined to a path unseen."""
    folder = next((path for path in all_recordings(root) if path.name == name), None)
    if folder is None:
        raise RecordingError(f"there is no recording {name!r:.80}")
    if file not in _DERIVED_TYPES:
        raise RecordingError(f"{file!r:.80} is none of {', '.join(_DERIVED_TYPES)}")
    path = folder / file
    if path.is_symlink() or not path.is_file():
        raise RecordingError(f"{name} is not finished: `relay recordings repair` makes its {file}")
    return path
