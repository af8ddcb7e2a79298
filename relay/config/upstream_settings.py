"""Settings of the upstream: where the realtime model is, and the credentials for it."""

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

from pydantic import field_validator

from relay.config.group import NameOf, SettingsGroup, setting
from relay.config.values import LowerText, OptionalText, checked_url, quote
from relay.upstreams.azure import AzureResource, normalize_azure_endpoint
from relay.upstreams.endpoint import is_url
from relay.upstreams.registry import UPSTREAM_DIALECTS

LOCAL: Final = "local"
DEFAULT_OPENAI_BASE_URL = "https://api.openai.com/v1"
AZURE_PREFIX = "/api/ai-assistant"


class UpstreamSettings(SettingsGroup, frozen=True):
    """The upstream: the realtime model that the relay connects to."""

    GROUP: ClassVar[str] = "upstream"
    TITLE: ClassVar[str] = "The upstream"

    target: LowerText = setting(
        "RELAY_UPSTREAM",
        "auto",
        "The upstream: `openai`, `azure`, `local`, or the ws:// or wss:// URL of any compatible endpoint. `auto` is "
        "OpenAI if there is a key, else Azure, else the local engine.",
    )
    key: str | None = setting(
        "RELAY_UPSTREAM_KEY", None, "The key of the upstream, if `RELAY_UPSTREAM` is a URL.", repr=False
    )
    dialect: LowerText = setting(
        "RELAY_UPSTREAM_DIALECT",
        "auto",
        "The protocol of the upstream: `openai` (GA), `openai-beta` or `azure-preview`. `auto` chooses by the URL.",
    )

    @field_validator("target")
    @classmethod
    def _check_target(cls, value: str) -> str:
        if value not in ("auto", "openai", "azure", LOCAL) and not is_url(value, ("ws", "wss")):
            raise ValueError(f"{quote(value)} is not one of auto, openai, azure, local, or a ws:// or wss:// URL")
        return value

    @field_validator("dialect")
    @classmethod
    def _check_dialect(cls, value: str) -> str:
        if value not in (known := ("auto", *UPSTREAM_DIALECTS)):
            raise ValueError(f"{quote(value)} is not one of {', '.join(known)}")
        return value


class OpenAISettings(SettingsGroup, frozen=True):
    """The OpenAI account, for the upstream and for the provider secrets of browsers."""

    GROUP: ClassVar[str] = "openai"
    TITLE: ClassVar[str] = "OpenAI"

    api_key: OptionalText = setting("OPENAI_API_KEY", None, "The key of the OpenAI account.", repr=False)
    base_url: str = setting(
        "OPENAI_BASE_URL",
        DEFAULT_OPENAI_BASE_URL,
        "The address of the API. `OPENAI_API_KEY` is sent to this host and to this machine, never to any other.",
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        return checked_url(value, DEFAULT_OPENAI_BASE_URL)


class AzureSettings(SettingsGroup, frozen=True):
    """An Azure OpenAI resource: its endpoint, its deployment, and a key or a token."""

    GROUP: ClassVar[str] = "azure"
    TITLE: ClassVar[str] = "Azure OpenAI"

    endpoint: str | None = setting(
        "AZURE_OPENAI_ENDPOINT", None, "The resource, such as https://my-resource.openai.azure.com."
    )
    deployment: str | None = setting("AZURE_OPENAI_DEPLOYMENT", None, "The name of the deployment.")
    api_key: str | None = setting("AZURE_OPENAI_API_KEY", None, "The key of the resource.", repr=False)
    token_provider: str | Callable[[], Any] | None = setting(
        "RELAY_AZURE_TOKEN",
        None,
        "A callable that returns a bearer token, in place of the key. Write it as `package.module:function`.",
    )
    api_version: str | None = setting(
        "AZURE_OPENAI_API_VERSION", None, "Only for the preview protocol, which Azure has deprecated."
    )
    routes_prefix: str = setting(
        "RELAY_AZURE_PREFIX", AZURE_PREFIX, "The path prefix of the Azure backend's routes for browsers."
    )

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            normalize_azure_endpoint(value)
        return value

    @field_validator("token_provider")
    @classmethod
    def _check_token_provider(cls, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("must name a callable like my_package.my_module:function, which returns a bearer token")
        return value

    @field_validator("routes_prefix")
    @classmethod
    def _check_routes_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(/[\w.~-]+)+/?", value):
            raise ValueError(f"{quote(value)} is not a path; write it like {AZURE_PREFIX}")
        return value.rstrip("/")

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report two credentials, and an endpoint that contradicts the API version."""
        key, token = name_of("azure.api_key"), name_of("azure.token_provider")
        if self.api_key is not None and self.token_provider is not None:
            yield f"{key} and {token} are both set: Azure takes one; unset the other"
        endpoint, version = name_of("azure.endpoint"), name_of("azure.api_version")
        if self.api_version is not None and (self.endpoint or "").rstrip("/").endswith("/openai/v1"):
            yield (
                f"{endpoint} ends with /openai/v1, the GA protocol, and {version} is set, which means the preview one: "
                f"unset {version}, or remove /openai/v1"
            )

    def missing(self, name_of: NameOf) -> list[str]:
        """Return the required settings that are not set."""
        key, token = name_of("azure.api_key"), name_of("azure.token_provider")
        required = {
            name_of("azure.endpoint"): self.endpoint,
            name_of("azure.deployment"): self.deployment,
            f"{key} (or {token}, a callable that returns a bearer token)": self.api_key or self.token_provider,
        }
        return [name for name, value in required.items() if value is None]

    @property
    def resource(self) -> AzureResource | None:
        """The Azure resource, if one is configured completely."""
        if self.endpoint is None or self.deployment is None or (self.api_key is None and self.token_provider is None):
            return None
        return AzureResource(normalize_azure_endpoint(self.endpoint), self.deployment, self.api_version)
