"""The upstream's endpoint: kind, WebSocket URL, key and dialect.

The settings define one `UpstreamEndpoint` for the whole relay. Each connection takes its URL, with the session's model,
and its headers from it. OpenAI's endpoints have the model in the query; other dialects may have it elsewhere.
"""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from relay.errors import OpenAIError
from relay.protocols.client_protocol import RealtimeDialect
from relay.upstreams.credentials import UpstreamCredential
from relay.upstreams.dialect import UpstreamDialect
from relay.upstreams.registry import OPENAI


@dataclass(frozen=True, slots=True)
class UpstreamEndpoint:
    """The endpoint of the upstream. `url` is None for the local engine, which the relay starts itself.

    `has_fixed_model`: the configured URL names the model.
    """

    kind: Literal["openai", "azure", "url", "local"]
    url: str | None = field(repr=False)
    key: SecretStr | None
    has_fixed_model: bool = False
    dialect: UpstreamDialect = OPENAI

    def url_for(self, model: str | None = None) -> str | None:
        """Return the URL to connect to, for `model` if one is named, with the key if the dialect has it there."""
        if self.url is None:
            return None
        url = (self.dialect.url_for or set_model)(self.url, model) if model else self.url
        if self.dialect.key_query_parameter is None or self.key is None:
            return url
        parts, query = urlsplit(url), {self.dialect.key_query_parameter: self.key.get_secret_value()}
        return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *query.items()])))

    async def headers(self, credential: UpstreamCredential | None) -> dict[str, str]:
        """Return the headers of the handshake: the dialect's and the credential's. Raises TokenUnavailable."""
        is_in_header = credential is not None and self.dialect.key_query_parameter is None
        return {**self.dialect.headers, **(await credential.headers() if credential and is_in_header else {})}

    def realtime_dialect(self) -> RealtimeDialect | None:
        """Create the translator between a new Realtime session and this upstream; None for GA.

        Raises OpenAIError (501) for an upstream that cannot serve Realtime clients.
        """
        if self.dialect.realtime is None:
            text = f"The upstream speaks {self.dialect.name} and cannot serve Realtime clients; connect to /ws instead."
            raise OpenAIError(text, 501, "not_implemented")
        return self.dialect.realtime()

    @property
    def label(self) -> str:
        """Kind and host for the log, without key and query."""
        return self.kind if self.url is None else f"{self.kind} ({urlsplit(self.url).netloc.rpartition('@')[2]})"


def realtime_url(base: str, model: str) -> str:
    """Return the WebSocket URL of a Realtime endpoint; a missing path and `?model=` are added."""
    parts = urlsplit(base)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    if path == "":
        path = "/v1/realtime"
    elif path.endswith("/v1"):
        path += "/realtime"
    query = parse_qsl(parts.query, keep_blank_values=True)
    if not names_model(base):
        query.append(("model", model))
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def names_model(url: str) -> bool:
    """Return whether a Realtime URL names its model, deployment, call or intent."""
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return any(name in ("model", "deployment", "call_id", "intent") for name, _ in query)


def set_model(url: str, model: str) -> str:
    """Return a Realtime URL with `model` as its model; a URL that names a deployment is returned unchanged."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(name == "deployment" for name, _ in query):
        return url
    query = [*((name, value) for name, value in query if name != "model"), ("model", model)]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


def is_url(value: str, schemes: tuple[str, ...]) -> bool:
    """Return whether `value` is a URL with one of these schemes and a host."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, an unclosed bracket
        return False
