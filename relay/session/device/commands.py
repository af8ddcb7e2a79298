"""Everything that a session can ask for. Frozen values; `relay.runtime` carries them out in order.

The unions at the end say who carries a command out:

    UpstreamCommand ──► the upstream's codec       ClientMessage ──► the client's codec
    PlayCommand ──────► the playout queue          InputCommand ───► the uplink
    VoiceCommand ─────► the external voice         ToolCommand ────► the tools of the session

A command that the upstream or the client has no message for is left out by its codec. A message to the client has the
fields that its class has, so a new field is in the protocol at once; `relay.protocols.device.codec` names the
exceptions. Commands are stored in recordings under the names of `relay.recording.format`, and a replay compares them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from audio.formats import AudioFormat
from relay.session.common.media_types import InputGate
from relay.session.common.model import DeviceOptions, ErrorCode, Item, ResponseStatus, SessionConfig, ToolStatus, Usage
from relay.session.device.turn_metrics import TurnMetrics

# -- to the upstream --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigureSession:
    """Put `config` in force; `include_examples` adds the tools' example sentences, for an engine that learns from
    them.
    """

    config: SessionConfig
    event_id: str
    include_examples: bool = False


@dataclass(frozen=True, slots=True)
class CommitInput:
    """End the user's turn by hand."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ClearInput:
    event_id: str


@dataclass(frozen=True, slots=True)
class CreateItem:
    """Add an item to the conversation: a text of either side, or a tool's output (`item.text`).

    It comes behind the item `after` ("root": it is the first), or last.
    """

    item: Item
    event_id: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteItem:
    item_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class TruncateItem:
    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """Ask for a response; it carries `event_id` as metadata, so that it is known again. Without tools when told."""

    event_id: str
    allow_tools: bool = True


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """Stop a response, always by its id (D2.2)."""

    response_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Hang up on the upstream."""


# -- to the client, at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendConnected:
    """`AIConnected`: the upstream is ready."""

    session_id: str
    options: DeviceOptions


@dataclass(frozen=True, slots=True)
class SendReady:
    """`ready`: what is in force after a hello."""

    options: DeviceOptions
    config: SessionConfig


@dataclass(frozen=True, slots=True)
class SendSpeechState:
    """`AISpeechDetected` or `AISpeechEnded`."""

    started: bool


@dataclass(frozen=True, slots=True)
class SendResponseStart:
    """`AIResponseStart`."""


@dataclass(frozen=True, slots=True)
class SendResponseEnd:
    """`AIResponseEnd`; `more` while the relay owes a follow-up."""

    final_text: str
    status: ResponseStatus
    more: bool


class SendTextDelta(NamedTuple):
    """`textDelta`."""

    text: str


@dataclass(frozen=True, slots=True)
class SendTranscript:
    """`transcript` of either side."""

    role: str
    item_id: str
    order: int
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class SendToolStatus:
    """`tool`: how a tool call goes."""

    call_id: str
    name: str
    status: ToolStatus
    ms: int
    arguments: Any = None
    output: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class SendToolCall:
    """`toolCall`: the client is to run a tool of its own; `arguments` is a JSON object as text."""

    call_id: str
    name: str
    arguments: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class SendInterrupted:
    """`interrupted`: fall silent; `estimated` when no acknowledgement of playback was at hand."""

    item_id: str
    played_ms: int
    heard_text: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class SendUsage:
    """`usage` of one response."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class SendError:
    """`error`: what went wrong and what to do."""

    code: ErrorCode
    message: str
    field: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class SendGoodbye:
    """`goodbye`: the relay ends the session, in peace."""

    reason: str


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Close the client's connection; an `error` or `goodbye` came before."""

    code: int
    reason: str


# -- to the client, in line with its audio ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAudioStart:
    """`audioStart`: the next binary frames belong to this item."""

    item_id: str
    content_index: int


