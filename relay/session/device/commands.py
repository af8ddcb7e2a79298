"""The commands of a device session: everything that its rules can request. `relay.runtime` executes them in order.

The unions at the end say who executes a command:

    UpstreamCommand ──► the upstream's codec       ClientMessage ──► the client's codec
    PlayoutCommand ───► the playout queue          InputCommand ───► the uplink
    TtsCommand ───────► the external voice         ToolCommand ────► the tools of the session

Commands of other parts are declared where the part is: `session/common`, `session/tools` and `session/tts` have their
own `commands.py`. A codec skips a command for which its protocol has no message.

A message to the client has the fields of its class, so a new field is in the protocol at once.
`relay.protocols.device.codec` lists the exceptions. Commands are stored in recordings under the names of
`relay.recording.format`, and a replay compares them. All of them are frozen values.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from relay.session.common.commands import (
    INPUT_COMMANDS,
    CloseClient,
    CloseUpstream,
    InputCommand,
    ReleaseInput,
    SetInputGate,
)
from relay.session.common.model import DeviceOptions, ErrorCode, Item, ResponseStatus, SessionConfig, ToolStatus, Usage
from relay.session.device.turn_metrics import TurnMetrics
from relay.session.tools.commands import CancelAllTools, CancelTool, RunTool, ToolCommand
from relay.session.tts.commands import (
    TTS_COMMANDS,
    CancelTtsContext,
    ConnectTts,
    DisconnectTts,
    FinishTtsContext,
    KeepTtsContextAlive,
    SynthesizeSentence,
    SynthesizeText,
    TtsCommand,
)

__all__ = [  # Re-exported: declared in other packages, used by device sessions.
    "INPUT_COMMANDS", "TTS_COMMANDS", "CancelAllTools", "CancelTool", "CancelTtsContext", "CloseClient",
    "CloseUpstream", "ConnectTts", "DisconnectTts", "FinishTtsContext", "InputCommand", "KeepTtsContextAlive",
    "ReleaseInput", "RunTool", "SetInputGate", "SynthesizeSentence", "SynthesizeText", "ToolCommand", "TtsCommand",
]  # fmt: skip

# -- to the upstream --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigureSession:
    """Send `config` as `session.update`; `include_examples` adds the tools' example sentences, where supported."""

    config: SessionConfig
    event_id: str
    include_examples: bool = False


@dataclass(frozen=True, slots=True)
class CommitInput:
    """Commit the input audio: ends the user's turn in manual mode."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ClearInput:
    event_id: str


@dataclass(frozen=True, slots=True)
class CreateItem:
    """Add an item to the conversation: a text of either role, or a tool's output (`item.text`).

    `after` is the id of the previous item: "root" inserts at the beginning, None appends.
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
    """Request a response. It carries `event_id` as metadata, by which the response is recognized."""

    event_id: str
    allow_tools: bool = True


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """Cancel a response, always by its id (D2.2)."""

    response_id: str
    event_id: str


# -- to the client, at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendConnected:
    """`AIConnected`: the upstream is ready."""

    session_id: str
    options: DeviceOptions


@dataclass(frozen=True, slots=True)
class SendReady:
    """`ready`: the settings that are active after a hello."""

    options: DeviceOptions
    config: SessionConfig


@dataclass(frozen=True, slots=True)
class SendSpeechState:
    """`AISpeechDetected` or `AISpeechEnded`: the user has started or stopped speaking."""

    started: bool


@dataclass(frozen=True, slots=True)
class SendResponseStart:
    """`AIResponseStart`: the output of a response begins."""


@dataclass(frozen=True, slots=True)
class SendResponseEnd:
    """`AIResponseEnd`; `more` while a follow-up response is pending."""

    final_text: str
    status: ResponseStatus
    more: bool


class SendTextDelta(NamedTuple):
    """`textDelta`: the next text of the response."""

    text: str


@dataclass(frozen=True, slots=True)
class SendTranscript:
    """`transcript` of either role."""

    role: str
    item_id: str
    order: int
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class SendToolStatus:
    """`tool`: the status of a tool call."""

    call_id: str
    name: str
    status: ToolStatus
    ms: int
    arguments: Any = None
    output: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class SendToolCall:
    """`toolCall`: the client has to run one of its own tools; `arguments` is a JSON object as text."""

    call_id: str
    name: str
    arguments: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class SendInterrupted:
    """`interrupted`: stop playback. `estimated`: the client has not acknowledged playback of the item."""

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
    """`error`: what went wrong, and what to do."""

    code: ErrorCode
    message: str
    field: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class SendGoodbye:
    """`goodbye`: the relay ends the session, and nothing has failed."""

    reason: str


# -- to the client, in order with its audio ---------------------------------------------------------------------------


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
    """Discard all unsent audio; the next event is `PlayoutCleared`."""


@dataclass(frozen=True, slots=True)
class SyncPlayout:
    """Pace the audio by the position that the client has reported."""

    item_id: str
    played_ms: int


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """Use these options for the client's side of the session from here on."""

    options: DeviceOptions


ItemCommand = CreateItem | DeleteItem | TruncateItem
UpstreamCommand = ConfigureSession | CommitInput | ClearInput | ItemCommand | CreateResponse | CancelResponse
TurnMessage = SendSpeechState | SendResponseStart | SendTextDelta | SendResponseEnd | SendTranscript | SendInterrupted
ToolMessage = SendToolStatus | SendToolCall
MetricsMessage = SendUsage | TurnMetrics
ClientMessage = SendConnected | SendReady | TurnMessage | ToolMessage | MetricsMessage | SendError | SendGoodbye
PlayoutCommand = SendAudioStart | SendAudioEnd | ClearPlayout | SyncPlayout | ApplyOptions
CloseCommand = CloseUpstream | CloseClient
Command = UpstreamCommand | ClientMessage | PlayoutCommand | InputCommand | TtsCommand | ToolCommand | CloseCommand

UPSTREAM_COMMANDS = frozenset(get_args(UpstreamCommand))
CLIENT_MESSAGES = frozenset(get_args(ClientMessage))
PLAYOUT_COMMANDS = frozenset(get_args(PlayoutCommand))
