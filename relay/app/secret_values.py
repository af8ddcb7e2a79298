"""Which values of a configuration are secrets, and which files of the relay other users of this machine can read."""

import base64
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from relay.config.settings import Settings
from relay.private_files import is_exposed
from relay.session.common.known_secrets import KnownSecrets
from relay.toolkit.mcp.config import McpServerConfig

_KEYS = Settings.secret_variables()
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_URLS = ("RELAY_UPSTREAM", "OPENAI_BASE_URL", "ELEVENLABS_BASE_URL", "AZURE_OPENAI_ENDPOINT", *_PROXIES)
_SECRET_PARAMETER = re.compile(r"(?i)auth|key|passw|secret|token|ticket|sig")
"""Members of a query string that carry a credential, such as `api-key`."""


def collect_secrets(settings: Settings, servers: Iterable[McpServerConfig] = ()) -> Iterator[str]:
    """Every secret of the settings, of the environment they were read from, and of the MCP servers."""
    environment = settings.environment.values
    yield from (*settings.access.api_keys, *settings.access.admin_keys, *settings.access.ticket_keys)
    keys = (settings.openai.api_key, settings.azure.api_key, settings.upstream.key, settings.tts.api_key)
    yield from (key or "" for key in keys)
    yield from (environment.get(name, "").strip() for name in _KEYS)
    urls = [settings.upstream.target, settings.openai.base_url, settings.azure.endpoint or "", settings.tts.base_url]
    urls += [environment.get(spelling, "") for name in _PROXIES for spelling in (name, name.lower())]
    for server in servers:
        yield from server.secrets
        urls.append(server.url or "")
    for url in urls:
        yield from url_secrets(url)


def contains_secrets(environment: Mapping[str, str]) -> bool:
    """Whether an environment, such as that of a `.env`, sets a key or a URL that carries one."""
    if any(environment.get(name, "").strip() for name in _KEYS):
        return True
    urls = (environment.get(name, "") for name in _URLS)
    return any(True for url in urls for _ in url_secrets(url))


def url_secrets(url: str) -> Iterator[str]:
    """A password, as it stands there and as it is sent, and what its query carries under a name that says so."""
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), parts.password
    except ValueError:  # no URL
        return
    if password:
        yield from (password, unquote(password))
        yield base64.b64encode(f"{user}:{unquote(password)}".encode()).decode()
    for name, value in parse_qsl(parts.query):
        if _SECRET_PARAMETER.search(name):
            yield value


def exposed_file_warnings(settings: Settings, known: KnownSecrets, *, records: bool) -> list[str]:
    """Warnings for the start: about `.env`, files with keys that settings name, and the recordings' folder."""
    environment = settings.environment
    warnings = [
        f"{path} {_open_to_others(path)} and holds keys. Run: chmod 600 {_quoted(path)}"
        for path in (environment.path, settings.access.policies, settings.tools.mcp_servers)
        if path is not None
        and is_exposed(path)
        and (_holds_keys(path, known) or (path == environment.path and contains_secrets(environment.dotenv)))
    ]
    tls_key = settings.server.tls_key
    if tls_key is not None and is_exposed(tls_key, stat.S_IRWXO):  # a group of its own is usual for such files
        name = settings.name_of("server.tls_key")
        warnings.append(f"{name}: {tls_key} {_open_to_others(tls_key)}. Run: chmod 600 {_quoted(tls_key)}")
    root = settings.recording.dir
    if records and is_exposed(root):
        warnings.append(f"The recordings' folder {root} {_open_to_others(root)}. Run: chmod 700 {_quoted(root)}")
    return warnings


def _open_to_others(path: Path) -> str:
    return f"is open to other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):04o})"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _holds_keys(path: Path, known: KnownSecrets) -> bool:
    if not path.is_file():  # a pipe can be read once, and that was done
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return known.redact(text) != text
