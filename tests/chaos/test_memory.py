"""The memory that one session can make a relay use, whatever its upstream sends and however little its client reads."""

import asyncio
import base64
import itertools
from collections.abc import Callable, Iterator

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.chaos.relay_process import RelayProcess, relay_process
from tests.chaos.upstream import fake_upstream

SENT_BYTES = 96 * 1024 * 1024
TALK_S = 8.0
"""The bytes and the seconds that the upstream sends at most, less if the relay closes the connection."""
SESSION_KIB = 48 * 1024
"""300 s of audio for a 48 kHz client are 28 MiB; the rest is for the longest message in transit."""
MESSAGE_KIB = 96 * 1024
"""For messages of 16 MiB: each is held several times until it is decoded (picows' buffer, a copy, the parsed event)."""

Events = Iterator[bytes]
_LONG = "i" * 1024 * 1024
_HOUR = base64.b64encode(bytes(11 * 1024 * 1024)).decode()
_BLIP = base64.b64encode(bytes(2)).decode()


def _event(kind: str, **fields: object) -> bytes:
    return orjson.dumps({"type": kind, "event_id": "event_1"} | fields)


def _part(number: object) -> dict[str, object]:
    return {"response_id": f"resp_{number}", "item_id": f"item_{number}", "output_index": 0, "content_index": 0}


def hours_of_audio() -> Events:
    while True:
        yield _event("response.output_audio.delta", **_part(1), delta=_HOUR)


def audio_a_sample_at_a_time() -> Events:
    delta = _event("response.output_audio.delta", **_part(1), delta=_BLIP)
    while True:
        yield delta


def items_without_end() -> Events:
    for number in itertools.count():
        yield _event("response.created", response={"id": f"resp_{number}"})
        yield _event("response.output_audio.delta", **_part(number), delta=_BLIP)
        yield _event("response.output_audio.done", **_part(number))


def ids_of_a_megabyte() -> Events:
    for number in itertools.count():
        ids = _part(f"{number}{_LONG}")
        yield _event("response.created", response={"id": ids["response_id"]})
        yield _event("conversation.item.added", item={"id": ids["item_id"], "type": "message"})
        yield _event("response.output_audio.delta", **ids, delta=_BLIP)
        yield _event(_LONG + str(number))


def transcripts_without_end() -> Events:
    for number in itertools.count():
        yield _event("response.output_audio_transcript.delta", **_part(number // 100), delta=_LONG[:60_000])


def calls_without_end() -> Events:
    for number in itertools.count():
        yield _event("input_audio_buffer.speech_started", item_id="item_user", audio_start_ms=0)
        call = {"type": "function_call", "status": "completed", "name": "any", "arguments": '{"x":1}'}
        output = [call | {"id": f"i{number}_{n}", "call_id": f"call_{number}_{n}"} for n in range(500)]
        yield _event("response.done", response={"id": f"resp_{number}", "status": "completed", "output": output})


class FloodingUpstreamSession:
    """An upstream that sends `events` as fast as possible and reads nothing."""

    def __init__(self, connection: ServerConnection, events: Events) -> None:
        self._connection = connection
        self._events = events

    async def run(self) -> None:
        try:
            await self._connection.send(_event("session.created", session={}), text=True)
            await self._connection.recv()
            await self._connection.send(_event("session.updated", session={}), text=True)
            loop = asyncio.get_running_loop()
            n_bytes, until = 0, loop.time() + TALK_S
            while n_bytes < SENT_BYTES and loop.time() < until:
                event = next(self._events)
                n_bytes += len(event)
                await self._connection.send(event, text=True)
            await self._connection.close()
        except ConnectionClosed:
            pass  # the relay closed the connection, which is one way to stay within the bound


async def peak_kib(relay: RelayProcess, *, reads: bool) -> int:
    """Return the peak memory of one session, above that of the relay before."""
    before = peak = relay.pss_kib()
    url = f"{relay.url.partition('?')[0]}?rate=48000"
    async with connect(url, compression=None, ping_interval=None, max_size=None) as client:
        if not reads:
            client.transport.pause_reading()
        reading = asyncio.create_task(_read(client, reads=reads))
        async with asyncio.timeout(60):
            while not reading.done() and (await relay.resources()).sessions:
                peak = max(peak, relay.pss_kib())
                await asyncio.wait({reading}, timeout=0.05)
        client.transport.abort()
        await reading
    return peak - before


async def _read(client, *, reads: bool) -> None:  # type: ignore[no-untyped-def]
    try:
        if reads:
            await client.send('{"type":"hello","v":1,"maxAheadMs":null}')
        while True:
            await client.recv()
    except ConnectionClosed:
        pass


@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize(
    ("events", "max_kib"),
    [
        (hours_of_audio, MESSAGE_KIB + SESSION_KIB),
        (audio_a_sample_at_a_time, SESSION_KIB),
        (items_without_end, SESSION_KIB),
        (ids_of_a_megabyte, SESSION_KIB),
        (transcripts_without_end, SESSION_KIB),
        (calls_without_end, SESSION_KIB),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.long
async def test_a_session_stays_within_its_memory(events: Callable[[], Events], max_kib: int, reads: bool) -> None:
    async with (
        fake_upstream(lambda connection: FloodingUpstreamSession(connection, events())) as upstream_url,
        relay_process(upstream_url, RELAY_LOG_LEVEL="error") as relay,
    ):
        peak = await peak_kib(relay, reads=reads)
        print(f"{events.__name__}, {'read' if reads else 'not read'}: {peak} KiB")
        start = await relay.settled(await relay.resources(), 0)
    assert start.sessions == 0
    assert peak <= max_kib
