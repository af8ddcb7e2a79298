"""The types of audio that codecs return to uplink and downlink.

Audio is not an event, and the rules never see it. They set the gate of the client's audio (`InputGate`), and read the
counts in the `MediaLedger`. A codec that finds audio in a message returns it as one of these values.
"""

from typing import Literal, NamedTuple

from audio.framing import BytesLike
from relay.session.common.model import Alignment

PartKey = tuple[str, int]
"""One content part: (item_id, content_index)."""

InputGate = Literal["held", "open", "muted", "closed"]
"""What happens to the client's audio: it is kept, forwarded, replaced by silence of the same length, or ignored."""

PASSTHROUGH_EVENTS = frozenset(
    {
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_text.delta",
        "conversation.item.input_audio_transcription.delta",
    }
)
"""Types of Realtime events that the downlink forwards itself: no rule inspects them."""


class AudioDelta(NamedTuple):
    """A delta of the upstream's audio; `audio` is base64."""

    response_id: str
    item_id: str
    content_index: int
    audio: BytesLike


class TtsAudioDelta(NamedTuple):
    """Audio of an external voice in the session's output format, with the times of its characters where known."""

    context_id: str
    samples: bytes
    alignment: Alignment | None = None


class RawDelta(NamedTuple):
    """A delta event of audio or text for a Realtime client, as raw JSON.

    `raw` holds `n_bytes` of audio in base64, which begins at `audio_offset`. For text `n_bytes` is 0 and `audio_offset`
    is -1. `audio_offset` is also -1 for audio in an event of unusual shape.
    """

    raw: BytesLike
    n_bytes: int
    audio_offset: int
