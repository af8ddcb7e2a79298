"""An Azure OpenAI resource and its URLs.

GA URLs are below `/openai/v1` and have no `api-version`; preview URLs are below `/openai` and need one. Both take
`api-key: …` or `Authorization: Bearer …` (an Entra token), never both.
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-preview-api-migration-guide
"""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from relay.loopback import is_loopback_host


@dataclass(frozen=True, slots=True)
class AzureResource:
    """One deployment of a realtime model; `api_version` is set only for the preview protocol."""

    endpoint: str
    deployment: str
    api_version: str | None = None

    @property
    def is_preview(self) -> bool:
        """Whether the resource speaks the preview protocol."""
        return self.api_version is not None

    @property
    def websocket_url(self) -> str:
        """The URL of sessions; in GA, `model` names the deployment."""
        base, deployment = "ws" + self.endpoint.removeprefix("http"), quote(self.deployment, safe="")
        if self.api_version is None:
            return f"{base}/openai/v1/realtime?model={deployment}"
        return f"{base}/openai/realtime?api-version={quote(self.api_version, safe='')}&deployment={deployment}"

    @property
    def client_secrets_url(self) -> str:
        """The URL that creates an ephemeral key for a browser."""
        if self.api_version is None:
            return f"{self.endpoint}/openai/v1/realtime/client_secrets"
        return f"{self.endpoint}/openai/realtimeapi/sessions?api-version={quote(self.api_version, safe='')}"

    @property
    def webrtc_url(self) -> str:
        """The URL that takes the browser's SDP offer."""
        if self.api_version is None:
            return f"{self.endpoint}/openai/v1/realtime/calls"
        version, deployment = quote(self.api_version, safe=""), quote(self.deployment, safe="")
        return f"{self.endpoint}/openai/realtime?api-version={version}&deployment={deployment}"


def normalize_azure_endpoint(value: str) -> str:
    """Return the endpoint as `https://host[/path]`, without the `/openai/v1` of a base URL. Raises ValueError."""
    text = value.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        port_is_good = parts.port != 0
    except ValueError:
        parts, port_is_good = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good or "@" in parts.netloc:
        raise ValueError("is not a URL; write it like https://my-resource.openai.azure.com")
    if parts.query or parts.fragment or "/realtime" in parts.path:
        raise ValueError(
            "must be the resource's URL, like https://my-resource.openai.azure.com, without ?… or /realtime"
        )
    if parts.scheme == "http" and not is_loopback_host(parts.hostname):
        raise ValueError("must begin with https://, because the key is sent there")
    return text.removesuffix("/openai/v1").removesuffix("/openai")


def is_azure_preview(url: str) -> bool:
    """Return whether a WebSocket URL belongs to the preview protocol: `/openai/realtime?api-version=…`."""
    parts = urlsplit(url)
    return parts.path.rstrip("/").endswith("/openai/realtime") and "api-version=" in parts.query