@dataclass(frozen=True, slots=True)
class SendAudioEnd:
    """`audioEnd`: an item's audio is complete."""

    item_id: str
    content_index: int
    total_ms: int


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Let no more audio out; the next event is `PlayoutCleared`."""


@dataclass(frozen=True, slots=True)
class SyncPlayout:
    """The client told its position: pace by it."""

    item_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """From here on the client's side of the wire works by these options."""

    options: DeviceOptions


# -- to the uplink ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetInputGate:
    """From here on this becomes of the client's audio. What was held goes first when the gate opens."""

    gate: InputGate


@dataclass(frozen=True, slots=True)
class ReleaseInput:
    """Send on the held audio that ends at or before this position in the client's stream."""

    until_bytes: int


# -- to an external voice ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectTts:
    """Connect to the voice, so that it is there when it is needed; `TtsConnected` or `TtsFailed` follows."""

    voice_id: str
    output_format: AudioFormat


@dataclass(frozen=True, slots=True)
class SynthesizeSentence:
    """Speak a sentence within a context; its first one opens the context."""

    context_id: str
    text: str


@dataclass(frozen=True, slots=True)
class SynthesizeText:
    """Speak a whole text in a request of its own; `TtsAudio`, then `TtsContextDone` or `TtsFailed` follow."""

    context_id: str
    voice_id: str
    output_format: AudioFormat
    text: str


@dataclass(frozen=True, slots=True)
class FinishTtsContext:
    """No more text comes for a context; `TtsContextDone` follows its last sound."""

    context_id: str


@dataclass(frozen=True, slots=True)
class CancelTtsContext:
    """Close a context at once: nobody wants to hear the rest."""

    context_id: str


@dataclass(frozen=True, slots=True)
class KeepTtsContextAlive:
    """Keep a context open although there is no text for it at the moment."""

    context_id: str


@dataclass(frozen=True, slots=True)
class DisconnectTts:
    """Hang up on the voice, whatever it is doing."""


# -- to the tools -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool; `ToolCallFinished` follows exactly once."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CancelTool:
    """End one running call; it returns as "cancelled"."""

    call_id: str


@dataclass(frozen=True, slots=True)
class CancelAllTools:
    """Give up all running tool calls; their outputs have no reader any more."""


ItemCommand = CreateItem | DeleteItem | TruncateItem
UpstreamCommand = ConfigureSession | CommitInput | ClearInput | ItemCommand | CreateResponse | CancelResponse
TurnMessage = SendSpeechState | SendResponseStart | SendTextDelta | SendResponseEnd | SendTranscript | SendInterrupted
ToolMessage = SendToolStatus | SendToolCall
MetricsMessage = SendUsage | TurnMetrics
ClientMessage = SendConnected | SendReady | TurnMessage | ToolMessage | MetricsMessage | SendError | SendGoodbye
PlayoutCommand = SendAudioStart | SendAudioEnd | ClearPlayout | SyncPlayout | ApplyOptions
InputCommand = SetInputGate | ReleaseInput
TtsCommand = (
    ConnectTts
    | SynthesizeSentence
    | SynthesizeText
    | FinishTtsContext
    | CancelTtsContext
    | KeepTtsContextAlive
    | DisconnectTts
)
ToolCommand = RunTool | CancelTool | CancelAllTools
LifecycleCommand = CloseUpstream | CloseClient | ToolCommand
Command = UpstreamCommand | ClientMessage | PlayoutCommand | InputCommand | TtsCommand | LifecycleCommand

UPSTREAM_COMMANDS = frozenset(get_args(UpstreamCommand))
CLIENT_MESSAGES = frozenset(get_args(ClientMessage))
PLAYOUT_COMMANDS = frozenset(get_args(PlayoutCommand))
INPUT_COMMANDS = frozenset(get_args(InputCommand))
TTS_COMMANDS = frozenset(get_args(TtsCommand))
