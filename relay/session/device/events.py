"""Everything that can happen to a session, but for audio. `relay.session.device.commands` holds what can be asked for
in return.

The unions at the end say whose event it is: `ClientEvent`, `UpstreamEvent`, `TtsEvent` (an external voice) or
`RelayEvent`. The rules match each union completely, and mypy finds an event that has no case. Codecs make events of
messages. What makes no sense is an event as well, `ClientProtocolError` or `MalformedUpstreamMessage`: no codec raises
for bad input. Events are stored in recordings, and a replay hands the same ones to the rules again.

Frozen values; time is not in them: it is the second argument of `handle(event, now)`.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from audio.formats import AudioFormat
from relay.session.common.model import (
    Alignment,
    ErrorCode,
    Item,
    ResponseStatus,
    SentAudio,
    ToolSpec,
    ToolStatus,
    TurnKind,
    Usage,
)

# -- from a device client ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's wishes; `fields_set` names the fields it sent, the others hold nothing."""

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
    """`played_ms` of an item are out of the client's speaker, cumulative."""

    item_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The client ran a tool of its own; `output` is text, JSON or not, or what went wrong when it `failed`."""

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
    """Push-to-talk: forget the audio of this turn."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The client wants silence now."""


@dataclass(frozen=True, slots=True)
class Consent:
    """The client lets its session be recorded, or takes that back; a matter for the recorder alone."""

    consent: bool


@dataclass(frozen=True, slots=True)
class Bye:
    """The client leaves."""


@dataclass(frozen=True, slots=True)
class ClientProtocolError:
    """The client sent something that makes no sense; the codec says what, the session goes on."""

    code: ErrorCode
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class ClientClosed:
    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClientRateLimited:
    """The client sends faster than its allowance; it is read more slowly from here on, and nothing is lost."""

    limit: Literal["audio", "messages"]


@dataclass(frozen=True, slots=True)
class ClientMessageStalled:
    """A long message of a Realtime client took too long to arrive, while others waited for room for theirs."""


@dataclass(frozen=True, slots=True)
class ClientBackpressure:
    """The client does not read; its socket's buffer is over the bound."""

    unsent_bytes: int


# -- from the upstream ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """The connection to the upstream stands; nothing was said yet."""


@dataclass(frozen=True, slots=True)
class UpstreamRefused:
    """The dial failed: `status` is the HTTP status of the refusal, None when nobody answered."""

    status: int | None
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class UpstreamClosed:
    """The upstream hung up, with its close code or 1006."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamBackpressure:
    """The upstream does not read; `dropped_bytes` of microphone audio were left out so far. `fatal`: for too long."""

    dropped_bytes: int
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """`engine` names a server that says what it is (our local engine does)."""

    model: str | None = None
    engine: str | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """An earlier configuration is in force; `silence_ms` of quiet end the user's turn, where the upstream says so."""

    silence_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Voice in the input; `audio_start_ms` is on the input's clock, not the speaker's (D2.6)."""

    item_id: str
    audio_start_ms: int = 0


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The voice in the input ended at `audio_end_ms` of the input's clock."""

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
    """What the user said: a delta, or the whole when `final`. Comes late and in any order (D12)."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class UserTranscriptFailed:
    """The transcription of one item failed; the conversation goes on."""

    item_id: str
    message: str


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item stands in the conversation, after `previous_item_id`."""

    item: Item
    previous_item_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """An assistant item was cut; the upstream forgot its transcript (D2.4)."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """A response began; `request_id` is the mark of our own request, echoed in its metadata."""

    response_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    response_id: str
    item: Item


class TextDelta(NamedTuple):
    """More text of an item; `spoken` when it is the transcript of audio. A tuple, because several come each second."""

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
    """The first audio of a content part has come; it goes on to the client if the rules start the part."""

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
    """A response ended, always emitted whatever the end (D3); `output` holds its items."""

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
    """An `error` event; `event_id` is the id of our event that caused it, where the upstream says so."""

    code: str | None
    message: str
    type: str | None = None
    param: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class IgnoredUpstreamEvent:
    """An event of a type nobody here has heard of, counted and passed over; or, if `is_known`, one of no use here."""

    type: str
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class MalformedUpstreamMessage:
    """A frame that is no event: counted and passed over."""

    problem: str


# -- from an external voice -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TtsConnected:
    """The connection to the voice stands."""


class TtsAudio(NamedTuple):
    """`n_bytes` of a context's audio go to the client; `alignment` says when its characters are spoken."""

    context_id: str
    n_bytes: int
    alignment: Alignment | None = None


