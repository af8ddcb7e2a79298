"""Commands of the conversation. The connection carries them out in order and reports the results back."""

from dataclasses import dataclass

from relay.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Send an event to the client."""

    event: JsonObject


@dataclass(frozen=True, slots=True)
class ConfigureInput:
    """Set the audio format, the turn detection (None: the client commits turns) and the tools to recognize.

    `tools` is JSON, as `grammar.grammar_for_tools` expects it.
    """

    input_format: str
    turn_detection: JsonObject | None
    tools: bytes


@dataclass(frozen=True, slots=True)
class FeedAudio:
    """Process audio of the user, in the input format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class ClearInputBuffer:
    """Drop the audio received since the last turn: the client cleared its input buffer."""


@dataclass(frozen=True, slots=True)
class TranscribeTurn:
    """Transcribe the turn that just ended, or `audio` if it is not None; report with `on_transcript`."""

    item_id: str
    audio: bytes | None = None


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Report each sentence's audio with `on_sentence_audio`, then `on_speech_done`. `output` is `audio.output`."""

    response_id: str
    sentences: tuple[str, ...]
    output: JsonObject


@dataclass(frozen=True, slots=True)
class CancelSpeech:
    """Stop the synthesis of a response; late reports are ignored."""

    response_id: str


@dataclass(frozen=True, slots=True)
class SetIdleTimer:
    """Report `on_idle_timeout` after `timeout_ms` without speech; None cancels the timer."""

    timeout_ms: int | None


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the connection after all queued events are sent."""

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
