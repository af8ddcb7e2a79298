"""Audio inside Realtime events without parsing them: `input_audio_buffer.append` out, audio deltas in.

A delta is found by its beginning and its end; only the few bytes around the base64 text are read as JSON. Whatever does
not have the usual shape is left to the full decoder.
"""

from collections.abc import Callable
from functools import partial

import orjson
import pybase64

from audio.framing import BytesLike
from relay.session.common.media_types import AudioDelta
from relay.session.device.events import TextDelta

APPEND_TEMPLATE = b'{"type":"input_audio_buffer.append","audio":"%b"}'
"""An event that appends audio, around its base64 text."""
_DELTA_TYPE = "response.output_audio.delta"
_AUDIO_DELTA_MARK = b'.output_audio.delta"'
_DELTA_KEY = b'"delta":"'
AUDIO_DELTA_PREFIX = b'{"type":"response.output_audio.delta","event_id":"'
"""How an audio delta nearly always begins."""
_TYPE_FIRST_PREFIX, _AUDIO_DELTA_TYPE_PREFIX = b'{"type":"', b'{"type":"response.output_audio.delta"'
_MAX_HEAD_BYTES = 512
TRANSCRIPT_DELTA_PREFIX = b'{"type":"response.output_audio_transcript.delta","event_id":"'
"""How the frames begin that `TranscriptDeltaMatcher` is for."""
_BRACE = ord("}")
MAX_ID_CHARS = 256
"""Longer ids are nothing that a client could acknowledge; what carries one is passed over."""
MAX_TEXT_FRAME_BYTES = 65_536
MAX_INT = 2**53 - 1
"""What every JSON reader can hold exactly; a greater number of the upstream's is cut to it."""

new_audio_delta: Callable[[tuple[str, str, int, bytes]], AudioDelta] = partial(tuple.__new__, AudioDelta)
"""`AudioDelta` from all its fields in order, without the Python call that its constructor makes."""

new_text_delta: Callable[[tuple[str, str, int, str, bool]], TextDelta] = partial(tuple.__new__, TextDelta)
"""`TextDelta` in the same way."""


def decode_audio(text: BytesLike, _decode: Callable[..., bytes] = pybase64.b64decode) -> bytes:
    """The audio of a delta's base64 text. Raises `binascii.Error` (a ValueError) if it is none."""
    return _decode(text, None, True)


def decoded_length(base64_text: BytesLike) -> int:
    """How many bytes a base64 text stands for, without decoding it."""
    n = len(base64_text)
    if n < 4:
        return 0
    padding = (base64_text[n - 1] == 0x3D) + (base64_text[n - 2] == 0x3D)
    return n // 4 * 3 - padding


class AudioDeltaMatcher:
    """Finds the audio delta in text frames of one connection.

    The deltas of an item differ in their `event_id` and their audio alone: where all else is as it was in the frame
    before, its ids are taken over without reading any JSON.
    """

    __slots__ = ("_head", "_ids")

    def __init__(self) -> None:
        self._head = b""
        self._ids = ("", "", 0)

    def match(self, raw: bytes) -> AudioDelta | None:
        """The audio delta in a text frame; None for all else, and for unusual shapes."""
        event_id_ends = (
            raw.find(b'"', len(AUDIO_DELTA_PREFIX), _MAX_HEAD_BYTES) if raw.startswith(AUDIO_DELTA_PREFIX) else -1
        )
        if event_id_ends > 0 and self._head and raw.startswith(self._head, event_id_ends):
            start = event_id_ends + len(self._head)
            end = len(raw) - 2
            if raw.find(b'"', start) == end and raw[-1] == _BRACE and end - start > 3 and raw.find(b"\\", start) < 0:
                return new_audio_delta((*self._ids, raw[start:end]))
        elif event_id_ends < 0 and raw.startswith(_TYPE_FIRST_PREFIX) and not raw.startswith(_AUDIO_DELTA_TYPE_PREFIX):
            return None  # something else, by far the most
        start = _payload_start(raw)
        if start < 0:
            return None
        found = _read_head(raw, start)
        if found is not None and 0 < event_id_ends < start:
            self._head = raw[event_id_ends:start]
            self._ids = found[:3]
        return found


class TranscriptDeltaMatcher:
    """Finds the transcript delta in text frames of one connection, by the same means."""

    __slots__ = ("_head", "_ids")

    def __init__(self) -> None:
        self._head = b""
        self._ids = ("", "", 0)

    def match(self, raw: bytes) -> TextDelta | None:
        """The text in a frame that differs from the one before in its `event_id` and its text alone; else None."""
        event_id_ends = raw.find(b'"', len(TRANSCRIPT_DELTA_PREFIX), _MAX_HEAD_BYTES)
        if not self._head or not raw.startswith(self._head, event_id_ends) or len(raw) > MAX_TEXT_FRAME_BYTES:
            return None
        start = event_id_ends + len(self._head)
        encoded = raw[start:-2]
        # An escape, a key behind the text or a byte that JSON forbids: left to the full decoder.
        if raw.find(b'"', start) != len(raw) - 2 or raw[-1] != _BRACE or b"\\" in encoded:
            return None
        try:
            text = encoded.decode()
        except UnicodeDecodeError:
            return None
        return new_text_delta((*self._ids, text, True)) if text.isprintable() else None

    def remember(self, raw: bytes, event: TextDelta) -> None:
        """Remember what is around the text of a frame that was parsed, if it is the last of its members."""
        event_id_ends = raw.find(b'"', len(TRANSCRIPT_DELTA_PREFIX), _MAX_HEAD_BYTES)
        start = raw.find(_DELTA_KEY, 0, _MAX_HEAD_BYTES) + len(_DELTA_KEY)
        if 0 < event_id_ends < start - len(_DELTA_KEY) and raw.find(b'"', start) == len(raw) - 2:
            self._head = raw[event_id_ends:start]
            self._ids = (event.response_id, event.item_id, event.content_index)


def _payload_start(raw: bytes) -> int:
    """Where the base64 text of a delta begins, if `raw` looks like one and ends with it; else -1."""
    if raw.find(_AUDIO_DELTA_MARK, 0, _MAX_HEAD_BYTES) < 0:
        return -1
    start = raw.find(_DELTA_KEY, 0, _MAX_HEAD_BYTES) + len(_DELTA_KEY)
    # The next quote must be the frame's last but one byte: no more keys follow. An escaped text is read in full.
    if (
        start < len(_DELTA_KEY)
        or not raw.endswith(b'"}')
        or raw.find(b'"', start) != len(raw) - 2
        or raw.find(b"\\", start) > 0
    ):
        return -1
    return start


def _read_head(raw: bytes, start: int) -> AudioDelta | None:
    try:
        event = orjson.loads(raw[:start] + b'"}')
    except orjson.JSONDecodeError:
        return None
    item_id, response_id = event.get("item_id"), event.get("response_id")
    content_index = event.get("content_index", 0)
    usual = isinstance(item_id, str) and isinstance(response_id, str) and type(content_index) is int
    if event.get("type") != _DELTA_TYPE or not usual or not 0 <= content_index <= MAX_INT:
        return None
    if len(item_id) > MAX_ID_CHARS or len(response_id) > MAX_ID_CHARS:
        return None
    return AudioDelta(response_id, item_id, content_index, raw[start:-2])
