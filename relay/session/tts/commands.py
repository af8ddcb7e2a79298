"""The commands to an external TTS voice. `relay.runtime` hands them to the voice's connection.

A context is one utterance in progress, as ElevenLabs defines it: text goes in, audio comes back under its id.
"""

from dataclasses import dataclass
from typing import get_args

from audio.formats import AudioFormat


@dataclass(frozen=True, slots=True)
class ConnectTts:
    """Connect to the voice before it is needed; `TtsConnected` or `TtsFailed` follows."""

    voice_id: str
    output_format: AudioFormat


@dataclass(frozen=True, slots=True)
class SynthesizeSentence:
    """Speak a sentence within a context; its first sentence opens the context."""

    context_id: str
    text: str


@dataclass(frozen=True, slots=True)
class SynthesizeText:
    """Speak a whole text in a separate request; `TtsAudio`, then `TtsContextDone` or `TtsFailed` follow."""

    context_id: str
    voice_id: str
    output_format: AudioFormat
    text: str


@dataclass(frozen=True, slots=True)
class FinishTtsContext:
    """End the text of a context; `TtsContextDone` follows its last audio."""

    context_id: str


@dataclass(frozen=True, slots=True)
class CancelTtsContext:
    """Close a context at once and drop the rest of its audio."""

    context_id: str


@dataclass(frozen=True, slots=True)
class KeepTtsContextAlive:
    """Keep a context open while there is no text for it."""

    context_id: str


@dataclass(frozen=True, slots=True)
class DisconnectTts:
    """Close the connection to the voice, also in the middle of an utterance."""


TtsContextCommand = SynthesizeSentence | FinishTtsContext | CancelTtsContext | KeepTtsContextAlive
TtsCommand = ConnectTts | SynthesizeText | TtsContextCommand | DisconnectTts

TTS_COMMANDS = frozenset(get_args(TtsCommand))
