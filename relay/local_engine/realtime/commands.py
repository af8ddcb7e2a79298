"""What the conversation asks for; carried out in order by the session, which reports back what came of it."""

from dataclasses import dataclass

from relay.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class SendEvent:
    """An event for the client."""

    event: JsonObject


@dataclass(frozen=True, slots=True)
class ConfigureInput:
    """How to listen from now on: a wire format, `turn_detection` (None: the client says when), and for which tools.

    `tools` is their JSON, as `grammar.grammar_for_tools` takes it.
    """

    input_format: str
    turn_detection: JsonObject | None
    tools: bytes


@dataclass(frozen=True, slots=True)
class FeedAudio:
    """Audio of the user, in the input format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class ClearInputBuffer:
    """The client cleared its input: drop what was heard since the last turn."""


@dataclass(frozen=True, slots=True)
class TranscribeTurn:
    """Report by `recognised` what was said in the turn just ended, or (`audio` not None) in that clip."""

    item_id: str
    audio: bytes | None = None


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Report by `sound` each sentence's audio in the output format, then `spoken`."""

    response_id: str
    sentences: tuple[str, ...]
    output: JsonObject


@dataclass(frozen=True, slots=True)
class CancelSpeech:
    """Stop speaking for that response; late reports are ignored."""

    response_id: str


@dataclass(frozen=True, slots=True)
class SetIdleTimer:
    """Report by `on_idle_timeout` if the user has not spoken for so long; None: stop waiting."""

    timeout_ms: int | None


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the connection behind what was sent."""

    code: int
    reason: str


EngineCommand = (
    SetIdleTimer
    | CloseConnection
    | SendEvent
    | ConfigureInput
    | FeedAudio
    | ClearInputBuffer
    | TranscribeTurn
    | Synthesize
    | CancelSpeech
)
