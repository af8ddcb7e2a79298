"""Clients that keep to the protocol, devices and Realtime ones: they talk, time what comes back, and expect a whole
answer."""

import asyncio
import base64
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.chaos.upstream import END, WORDS

FRAME_BYTES = 960
"""20 ms at 24 kHz."""
INTERVAL_S = 0.2
WAIT_S = 30.0


@dataclass
class SessionReport:
    """What became of one honest session; `faults` says what it has to complain of."""

    heard_at_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    """There and back, of each frame that was heard again."""
    faults: list[str] = field(default_factory=list)


class HonestClient(ABC):
    """One session: a numbered frame every `interval_s`, each expected back; in the end the words of the answer."""

    GREETING = ""
    PARTING = ""

    def __init__(self, url: str, key: str | None = None, interval_s: float = INTERVAL_S) -> None:
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._interval_s = interval_s
        self._sent_at: dict[int, float] = {}
        self._heard = bytearray()
        self._heard_bytes = 0
        self._ended = asyncio.Event()
        self._text = ""
        self.report = SessionReport()

    async def run(self, start_s: float, leaving: asyncio.Event) -> SessionReport:
        """Begin after `start_s`, talk until it is time for `leaving`, leave."""
        await asyncio.sleep(start_s)
        try:
            async with connect(
                self._url,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=WAIT_S,
                close_timeout=WAIT_S,
            ) as connection:
                n_sent = await self._talk(connection, leaving)
            self._check_outcome(n_sent, connection.close_code)
        except (OSError, ConnectionClosed, TimeoutError) as error:
            self.report.faults.append(f"{type(error).__name__}: {error}")
        return self.report

    async def _talk(self, connection: ClientConnection, leaving: asyncio.Event) -> int:
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(self._read(connection))
        if self.GREETING:
            await connection.send(self.GREETING)
        number = 0
        while not leaving.is_set():
            number += 1
            self._sent_at[number] = loop.time()
            await connection.send(self.message(struct.pack("<I", number) + bytes(FRAME_BYTES - 4)))
            await asyncio.sleep(self._interval_s)
        await connection.send(self.message(END + bytes(FRAME_BYTES - 4)))
        async with asyncio.timeout(WAIT_S):
            await self._ended.wait()
        if self.PARTING:
            await connection.send(self.PARTING)
        else:
            await connection.close()
        await reading
        return number

    @abstractmethod
    def message(self, pcm: bytes) -> str | bytes:
        """A frame of audio as it is sent."""

    @abstractmethod
    def handle(self, message: str | bytes, now: float) -> None:
        """Something was received."""

    def outcome(self, n_sent: int) -> dict[str, tuple[object, object]]:
        """What was found and what was wanted."""
        return {
            "frames": (len(self.report.latencies_s), n_sent),
            "bytes": (self._heard_bytes, n_sent * FRAME_BYTES),
            "words": (self._text.strip(), WORDS),
        }

    def _check_outcome(self, n_sent: int, close_code: int | None) -> None:
        whole = self.outcome(n_sent) | {"close": (close_code, 1000)}
        self.report.faults += [
            f"{name}: {found} for {wanted}" for name, (found, wanted) in whole.items() if found != wanted
        ]

    async def _read(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for message in connection:
                self.handle(message, loop.time())
        except ConnectionClosed as closed:
            self.report.faults.append(f"closed: {closed}")
        self._ended.set()

    def _hear(self, pcm: bytes, now: float) -> None:
        self._heard += pcm
        self._heard_bytes += len(pcm)
        while len(self._heard) >= FRAME_BYTES:
            [number] = struct.unpack_from("<I", self._heard)
            self.report.heard_at_s.append(now)
            self.report.latencies_s.append(now - self._sent_at.pop(number))
            del self._heard[:FRAME_BYTES]


class HonestDevice(HonestClient):
    """A client of the device protocol."""

    GREETING = '{"type":"hello","v":1,"maxAheadMs":null}'
    PARTING = '{"type":"bye"}'

    def __init__(self, url: str, key: str | None = None, interval_s: float = INTERVAL_S) -> None:
        super().__init__(url, key, interval_s)
        self._total_ms = -1
        self._ends: set[str] = set()

    def message(self, pcm: bytes) -> bytes:
        """A binary message."""
        return pcm

    def handle(self, message: str | bytes, now: float) -> None:
        """Sound, or a message about it."""
        if isinstance(message, bytes):
            self._hear(message, now)
            return
        told = orjson.loads(message)
        if told["type"] == "error":
            self.report.faults.append(told["message"])
        elif told["type"] == "textDelta":
            self._text += told["text"]
        elif told["type"] == "audioEnd":
            self._total_ms = told["totalMs"]
            self._ends.add("sound")
        elif told.get("name") == "AIResponseEnd":
            self._ends.add("words")
        if len(self._ends) == 2:
            self._ended.set()

    def outcome(self, n_sent: int) -> dict[str, tuple[object, object]]:
        """Also how long the sound was said to be."""
        return super().outcome(n_sent) | {"ms": (self._total_ms, n_sent * FRAME_BYTES // 48)}


class HonestRealtime(HonestClient):
    """A client of `/v1/realtime`."""

    def message(self, pcm: bytes) -> str:
        """An event that appends the audio."""
        audio = base64.b64encode(pcm).decode()
        return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'

    def handle(self, message: str | bytes, now: float) -> None:
        """An event of the model's."""
        event: dict[str, Any] = orjson.loads(message)
        match event["type"]:
            case "response.output_audio.delta":
                self._hear(base64.b64decode(event["delta"]), now)
            case "response.output_audio_transcript.delta":
                self._text += event["delta"]
            case "error":
                self.report.faults.append(event["error"]["message"])
            case "response.done":
                self._ended.set()


class Crowd:
    """Many honest sessions at once."""

    def __init__(self, sessions: Sequence[HonestClient]) -> None:
        self._sessions = sessions

    @asynccontextmanager
    async def talking(self, starting_s: float) -> AsyncIterator[None]:
        """Let them talk meanwhile, and take their leave afterwards; the beginnings are spread over `starting_s`."""
        apart_s, leaving = starting_s / len(self._sessions), asyncio.Event()
        runs = [asyncio.create_task(one.run(number * apart_s, leaving)) for number, one in enumerate(self._sessions)]
        await asyncio.sleep(starting_s)
        try:
            yield
        finally:
            leaving.set()
            await asyncio.gather(*runs)

    @property
    def faults(self) -> list[str]:
        """What they have to complain of."""
        return [fault for one in self._sessions for fault in one.report.faults]

    def latencies_s(self, since: float, until: float) -> list[float]:
        """There and back, of the frames that were heard in a time."""
        return [
            latency_s
            for one in self._sessions
            for heard_at, latency_s in zip(one.report.heard_at_s, one.report.latencies_s, strict=True)
            if since <= heard_at < until
        ]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
