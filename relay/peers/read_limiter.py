"""A client that sends faster than its allowance is read no faster: it has to wait, and nothing that it sent is lost."""

import asyncio
from collections.abc import Callable
from typing import Literal

from relay.callbacks import ignore
from relay.core.events import ClientTooFast
from relay.peers.frames import MessageListener
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit
from relay.session.common.read_allowance import ReadAllowance

YIELD_S = 0.05
"""How long others have their turn after a burst."""
BACKOFF_S = 0.25
"""A client that is too fast is read again this much later than it might be, so that it is not once per frame."""
REPORTS_PER_MINUTE = 6
_TOO_FAST = "too fast"


class ReadLimiter:
    """One client's allowances: `audio` in bytes, each message at least `least_bytes`; `messages` in texts and pings.

    Whoever has the frame at hand lowers `audio.left` by the greater of its length and `least_bytes`, and calls
    `slow_down` once it is below zero.
    """

    def __init__(
        self,
        client: MessageListener,
        audio: ReadAllowance,
        least_bytes: int,
        messages: ReadAllowance,
        feed: Callable[[ClientTooFast], None],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._feed = feed
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._reports = KeyedRateLimiter(RateLimit(REPORTS_PER_MINUTE, 1))
        self.messages = messages
        self.use(audio, least_bytes)
        client.on_control = self.message
        client.on_fragment = self.fragment

    def use(self, audio: ReadAllowance, least_bytes: int) -> None:
        """The client's audio comes in another format from here on."""
        self.audio, self.least_bytes = audio, least_bytes

    def take(self, n_bytes: int) -> None:
        """Count `n_bytes` of one message, whatever it holds."""
        self.audio.left -= max(n_bytes, self.least_bytes)
        if self.audio.left < 0:
            self.slow_down(self.audio, "audio")

    def message(self, cost: float = 1) -> None:
        """Count a message, as `cost` of them."""
        self.messages.left -= cost
        if self.messages.left < 0:
            self.slow_down(self.messages, "messages")

    def fragment(self) -> None:
        """Count a part of a message as the shortest of audio frames: there may be thousands in one message."""
        self.take(0)

    def slow_down(self, allowance: ReadAllowance, what: Literal["audio", "messages"]) -> None:
        """Pause reading until the used-up allowance has refilled; after a burst, for as long as others have their turn.

        The rules hear of it at most `REPORTS_PER_MINUTE` times a minute, for audio and messages each.
        """
        now = self._clock()
        wait_s = allowance.wait_s(now)
        if wait_s > 0:
            self._pause(wait_s + BACKOFF_S)
            if self._reports.take(what, now) == 0:
                self._feed(ClientTooFast(what))
        elif allowance.is_hasty(now):
            self._pause(YIELD_S)

    def _pause(self, wait_s: float) -> None:
        if self._timer is None:
            self._client.pause_reading(_TOO_FAST)
            self._client.read_sparingly()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._read_on)

    def stop(self) -> None:
        """Let no timer outlive the session."""
        if self._timer is not None:
            self._timer.cancel()
            self._read_on()
        self._client.on_control = self._client.on_fragment = ignore

    def _read_on(self) -> None:
        self._timer = None
        if self._client.has_left:  # what it has sent would keep a dead session alive for minutes at this speed
            self._client.abort()
        else:
            self._client.resume_reading(_TOO_FAST)
