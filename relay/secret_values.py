"""Which values of a relay's configuration are secrets: what `relay.core.known_secrets` is told at the start."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from relay.config import Settings
from relay.toolkit.mcp_config import McpServerConfig

_KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "RELAY_UPSTREAM_KEY", "ELEVENLABS_API_KEY")
_KEY_LISTS = ("RELAY_API_KEYS", "RELAY_ADMIN_KEYS", "RELAY_TICKET_KEYS")
_URLS = ("RELAY_UPSTREAM", "OPENAI_BASE_URL", "ELEVENLABS_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SECRET_MEMBER = re.compile(r"(?i)auth|key|passw|secret|token|ticket|sig")
"""Members of a query string that carry a credential, such as `api-key`."""


def secret_values(settings: Settings, servers: Iterable[McpServerConfig] = ()) -> Iterator[str]:
    """Every secret of the settings, of the environment they were read from, and of the MCP servers."""
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
        yield from secrets_of_url(url)


def has_keys(environment: Mapping[str, str | None]) -> bool:
    """Whether an environment, such as that of a `.env`, sets a key or a URL that carries one."""
    if any((environment.get(name) or "").strip() for name in (*_KEYS, *_KEY_LISTS)):
        return True
    urls = (environment.get(name) or "" for name in (*_URLS, "AZURE_OPENAI_ENDPOINT"))
    return any(True for url in urls for _ in secrets_of_url(url))


def secrets_of_url(url: str) -> Iterator[str]:
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
        if _SECRET_MEMBER.search(name):
            yield value
