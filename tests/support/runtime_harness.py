"""A running session between two transports that record what is sent."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from picows import WSMsgType
from picows.picows import _make_test_ws_frame  # type: ignore[attr-defined]  # not in the stubs

from audio.formats import AudioFormat
from audio.framing import BytesLike
from relay.protocols.client_protocol import ClientCodec
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.openai.proxy import ProxyCodec
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.runtime.base import SessionRuntime
from relay.runtime.device import DeviceRuntime
from relay.runtime.realtime import RealtimeRuntime
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.common.model import ELEVENLABS_PREFIX, DeviceOptions, SessionConfig, ToolSpec, TtsOptions
from relay.session.common.policy import Policy, Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.session import DeviceSession
from relay.session.realtime.session import RealtimeSession
from relay.transport.upstream import UpstreamConnection
from relay.transport.websocket import WebSocketConnection
from relay.upstreams.dialect import UpstreamCodec


class FakeTransport:
    """A picows transport that records what it sends in `log`; it is never full, and its peer never leaves."""

    is_close_frame_sent = is_disconnected = False

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self.log = log
        self.name = name
        self.underlying_transport = self
        self.unsent_bytes = 0
        self.is_paused = False
        """Whether reading is paused."""
        self.long_bytes = 0
        """Bytes sent from the sender's own buffer."""

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_extra_info(self, name: str) -> "FakeTransport":
        return self

    def getsockopt(self, *_: int) -> bytes:
        return b"\1"  # TCP_ESTABLISHED

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def send(self, kind: WSMsgType, message: Any) -> None:
        self.log.append((f"{self.name} {kind.name.lower()}", bytes(message)))

    def send_reuse_external_bytearray(self, kind: WSMsgType, framed: bytearray, offset: int) -> None:
        self.long_bytes += len(framed) - offset
        self.send(kind, framed[offset:])

    def send_close(self, code: int, reason: bytes) -> None:
        self.is_close_frame_sent = True
        self.log.append((f"{self.name} close", str(int(code)).encode()))

    def disconnect(self, graceful: bool = True) -> None:
        self.is_disconnected = True
        self.log.append((f"{self.name} cut", b""))


class NoTools:
    async def run(self, command: cmd.RunTool, progress: Any) -> ev.ToolCallFinished:
        return ev.ToolCallFinished(command.call_id, "done", '"ok"', 1)

    def cancel(self, call_id: str) -> None: ...


