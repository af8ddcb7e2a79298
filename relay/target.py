"""Where the model is: the upstream's kind, its WebSocket URL and its key."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from relay.azure import is_azure_preview
from relay.upstreams.dialect import UpstreamDialect
from relay.upstreams.registry import dialect_of


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the model is. `url` is None for the engine that the relay starts itself.

    `fixes_model`: the URL itself says which model, as whoever runs the relay wrote it.
    """

    kind: Literal["openai", "azure", "url", "local"]
    url: str | None
    key: SecretStr | None
    fixes_model: bool = False

    @property
    def speaks_beta(self) -> bool:
        """Whether the endpoint speaks the protocol's beta dialect: Azure's preview path does."""
        return self.url is not None and is_azure_preview(self.url)

    @property
    def dialect(self) -> UpstreamDialect:
        """The protocol that the endpoint speaks; the local engine speaks GA."""
        return dialect_of(self.url or "")

    def url_for(self, model: str | None) -> str | None:
        """The URL with another model, where it names one."""
        return self.url if self.url is None or not model else with_model(self.url, model)

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
    """Whether a Realtime URL says itself what is behind it."""
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
