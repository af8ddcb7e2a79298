"""The registry of client protocols; the relay's WebSocket routes are created from these rows."""

from relay.protocols.client_protocol import (
    ClientProtocol,
    DeviceClientProtocol,
    OpeningHandshake,
    RealtimeClientProtocol,
    RealtimeDialect,
)
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.openai.beta import BetaClientDialect

BETA_HEADER_VALUE = "realtime=v1"
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


def select_client_dialect(opening: OpeningHandshake) -> RealtimeDialect | None:
    """Return beta if the client requests it by header, by subprotocol (browsers), or by Azure's preview path."""
    is_preview = opening.path.rstrip("/") == "/openai/realtime" and "api-version" in opening.query
    asks = BETA_HEADER_VALUE in opening.headers.get("OpenAI-Beta", "") or BETA_SUBPROTOCOL in opening.subprotocols
    return BetaClientDialect() if asks or is_preview else None


DEVICE_PROTOCOL = DeviceClientProtocol("device", ("/", "/ws"), 64 * 1024, DeviceCodec, accepts_query_options=True)
REALTIME_PROTOCOL = RealtimeClientProtocol(
    "realtime",
    ("/v1/realtime", "/openai/v1/realtime", "/openai/realtime"),
    16 * 1024 * 1024,  # the API takes 15 MiB of audio in one event
    select_client_dialect,
)

CLIENT_PROTOCOLS: dict[str, ClientProtocol] = {
    protocol.name: protocol for protocol in (DEVICE_PROTOCOL, REALTIME_PROTOCOL)
}
