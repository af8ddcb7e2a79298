"""The events of the upstream that a device session handles. Its codec decodes them from the upstream's messages.

The unions at the end group them by what they report: the user's turn, a response, or the session itself. An event that
no rule needs is an `IgnoredUpstreamEvent`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from relay.session.common.model import Item, ResponseStatus, Usage


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The upstream created the session; `engine` is the name of the server's software, where the server sends it."""

    model: str | None = None
    engine: str | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """A configuration is active. Silence of `silence_ms` ends the user's turn, where the upstream reports that."""

    silence_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The user started to speak, at `audio_start_ms` of the input audio (D2.6)."""

    item_id: str
    audio_start_ms: int = 0


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The user stopped speaking, at `audio_end_ms` of the input audio."""

    item_id: str
    audio_end_ms: int = 0


@dataclass(frozen=True, slots=True)
class InputCommitted:
    """The user's audio became an item."""

    item_id: str
    previous_item_id: str | None = None


@dataclass(frozen=True, slots=True)
class InputCleared:
    """The input buffer was emptied."""


@dataclass(frozen=True, slots=True)
class UserTranscript:
    """A transcript of the user's speech: a delta, or the whole if `final`. It may come late and in any order (D12)."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class UserTranscriptFailed:
    """The transcription of one item failed; the conversation continues."""

    item_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item is in the conversation, after `previous_item_id`."""

    item: Item
    previous_item_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """An assistant item was truncated; the upstream dropped its transcript (D2.4)."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """A response began; `request_id` is the id of our request, echoed in its metadata."""

    response_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    response_id: str
    item: Item


class TextDelta(NamedTuple):
    """More text of an item; `spoken` if it is the transcript of audio. A tuple, as several come each second."""

    response_id: str
    item_id: str
    content_index: int
    text: str
    spoken: bool


@dataclass(frozen=True, slots=True)
class TextDone:
    response_id: str
    item_id: str
    content_index: int
    text: str
    spoken: bool


@dataclass(frozen=True, slots=True)
class OutputAudioStarted:
    """The first audio of a content part came. The audio is forwarded if the rules start the part."""

    response_id: str
    item_id: str
    content_index: int


@dataclass(frozen=True, slots=True)
class OutputAudioDone:
    response_id: str
    item_id: str
    content_index: int


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """A response ended, with any status (D3); `output` holds its items."""

    response_id: str
    status: ResponseStatus
    reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    output: tuple[Item, ...] = ()
    usage: Usage = Usage()
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamErrorEvent:
    """An `error` event; `event_id` is the id of our event that caused it, where the upstream reports it."""

    code: str | None
    message: str
    type: str | None = None
    param: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class IgnoredUpstreamEvent:
    """An ignored event: its type is unknown, or, if `is_known`, not used by device sessions."""

    type: str
    is_known: bool = False


SpeechEvent = SpeechStarted | SpeechStopped | InputCommitted | InputCleared | UserTranscript | UserTranscriptFailed
UserEvent = SpeechEvent | ItemAdded | ItemDeleted
"""Events of the user's turn, and of the conversation's items."""
ResponseEvent = ResponseCreated | OutputAudioStarted | OutputAudioDone | TextDelta | TextDone | ResponseDone
ProtocolEvent = (
    SessionCreated | SessionUpdated | ItemTruncated | OutputItemAdded | UpstreamErrorEvent | IgnoredUpstreamEvent
)
