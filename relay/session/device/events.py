"""The events of a device session: everything that can happen to it. Audio is not an event.

The unions at the end say where an event comes from: `ClientEvent`, `UpstreamEvent`, `TtsEvent` (an external voice) or
`RelayInternalEvent`. The rules match each union completely, and mypy finds an event without a case.

Events of other parts are declared where the part is: `session/common`, `session/tools` and `session/tts` have their own
`events.py`; `upstream_events.py` declares what the upstream reports. This module declares the client's messages and
the events of the playout.

Codecs decode messages into events. Invalid input is an event too, `ClientProtocolError` or `MalformedUpstreamMessage`:
no codec raises for it. Events are stored in recordings, and a replay passes the same ones to the rules again. All of
them are frozen values without a time, which is the second argument of `handle(event, now)`.
"""

from dataclasses import dataclass
from typing import get_args

from audio.formats import AudioFormat
from relay.session.common.events import (
    ClientBackpressure,
    ClientClosed,
    ClientMessageStalled,
    ClientRateLimited,
    DeadlineReached,
    InternalFailure,
    KeyRevoked,
    MalformedUpstreamMessage,
    RelayEndEvent,
    ServerDraining,
    UpstreamBackpressure,
    UpstreamClosed,
    UpstreamConnectionEvent,
    UpstreamOpened,
    UpstreamRefused,
)
from relay.session.common.model import ErrorCode, SentAudio, ToolSpec, TurnKind
from relay.session.device.upstream_events import (
    IgnoredUpstreamEvent,
    InputCleared,
    InputCommitted,
    ItemAdded,
    ItemDeleted,
    ItemTruncated,
    OutputAudioDone,
    OutputAudioStarted,
    OutputItemAdded,
    ProtocolEvent,
    ResponseCreated,
    ResponseDone,
    ResponseEvent,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    TextDone,
    UpstreamErrorEvent,
    UserEvent,
    UserTranscript,
    UserTranscriptFailed,
)
from relay.session.tools.events import EndSessionRequested, ToolCallFinished, ToolCallProgress, ToolRunEvent
from relay.session.tts.events import TTS_EVENTS, TtsAudio, TtsConnected, TtsContextDone, TtsEvent, TtsFailed

__all__ = [  # Re-exported: declared in other packages, used by device sessions.
    "TTS_EVENTS", "ClientBackpressure", "ClientClosed", "ClientMessageStalled", "ClientRateLimited",
    "DeadlineReached", "EndSessionRequested", "IgnoredUpstreamEvent", "InputCleared", "InputCommitted",
    "InternalFailure", "ItemAdded", "ItemDeleted", "ItemTruncated", "KeyRevoked", "MalformedUpstreamMessage",
    "OutputAudioDone", "OutputAudioStarted", "OutputItemAdded", "ProtocolEvent", "RelayEndEvent",
    "ResponseCreated", "ResponseDone", "ResponseEvent", "ServerDraining", "SessionCreated", "SessionUpdated",
    "SpeechStarted", "SpeechStopped", "TextDelta", "TextDone", "ToolCallFinished", "ToolCallProgress",
    "ToolRunEvent", "TtsAudio", "TtsConnected", "TtsContextDone", "TtsEvent", "TtsFailed", "UpstreamBackpressure",
    "UpstreamClosed", "UpstreamConnectionEvent", "UpstreamErrorEvent", "UpstreamOpened", "UpstreamRefused",
    "UserEvent", "UserTranscript", "UserTranscriptFailed",
]  # fmt: skip

# -- from a device client ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The settings that the client requests; `fields_set` names the fields of the message, the others are unset."""

    fields_set: tuple[str, ...] = ()
    input: AudioFormat | None = None
    output: AudioFormat | None = None
    max_ahead_ms: int | None = None
    voice: str | None = None
    instructions: str | None = None
    language: str | None = None
    turn: TurnKind | None = None
    half_duplex: bool | None = None
    tools: tuple[ToolSpec, ...] = ()
    consent: bool | None = None


@dataclass(frozen=True, slots=True)
class Playback:
    """The client has played `played_ms` of an item so far."""

    item_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The client ran one of its own tools; `output` is text or JSON, or an error message if the call `failed`."""

    call_id: str
    output: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class UserText:
    """A typed turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Push-to-talk: the user's turn is over."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Push-to-talk: discard the audio of this turn."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The client interrupts the assistant."""


@dataclass(frozen=True, slots=True)
class Consent:
    """The client grants or revokes its consent to being recorded; only the recorder uses this."""

    consent: bool


@dataclass(frozen=True, slots=True)
class Bye:
    """The client leaves."""


@dataclass(frozen=True, slots=True)
class ClientProtocolError:
    """The client sent an invalid message, which `message` describes. The session continues."""

    code: ErrorCode
    message: str
    field: str | None = None


# -- from the playout -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstAudioSent:
    """The first audio of an item went to the client's socket."""

    item_id: str


@dataclass(frozen=True, slots=True)
class PlayoutFinished:
    """The client has played all audio that it was sent, by the relay's estimate (half duplex only)."""


@dataclass(frozen=True, slots=True)
class PlayoutCleared:
    """The playout executed `ClearPlayout`. `parts` is the audio that had been sent, in playing order."""

    parts: tuple[SentAudio, ...] = ()


@dataclass(frozen=True, slots=True)
class PlayoutOverflow:
    """The playout queue was full, and the oldest `dropped_ms` of an item were dropped."""

    item_id: str
    dropped_ms: int


ClientRequest = Hello | Playback | ToolResult | UserText | Commit | Clear | Interrupt | Consent | Bye
ClientEvent = ClientRequest | ClientProtocolError | ClientClosed | ClientRateLimited | ClientBackpressure
UpstreamControlEvent = UpstreamConnectionEvent | ProtocolEvent
UpstreamEvent = UserEvent | ResponseEvent | UpstreamControlEvent
PlayoutEvent = FirstAudioSent | PlayoutFinished | PlayoutCleared | PlayoutOverflow
RelayInternalEvent = DeadlineReached | PlayoutEvent | ToolRunEvent | RelayEndEvent
Event = ClientEvent | UpstreamEvent | TtsEvent | RelayInternalEvent

CLIENT_EVENTS = frozenset(get_args(ClientEvent))
UPSTREAM_EVENTS = frozenset(get_args(UpstreamEvent))
