"""What an error of the upstream's means for a device session, and what the client may read of it.

Errors that answer a request of ours are handled where the request was made. The others are looked up here by code.
Texts of the upstream's may quote the server's instructions and tools: those parts are cut out.
"""

from dataclasses import replace
from typing import Literal

from relay.core import events as ev
from relay.core.server_parts import ServerParts

ErrorKind = Literal["harmless", "fatal", "other"]

ERROR_KINDS: dict[str | None, ErrorKind] = {
    # Races between what we request and what the upstream has done by then: counted, not sent to the client (D7).
    "response_cancel_not_active": "harmless",
    "conversation_already_has_active_response": "harmless",
    "input_audio_buffer_commit_empty": "harmless",
    "item_truncate_invalid_item_id": "harmless",
    "item_truncate_invalid_audio_end_ms": "harmless",
    "item_delete_invalid_item_id": "harmless",
    "item_retrieve_invalid_item_id": "harmless",
    "unsupported_content_type": "harmless",
    "invalid_truncate": "harmless",
    # Nothing that comes after these will work (D6).
    "insufficient_quota": "fatal",
    "credit_balance_exhausted": "fatal",
    "invalid_api_key": "fatal",
    "account_deactivated": "fatal",
    "billing_hard_limit_reached": "fatal",
    "session_expired": "fatal",
}
"""By code; every other code is "other": the client is sent the error, and the session goes on."""


def without_server_parts(event: ev.UpstreamEvent, parts: ServerParts) -> ev.UpstreamEvent:
    """An event without what it quotes of the server's share, where the client may be sent its text."""
    match event:
        case ev.UpstreamError() | ev.UserTranscriptFailed():
            return replace(event, message=parts.cut(event.message))
        case ev.UpstreamClosed():
            return replace(event, reason=parts.cut(event.reason))
        case ev.ResponseDone() if event.error_message is not None:
            return replace(event, error_message=parts.cut(event.error_message))
        case _:
            return event
