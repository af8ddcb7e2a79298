"""The endings of a device session, and the upstream errors that end it.

An `error` or `goodbye` states the reason before the close, unless the client itself ended the session. The close codes
are in `relay.session.common.close_codes`.

An error that answers a request of the relay is handled where the request was made. This module classifies all others by
code. An upstream's message may quote the server's instructions and tools; those parts are removed.
"""

from dataclasses import replace
from typing import NamedTuple, assert_never

from relay.session.common.close_codes import CloseCode
from relay.session.common.limits import KEY_REVOKED_MESSAGE, MAX_FAULTS, SessionLimits
from relay.session.common.model import ErrorCode
from relay.session.common.server_overlay import ServerOverlay
from relay.session.common.session_state import LimitReached
from relay.session.device import events as ev
from relay.session.device.commands import SendError, SendGoodbye


class Ending(NamedTuple):
    """Send `final_message` to the client, if there is one, then close its connection unless `close_code` is None."""

    close_code: int | None
    reason: str
    final_message: SendError | SendGoodbye | None = None


def _error(close_code: int, reason: str, code: ErrorCode, message: str, *, retryable: bool = True) -> Ending:
    return Ending(close_code, reason, SendError(code, message, retryable=retryable))


SETTINGS_REFUSED = Ending(CloseCode.INTERNAL_ERROR, "the upstream refused the session's settings")
"""The error itself was sent when the upstream refused the settings."""
NOT_READY = _error(
    CloseCode.INTERNAL_ERROR,
    "the upstream was not ready in time",
    "upstream_timeout",
    "The upstream was not ready in time; try again.",
)
_FAULTS_TEXT = f"{MAX_FAULTS} invalid messages within a minute; fix the client, then reconnect."
TOO_MANY_FAULTS = _error(
    CloseCode.POLICY_VIOLATION, "too many faults", "too_many_faults", _FAULTS_TEXT, retryable=False
)

UpstreamEndEvent = ev.UpstreamRefused | ev.UpstreamBackpressure | ev.UpstreamClosed | ev.UpstreamErrorEvent
EndingEvent = ev.Bye | ev.ClientClosed | ev.ClientBackpressure | UpstreamEndEvent | ev.RelayEndEvent
"""Events that end a session; `UpstreamBackpressure` and `UpstreamErrorEvent` do so only if they are fatal."""

BENIGN_ERROR_CODES = frozenset({
    "response_cancel_not_active", "conversation_already_has_active_response", "input_audio_buffer_commit_empty",
    "item_truncate_invalid_item_id", "item_truncate_invalid_audio_end_ms", "item_delete_invalid_item_id",
    "item_retrieve_invalid_item_id", "unsupported_content_type", "invalid_truncate",
})  # fmt: skip
"""Errors of races between our request and what the upstream has done by then: counted, not sent on (D7)."""
FATAL_ERROR_CODES = frozenset({
    "insufficient_quota", "credit_balance_exhausted", "invalid_api_key", "account_deactivated",
    "billing_hard_limit_reached", "session_expired",
})  # fmt: skip
"""Fatal upstream errors (D6). After any other error the session continues."""


def ending_for_event(event: EndingEvent) -> Ending:
    """Return how an event ends the session."""
    match event:
        case ev.Bye():
            return Ending(CloseCode.NORMAL_CLOSURE, "bye")
        case ev.ClientClosed():
            return Ending(None, event.reason)
        case ev.ClientBackpressure():
            return _error(
                CloseCode.SLOW_CLIENT,
                "slow client",
                "slow_client",
                "The client reads too slowly; reconnect.",
            )
        case ev.UpstreamRefused():
            code: ErrorCode = "upstream_unreachable" if event.status is None else "upstream_refused"
            reason = "the upstream is unreachable" if event.status is None else "the upstream refused the connection"
            return _error(CloseCode.INTERNAL_ERROR, reason, code, event.message, retryable=event.retryable)
        case ev.UpstreamBackpressure():
            text = "The upstream reads too slowly; reconnect."
            return _error(CloseCode.INTERNAL_ERROR, "the upstream does not read", "upstream_stalled", text)
        case ev.UpstreamClosed():
            reason = f": {event.reason}" if event.reason else ""
            text = f"The upstream closed the connection ({event.code}{reason}); reconnect to continue."
            return _error(CloseCode.INTERNAL_ERROR, "the upstream closed the connection", "upstream_closed", text)
        case ev.UpstreamErrorEvent():
            is_expired = event.code == "session_expired"
            code = "session_expired" if is_expired else "upstream_refused"
            return _error(CloseCode.INTERNAL_ERROR, event.code or "", code, event.message, retryable=is_expired)
        case ev.ServerDraining():
            return Ending(CloseCode.GOING_AWAY, event.reason, SendGoodbye(event.reason))
        case ev.KeyRevoked():
            return _error(
                CloseCode.POLICY_VIOLATION, "the key was revoked", "key_revoked", KEY_REVOKED_MESSAGE, retryable=False
            )
        case ev.InternalFailure():
            text = "The relay had an internal error in this session; reconnect."
            return _error(CloseCode.INTERNAL_ERROR, "internal error", "internal_error", text)
        case _:
            assert_never(event)


def ending_for_limit(limit: LimitReached, limits: SessionLimits) -> Ending:
    """Return how a session ends that has reached a limit."""
    if limit == "duration":
        text = f"The session reached its maximum of {limits.max_duration_s:.0f} s; reconnect to continue."
        return _error(CloseCode.LIMIT_REACHED, "session too long", "limit_reached", text)
    return _error(
        CloseCode.LIMIT_REACHED,
        "idle",
        "idle",
        f"The session was idle for {limits.max_idle_s:.0f} s; reconnect to continue.",
    )


def strip_server_parts(event: ev.UpstreamEvent, parts: ServerOverlay) -> ev.UpstreamEvent:
    """Return the event without quotes of the server's instructions and tools, where the client may receive its text."""
    match event:
        case ev.UpstreamErrorEvent() | ev.UserTranscriptFailed():
            return replace(event, message=parts.redact(event.message))
        case ev.UpstreamClosed():
            return replace(event, reason=parts.redact(event.reason))
        case ev.ResponseDone() if event.error_message is not None:
            return replace(event, error_message=parts.redact(event.error_message))
        case _:
            return event
