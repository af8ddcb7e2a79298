"""Audio inside Realtime events without parsing them: `input_audio_buffer.append` out, audio deltas in.

A delta is found by its beginning and its end; only the few bytes around the base64 text are read as JSON. Whatever does
not have the usual shape is left to the full decoder.
"""

import orjson
import pybase64

from audio.framing import Chunk
from relay.core.events import Forwarded

_APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
_APPEND_TAIL = b'"}'
_DELTA_TYPE = "response.output_audio.delta"
_MARK = b'.output_audio.delta"'
_HEAD_BYTES = 512


def encode_append(pcm: Chunk) -> bytes:
    """Audio in the session's input format as an `input_audio_buffer.append` event."""
    return b"".join((_APPEND_HEAD, pybase64.b64encode(pcm), _APPEND_TAIL))


def decode_audio(base64_text: Chunk) -> bytes:
    """The audio of a delta's base64 text. Raises `binascii.Error` (a ValueError) if it is none."""
    return pybase64.b64decode(base64_text, validate=True)


def decoded_length(base64_text: Chunk) -> int:
    """How many bytes a base64 text stands for, without decoding it."""
    n = len(base64_text)
    if n < 4:
        return 0
    padding = (base64_text[n - 1] == 0x3D) + (base64_text[n - 2] == 0x3D)
    return n // 4 * 3 - padding


def find_audio_delta(frame: memoryview) -> Forwarded | None:
    """The audio delta in a text frame; None if it is something else, or of another shape than usual."""
    head = bytes(frame[:_HEAD_BYTES])
    if _MARK not in head or bytes(frame[-2:]) != b'"}':
        return None
    key = head.find(b'"delta":"')
    if key < 0:
        return None
    start = key + 9
    base64_text = frame[start:-2]
    try:
        event = orjson.loads(head[:start] + b'"}')
        if event["type"] != _DELTA_TYPE:
            return None
        return Forwarded(
            "output_audio",
            event["item_id"],
            decoded_length(base64_text),
            base64_text,
            event["response_id"],
            event.get("content_index", 0),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
