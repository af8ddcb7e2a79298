"""Every protocol that upstreams speak; the first row that recognizes an upstream's URL is taken."""

from typing import Any, cast

from relay.azure import is_azure_preview
from relay.upstreams.dialect import UpstreamDialect
from relay.wire.beta import BetaUpstream
from relay.wire.realtime import BetaRealtimeCodec, RealtimeCodec

UPSTREAM_DIALECTS: list[UpstreamDialect] = [
    UpstreamDialect("azure-preview", is_azure_preview, cast(Any, BetaRealtimeCodec), BetaUpstream),
    UpstreamDialect("openai", lambda url: True, cast(Any, RealtimeCodec), lambda: None),
]


def dialect_of(url: str) -> UpstreamDialect:
    """The dialect of the upstream at `url`."""
    return next(row for row in UPSTREAM_DIALECTS if row.recognizes(url))
