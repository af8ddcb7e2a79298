"""Where the upstream is, and the protocol that it speaks: kind, WebSocket URL, key, dialect.

The settings make one `UpstreamEndpoint` for the whole relay. Each dial asks it for the URL, with the session's model,
and for the headers. What an endpoint of OpenAI's has in path and query, another dialect may have elsewhere.
"""

from dataclasses import dataclass
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
    """Where the upstream is. `url` is None for the engine that the relay starts itself.

    `has_fixed_model`: the URL names the model, as whoever runs the relay wrote it.
    """

    kind: Literal["openai", "azure", "url", "local"]
    url: str | None
    key: SecretStr | None
    has_fixed_model: bool = False
    dialect: UpstreamDialect = OPENAI

    def url_for(self, model: str | None = None) -> str | None:
        """The URL to dial, with another model if one is named, and with the key where the dialect has it there."""
        if self.url is None:
            return None
        url = (self.dialect.url_for or with_model)(self.url, model) if model else self.url
        if self.dialect.key_query_parameter is None or self.key is None:
            return url
        parts, query = urlsplit(url), {self.dialect.key_query_parameter: self.key.get_secret_value()}
        return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *query.items()])))

    async def headers(self, credential: UpstreamCredential | None) -> dict[str, str]:
        """What a dial sends: what the dialect demands, and the credential. Raises TokenUnavailable."""
        is_in_header = credential is not None and self.dialect.key_query_parameter is None
        return {**self.dialect.headers, **(await credential.headers() if credential and is_in_header else {})}

    def realtime_dialect(self) -> RealtimeDialect | None:
        """What translates between a new Realtime session and this upstream, None for GA.

        Raises ApiError (501) for an upstream that cannot serve Realtime clients.
        """
        if self.dialect.realtime is None:
            text = f"The upstream speaks {self.dialect.name} and serves no Realtime clients; connect to /ws instead."
            raise OpenAIError(text, 501, "not_implemented")
        return self.dialect.realtime()

    @property
    def label(self) -> str:
        """For logs: kind and host, never a key or a query."""
        return self.kind if self.url is None else f"{self.kind} ({urlsplit(self.url).netloc.rpartition('@')[2]})"


def realtime_url(base: str, model: str) -> str:
    """The WebSocket URL of a Realtime endpoint: the path and `?model=` are added where they are missing."""
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
    """Whether a Realtime URL names its model, deployment, call or intent."""
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return any(name in ("model", "deployment", "call_id", "intent") for name, _ in query)


def with_model(url: str, model: str) -> str:
    """A Realtime URL with `model` as its model; one that names a deployment keeps that."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(name == "deployment" for name, _ in query):
        return url
    query = [*((name, value) for name, value in query if name != "model"), ("model", model)]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


def is_url(value: str, schemes: tuple[str, ...]) -> bool:
    """Whether `value` is a URL of one of these schemes that names a host."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        return False
