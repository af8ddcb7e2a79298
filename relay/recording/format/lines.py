"""The lines of a journal as values; see `relay.recording.format.write` and `version2` for how they are stored."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from relay.session.common.model import Alignment

APPEND_PREFIX = '{"type":"input_audio_buffer.append","audio":"'
APPEND_SUFFIX = '"}'


class AudioEnvelope(NamedTuple):
    """What is around the audio of a Realtime event: the text before and after it."""

    prefix: str = APPEND_PREFIX
    suffix: str = APPEND_SUFFIX


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event with its time; `stored_commands` are its commands as stored, None if our code `raised`.

    `n_audio_bytes`: how much audio is in a Realtime client's event that was parsed, the next of `client.pcm`.
    """

    time_s: float
    event: Any
    stored_commands: tuple[Any, ...] | None = ()
    raised: str | None = None
    n_audio_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InputAudioRecord:
    """The client's audio: the next `n_bytes` of `client.pcm`, in `envelope` if it came in a Realtime event."""

    time_s: float
    n_bytes: int
    envelope: AudioEnvelope | None = None


@dataclass(frozen=True, slots=True)
class OutputAudioRecord:
    """Audio of the upstream's, the next `n_bytes` of `upstream.pcm`; `envelope` as it went to a Realtime client.

    A Realtime client's session stores no ids besides those in `envelope`.
    """

    time_s: float
    n_bytes: int
    response_id: str = ""
    item_id: str = ""
    content_index: int = 0
    discarded: bool = False
    envelope: AudioEnvelope | None = None


@dataclass(frozen=True, slots=True)
class TtsAudioRecord:
    """Audio of an external voice, the next `n_bytes` of `voice.pcm`; without `discarded`, `TtsAudio` followed it.

    `stored_commands` are the commands of that event.
    """

    time_s: float
    n_bytes: int
    context_id: str
    alignment: Alignment | None = None
    discarded: bool = False
    stored_commands: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SentAudioRecord:
    """Audio that went to the client's socket; `is_stored`: its bytes are in `sent.pcm`."""

    time_s: float
    n_bytes: int
    crc: int
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class GapRecord:
    """`n_records` lines, from one time to another, that could not be written."""

    n_records: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The last line."""

    time_s: float
    reason: str


JournalRecord = (
    EventRecord | InputAudioRecord | OutputAudioRecord | TtsAudioRecord | SentAudioRecord | GapRecord | EndRecord
)
