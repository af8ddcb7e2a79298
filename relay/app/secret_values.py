"""Collects the secret values of a configuration, and finds files with secrets that other users can read."""

import base64
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import SecretStr

from relay.config.settings import Settings
from relay.private_files import is_exposed
from relay.session.common.known_secrets import KnownSecrets
from relay.toolkit.mcp.config import McpServerConfig

_KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "RELAY_UPSTREAM_KEY", "ELEVENLABS_API_KEY")
_KEY_LISTS = ("RELAY_API_KEYS", "RELAY_ADMIN_KEYS", "RELAY_TICKET_KEYS")
_URLS = ("RELAY_UPSTREAM", "OPENAI_BASE_URL", "ELEVENLABS_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SECRET_PARAMETER = re.compile(r"(?i)auth|key|passw|secret|token|ticket|sig")
"""Query parameters that carry a credential, such as `api-key`."""


def collect_secrets(settings: Settings, servers: Iterable[McpServerConfig] = ()) -> Iterator[str]:
    """Yield every secret of the settings, of their environment, and of the MCP servers."""
    environment = settings.environment()
    yield from (*settings.api_keys, *settings.admin_keys, *settings.ticket_keys)
    for key in (settings.openai_api_key, settings.azure_api_key, settings.upstream_key):
        if isinstance(key, SecretStr):
            yield key.get_secret_value()
    yield from (environment.get(name, "").strip() for name in _KEYS)
    urls = [settings.upstream, settings.openai_base_url, settings.azure_endpoint or ""]
    urls += [environment.get(spelling, "") for name in _URLS for spelling in (name, name.lower())]
    for server in servers:
        yield from server.secrets
        urls.append(server.url or "")
    for url in urls:
        yield from url_secrets(url)


def contains_secrets(environment: Mapping[str, str | None]) -> bool:
    """Whether an environment, such as an `.env` file, sets a key or a URL with a credential."""
    if any((environment.get(name) or "").strip() for name in (*_KEYS, *_KEY_LISTS)):
        return True
    urls = (environment.get(name) or "" for name in (*_URLS, "AZURE_OPENAI_ENDPOINT"))
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
    warnings = [
        f"{path} {_exposure_text(path)} and holds keys. Run: chmod 600 {_shell_quoted(path)}"
        for path in (settings.env_path, settings.policies, settings.mcp_servers)
        if path is not None and is_exposed(path) and _contains_keys(path, known, is_env=path == settings.env_path)
    ]
    tls_key = settings.tls_key
    if tls_key is not None and is_exposed(tls_key, stat.S_IRWXO):  # such files often have their own group
        warnings.append(f"TLS_KEY: {tls_key} {_exposure_text(tls_key)}. Run: chmod 600 {_shell_quoted(tls_key)}")
    root = settings.recordings_dir
    if records and is_exposed(root):
        warnings.append(f"RELAY_RECORDINGS_DIR: {root} {_exposure_text(root)}. Run: chmod 700 {_shell_quoted(root)}")
    return warnings


def _exposure_text(path: Path) -> str:
    return f"is accessible to other users of this machine (mode {stat.S_IMODE(path.stat().st_mode):04o})"


def _shell_quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _contains_keys(path: Path, known: KnownSecrets, *, is_env: bool) -> bool:
    if not path.is_file():  # a pipe can be read only once
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return known.redact(text) != text or (is_env and contains_secrets(dotenv_values(path)))
