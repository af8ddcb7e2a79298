"""A client that is too fast: how often the rules hear of it."""

from relay.session.common.rate_limit import TokenBucket
from relay.session.common.read_allowance import ReadAllowance
from relay.session.device.events import ClientRateLimited
from relay.testing import FakeClock
from relay.transport.read_limiter import ReadLimiter
from relay.transport.websocket import WebSocketConnection


async def test_a_client_that_waits_is_reported_now_and_then() -> None:
    clock = FakeClock()
    reported: list[tuple[float, ClientRateLimited]] = []
    client = WebSocketConnection(1 << 20)
    allowance = ReadAllowance(TokenBucket(1, 1, now=0.0), now=0.0, short_slice=1)
    limiter = ReadLimiter(client, allowance, 1, allowance, lambda event: reported.append((clock.now, event)), clock)
    for clock.now in (0.0, 1.0, 9.9, 10.0, 10.1, 20.5):
        limiter.count_bytes(1000)
    assert reported == [(at, ClientRateLimited("audio")) for at in (0.0, 10.0, 20.5)]
    limiter.count_message()
    assert reported[-1] == (20.5, ClientRateLimited("messages")), "each kind is reported by itself"
    limiter.stop()
