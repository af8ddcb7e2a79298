"""The console page and the JavaScript client: plain ES modules, no build step, nothing loaded from elsewhere."""

from pathlib import Path
from typing import Final

STATIC_DIR: Final = Path(__file__).parent / "console"

CONTENT_TYPES: Final = {
    # A fixed table: a machine's own may map .js to text/plain, and browsers then refuse the modules.
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The minimum that the pages need; `'self'` in connect-src covers WebSockets to the same host."""

PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def static_files() -> dict[str, str]:
    """Return the files that may be served, each with its content type; Python files are not among them."""
    return {
        path.name: CONTENT_TYPES[path.suffix] for path in sorted(STATIC_DIR.iterdir()) if path.suffix in CONTENT_TYPES
    }
