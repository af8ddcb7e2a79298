"""Every protocol that clients speak: the route table is made from these rows."""

from typing import cast

from relay.core.known_secrets import KnownSecrets
from relay.core.values import DeviceOptions
from relay.protocols.client_protocol import (
    ClientCodec,
    ClientProtocol,
    DeviceClientProtocol,
    Dialect,
    Opening,
    RealtimeClientProtocol,
)
from relay.wire.beta import BetaClient
from relay.wire.device import DeviceCodec

BETA_HEADER = "realtime=v1"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


def _device_codec(secrets: KnownSecrets) -> ClientCodec:
    return cast(ClientCodec, DeviceCodec(DeviceOptions(), secrets))


def _realtime_dialect(opening: Opening) -> Dialect | None:
    """The beta dialect, asked for by header, by a page's subprotocol, or by Azure's preview path."""
    if BETA_HEADER in opening.headers.get("OpenAI-Beta", "") or BETA_SUBPROTOCOL in opening.subprotocols:
        return BetaClient()
    is_preview = opening.path.rstrip("/") == "/openai/realtime" and "api-version" in opening.query
    return BetaClient() if is_preview else None


CLIENT_PROTOCOLS: list[ClientProtocol] = [
    DeviceClientProtocol("device", ("/", "/ws"), 64 * 1024, _device_codec, reads_query=True),
    RealtimeClientProtocol(
        "realtime",
        ("/v1/realtime", "/openai/v1/realtime", "/openai/realtime"),
        16 * 1024 * 1024,  # the API takes 15 MiB of audio in one event
        _realtime_dialect,
    ),
]
