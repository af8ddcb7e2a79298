"""A device session at run time between two sockets that only remember what they are given to send."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from picows import WSMsgType
from picows.picows import _make_test_ws_frame  # type: ignore[attr-defined]  # not in the stubs

from audio.formats import AudioFormat
from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.values import DeviceOptions, SessionConfig
from relay.peers.frames import MessageListener, StrictTextListener
from relay.peers.upstream import UpstreamSocket
from relay.runtime.device import DeviceRuntime
from relay.session.common.media_types import AudioDelta, AudioFrame
from relay.wire.realtime import RealtimeCodec


class Transport:
    """A transport of picows' that keeps what it should send in `log`, and is never full."""

    is_close_frame_sent = is_disconnected = False

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self.log = log
        self.name = name
        self.underlying_transport = self
        self.unsent_bytes = 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def send(self, kind: WSMsgType, message: Any) -> None:
        self.log.append((f"{self.name} {kind.name.lower()}", bytes(message)))

    def send_close(self, code: int, reason: bytes) -> None:
        self.is_close_frame_sent = True
        self.log.append((f"{self.name} close", str(int(code)).encode()))

    def disconnect(self, graceful: bool = True) -> None:
        self.is_disconnected = True
        self.log.append((f"{self.name} cut", b""))


class NoTools:
    async def run(self, command: cmd.RunTool, progress: Any) -> ev.ToolReturned:
        return ev.ToolReturned(command.call_id, "done", '"ok"', 1)

    def cancel(self, call_id: str) -> None: ...


class ListRecorder:
    """A recording as a list: ("event", name), ("input", samples), ("output", samples, discarded), ("sent", samples)."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def event(self, event: Any, now: float, commands: Any) -> None:
        self.entries.append(("event", type(event).__name__, now))

    def input(self, payload: Chunk, now: float) -> None:
        self.entries.append(("input", bytes(payload), now))

    def output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        self.entries.append(("output", samples, discarded, (delta.item_id, delta.content_index)))

    def output_frame(self, frame: AudioFrame, now: float) -> None:
        raise AssertionError("a device is sent no frames")

    def speech(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        self.entries.append(("speech", samples, discarded))

    def sent(self, samples: Chunk, now: float) -> None:
        self.entries.append(("sent", bytes(samples)))

    def all(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.entries if entry[0] == kind]


class RuntimeStage:
    """Both ends by hand; `sent` is what both were sent, in order."""

    def __init__(self, rate_hz: int = 24_000, *, tools: Any = None, **options: Any) -> None:
        pcm = AudioFormat("pcm16", rate_hz)  # type: ignore[arg-type]
        numbers = itertools.count(1)
        clock = asyncio.get_running_loop().time
        self.core = DeviceSession(
            "rs_test", SessionConfig(), DeviceOptions(pcm, pcm), lambda: f"relay_{next(numbers)}", started_at=clock()
        )
        self.sent: list[tuple[str, bytes]] = []
        self.recorder: ListRecorder = options.setdefault("recorder", ListRecorder())
        self.client = StrictTextListener(1 << 20)
        self.client_transport = Transport(self.sent, "client")
        self.client.on_ws_connected(self.client_transport)  # type: ignore[arg-type]
        self.upstream: UpstreamSocket
        self.upstream_transport = Transport(self.sent, "upstream")
        self.is_dialled = asyncio.Event()
        self.runtime = DeviceRuntime(self.core, self.client, RealtimeCodec(), self._dial, tools or NoTools(), **options)

    async def _dial(self, socket: UpstreamSocket) -> None:
        self.upstream = socket
        socket.on_ws_connected(self.upstream_transport)  # type: ignore[arg-type]
        self.is_dialled.set()

    def ready(self) -> "RuntimeStage":
        """The upstream takes the session's configuration."""
        self.hear({"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}})
        self.sent.clear()
        self.recorder.entries.clear()
        return self

    def say(self, samples: bytes) -> None:
        """Audio of the client's."""
        self._take(self.client, self.client_transport, WSMsgType.BINARY, samples)

    def tell(self, message: dict[str, Any] | str) -> None:
        """A text message of the client's."""
        text = message if isinstance(message, str) else json.dumps(message)
        self._take(self.client, self.client_transport, WSMsgType.TEXT, text.encode())

    def hear(self, *events: dict[str, Any]) -> None:
        """Events of the upstream's."""
        for event in events:
            raw = json.dumps(event, separators=(",", ":")).encode()
            self._take(self.upstream, self.upstream_transport, WSMsgType.TEXT, raw)

    def _take(self, socket: MessageListener, transport: Transport, kind: WSMsgType, message: bytes) -> None:
        socket.on_ws_frame(transport, _make_test_ws_frame(kind, message, True, False))  # type: ignore[arg-type]

    def messages(self) -> list[dict[str, Any]]:
        """What the client was told, in order."""
        return [json.loads(raw) for kind, raw in self.sent if kind == "client text"]

    def asked(self) -> list[dict[str, Any]]:
        """What the upstream was sent, in order."""
        return [json.loads(raw) for kind, raw in self.sent if kind == "upstream text"]

    def heard(self) -> bytes:
        """The audio that the client was sent."""
        return b"".join(raw for kind, raw in self.sent if kind == "client binary")


@asynccontextmanager
async def running(rate_hz: int = 24_000, **options: Any) -> AsyncIterator[RuntimeStage]:
    """A session that runs, and is dialled; it is ended and leaves nothing behind afterwards."""
    stage = RuntimeStage(rate_hz, **options)
    running = asyncio.create_task(stage.runtime.run())
    await stage.is_dialled.wait()
    await asyncio.sleep(0)
    try:
        yield stage
    finally:
        stage.client.on_ws_disconnected(_Gone())  # type: ignore[arg-type]
        await running


class _Gone:
    """A transport whose peer went without a close frame."""

    close_handshake = None
