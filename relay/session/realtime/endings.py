"""How a Realtime session ends: which error the client is sent first, and the close code that follows (D6).

Each event that ends a session, and each limit, has one row here. An end that the client did not bring about is
explained by an `error` event, because many SDKs hide the close frame. Close codes of the upstream that mean the same to
the client are passed on; any other becomes 1011.
"""

from collections.abc import Callable
from typing import NamedTuple, assert_never

from relay.json_types import JsonObject
from relay.session.common.close_codes import CloseCode
from relay.session.common.life import LimitReached
from relay.session.common.limits import KEY_REVOKED_MESSAGE, MAX_FAULTS, SessionLimits
from relay.session.device import events as ev
from relay.session.realtime.events import ClientDisconnect

FORWARDED_CLOSE_CODES = frozenset(
    {
        CloseCode.NORMAL_CLOSURE,
        CloseCode.GOING_AWAY,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
    }
)
"""Close codes of the upstream that mean the same to the client; those from 3000 are applications' own and pass too."""
_STALLED = "This message took too long to arrive while other clients waited for buffer space; send it again later."

RealtimeEndingEvent = (
    ClientDisconnect | ev.UpstreamRefused | ev.UpstreamClosed | ev.UpstreamBackpressure | ev.RelayEndEvent
)


class RealtimeEnding(NamedTuple):
    """The close frame for the client, if it has not closed, and the error of an `error` event before it, if any."""

    close_code: int | None
    reason: str
    error_code: str | None = None
    message: str = ""

    @property
    def error(self) -> JsonObject | None:
        """The error as the protocol writes it: the relay or the upstream failed, or else the client may not go on."""
        if self.error_code is None:
            return None
        if self.close_code == CloseCode.INTERNAL_ERROR:
            error = {"type": "server_error", "code": self.error_code, "message": self.message}
            return {**error, "param": None, "event_id": None}
        return {"type": "invalid_request_error", "code": self.error_code, "message": self.message}


NOT_READY = RealtimeEnding(
    CloseCode.INTERNAL_ERROR, "upstream timeout", "upstream_timeout", "The model's end did not get ready in time."
)
SESSION_REFUSED = RealtimeEnding(CloseCode.INTERNAL_ERROR, "session refused", "session_refused")
"""The message says whose configuration of the session was refused."""
TOO_MANY_FAULTS = RealtimeEnding(CloseCode.POLICY_VIOLATION, f"{MAX_FAULTS} faults in a minute")


def ending_for_limit(limit: LimitReached, limits: SessionLimits) -> RealtimeEnding:
    """How a session ends that has lasted, or been idle, as long as it may."""
    if limit == "duration":
        text = f"A session may last {limits.max_duration_s:.0f} s; reconnect to go on."
        return RealtimeEnding(CloseCode.LIMIT_REACHED, "session too long", "session_limit", text)
    text = f"No event came and no response ran for {limits.max_idle_s:.0f} s; reconnect to go on."
    return RealtimeEnding(CloseCode.LIMIT_REACHED, "idle", "session_idle", text)


def ending_for_event(event: RealtimeEndingEvent, redact: Callable[[str], str]) -> RealtimeEnding:
    """How an event ends the session; `redact` removes the server's texts from what the upstream says."""
    match event:
        case ev.ClientClosed():
            return RealtimeEnding(None, "")
        case ev.ClientBackpressure():
            return RealtimeEnding(CloseCode.SLOW_CLIENT, "the client does not read")
        case ev.ClientMessageStalled():
            return RealtimeEnding(
                CloseCode.TRY_AGAIN_LATER, "a message took too long to arrive", "message_too_slow", _STALLED
            )
        case ev.UpstreamRefused():
            return RealtimeEnding(
                CloseCode.INTERNAL_ERROR, "the upstream refused the connection", "upstream_refused", event.message
            )
        case ev.UpstreamClosed():
            reason = redact(event.reason)
            if event.code in FORWARDED_CLOSE_CODES or 3000 <= event.code < 5000:
                return RealtimeEnding(event.code, reason)
            text = "The model's end broke off the connection."
            return RealtimeEnding(CloseCode.INTERNAL_ERROR, reason or "upstream closed", "upstream_closed", text)
        case ev.UpstreamBackpressure():
            text = "The model's end does not take what it is sent."
            return RealtimeEnding(CloseCode.INTERNAL_ERROR, "upstream stalled", "upstream_stalled", text)
        case ev.ServerDraining():
            return RealtimeEnding(CloseCode.GOING_AWAY, event.reason)
        case ev.KeyRevoked():
            return RealtimeEnding(CloseCode.POLICY_VIOLATION, "the key was revoked", "key_revoked", KEY_REVOKED_MESSAGE)
        case ev.InternalFailure():
            return RealtimeEnding(
                CloseCode.INTERNAL_ERROR,
                "internal error",
                "internal_error",
                "The relay failed in this session; reconnect.",
            )
        case _:
            assert_never(event)
