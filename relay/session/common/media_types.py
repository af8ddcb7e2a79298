"""Audio on its way through, as the codecs hand it to the audio lines.

Audio is no event: the rules never see it. They set the gate of the client's audio (`InputGate`), and read in the
`MediaLedger` how much came and went. A codec finds audio in a message and hands it on as one of these values.
"""

from typing import Literal, NamedTuple

from audio.framing import BytesLike
from relay.session.common.model import Alignment

PartKey = tuple[str, int]
"""One content part: (item_id, content_index)."""

InputGate = Literal["held", "open", "muted", "closed"]
"""What becomes of the client's audio: kept for later, sent on, replaced by silence of the same length, or ignored."""

PASSTHROUGH_EVENTS = frozenset(
    {
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_text.delta",
        "conversation.item.input_audio_transcription.delta",
    }
)
"""The types of the Realtime protocol's events that go by the downlink: no rule looks into them."""


class AudioDelta(NamedTuple):
    """One delta of the upstream's audio; `audio` is base64."""

    response_id: str
    item_id: str
    content_index: int
    audio: BytesLike


class TtsAudioDelta(NamedTuple):
    """Audio of an external voice in the upstream's format, and when its characters are spoken, where known."""

    context_id: str
    samples: bytes
    alignment: Alignment | None = None


class RawDelta(NamedTuple):
    """A delta of audio or text as a whole event on its way to a Realtime client.

    `raw` holds `n_bytes` of audio in base64, which begins at `audio_offset`. A delta of text has no audio: `n_bytes`
    is 0. `audio_offset` is -1 for text, and for audio in an event of unusual shape.
    """

    raw: BytesLike
    n_bytes: int
    audio_offset: int
