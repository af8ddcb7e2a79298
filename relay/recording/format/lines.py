"""The lines of a journal as values; see `relay.recording.format.write` and `version2` for how they are stored."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from relay.session.common.model import Alignment

USUAL_HEAD = '{"type":"input_audio_buffer.append","audio":"'
USUAL_TAIL = '"}'


class Frame(NamedTuple):
    """What is around the audio of a Realtime event: the text before and after it."""

    head: str = USUAL_HEAD
    tail: str = USUAL_TAIL


@dataclass(frozen=True, slots=True)
class Happened:
    """An event with its time; `do` are its commands as stored, None if our code `raised`.

    `n_audio_bytes`: how much audio is in a Realtime client's event that was parsed, the next of `client.pcm`.
    """

    now: float
    event: Any
    do: tuple[Any, ...] | None = ()
    raised: str | None = None
    n_audio_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InputAudio:
    """Audio of the client's, the next `n_bytes` of `client.pcm`; `frame` around it if it came in a Realtime event."""

    now: float
    n_bytes: int
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class OutputAudio:
    """Audio of the upstream's, the next `n_bytes` of `upstream.pcm`; `frame` as it went to a Realtime client.

    A Realtime client's session stores no ids besides those in `frame`.
    """

    now: float
    n_bytes: int
    response_id: str = ""
    item_id: str = ""
    content_index: int = 0
    discarded: bool = False
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class SpeechAudio:
    """Audio of an external voice, the next `n_bytes` of `voice.pcm`; without `discarded`, `TtsAudio` followed it.

    `do` are the commands of that event.
    """

    now: float
    n_bytes: int
    context_id: str
    alignment: Alignment | None = None
    discarded: bool = False
    do: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """Audio that went to the client's socket; `kept`: its bytes are in `sent.pcm`."""

    now: float
    n_bytes: int
    crc: int
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """`records` lines, from one time to another, that could not be written."""

    records: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class End:
    """The last line."""

    now: float
    reason: str


Line = Happened | InputAudio | OutputAudio | SpeechAudio | Sent | Gap | End
