"""Flite through ctypes: the voices slt, rms, kal16 and awb of the Debian package libflite1.

Not thread-safe by promise: callers hold one lock around everything here.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import cast

VOICES = ("slt", "rms", "kal16", "awb")
_LIBRARY = "libflite.so.1"


class _Wave(ctypes.Structure):
    """`cst_wave` of flite 2.x (cst_wave.h)."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    """The head of `cst_voice` (cst_voice.h); `features` is where the speed is set."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    library.flite_init.restype = ctypes.c_int
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Voice)]
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_feat_set_float.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]
    library.flite_feat_set_float.restype = None
    library.delete_wave.argtypes = [ctypes.POINTER(_Wave)]
    library.delete_wave.restype = None
    library.flite_init()
    return library


@lru_cache(maxsize=1)
def _seed() -> Callable[[int], None]:
    """libc's srand: the vocoder takes its noise from rand(), and the same text shall give the same samples."""
    seed = ctypes.CDLL(None).srand
    seed.argtypes, seed.restype = [ctypes.c_uint], None
    return cast(Callable[[int], None], seed)


@lru_cache(maxsize=len(VOICES))
def _voice(name: str) -> "ctypes._Pointer[_Voice]":
    _library()
    library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
    register = getattr(library, f"register_cmu_us_{name}")
    register.argtypes = [ctypes.c_char_p]
    register.restype = ctypes.POINTER(_Voice)
    voice: ctypes._Pointer[_Voice] = register(None)
    if not voice:
        raise OSError(f"flite has no voice {name}")
    return voice


def available() -> list[str]:
    """The voices whose libraries load, in the order of `VOICES`."""
    found = []
    for name in VOICES:
        try:
            _voice(name)
        except OSError:
            continue
        found.append(name)
    return found


def synthesise(text: str, voice: str, speed: float) -> tuple[bytes, int]:
    """One text as (PCM16 little-endian mono, rate in Hz); `speed` 2.0 is twice as fast."""
    library, handle = _library(), _voice(voice)
    _seed()(1)
    library.flite_feat_set_float(handle.contents.features, b"duration_stretch", 1.0 / speed)
    wave = library.flite_text_to_wave(text.encode("ascii", "ignore"), handle)
    if not wave:
        raise OSError("flite made no sound")
    try:
        head = wave.contents
        return ctypes.string_at(head.samples, head.num_samples * 2), head.sample_rate
    finally:
        library.delete_wave(wave)
