"""Honest clients, devices and Realtime ones: they talk, measure the round trips, and expect a complete answer."""

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

from tests.chaos.upstream import END, TRANSCRIPT

FRAME_BYTES = 960
"""20 ms at 24 kHz."""
INTERVAL_S = 0.2
WAIT_S = 30.0


@dataclass
class SessionReport:
    """The report of one honest session; `faults` are the deviations from the expected answer."""

    received_at_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    """The round trip of each frame that came back."""
    faults: list[str] = field(default_factory=list)


class HonestClient(ABC):
    """One session: sends a numbered frame every `interval_s`, expects each back, and finally the transcript."""

    GREETING = ""
    PARTING = ""

    def __init__(self, url: str, key: str | None = None, interval_s: float = INTERVAL_S) -> None:
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._interval_s = interval_s
        self._sent_at: dict[int, float] = {}
        self._received = bytearray()
        self._received_bytes = 0
        self._ended = asyncio.Event()
        self._text = ""
        self.report = SessionReport()

    async def run(self, start_s: float, leaving: asyncio.Event) -> SessionReport:
        """Start after `start_s`, talk until `leaving` is set, then end the session."""
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
        """Encode a frame of audio."""

    @abstractmethod
    def handle(self, message: str | bytes, now: float) -> None:
        """Handle a received message."""

    def outcome(self, n_sent: int) -> dict[str, tuple[object, object]]:
        """Return the actual and the expected value of each check."""
        return {
            "frames": (len(self.report.latencies_s), n_sent),
            "bytes": (self._received_bytes, n_sent * FRAME_BYTES),
            "transcript": (self._text.strip(), TRANSCRIPT),
        }

    def _check_outcome(self, n_sent: int, close_code: int | None) -> None:
        outcome = self.outcome(n_sent) | {"close": (close_code, 1000)}
        self.report.faults += [
            f"{name}: {actual} instead of {expected}"
            for name, (actual, expected) in outcome.items()
            if actual != expected
        ]

    async def _read(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for message in connection:
                self.handle(message, loop.time())
        except ConnectionClosed as closed:
            self.report.faults.append(f"closed: {closed}")
        self._ended.set()

    def _receive_audio(self, pcm: bytes, now: float) -> None:
        self._received += pcm
        self._received_bytes += len(pcm)
        while len(self._received) >= FRAME_BYTES:
            [number] = struct.unpack_from("<I", self._received)
            self.report.received_at_s.append(now)
            self.report.latencies_s.append(now - self._sent_at.pop(number))
            del self._received[:FRAME_BYTES]


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
        """Handle audio or a JSON message."""
        if isinstance(message, bytes):
            self._receive_audio(message, now)
            return
        message_fields = orjson.loads(message)
        if message_fields["type"] == "error":
            self.report.faults.append(message_fields["message"])
        elif message_fields["type"] == "textDelta":
            self._text += message_fields["text"]
        elif message_fields["type"] == "audioEnd":
            self._total_ms = message_fields["totalMs"]
            self._ends.add("audio")
        elif message_fields.get("name") == "AIResponseEnd":
            self._ends.add("transcript")
        if len(self._ends) == 2:
            self._ended.set()

    def outcome(self, n_sent: int) -> dict[str, tuple[object, object]]:
        """Also check the announced length of the audio."""
        return super().outcome(n_sent) | {"ms": (self._total_ms, n_sent * FRAME_BYTES // 48)}


class HonestRealtime(HonestClient):
    """A client of `/v1/realtime`."""

    def message(self, pcm: bytes) -> str:
        """An event that appends the audio."""
        audio = base64.b64encode(pcm).decode()
        return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'

    def handle(self, message: str | bytes, now: float) -> None:
        """Handle a server event."""
        event: dict[str, Any] = orjson.loads(message)
        match event["type"]:
            case "response.output_audio.delta":
                self._receive_audio(base64.b64decode(event["delta"]), now)
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
        """Let all sessions talk inside the context; their starts are spread over `starting_s`."""
        spacing_s, leaving = starting_s / len(self._sessions), asyncio.Event()
        runs = [
            asyncio.create_task(session.run(number * spacing_s, leaving))
            for number, session in enumerate(self._sessions)
        ]
        await asyncio.sleep(starting_s)
        try:
            yield
        finally:
            leaving.set()
            await asyncio.gather(*runs)

    @property
    def faults(self) -> list[str]:
        """The deviations of all sessions."""
        return [fault for session in self._sessions for fault in session.report.faults]

    def latencies_s(self, since: float, until: float) -> list[float]:
        """Return the round trips of the frames received in a period."""
        return [
            latency_s
            for session in self._sessions
            for heard_at, latency_s in zip(session.report.received_at_s, session.report.latencies_s, strict=True)
            if since <= heard_at < until
        ]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
