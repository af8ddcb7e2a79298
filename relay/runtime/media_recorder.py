"""What a session at run time reports to its recorder, if it has one."""

from collections.abc import Sequence
from typing import Any, Protocol

from audio.framing import BytesLike
from relay.session.common.media_types import AudioDelta, RawDelta


class MediaRecorder(Protocol):
    """One session's recording. None of its methods raises, waits, or calls the session."""

    def record_event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """An event and its commands; None if our own code raised."""

    def record_input(self, payload: BytesLike, now: float) -> None:
        """Audio of the client's: whole samples in its format, or a Realtime client's frame."""

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """A delta of the upstream's audio, decoded."""

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        """A delta of audio or text on its way to a Realtime client."""

    def record_tts_audio(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        """Audio of an external voice; its `TtsAudio` follows unless it is `discarded`."""

    def record_sent_audio(self, samples: BytesLike, now: float) -> None:
        """Audio went to the client's socket."""
