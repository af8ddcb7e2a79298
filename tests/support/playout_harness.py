"""A playout queue with a socket that records what is sent, and a list of its events."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from audio.formats import PCM16_24K, AudioFormat
from relay.protocols.device.codec import DeviceCodec
from relay.runtime.playout import MAX_QUEUED_MS, PlayoutQueue
from relay.session.common.model import DeviceOptions, SentAudio
from relay.session.device import commands as cmd
from relay.session.device import events as ev

RAMP = bytes(range(251))


class FakeSocket:
    """Records what is sent, with the time; the test sets `is_writable`."""

    def __init__(self) -> None:
        self.is_writable = True
        self.unsent_bytes = 0
        self.on_writable: Callable[[bool], None] = lambda is_writable: None
        self.sent: list[tuple[float, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send_text(self, message: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), json.loads(message)))

    def send_binary(self, message: bytes | memoryview) -> None:
        self.sent.append((asyncio.get_running_loop().time(), bytes(message)))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def set_writable(self, *, writable: bool) -> None:
        self.is_writable = writable
        self.on_writable(writable)


class PlayoutHarness:
    """A playout queue with a recording socket, and the events that it dispatched."""

    def __init__(
        self,
        output: AudioFormat = PCM16_24K,
        max_ahead_ms: int | None = 1000,
        *,
        half_duplex: bool = False,
        max_queued_ms: float = MAX_QUEUED_MS,
    ) -> None:
        self.socket = FakeSocket()
        self.events: list[ev.Event] = []
        self.recorded: list[tuple[float, bytes]] = []
        self.loop = asyncio.get_running_loop()
        self.options = DeviceOptions(output, output, max_ahead_ms, half_duplex)
        self.playout = PlayoutQueue(
            self.socket,  # type: ignore[arg-type]
            DeviceCodec(),
            self.options,
            self.events.append,
            self.loop.time,
            max_queued_ms,
            lambda samples, now: self.recorded.append((now, bytes(samples))),
        )
        self.position = 0

    def start(self, item_id: str, part: int = 0) -> None:
        self.playout.start(cmd.SendAudioStart(item_id, part))

    def play(self, item_id: str, ms: int, part: int = 0) -> bytes:
        """Play a delta of `ms` with samples that identify its position; returns its audio."""
        n_bytes = ms * self.options.upstream_output.bytes_per_ms
        pcm = (RAMP * (n_bytes // len(RAMP) + 2))[self.position : self.position + n_bytes]
        self.position = (self.position + n_bytes) % len(RAMP)
        self.playout.play((item_id, part), pcm, self.loop.time())
        return pcm

    def end(self, item_id: str, ms: int = 0, part: int = 0) -> None:
        self.playout.end(cmd.SendAudioEnd(item_id, part, ms))

    def item(self, item_id: str, ms: int) -> bytes:
        """Play a whole item in deltas of 200 ms."""
        self.start(item_id)
        pcm = b"".join(self.play(item_id, min(200, ms - at)) for at in range(0, ms, 200))
        self.end(item_id, ms)
        return pcm

    def clear(self) -> tuple[SentAudio, ...]:
        self.playout.clear()
        [dropped] = [event for event in self.events if isinstance(event, ev.PlayoutCleared)][-1:]
        return dropped.parts

    @property
    def audio(self) -> bytes:
        return b"".join(message for _, message in self.socket.sent if isinstance(message, bytes))

    def sent_ms(self, before_s: float = float("inf")) -> float:
        sent = [message for at, message in self.socket.sent if isinstance(message, bytes) and at <= before_s]
        return sum(map(len, sent)) / self.options.output.bytes_per_ms

    def sequence(self) -> list[str]:
        """What was sent, in order; consecutive binary messages count as one."""
        names = [
            "audio" if isinstance(message, bytes) else f"{message['type']} {message.get('itemId', '')}".strip()
            for _, message in self.socket.sent
        ]
        return [
            name for index, name in enumerate(names) if index == 0 or name != "audio" or names[index - 1] != "audio"
        ]


def sent_bytes(harness: PlayoutHarness) -> dict[str, int]:
    """Bytes of audio sent for each item, by its start."""
    sent: dict[str, int] = {}
    item = ""
    for _, message in harness.socket.sent:
        if isinstance(message, bytes):
            sent[item] = sent.get(item, 0) + len(message)
        elif message["type"] == "audioStart":
            item = message["itemId"]
    return sent
