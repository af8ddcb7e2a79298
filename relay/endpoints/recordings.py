"""The viewer: `GET /recordings`, the list it shows, and the derived files it draws from. For admins alone."""

import asyncio
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from relay.app.context import RECORDINGS
from relay.endpoints.bodies import NO_STORE
from relay.endpoints.pages import asset_response
from relay.recording.postprocess import is_finalized
from relay.recording.store.header import read_header
from relay.recording.store.layout import (
    ASSISTANT_TRACK_FILE,
    PEAKS_FILE,
    TIMELINE_FILE,
    TRANSCRIPT_FILE,
    USER_TRACK_FILE,
    RecordingError,
    folder_size_bytes,
    is_being_recorded,
    list_recordings,
)
from relay.session.common.policy import Principal
from relay.web import CONTENT_SECURITY_POLICY, PAGE_HEADERS

MAX_LISTED = 500
_HEADERS: Final = {
    **PAGE_HEADERS,
    "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; media-src 'self'",
    "Cache-Control": "no-store",  # voices are nobody's cache's business
}
_TYPES: Final = {
    TIMELINE_FILE: "application/json",
    PEAKS_FILE: "application/octet-stream",
    TRANSCRIPT_FILE: "text/vtt",
    USER_TRACK_FILE: "audio/flac",
    ASSISTANT_TRACK_FILE: "audio/flac",
}


async def recordings_page(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings`: the page that draws them."""
    return asset_response("recordings.html", "text/html", _HEADERS)


async def recordings_list(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings/list`: the newest recordings, newest first."""
    root = request.app[RECORDINGS].root
    rows = await asyncio.to_thread(_rows, root)
    return web.json_response({"recordings": rows}, headers=NO_STORE)


async def recording_file(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /recordings/<name>/<file>`: one of the derived files, in ranges if asked."""
    name, file_name = request.match_info["name"], request.match_info["file"]
    path = await asyncio.to_thread(_file_path, request.app[RECORDINGS].root, name, file_name)
    headers = NO_STORE | {"Content-Type": _TYPES[file_name], "X-Content-Type-Options": "nosniff"}
    return web.FileResponse(path, headers=headers)


def _rows(root: Path) -> list[dict[str, Any]]:
    return [_row(folder) for folder in reversed(list_recordings(root)[-MAX_LISTED:])]


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "bytes": folder_size_bytes(folder)}
    try:
        header = read_header(folder)
    except RecordingError as error:
        return row | {"state": "broken", "why": str(error)}
    state = "live" if is_being_recorded(folder) else "finished" if is_finalized(folder) else "unfinished"
    return row | {
        "state": state,
        "started": header.started.isoformat(),
        "identity": header.setup.principal.identity,
        "model": header.model,
    }


def _file_path(root: Path, name: str, file: str) -> Path:
    """The file of a recording that is really there; names are compared, never joined to a path unseen."""
    folder = next((path for path in list_recordings(root) if path.name == name), None)
    if folder is None:
        raise RecordingError(f"there is no recording {name!r:.80}")
    if file not in _TYPES:
        raise RecordingError(f"{file!r:.80} is none of {', '.join(_TYPES)}")
    path = folder / file
    if path.is_symlink() or not path.is_file():
        raise RecordingError(f"{name} is not finished: `relay recordings repair` makes its {file}")
    return path
