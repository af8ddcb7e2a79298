"""How a Realtime session ends: the error that the client gets first, and the close code that follows (D6).

Each event that ends a session, and each limit, has one row here. If the client did not cause the end, an `error` event
explains it, because many SDKs hide the close frame. Upstream close codes with the same meaning for the client are
forwarded; any other becomes 1011.
"""

from collections.abc import Callable
from typing import NamedTuple, assert_never

from relay.json_types import JsonObject
from relay.session.common.close_codes import CloseCode
from relay.session.common.limits import KEY_REVOKED_MESSAGE, MAX_FAULTS, SessionLimits
from relay.session.common.session_state import LimitReached
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
"""Upstream close codes that mean the same to the client. Codes from 3000 belong to applications and are forwarded too.
"""
_MESSAGE_STALLED = (
    "The message took too long to arrive while other clients waited for buffer space; send it again later."
)

RealtimeEndingEvent = (
    ClientDisconnect | ev.UpstreamRefused | ev.UpstreamClosed | ev.UpstreamBackpressure | ev.RelayEndEvent
)


class RealtimeEnding(NamedTuple):
    """The close frame for the client (None if it has closed already), and the error sent before it, if any."""

    close_code: int | None
    reason: str
    error_code: str | None = None
    message: str = ""

    @property
    def error(self) -> JsonObject | None:
        """The error object: a server error if the relay or the upstream failed, otherwise an invalid request."""
        if self.error_code is None:
            return None
        if self.close_code == CloseCode.INTERNAL_ERROR:
            error = {"type": "server_error", "code": self.error_code, "message": self.message}
            return {**error, "param": None, "event_id": None}
        return {"type": "invalid_request_error", "code": self.error_code, "message": self.message}


def _server_error(reason: str, error_code: str, message: str) -> RealtimeEnding:
    return RealtimeEnding(CloseCode.INTERNAL_ERROR, reason, error_code, message)


NOT_READY = _server_error("upstream timeout", "upstream_timeout", "The upstream was not ready in time.")
SESSION_REFUSED = RealtimeEnding(CloseCode.INTERNAL_ERROR, "session refused", "session_refused")
"""The message says whose session configuration was refused."""
TOO_MANY_FAULTS = RealtimeEnding(CloseCode.POLICY_VIOLATION, f"{MAX_FAULTS} faults in a minute")


def ending_for_limit(limit: LimitReached, limits: SessionLimits) -> RealtimeEnding:
    """Return the ending of a session that has reached its maximum duration or idle time."""
    if limit == "duration":
        message = f"The session reached its maximum duration of {limits.max_duration_s:.0f} s; reconnect to continue."
        return RealtimeEnding(CloseCode.LIMIT_REACHED, "session too long", "session_limit", message)
    message = f"The session was idle for {limits.max_idle_s:.0f} s, without events or responses; reconnect to continue."
    return RealtimeEnding(CloseCode.LIMIT_REACHED, "idle", "session_idle", message)


def ending_for_event(event: RealtimeEndingEvent, redact: Callable[[str], str]) -> RealtimeEnding:
    """Return the ending that an event causes; `redact` removes the server's texts from what the upstream says."""
    match event:
        case ev.ClientClosed():
            return RealtimeEnding(None, "")
        case ev.ClientBackpressure():
            return RealtimeEnding(CloseCode.SLOW_CLIENT, "the client does not read")
        case ev.ClientMessageStalled():
            reason = "a message took too long to arrive"
            return RealtimeEnding(CloseCode.TRY_AGAIN_LATER, reason, "message_too_slow", _MESSAGE_STALLED)
        case ev.UpstreamRefused():
            return _server_error("the upstream refused the connection", "upstream_refused", event.message)
        case ev.UpstreamClosed():
            reason = redact(event.reason)
            if event.code in FORWARDED_CLOSE_CODES or 3000 <= event.code < 5000:
                return RealtimeEnding(event.code, reason)
            return _server_error(reason or "upstream closed", "upstream_closed", "The upstream closed the connection.")
        case ev.UpstreamBackpressure():
            message = "The upstream stopped reading; reconnect to continue."
            return _server_error("upstream stalled", "upstream_stalled", message)
        case ev.ServerDraining():
            return RealtimeEnding(CloseCode.GOING_AWAY, event.reason)
        case ev.KeyRevoked():
            return RealtimeEnding(CloseCode.POLICY_VIOLATION, "the key was revoked", "key_revoked", KEY_REVOKED_MESSAGE)
        case ev.InternalFailure():
            message = "The relay had an internal error in this session; reconnect."
            return _server_error("internal error", "internal_error", message)
        case _:
            assert_never(event)
