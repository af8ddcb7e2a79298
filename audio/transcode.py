"""From one audio format to another, chunk by chunk: G.711 laws and sample rates."""

from collections.abc import Callable

from audio.formats import AudioFormat
from audio.framing import BytesLike
from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from audio.resample import Resampler

_DECODERS = {"pcmu": ulaw_decode, "pcma": alaw_decode}
_ENCODERS = {"pcmu": ulaw_encode, "pcma": alaw_encode}


def encode(pcm: bytes, audio_format: AudioFormat) -> bytes:
    """PCM16 at the format's rate in the format's encoding."""
    encoder = _ENCODERS.get(audio_format.encoding)
    return encoder(pcm) if encoder else pcm


def decode(encoded: bytes, audio_format: AudioFormat) -> bytes:
    """What came in the format's encoding as PCM16; a last half of a sample is dropped."""
    decoder = _DECODERS.get(audio_format.encoding)
    return decoder(encoded) if decoder else encoded[: len(encoded) // 2 * 2]


class Transcoder:
    """One stream from `source` to `target`; chunks pass untouched where the formats agree."""

    __slots__ = ("_decode", "_encode", "_resampler")

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        same = source == target
        self._decode = None if same else _DECODERS.get(source.encoding)
        self._encode = None if same else _ENCODERS.get(target.encoding)
        self._resampler = None if source.rate_hz == target.rate_hz else Resampler(source.rate_hz, target.rate_hz)

    @property
    def is_identity(self) -> bool:
        """Whether chunks pass untouched."""
        return self._decode is None and self._encode is None and self._resampler is None

    def feed(self, chunk: BytesLike) -> BytesLike:
        """The next whole samples of the stream in the target format; a filter may hold back up to its delay."""
        if self._decode is not None:
            chunk = self._decode(chunk)
        if self._resampler is not None:
            chunk = self._resampler.feed(chunk)
        return chunk if self._encode is None else self._encode(chunk)

    @property
    def direct_feed(self) -> Callable[[BytesLike], BytesLike]:
        """`feed`, or what it comes to for these formats."""
        if self._resampler is not None and self._decode is None and self._encode is None:
            return self._resampler.direct_feed
        return self.feed

    def flush(self) -> bytes:
        """What the filter still holds; the next chunk starts a new stream."""
        rest = b"" if self._resampler is None else self._resampler.flush()
        return rest if self._encode is None or not rest else self._encode(rest)

    def reset(self) -> None:
        """Forget what the filter holds: the next chunk starts a new stream."""
        if self._resampler is not None:
            self._resampler.reset()
