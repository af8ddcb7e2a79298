"""Collects the secret values of a configuration, and finds files with secrets that other users can read."""

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
"""Query parameters that carry a credential, such as `api-key`."""


def collect_secrets(settings: Settings, servers: Iterable[McpServerConfig] = ()) -> Iterator[str]:
    """Yield every secret of the settings, of their environment, and of the MCP servers."""
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
    """Whether an environment, such as an `.env` file, sets a key or a URL with a credential."""
    if any(environment.get(name, "").strip() for name in _KEYS):
        return True
    urls = (environment.get(name, "") for name in _URLS)
    return any(True for url in urls for _ in url_secrets(url))


def url_secrets(url: str) -> Iterator[str]:
    """Yield the password of a URL, as written and as sent, and the credentials of its query."""
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), parts.password
    except ValueError:  # not a URL
        return
    if password:
        yield from (password, unquote(password))
        yield base64.b64encode(f"{user}:{unquote(password)}".encode()).decode()
    for name, value in parse_qsl(parts.query):
        if _SECRET_PARAMETER.search(name):
            yield value


def exposed_file_warnings(settings: Settings, known: KnownSecrets, *, records: bool) -> list[str]:
    """Return warnings about an exposed `.env`, exposed files with keys, and an exposed recordings folder."""
    environment = settings.environment
    warnings = [
        f"{path} {_exposure_text(path)} and contains keys. Run: chmod 600 {_shell_quoted(path)}"
        for path in (environment.path, settings.access.policies, settings.tools.mcp_servers)
        if path is not None
        and is_exposed(path)
        and (_contains_keys(path, known) or (path == environment.path and contains_secrets(environment.dotenv)))
    ]
    tls_key = settings.server.tls_key
    if tls_key is not None and is_exposed(tls_key, stat.S_IRWXO):  # such files often have their own group
        name = settings.name_of("server.tls_key")
        warnings.append(f"{name}: {tls_key} {_exposure_text(tls_key)}. Run: chmod 600 {_shell_quoted(tls_key)}")
    root = settings.recording.dir
    if records and is_exposed(root):
        warnings.append(f"RELAY_RECORDINGS_DIR: {root} {_exposure_text(root)}. Run: chmod 700 {_shell_quoted(root)}")
    return warnings


def _exposure_text(path: Path) -> str:
    return f"is accessible to other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):04o})"


def _shell_quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _contains_keys(path: Path, known: KnownSecrets) -> bool:
    if not path.is_file():  # a pipe can be read only once
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return known.redact(text) != text
