"""Messages between the server and its workers: a JSON head and a binary body, each with its length before it."""

import asyncio
import struct

import orjson

from relay.json_types import JsonObject

_LENGTHS = struct.Struct("<II")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def encode_message(head: JsonObject, body: bytes = b"") -> bytes:
    """Encode a message."""
    encoded = orjson.dumps(head)
    return _LENGTHS.pack(len(encoded), len(body)) + encoded + body


async def read_message(reader: asyncio.StreamReader) -> tuple[JsonObject, bytes]:
    """Read the next message. Raises IncompleteReadError at the end, ValueError if it is too large."""
    head_bytes, body_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if head_bytes + body_bytes > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {head_bytes + body_bytes} bytes, at most {MAX_MESSAGE_BYTES}")
    head: JsonObject = orjson.loads(await reader.readexactly(head_bytes))
    return head, await reader.readexactly(body_bytes)
