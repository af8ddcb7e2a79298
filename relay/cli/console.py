"""`relay console`: print a link that signs the user in as an admin of this machine's relay."""

import socket
import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from relay.cli.terminal import say

if TYPE_CHECKING:
    from relay.config.settings import Settings


def console(
    url: Annotated[
        str | None,
        typer.Option(help="URL of the relay in a browser, such as https://voice.example.com (HOST and PORT)."),
    ] = None,
) -> None:
    """Print a link that signs you in as an admin, for the recordings. It works once, for one minute."""
    from relay.auth.admin_login import CODE_TTL_S, create_login_code
    from relay.auth.origins import is_loopback_name
    from relay.config.settings import Settings
    from relay.errors import BadRequest
    from relay.upstreams.endpoint import is_url

    settings = Settings.load()
    base = (url or own_url(settings)).rstrip("/")
    if not is_url(base, ("http", "https")):
        raise BadRequest(f"--url {base} is not an http or https URL; write it like https://voice.example.com")
    code = create_login_code(settings.access.state_dir, time.time())
    say(f"{base}/login#code={code}")
    say(f"Open it within {CODE_TTL_S} s. It works once, with a relay that runs as your user.", err=True)
    parts = urlsplit(base)
    if parts.scheme == "http" and not is_loopback_name(parts.hostname or ""):
        say("Browsers keep the login over https only; scripts/dev-cert makes a certificate.", err=True)
    if url is None and not _is_listening(parts.hostname or "", settings.server.port):
        say(f"Nothing listens at {parts.netloc}: start the relay first, with scripts/serve.", err=True)


def _is_listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def own_url(settings: "Settings") -> str:
    """Return the relay's URL for a browser on this machine."""
    scheme = "https" if settings.server.tls_cert else "http"
    host = "127.0.0.1" if settings.server.host in ("0.0.0.0", "::", "") else settings.server.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.server.port}"
