"""The records of a journal, one a line. `write` encodes them as JSON, `version2` and `version1` decode them.

Times (`time_s`, `start_s`, `end_s`) are those of the session's clock, in seconds.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from relay.session.common.model import Alignment

APPEND_PREFIX = '{"type":"input_audio_buffer.append","audio":"'
APPEND_SUFFIX = '"}'


class AudioEnvelope(NamedTuple):
    """The text of a Realtime event before and after its base64 audio."""

    prefix: str = APPEND_PREFIX
    suffix: str = APPEND_SUFFIX


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event and the commands that followed, as stored; `stored_commands` is None if the rules `raised`.

    `n_audio_bytes`: the length of the audio in a parsed event of a Realtime client; it is next in `client.pcm`.
    """

    time_s: float
    event: Any
    stored_commands: tuple[Any, ...] | None = ()
    raised: str | None = None
    n_audio_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InputAudioRecord:
    """Audio from the client: the next `n_bytes` of `client.pcm`. `envelope`: the Realtime event that held it."""

    time_s: float
    n_bytes: int
    envelope: AudioEnvelope | None = None


@dataclass(frozen=True, slots=True)
class OutputAudioRecord:
    """Audio from the upstream: the next `n_bytes` of `upstream.pcm`. `discarded`: it was not sent on to the client.

    `envelope`: the event that a Realtime client got. Such a session stores no ids besides those in it.
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
    """Audio of an external TTS voice: the next `n_bytes` of `voice.pcm`. `discarded`: no session waited for it.

    `stored_commands` are those of the `TtsAudio` event that followed; discarded audio has none.
    """

    time_s: float
    n_bytes: int
    context_id: str
    alignment: Alignment | None = None
    discarded: bool = False
    stored_commands: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SentAudioRecord:
    """Audio that was sent to the client, with its CRC-32. `is_stored`: its bytes are in `sent.pcm`."""

    time_s: float
    n_bytes: int
    crc: int
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class GapRecord:
    """The place of `n_records` records that could not be written."""

    n_records: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The last record, and why the recording ended."""

    time_s: float
    reason: str


JournalRecord = (
    EventRecord | InputAudioRecord | OutputAudioRecord | TtsAudioRecord | SentAudioRecord | GapRecord | EndRecord
)
