"""Device clients that keep to the protocol: they talk, time what comes back, and expect a whole answer."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.chaos.upstream import END, WORDS

FRAME_BYTES = 960
"""20 ms at 24 kHz."""
INTERVAL_S = 0.2
WAIT_S = 30.0


@dataclass
class Account:
    """What became of one honest session; `faults` says what it has to complain of."""

    heard_at_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    """There and back, of each frame that was heard again."""
    faults: list[str] = field(default_factory=list)


class Honest:
    """One session: a numbered frame every `INTERVAL_S`, each expected back; in the end the words of the answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._sent_at: dict[int, float] = {}
        self._heard = bytearray()
        self._heard_bytes = 0
        self._ended = asyncio.Event()
        self._text = ""
        self._total_ms = -1
        self.account = Account()

    async def run(self, start_s: float, leaving: asyncio.Event) -> Account:
        """Begin after `start_s`, talk until it is time for `leaving`, leave."""
        await asyncio.sleep(start_s)
        loop = asyncio.get_running_loop()
        try:
            async with connect(self._url, compression=None, ping_interval=None, open_timeout=WAIT_S) as connection:
                reading = asyncio.create_task(self._read(connection))
                await connection.send('{"type":"hello","v":1,"maxAheadMs":null}')
                number = 0
                while not leaving.is_set():
                    number += 1
                    self._sent_at[number] = loop.time()
                    await connection.send(struct.pack("<I", number) + bytes(FRAME_BYTES - 4))
                    await asyncio.sleep(INTERVAL_S)
                await connection.send(END + bytes(FRAME_BYTES - 4))
                async with asyncio.timeout(WAIT_S):
                    await self._ended.wait()
                await connection.send('{"type":"bye"}')
                await reading
            self._look_back(number, connection.close_code)
        except (OSError, ConnectionClosed, TimeoutError) as error:
            self.account.faults.append(f"{type(error).__name__}: {error}")
        return self.account

    def _look_back(self, n_sent: int, close_code: int | None) -> None:
        whole = {
            "frames": (len(self.account.latencies_s), n_sent),
            "bytes": (self._heard_bytes, n_sent * FRAME_BYTES),
            "ms": (self._total_ms, n_sent * FRAME_BYTES // 48),
            "words": (self._text.strip(), WORDS),
            "close": (close_code, 1000),
        }
        self.account.faults += [
            f"{name}: {found} for {wanted}" for name, (found, wanted) in whole.items() if found != wanted
        ]

    async def _read(self, connection) -> None:  # type: ignore[no-untyped-def]
        loop = asyncio.get_running_loop()
        ends = set()
        try:
            async for message in connection:
                if isinstance(message, bytes):
                    self._hear(message, loop.time())
                    continue
                told = orjson.loads(message)
                if told["type"] == "error":
                    self.account.faults.append(told["message"])
                elif told["type"] == "textDelta":
                    self._text += told["text"]
                elif told["type"] == "audioEnd":
                    self._total_ms = told["totalMs"]
                    ends.add("sound")
                elif told.get("name") == "AIResponseEnd":
                    ends.add("words")
                if len(ends) == 2:
                    self._ended.set()
        except ConnectionClosed as closed:
            self.account.faults.append(f"closed: {closed}")
        self._ended.set()

    def _hear(self, message: bytes, now: float) -> None:
        self._heard += message
        self._heard_bytes += len(message)
        while len(self._heard) >= FRAME_BYTES:
            [number] = struct.unpack_from("<I", self._heard)
            self.account.heard_at_s.append(now)
            self.account.latencies_s.append(now - self._sent_at.pop(number))
            del self._heard[:FRAME_BYTES]


class Crowd:
    """Many honest sessions at once."""

    def __init__(self, url: str, n_sessions: int) -> None:
        self._sessions = [Honest(url) for _ in range(n_sessions)]

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
        return [fault for one in self._sessions for fault in one.account.faults]

    def latencies_s(self, since: float, until: float) -> list[float]:
        """There and back, of the frames that were heard in a time."""
        return [
            latency_s
            for one in self._sessions
            for heard_at, latency_s in zip(one.account.heard_at_s, one.account.latencies_s, strict=True)
            if since <= heard_at < until
        ]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