@dataclass(frozen=True, slots=True)
class TtsContextDone:
    """A context is closed: nothing more comes of it."""

    context_id: str


@dataclass(frozen=True, slots=True)
class TtsFailed:
    """The voice refused, broke or hung up; `code` is the provider's. `context_id` is empty for all of them.

    Not `retryable`: the same will be refused again.
    """

    message: str
    code: str | None = None
    retryable: bool = True
    context_id: str = ""


# -- from the relay itself --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time of `deadline` has come."""


@dataclass(frozen=True, slots=True)
class FirstAudioSent:
    """The first audio of an item went to the client's socket."""

    item_id: str


@dataclass(frozen=True, slots=True)
class PlayoutFinished:
    """All audio that the client was handed has been played, as far as the relay can tell (half duplex only)."""


@dataclass(frozen=True, slots=True)
class PlayoutCleared:
    """The playout did what `ClearPlayout` asked: nothing more goes out. `parts` is what was sent, in playing order."""

    parts: tuple[SentAudio, ...] = ()


@dataclass(frozen=True, slots=True)
class PlayoutOverflow:
    """The playout held more unsent audio than its bound and dropped the oldest `dropped_ms` of an item."""

    item_id: str
    dropped_ms: int


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """A tool call ended, one way or another; `output` is what the model is told.

    `client_output` is a result that is shown to the client, in place of the model's, whether or not it sees others.
    """

    call_id: str
    status: ToolStatus
    output: str
    ms: int
    arguments: Any = None
    client_output: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallProgress:
    call_id: str
    text: str
    ms: int


@dataclass(frozen=True, slots=True)
class EndSessionRequested:
    """A running tool wants the session to end once its call is answered; `reason` is for the client."""

    call_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """The relay shuts down."""

    reason: str = "the relay is restarting"


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The key that let the client in is no longer one of the relay's."""


@dataclass(frozen=True, slots=True)
class InternalFailure:
    """Our own code failed in this session; it ends, the others go on."""

    where: str


ClientRequest = Hello | Playback | ToolResult | UserText | Commit | Clear | Interrupt | Consent | Bye
ClientEvent = ClientRequest | ClientProtocolError | ClientClosed | ClientRateLimited | ClientBackpressure
SpeechEvent = SpeechStarted | SpeechStopped | InputCommitted | InputCleared | UserTranscript | UserTranscriptFailed
UserEvent = SpeechEvent | ItemAdded | ItemDeleted
"""What the upstream reports of the user's turn, and of the conversation's items."""
ResponseEvent = ResponseCreated | OutputAudioStarted | OutputAudioDone | TextDelta | TextDone | ResponseDone
"""What it reports of a response."""
UpstreamConnectionEvent = (
    UpstreamOpened | UpstreamRefused | UpstreamClosed | UpstreamBackpressure | MalformedUpstreamMessage
)
"""What is known of the connection to the upstream, whatever it speaks."""
ProtocolEvent = (
    SessionCreated | SessionUpdated | ItemTruncated | OutputItemAdded | UpstreamErrorEvent | IgnoredUpstreamEvent
)
UpstreamControlEvent = UpstreamConnectionEvent | ProtocolEvent
"""All else that comes from the upstream."""
UpstreamEvent = UserEvent | ResponseEvent | UpstreamControlEvent
TtsEvent = TtsConnected | TtsAudio | TtsContextDone | TtsFailed
ToolEvent = ToolCallFinished | ToolCallProgress | EndSessionRequested
RelayEndEvent = ServerDraining | KeyRevoked | InternalFailure
RelayEvent = (
    DeadlineReached | FirstAudioSent | PlayoutFinished | PlayoutCleared | PlayoutOverflow | ToolEvent | RelayEndEvent
)
Event = ClientEvent | UpstreamEvent | TtsEvent | RelayEvent

CLIENT_EVENTS = frozenset(get_args(ClientEvent))
UPSTREAM_EVENTS = frozenset(get_args(UpstreamEvent))
TTS_EVENTS = frozenset(get_args(TtsEvent))
"""The same as sets, for a quick look at whose event it is."""
