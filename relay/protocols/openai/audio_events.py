"""Fast reading of the frequent Realtime events: audio and transcript deltas, and the template of an append.

A delta is matched by its beginning and its end; only the few bytes around its text are parsed as JSON. Any other shape
is left to the full decoder.
"""

from collections.abc import Callable
from functools import partial

import orjson
import pybase64

from audio.framing import BytesLike
from relay.session.common.media_types import AudioDelta
from relay.session.device.events import TextDelta

APPEND_TEMPLATE = b'{"type":"input_audio_buffer.append","audio":"%b"}'
"""An event that appends audio, with `%b` for its base64 text."""
_DELTA_TYPE = "response.output_audio.delta"
_AUDIO_DELTA_MARK = b'.output_audio.delta"'
_DELTA_KEY = b'"delta":"'
AUDIO_DELTA_PREFIX = b'{"type":"response.output_audio.delta","event_id":"'
"""How nearly all audio deltas begin."""
_TYPE_FIRST_PREFIX, _AUDIO_DELTA_TYPE_PREFIX = b'{"type":"', b'{"type":"response.output_audio.delta"'
_MAX_HEAD_BYTES = 512
TRANSCRIPT_DELTA_PREFIX = b'{"type":"response.output_audio_transcript.delta","event_id":"'
"""How the messages begin that `TranscriptDeltaMatcher` can match."""
_BRACE = ord("}")
MAX_ID_CHARS = 256
"""An event with a longer id is ignored: no client could acknowledge it."""
MAX_TEXT_FRAME_BYTES = 65_536
MAX_INT = 2**53 - 1
"""The greatest integer that every JSON parser holds exactly; a greater one from the upstream is reduced to it."""

new_audio_delta: Callable[[tuple[str, str, int, bytes]], AudioDelta] = partial(tuple.__new__, AudioDelta)
"""Creates an `AudioDelta` from a tuple of its fields, without the Python call that its constructor makes."""

new_text_delta: Callable[[tuple[str, str, int, str, bool]], TextDelta] = partial(tuple.__new__, TextDelta)
"""Creates a `TextDelta` in the same way."""


def decode_audio(base64_text: BytesLike, _decode: Callable[..., bytes] = pybase64.b64decode) -> bytes:
    """Decode a delta's base64 text. Raises `binascii.Error` (a ValueError) if it is not base64."""
    return _decode(base64_text, None, True)


def decoded_length(base64_text: BytesLike) -> int:
    """Return the number of bytes that a base64 text encodes, without decoding it."""
    n_chars = len(base64_text)
    if n_chars < 4:
        return 0
    padding = (base64_text[n_chars - 1] == 0x3D) + (base64_text[n_chars - 2] == 0x3D)
    return n_chars // 4 * 3 - padding


class AudioDeltaMatcher:
    """Matches the audio deltas of one connection.

    The deltas of an item differ only in `event_id` and audio. If everything else is as in the previous message, its ids
    are reused without parsing any JSON.
    """

    __slots__ = ("_head", "_ids")

    def __init__(self) -> None:
        self._head = b""
        self._ids = ("", "", 0)

    def match(self, raw: bytes) -> AudioDelta | None:
        """Return the audio delta in a text message; None for other events and unusual shapes."""
        has_prefix = raw.startswith(AUDIO_DELTA_PREFIX)
        event_id_end = raw.find(b'"', len(AUDIO_DELTA_PREFIX), _MAX_HEAD_BYTES) if has_prefix else -1
        if event_id_end > 0 and self._head and raw.startswith(self._head, event_id_end):
            start = event_id_end + len(self._head)
            end = len(raw) - 2
            if raw.find(b'"', start) == end and raw[-1] == _BRACE and end - start > 3 and raw.find(b"\\", start) < 0:
                return new_audio_delta((*self._ids, raw[start:end]))
        elif event_id_end < 0 and raw.startswith(_TYPE_FIRST_PREFIX) and not raw.startswith(_AUDIO_DELTA_TYPE_PREFIX):
            return None  # not an audio delta: by far the most common case
        start = _find_payload(raw)
        if start < 0:
            return None
        delta = _parse_delta(raw, start)
        if delta is not None and 0 < event_id_end < start:
            self._head = raw[event_id_end:start]
            self._ids = delta[:3]
        return delta


class TranscriptDeltaMatcher:
    """Matches the transcript deltas of one connection in the same way."""

    __slots__ = ("_head", "_ids")

    def __init__(self) -> None:
        self._head = b""
        self._ids = ("", "", 0)

    def match(self, raw: bytes) -> TextDelta | None:
        """Return the delta in a message that differs from the remembered one only in `event_id` and text; else None."""
        event_id_end = raw.find(b'"', len(TRANSCRIPT_DELTA_PREFIX), _MAX_HEAD_BYTES)
        if not self._head or not raw.startswith(self._head, event_id_end) or len(raw) > MAX_TEXT_FRAME_BYTES:
            return None
        start = event_id_end + len(self._head)
        encoded = raw[start:-2]
        # An escape, a key after the text or a byte that JSON forbids: left to the full decoder.
        if raw.find(b'"', start) != len(raw) - 2 or raw[-1] != _BRACE or b"\\" in encoded:
            return None
        try:
            text = encoded.decode()
        except UnicodeDecodeError:
            return None
        return new_text_delta((*self._ids, text, True)) if text.isprintable() else None

    def remember(self, raw: bytes, event: TextDelta) -> None:
        """Remember the bytes around the text of a message that was parsed, if the text is its last member."""
        event_id_end = raw.find(b'"', len(TRANSCRIPT_DELTA_PREFIX), _MAX_HEAD_BYTES)
        start = raw.find(_DELTA_KEY, 0, _MAX_HEAD_BYTES) + len(_DELTA_KEY)
        if 0 < event_id_end < start - len(_DELTA_KEY) and raw.find(b'"', start) == len(raw) - 2:
            self._head = raw[event_id_end:start]
            self._ids = (event.response_id, event.item_id, event.content_index)


def _find_payload(raw: bytes) -> int:
    """Return where the base64 text begins if `raw` looks like a delta and ends with that text; else -1."""
    if raw.find(_AUDIO_DELTA_MARK, 0, _MAX_HEAD_BYTES) < 0:
        return -1
    start = raw.find(_DELTA_KEY, 0, _MAX_HEAD_BYTES) + len(_DELTA_KEY)
    # The next quote must be the second to last byte: no more keys follow. Escaped text is left to the full decoder.
    if (
        start < len(_DELTA_KEY)
        or not raw.endswith(b'"}')
        or raw.find(b'"', start) != len(raw) - 2
        or raw.find(b"\\", start) > 0
    ):
        return -1
    return start


def _parse_delta(raw: bytes, start: int) -> AudioDelta | None:
    try:
        event = orjson.loads(raw[:start] + b'"}')
    except orjson.JSONDecodeError:
        return None
    item_id, response_id = event.get("item_id"), event.get("response_id")
    content_index = event.get("content_index", 0)
    is_valid = isinstance(item_id, str) and isinstance(response_id, str) and type(content_index) is int
    if event.get("type") != _DELTA_TYPE or not is_valid or not 0 <= content_index <= MAX_INT:
        return None
    if len(item_id) > MAX_ID_CHARS or len(response_id) > MAX_ID_CHARS:
        return None
    return AudioDelta(response_id, item_id, content_index, raw[start:-2])
