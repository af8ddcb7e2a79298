"""Requests as bytes, and their answers: every header is the test's own, and clients may leave when they want."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser

from tests.proxies.reverse_proxies import ADDRESS, CERTIFICATE

TIMEOUT_S = 10.0

Headers = list[tuple[str, str]]

UPGRADE: Headers = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes


def request_bytes(
    method: str, path: str, host: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """One HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def trusting() -> ssl.SSLContext:
    """TLS that trusts the proxies' certificate, which is for localhost."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


async def ask(
    port: int, *requests: bytes, address: str = ADDRESS, source: str | None = None, tls: bool = False
) -> list[Answer]:
    """Send requests in one go on one connection, from an address of ours if one is named, and read all answers."""
    reader, writer = await asyncio.open_connection(
        address,
        port,
        local_addr=(source, 0) if source else None,
        ssl=trusting() if tls else None,
        server_hostname="localhost" if tls else None,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            writer.write(b"".join(requests))
            return [await _answer(reader, has_body=not request.startswith(b"HEAD ")) for request in requests]
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, *, has_body: bool) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, _, rest = head.partition("\r\n")
    headers, status = Parser().parsestr(rest), int(line.split()[1])
    if not has_body or status in (101, 204):
        return Answer(status, headers, b"")
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return Answer(status, headers, await _chunks(reader))
    return Answer(status, headers, await reader.readexactly(int(headers["Content-Length"])))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while n_bytes := int(await reader.readline(), 16):
        body += await reader.readexactly(n_bytes)
        await reader.readline()
    await reader.readline()
    return body
