"""Ears and voice in processes of their own: the server's loop stays free, and a crash of one costs one turn.

A message between the two has a head in JSON and a body of bytes, each with its length before it.
"""

import asyncio
import struct

import orjson

from relay.json_types import JsonObject

_LENGTHS = struct.Struct("<II")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def encode_message(head: JsonObject, body: bytes = b"") -> bytes:
    """One message as bytes."""
    encoded = orjson.dumps(head)
    return _LENGTHS.pack(len(encoded), len(body)) + encoded + body


async def read_message(reader: asyncio.StreamReader) -> tuple[JsonObject, bytes]:
    """The next message. Raises IncompleteReadError at the end, ValueError if it can't be one."""
    head_bytes, body_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if head_bytes + body_bytes > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {head_bytes + body_bytes} bytes")
    head: JsonObject = orjson.loads(await reader.readexactly(head_bytes))
    return head, await reader.readexactly(body_bytes)
