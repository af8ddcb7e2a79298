"""The WebSocket close codes that the relay sends to clients; `docs/device-protocol.md` says what a client does then.

A new code is a member here. The event that ends a session with it is a row of `endings.py`, of device and of Realtime
sessions.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes of RFC 6455 (section 7.4.1) and of IANA's registry below 4000; from 4000 on they are the relay's own."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    """The relay shuts down or restarts."""
    PROTOCOL_ERROR = 1002
    ABNORMAL_CLOSURE = 1006
    """No close frame came. This code is never sent."""
    INVALID_DATA = 1007
    """Text that is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The client made too many faults, or its key was revoked."""
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    """The relay or the upstream failed."""
    SERVICE_RESTART = 1012
    """Only passed on to Realtime clients."""
    TRY_AGAIN_LATER = 1013
    """There is no room for another session, or for a long message."""
    LIMIT_REACHED = 4002
    """The session was idle, or lasted, as long as it may."""
    SLOW_CLIENT = 4003
    """The client does not read what it is sent."""
