"""How a Realtime session ends: which error the client is sent first, and the close code that follows (D6).

Each event that ends a session, and each limit, has one row here. An end that the client did not bring about is
explained by an `error` event, because many SDKs hide the close frame. Close codes of the upstream that mean the same to
the client are passed on; any other becomes 1011.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from relay.core import events as ev
from relay.core.realtime_events import Obj
from relay.session.common.life import LimitReached
from relay.session.common.limits import KEY_REVOKED, MAX_FAULTS, SessionLimits

PASSED_CLOSES = frozenset({1000, 1001, 1008, 1009, 1012, 1013})
"""Close codes of the upstream that mean the same to the client; those from 3000 are applications' own and pass too."""
_STALLED = "This message took too long to arrive while other clients waited for buffer space; send it again later."

EndingEvent = (
    ev.ClientClosed
    | ev.ClientStuck
    | ev.MessageStalled
    | ev.UpstreamRefused
    | ev.UpstreamClosed
    | ev.UpstreamStuck
    | ev.Draining
    | ev.KeyRevoked
    | ev.Crashed
)


@dataclass(frozen=True, slots=True)
class Ending:
    """The close frame for the client, and the `error` before it, if any; no `code` if the client has closed."""

    code: int | None
    reason: str
    error: Obj | None = None


TOO_MANY_FAULTS = Ending(1008, f"{MAX_FAULTS} faults in a minute")


def failed(code: str, message: str, reason: str) -> Ending:
    """The relay or the upstream failed."""
    error = {"type": "server_error", "code": code, "message": message, "param": None, "event_id": None}
    return Ending(1011, reason, error)


NOT_READY = failed("upstream_timeout", "The model's end did not get ready in time.", "upstream timeout")
CONFIGURATION_REFUSED = failed(
    "session_refused", "The model's end did not take the server's configuration of the session.", "session refused"
)


def _closed(close_code: int, reason: str, code: str, message: str) -> Ending:
    return Ending(close_code, reason, {"type": "invalid_request_error", "code": code, "message": message})


def at_limit(limit: LimitReached, limits: SessionLimits) -> Ending:
    """The session lasted, or was idle, as long as it may."""
    if limit == "duration":
        text = f"A session may last {limits.max_duration_s:.0f} s; reconnect to go on."
        return _closed(4002, "session too long", "session_limit", text)
    text = f"No event came and no response ran for {limits.max_idle_s:.0f} s; reconnect to go on."
    return _closed(4002, "idle", "session_idle", text)


def ending(event: EndingEvent, cut: Callable[[str], str]) -> Ending:
    """The end that an event brings about; `cut` removes the server's texts from what the upstream says."""
    match event:
        case ev.ClientClosed():
            return Ending(None, "")
        case ev.ClientStuck():
            return Ending(4003, "the client does not read")
        case ev.MessageStalled():
            return _closed(1013, "a message took too long to arrive", "message_too_slow", _STALLED)
        case ev.UpstreamRefused():
            return failed("upstream_refused", event.message, "the upstream refused the connection")
        case ev.UpstreamClosed():
            return _upstream_closed(event.code, cut(event.reason))
        case ev.UpstreamStuck():
            return failed("upstream_stalled", "The model's end does not take what it is sent.", "upstream stalled")
        case ev.Draining():
            return Ending(1001, event.reason)
        case ev.KeyRevoked():
            return _closed(1008, "the key was revoked", "key_revoked", KEY_REVOKED)
        case ev.Crashed():
            return failed("internal_error", "The relay failed in this session; reconnect.", "internal error")
        case _:
            assert_never(event)


def _upstream_closed(code: int, reason: str) -> Ending:
    if code in PASSED_CLOSES or 3000 <= code < 5000:
        return Ending(code, reason)
    return failed("upstream_closed", "The model's end broke off the connection.", reason or "upstream closed")
