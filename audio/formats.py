"""The supported audio formats: an encoding and a sample rate, always mono."""

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["pcm16", "pcmu", "pcma"]

# All allowed combinations. G.711 is defined at 8 kHz only (ITU-T G.711, §2).
RATES_HZ: dict[Encoding, tuple[int, ...]] = {
    "pcm16": (8000, 16000, 24000, 48000),
    "pcmu": (8000,),
    "pcma": (8000,),
}
_SILENCE: dict[Encoding, bytes] = {"pcm16": b"\x00", "pcmu": b"\xff", "pcma": b"\xd5"}
_BYTES_PER_SAMPLE: dict[Encoding, int] = {"pcm16": 2, "pcmu": 1, "pcma": 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """A mono format: "pcm16" (signed 16-bit little-endian), "pcmu" (G.711 mu-law) or "pcma" (G.711 A-law).

    Raises ValueError for a combination that is not in `RATES_HZ`.
    """

    encoding: Encoding
    rate_hz: int

    def __post_init__(self) -> None:
        rates_hz = RATES_HZ.get(self.encoding) if isinstance(self.encoding, str) else None
        if rates_hz is None:
            raise ValueError(f"audio format must be one of {', '.join(RATES_HZ)}, not {self.encoding!r}")
        # 24000.0 and True equal integers, and would make byte counts floats.
        if type(self.rate_hz) is not int or self.rate_hz not in rates_hz:
            allowed = ", ".join(str(rate_hz) for rate_hz in rates_hz)
            raise ValueError(f"rate of {self.encoding} must be one of {allowed} Hz, not {self.rate_hz!r}")

    @property
    def bytes_per_sample(self) -> int:
        """Bytes per sample: 2 for PCM16, 1 for G.711."""
        return _BYTES_PER_SAMPLE[self.encoding]

    @property
    def bytes_per_ms(self) -> int:
        """Bytes per millisecond; a whole number for every allowed rate."""
        return self.rate_hz * self.bytes_per_sample // 1000

    def duration_ms(self, n_bytes: int) -> int:
        """Return the duration of `n_bytes` in whole milliseconds, rounded down."""
        return n_bytes // self.bytes_per_ms

    def silence(self, n_bytes: int) -> bytes:
        """Return `n_bytes` of digital silence, which is not zero in G.711 (ITU-T G.711, tables 1a and 2a)."""
        return _SILENCE[self.encoding] * n_bytes

    def frame_bytes(self, ms: int) -> int:
        """Return the length in bytes of a frame of `ms` milliseconds."""
        return ms * self.bytes_per_ms


PCM16_8K = AudioFormat("pcm16", 8000)
PCM16_16K = AudioFormat("pcm16", 16000)
PCM16_24K = AudioFormat("pcm16", 24000)
PCM16_48K = AudioFormat("pcm16", 48000)
PCMU = AudioFormat("pcmu", 8000)
PCMA = AudioFormat("pcma", 8000)

REALTIME_FORMATS = {"audio/pcm": PCM16_24K, "audio/pcmu": PCMU, "audio/pcma": PCMA}
"""The formats of the Realtime protocol, by `type`."""
