"""The registry of upstream dialects. `RELAY_UPSTREAM_DIALECT` names a row; `auto` selects one by the upstream's URL."""

from relay.protocols.openai.beta import BetaUpstreamDialect
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.known_secrets import KnownSecrets
from relay.upstreams.azure import is_azure_preview
from relay.upstreams.dialect import UpstreamCodec, UpstreamDialect


def _create_codec(secrets: KnownSecrets, _model: str) -> UpstreamCodec:
    return OpenAIUpstreamCodec(secrets)


def _create_beta_codec(secrets: KnownSecrets, _model: str) -> UpstreamCodec:
    return OpenAIUpstreamCodec(secrets, BetaUpstreamDialect())


OPENAI = UpstreamDialect("openai", _create_codec, realtime=lambda: None)
OPENAI_BETA = UpstreamDialect(
    "openai-beta", _create_beta_codec, BetaUpstreamDialect, headers={"OpenAI-Beta": "realtime=v1"}
)
AZURE_PREVIEW = UpstreamDialect("azure-preview", _create_beta_codec, BetaUpstreamDialect, recognizes=is_azure_preview)

UPSTREAM_DIALECTS: dict[str, UpstreamDialect] = {row.name: row for row in (OPENAI, OPENAI_BETA, AZURE_PREVIEW)}


def find_dialect(url: str | None, name: str) -> UpstreamDialect:
    """Return the dialect `name`; for "auto" the one that recognizes the URL, else OpenAI's GA protocol."""
    if name != "auto":
        return UPSTREAM_DIALECTS[name]
    return next((row for row in UPSTREAM_DIALECTS.values() if url is not None and row.recognizes(url)), OPENAI)
