"""The WebSocket close codes that the relay sends to clients; `docs/device-protocol.md` says how a client reacts.

To add a close code, add a member here. Which event ends a session with it is decided in `endings.py`: one is for device
sessions and one for Realtime sessions.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes below 4000 are from RFC 6455 (section 7.4.1) and IANA's registry; from 4000 on they are the relay's."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    """The relay shuts down or restarts."""
    PROTOCOL_ERROR = 1002
    ABNORMAL_CLOSURE = 1006
    """No close frame was received. This code is never sent."""
    INVALID_DATA = 1007
    """Text that is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The client sent too many invalid messages, or its key was revoked."""
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    """The relay or the upstream failed."""
    SERVICE_RESTART = 1012
    """Only passed on to Realtime clients."""
    TRY_AGAIN_LATER = 1013
    """The relay has no capacity for another session, or for a long message."""
    LIMIT_REACHED = 4002
    """The session reached its maximum duration or idle time."""
    SLOW_CLIENT = 4003
    """The client reads too slowly."""
