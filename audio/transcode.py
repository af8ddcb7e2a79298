"""Transcode audio between formats, chunk by chunk: G.711 laws and sample rates."""

from collections.abc import Callable

from audio.formats import AudioFormat
from audio.framing import BytesLike
from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from audio.resample import Resampler

_DECODERS = {"pcmu": ulaw_decode, "pcma": alaw_decode}
_ENCODERS = {"pcmu": ulaw_encode, "pcma": alaw_encode}


def encode(pcm: bytes, audio_format: AudioFormat) -> bytes:
    """Encode PCM16 of the format's rate."""
    encoder = _ENCODERS.get(audio_format.encoding)
    return encoder(pcm) if encoder else pcm


def decode(encoded: bytes, audio_format: AudioFormat) -> bytes:
    """Decode to PCM16 of the format's rate; an incomplete last sample is dropped."""
    decoder = _DECODERS.get(audio_format.encoding)
    return decoder(encoded) if decoder else encoded[: len(encoded) // 2 * 2]


class Transcoder:
    """Transcodes one stream from `source` to `target`; equal formats return chunks unchanged."""

    __slots__ = ("_decode", "_encode", "_resampler")

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        is_same_format = source == target
        self._decode = None if is_same_format else _DECODERS.get(source.encoding)
        self._encode = None if is_same_format else _ENCODERS.get(target.encoding)
        self._resampler = None if source.rate_hz == target.rate_hz else Resampler(source.rate_hz, target.rate_hz)

    @property
    def is_identity(self) -> bool:
        """Whether chunks are returned unchanged."""
        return self._decode is None and self._encode is None and self._resampler is None

    def feed(self, chunk: BytesLike) -> BytesLike:
        """Return the next whole samples in the target format; a resampler holds back samples up to its delay."""
        if self._decode is not None:
            chunk = self._decode(chunk)
        if self._resampler is not None:
            chunk = self._resampler.feed(chunk)
        return chunk if self._encode is None else self._encode(chunk)

    @property
    def direct_feed(self) -> Callable[[BytesLike], BytesLike]:
        """`feed` without dispatch, for callers with many chunks."""
        if self._resampler is not None and self._decode is None and self._encode is None:
            return self._resampler.direct_feed
        return self.feed

    def flush(self) -> bytes:
        """Return the delayed rest; the next chunk starts a new stream."""
        rest = b"" if self._resampler is None else self._resampler.flush()
        return rest if self._encode is None or not rest else self._encode(rest)

    def reset(self) -> None:
        """Drop the delayed rest: the next chunk starts a new stream."""
        if self._resampler is not None:
            self._resampler.reset()