class ListRecorder:
    """A recording as a list: ("event", name), ("input", samples), ("output", samples, discarded), ("sent", samples)."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def record_event(self, event: Any, now: float, commands: Any) -> None:
        self.entries.append(("event", type(event).__name__, now))

    def record_input(self, payload: BytesLike, now: float) -> None:
        self.entries.append(("input", bytes(payload), now))

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        self.entries.append(("output", samples, discarded, (delta.item_id, delta.content_index)))

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        raise AssertionError("a device is sent no frames")

    def record_tts_audio(self, context_id: str, samples: bytes, now: float, *, discarded: bool) -> None:
        self.entries.append(("speech", samples, discarded))

    def record_sent_audio(self, samples: BytesLike, now: float) -> None:
        self.entries.append(("sent", bytes(samples)))

    def all(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.entries if entry[0] == kind]


class FrameRecorder(ListRecorder):
    """A recording of a Realtime session: ("input", frame), ("frame", delta)."""

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        self.entries.append(("frame", delta, now))


class SocketPair:
    """Client and upstream of a session, driven by the test; `sent` holds all messages to both, in order."""

    runtime: SessionRuntime[Any]

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.client = WebSocketConnection(1 << 20, strict_utf8=True)
        self.client_transport = FakeTransport(self.sent, "client")
        self.client.on_ws_connected(self.client_transport)  # type: ignore[arg-type]
        self.upstream: UpstreamConnection
        self.upstream_transport = FakeTransport(self.sent, "upstream")
        self.is_dialled = asyncio.Event()

    async def _dial(self, socket: UpstreamConnection) -> None:
        self.upstream = socket
        socket.on_ws_connected(self.upstream_transport)  # type: ignore[arg-type]
        self.is_dialled.set()

    def send_from_client(self, *messages: dict[str, Any] | str | bytes) -> None:
        """Send text messages from the client."""
        for message in messages:
            self._take(self.client, self.client_transport, WSMsgType.TEXT, _encoded(message))

    def send_from_upstream(self, *events: dict[str, Any] | bytes, kind: WSMsgType = WSMsgType.TEXT) -> None:
        """Send events from the upstream."""
        for event in events:
            self._take(self.upstream, self.upstream_transport, kind, _encoded(event))

    def _take(self, socket: WebSocketConnection, transport: FakeTransport, kind: WSMsgType, message: bytes) -> None:
        socket.on_ws_frame(transport, _make_test_ws_frame(kind, message, True, False))  # type: ignore[arg-type]

    def messages(self) -> list[dict[str, Any]]:
        """The messages sent to the client, in order."""
        return [json.loads(raw) for kind, raw in self.sent if kind == "client text"]

    def upstream_requests(self) -> list[dict[str, Any]]:
        """The messages sent to the upstream, in order."""
        return [json.loads(raw) for kind, raw in self.sent if kind == "upstream text"]

    def texts(self, name: str) -> list[bytes]:
        """The text messages sent to "client" or "upstream", in order."""
        return [raw for kind, raw in self.sent if kind == f"{name} text"]


class DeviceRuntimeHarness(SocketPair):
    """A device's session."""

    def __init__(
        self,
        rate_hz: int = 24_000,
        *,
        tools: Any = None,
        speech: TtsOptions | None = None,
        client_codec: ClientCodec | None = None,
        upstream_codec: UpstreamCodec | None = None,
        **options: Any,
    ) -> None:
        """`speech`: the options of an external voice, which speaks."""
        super().__init__()
        pcm = AudioFormat("pcm16", rate_hz)  # type: ignore[arg-type]
        numbers = itertools.count(1)
        clock = asyncio.get_running_loop().time
        self.core = DeviceSession(
            "rs_test",
            SessionConfig(voice=f"{ELEVENLABS_PREFIX}v1" if speech is not None else None),
            DeviceOptions(pcm, pcm),
            lambda: f"relay_{next(numbers)}",
            started_at=clock(),
            tts_options=speech,
        )
        self.recorder: ListRecorder = options.setdefault("recorder", ListRecorder())
        self.runtime = DeviceRuntime(
            self.core,
            self.client,
            client_codec or DeviceCodec(),
            upstream_codec or OpenAIUpstreamCodec(),
            self._dial,
            tools or NoTools(),
            **options,
        )

    def ready(self) -> "DeviceRuntimeHarness":
        """Let the upstream accept the session's configuration."""
        self.send_from_upstream({"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}})
        self.sent.clear()
        self.recorder.entries.clear()
        return self

    def send_audio(self, samples: bytes) -> None:
        """Send audio from the client."""
        self._take(self.client, self.client_transport, WSMsgType.BINARY, samples)

    def sent_audio(self) -> bytes:
        """The audio sent to the client."""
        return b"".join(raw for kind, raw in self.sent if kind == "client binary")


class RealtimeRuntimeHarness(SocketPair):
    """A Realtime client's session. With a server tool, it configures its upstream first."""

    def __init__(self, *tools: ToolSpec, **options: Any) -> None:
        super().__init__()
        numbers = itertools.count(1)
        clock = asyncio.get_running_loop().time
        self.core = RealtimeSession(
            "rs_test", Principal(policy=Policy()), tools, lambda: str(next(numbers)), started_at=clock()
        )
        self.recorder = FrameRecorder()
        self.runtime = RealtimeRuntime(
            self.core, self.client, ProxyCodec(), self._dial, NoTools(), recorder=self.recorder, **options
        )

    def ready(self) -> "RealtimeRuntimeHarness":
        """Send `session.created` and accept the configuration; neither is left in `sent`."""
        self.send_from_upstream({"type": "session.created", "session": {"type": "realtime"}})
        self.send_from_upstream({"type": "session.updated", "session": {"type": "realtime"}})
        self.sent[:] = [sent for sent in self.sent if not sent[1].startswith(b'{"type":"session.')]
        return self


Stage = TypeVar("Stage", bound=SocketPair)


@asynccontextmanager
async def running_device(rate_hz: int = 24_000, **options: Any) -> AsyncIterator[DeviceRuntimeHarness]:
    """A running session with its upstream connected; it ends on exit."""
    async with run_harness(DeviceRuntimeHarness(rate_hz, **options)) as harness:
        yield harness


@asynccontextmanager
async def running_realtime(*tools: ToolSpec, **options: Any) -> AsyncIterator[RealtimeRuntimeHarness]:
    """The same for a Realtime client."""
    async with run_harness(RealtimeRuntimeHarness(*tools, **options)) as harness:
        yield harness


@asynccontextmanager
async def run_harness(harness: Stage) -> AsyncIterator[Stage]:
    """Run a harness's session until the client is gone."""
    running = asyncio.create_task(harness.runtime.run())
    await harness.is_dialled.wait()
    await asyncio.sleep(0)
    try:
        yield harness
    finally:
        harness.client.on_ws_disconnected(_Gone())  # type: ignore[arg-type]
        await running


def _encoded(message: dict[str, Any] | str | bytes) -> bytes:
    if isinstance(message, bytes):
        return message
    return (message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))).encode()


class _Gone:
    """A transport whose peer went without a close frame."""

    close_handshake = None
