"""eSpeak NG through ctypes, from the wheel espeakng-loader (GPL-3): used if flite is not installed.

Not thread-safe: callers hold one lock around all calls.
"""

import ctypes
from functools import lru_cache
from typing import Any

VOICES = ("espeak-f", "espeak-m")
_VARIANTS = {"espeak-f": b"en-us+f3", "espeak-m": b"en-us"}
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h: audio by callback, nothing is played
_RATE, _UTF8, _WORDS_PER_MINUTE = 1, 1, 165
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_collected = bytearray()


def _collect(samples: Any, count: int, _events: Any) -> int:
    if samples and count > 0:
        _collected.extend(ctypes.string_at(samples, count * 2))
    return 0


_callback = _CALLBACK(_collect)


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    """Load the library; returns it and its sample rate. Raises OSError or ImportError if it is not available."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 60, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate_hz <= 0:
        raise OSError("eSpeak NG cannot be initialized")
    library.espeak_SetSynthCallback(_callback)
    return library, int(rate_hz)


def available_voices() -> list[str]:
    """Return the voices, none if the library cannot be loaded."""
    try:
        _library()
    except (ImportError, OSError):
        return []
    return list(VOICES)


def synthesize(text: str, voice: str, speed: float) -> tuple[bytes, int, None]:
    """Synthesize a text; returns (PCM16 little-endian mono, rate in Hz, no word times). `speed` 2.0: twice as fast."""
    library, rate_hz = _library()
    library.espeak_SetVoiceByName(_VARIANTS[voice])
    library.espeak_SetParameter(_RATE, max(80, min(round(_WORDS_PER_MINUTE * speed), 450)), 0)
    _collected.clear()
    data = text.encode()
    library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return bytes(_collected), rate_hz, None
