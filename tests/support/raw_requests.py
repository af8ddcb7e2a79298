"""Requests as bytes on a socket of their own, whole or in pieces, and what is answered."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any, Self

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One answer; `body` is what its length says."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"].startswith("application/json"), self
        return json.loads(self.body)


class RawConnection:
    """A connection to a relay on which every byte is the test's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, address: str = "127.0.0.1") -> Self:
        return cls(*await asyncio.open_connection(address, port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def head(self) -> bytes:
        """The head of the next answer."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def wait_closed(self) -> None:
        """Wait for the other end to close, whatever it sends before."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass


class RawHttpConnection(RawConnection):
    """Requests and their answers."""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> RawResponse:
        """The next answer."""
        first, *lines = (await self.head()).decode("latin-1").splitlines()
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        async with asyncio.timeout(TIMEOUT_S):
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return RawResponse(int(first.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Wait for the other end to close; False if it sends something first."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


def head(method: str, path: str, **headers: str) -> bytes:
    """The head of a request; `_` in a header's name stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


async def send_request(port: int, request: bytes) -> RawResponse:
    """The answer to one request on a connection of its own."""
    async with await RawHttpConnection.open(port) as connection:
        connection.send(request)
        return await connection.response()
