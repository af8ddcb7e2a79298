"""Flite through ctypes: the voices slt, rms, kal16 and awb of the Debian package libflite1.

Not documented as thread-safe: callers hold one lock around all calls.
"""

import ctypes
from functools import lru_cache
from typing import Any

VOICES = ("slt", "rms", "kal16", "awb")
_LIBRARY = "libflite.so.1"
_WORD_START = b"R:SylStructure.daughter.daughter.R:Segment.p.end"
_WORD_END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"

WordTimes = list[tuple[float, float]]
"""Start and end of each word in ms."""


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
    """The first fields of `cst_voice` (cst_voice.h); the speed is set in `features`."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    library.flite_init.restype = ctypes.c_int
    item = ctypes.c_void_p
    signatures: dict[str, tuple[list[Any], Any]] = {
        "flite_feat_set_float": ([item, ctypes.c_char_p, ctypes.c_float], None),
        "flite_synth_text": ([ctypes.c_char_p, ctypes.POINTER(_Voice)], item),
        "utt_wave": ([item], ctypes.POINTER(_Wave)),
        "utt_relation": ([item, ctypes.c_char_p], item),
        "relation_head": ([item], item),
        "item_next": ([item], item),
        "item_daughter": ([item], item),
        "item_last_daughter": ([item], item),
        "ffeature_float": ([item, ctypes.c_char_p], ctypes.c_float),
        "delete_utterance": ([item], None),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    library.flite_init()
    return library


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


def available_voices() -> list[str]:
    """Return the voices whose libraries can be loaded, in the order of `VOICES`."""
    voices = []
    for name in VOICES:
        try:
            _voice(name)
        except OSError:
            continue
        voices.append(name)
    return voices


def synthesize(text: str, voice: str, speed: float) -> tuple[bytes, int, WordTimes]:
    """Synthesize a text; returns (PCM16 little-endian mono, rate in Hz, word times). `speed` 2.0: twice as fast."""
    library, handle = _library(), _voice(voice)
    # The vocoder uses rand() for noise; a fixed seed makes the samples of a text reproducible.
    ctypes.CDLL(None).srand(1)
    library.flite_feat_set_float(handle.contents.features, b"duration_stretch", 1.0 / speed)
    utterance = library.flite_synth_text(text.encode("ascii", "ignore"), handle)
    if not utterance:
        raise OSError("flite produced no audio")
    try:
        wave = library.utt_wave(utterance).contents
        pcm = ctypes.string_at(wave.samples, wave.num_samples * 2)
        return pcm, wave.sample_rate, _token_times(library, utterance)
    finally:
        library.delete_utterance(utterance)


def _token_times(library: ctypes.CDLL, utterance: int) -> WordTimes:
    times, last_ms = [], 0.0
    token = library.relation_head(library.utt_relation(utterance, b"Token"))
    while token:
        first, last = library.item_daughter(token), library.item_last_daughter(token)
        start_ms = library.ffeature_float(first, _WORD_START) * 1000 if first else last_ms
        last_ms = library.ffeature_float(last, _WORD_END) * 1000 if last else last_ms
        times.append((start_ms, max(last_ms, start_ms)))
        token = library.item_next(token)
    return times
