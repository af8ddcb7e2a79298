"""The interface by which a running session reports to its recorder, if it has one."""

from collections.abc import Sequence
from typing import Any, Protocol

from audio.framing import BytesLike
from relay.session.common.media_types import AudioDelta, RawDelta


class MediaRecorder(Protocol):
    """One session's recorder. None of its methods raises, blocks or calls the session."""

    def record_event(self, event: Any, now: float, commands: Sequence[Any] | None) -> None:
        """Record an event and its commands; None if the rules raised."""

    def record_input(self, payload: BytesLike, now: float) -> None:
        """Record client audio: whole samples in its format, or a Realtime client's message."""

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """Record an upstream audio delta, decoded."""

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        """Record a delta of audio or text on its way to a Realtime client."""

    def record_tts_audio(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        """Record audio from TTS; its `TtsAudio` event follows unless it is `discarded`."""

    def record_sent_audio(self, samples: BytesLike, now: float) -> None:
        """Record audio sent to the client's socket."""
