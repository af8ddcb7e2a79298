"""Whatever happens in a session: its recording holds what both sockets were sent, and runs identically."""

import asyncio
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pybase64
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCMU, AudioFormat
from audio.transcode import Transcoder
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.elevenlabs import TtsOutput
from relay.protocols.openai.beta import BetaClientDialect, BetaUpstreamDialect
from relay.protocols.openai.proxy import AUDIO_DELTA_TYPE, ProxyCodec
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.recording.derive.tracks import write_derived_files
from relay.recording.format.records import (
    EventRecord,
    InputAudioRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.redact.bundle import write_bundle
from relay.recording.redact.rules import parse_redaction
from relay.recording.replay.replayer import Replayer
from relay.recording.replay.verify import verify
from relay.recording.session_recorder import RealtimeSessionRecorder, SessionRecorder
from relay.recording.store.header import RealtimeSetup, RecordingHeader, SessionSetup
from relay.recording.store.layout import CLIENT_AUDIO_FILE, SENT_AUDIO_FILE, TTS_AUDIO_FILE, UPSTREAM_AUDIO_FILE
from relay.recording.store.reader import JournalEntry, Recording
from relay.recording.store.writer import RecordingWriter
from relay.runtime.device import DeviceRuntime
from relay.runtime.realtime import RealtimeRuntime
from relay.session.common.input_control import HeldInput
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.model import Alignment, DeviceOptions, SessionConfig, ToolSpec, TtsOptions
from relay.session.common.policy import Policy, Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import RealtimeServerEvent
from tests.support.runtime_harness import SocketPair, run_harness
from tests.support.virtual_time import advance_time, in_virtual_time

Step = tuple[str, int]
TOOLS = (
    ToolSpec("clock", "Tells the time.", {"type": "object"}, visible_to_client=True),
    ToolSpec("slow", "Takes its time.", {"type": "object"}, cancel_on_interrupt=True),
)


def samples_of(n_bytes: int, number: int) -> bytes:
    """Audio that no other has."""
    return bytes((number * 31 + n * 7) % 251 for n in range(n_bytes))


class SlowTools:
    """Tools that report progress and return after a while."""

    def __init__(self) -> None:
        self._cancelled: dict[str, asyncio.Event] = {}

    async def run(self, command: cmd.RunTool, tell: Callable[[Any], None]) -> ev.ToolCallFinished:
        if command.name != "slow":
            return ev.ToolCallFinished(command.call_id, "done", '{"time":"noon"}', 0)
        cancelled = self._cancelled[command.call_id] = asyncio.Event()
        tell(ev.ToolCallProgress(command.call_id, "on its way", 10))
        try:
            async with asyncio.timeout(1.5):
                await cancelled.wait()
        except TimeoutError:
            return ev.ToolCallFinished(command.call_id, "done", '"slowly"', 1500)
        return ev.ToolCallFinished(command.call_id, "cancelled", "", 100)

    def cancel(self, call_id: str) -> None:
        if call_id in self._cancelled:
            self._cancelled[call_id].set()


class SilentVoice:
    """An external TTS voice under control of the test; `contexts` are the requested ones."""

    def __init__(self, take: Callable[[TtsOutput], None]) -> None:
        self.take = take
        self.contexts: list[str] = ["never asked for"]

    def execute(self, command: cmd.TtsCommand) -> None:
        context_id = getattr(command, "context_id", None)
        if context_id is not None and context_id not in self.contexts:
            self.contexts.append(context_id)

    async def stop(self) -> None: ...


class RecordedEnds(SocketPair):
    """A session between two sockets, with the real recorder."""

    def __init__(self, root: Path, setup: SessionSetup, mode: str) -> None:
        super().__init__()
        self.writer = RecordingWriter()
        self.writer.start()
        kind = SessionRecorder if setup.realtime is None else RealtimeSessionRecorder
        header = RecordingHeader(setup, datetime(2026, 12, 1, tzinfo=UTC), "scripted", "scripted", mode)
        self.folder = root / "20261201T000000Z-rs_random"
        self.clock = asyncio.get_running_loop().time
        self.recorder = kind(header, self.folder, self.writer, self.clock, lambda: None)
        self.number = 0
        self.response, self.item = 0, 0
        self.said = bytearray()
        """The client's audio."""
        self.spoken = bytearray()
        """The upstream's audio."""
        self.writes = False
        """Whether the model writes, and something else speaks."""

    async def step(self, action: str, value: int) -> None:
        """Perform one action."""
        self.number += 1
        if action == "time":
            await advance_time((0.001, 0.02, 0.1, 0.3, 0.7, 1.5, 4.0, 11.0)[value % 8])
        elif action == "flush":
            self.recorder.flush()
        elif action == "client full":
            self._becomes(self.client, is_writable=value % 3 != 0)
        elif action == "upstream full":
            self._becomes(self.upstream, is_writable=value % 3 != 0)
        else:
            self.happen(action, value)

    def _becomes(self, socket: Any, *, is_writable: bool) -> None:
        if socket.is_writable != is_writable:
            (socket.resume_writing if is_writable else socket.pause_writing)()

    def happen(self, action: str, value: int) -> None:
        raise NotImplementedError

    @property
    def hung_up(self) -> bool:
        """Whether the relay closed a connection: later data may not be read."""
        return any(kind.endswith((" close", " cut")) for kind, _ in self.sent)

    def assert_audio_is_recorded(self) -> None:
        """Both ends' audio is there, byte for byte, whatever became of it.

        Deltas that came before a Realtime session was ready, or after its end, stand in events.
        """
        spoken = b"".join(map(_spoken, Recording(self.folder).entries()))
        for recorded, received in ((files_of(self.folder)[CLIENT_AUDIO_FILE], self.said), (spoken, self.spoken)):
            assert recorded == received[: len(recorded)]
            assert self.hung_up or len(recorded) == len(received)

    def close(self) -> None:
        """The session is over, and all of it is on the disk."""
        self.recorder.close()
        assert self.writer.stop(10)

    # -- the model ----------------------------------------------------------------------------------------------------

    def model(self, action: str, value: int) -> None:
        """The upstream acts in the course of a response."""
        if action == "answer":
            for next_ in ("created", "item", "words", "words", "delta", "delta"):
                self.model(next_, value)
            return
        response, item = f"resp_{self.response}", f"item_{self.item}"
        part = {"response_id": response, "item_id": item, "output_index": 0, "content_index": int(value % 11 == 10)}
        event: dict[str, Any]
        match action:
            case "created":
                self.response += 1
                requests = [request for request in self.upstream_requests() if request.get("type") == "response.create"]
                ours = {"metadata": requests[-1].get("response", {}).get("metadata")} if requests and value % 2 else {}
                event = {"type": "response.created", "response": {"id": f"resp_{self.response}", **ours}}
            case "item":
                self.item += 1
                item_ = {"id": f"item_{self.item}", "type": "message", "role": "assistant", "content": []}
                event = {"type": "conversation.item.added", "previous_item_id": None, "item": item_}
            case "delta":
                if value % 7 == 6:
                    part["response_id"] = f"resp_{max(self.response - 1, 0)}"
                samples = samples_of(DELTA_BYTES[value % len(DELTA_BYTES)], self.number)
                audio = "no base64" if value % 23 == 22 else pybase64.b64encode_as_string(samples)
                self.spoken += b"" if value % 23 == 22 else samples
                event = {"type": "response.output_audio.delta", "event_id": f"e{self.number}", **part, "delta": audio}
                if value % 17 == 16:
                    event = {"delta": event.pop("delta")} | event
            case "words":
                kind = (
                    "response.output_text.delta"
                    if value % 3 == 2 or self.writes
                    else "response.output_audio_transcript.delta"
                )
                texts = ("It is. ", 'Noon!\n"', "or é \x00 ", "mail ann@example.com ")
                event = {"type": kind, "event_id": f"e{self.number}", **part, "delta": texts[value % len(texts)]}
            case "said":
                event = {"type": "response.output_audio_transcript.done", **part, "transcript": "It is noon."}
            case "audio done":
                event = {"type": "response.output_audio.done", **part}
            case "done":
                status = ("completed", "completed", "cancelled", "failed", "incomplete")[value % 5]
                name = ("clock", "slow", "unknown", "mine")[value % 4]
                call = {
                    "id": f"call_item_{self.number}", "type": "function_call", "status": "completed",
                    "call_id": f"call_{self.number}", "name": name, "arguments": "{}",
                }  # fmt: skip
                usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
                output = [call] if value % 3 == 0 else []
                body = {"id": response, "status": status, "output": output, "usage": usage}
                event = {"type": "response.done", "response": body}
            case "speech":
                event = {"type": "input_audio_buffer.speech_started", "item_id": f"u_{value}", "audio_start_ms": value}
            case "silence":
                event = {"type": "input_audio_buffer.speech_stopped", "item_id": f"u_{value}", "audio_end_ms": value}
            case "committed":
                event = {"type": "input_audio_buffer.committed", "item_id": f"u_{value}", "previous_item_id": None}
            case "heard":
                kind = "conversation.item.input_audio_transcription.completed"
                event = {"type": kind, "item_id": f"u_{value}", "content_index": 0, "transcript": "What time is it?"}
            case "updated":
                event = {"type": "session.updated", "session": {}}
            case "odd":
                event = ODD_EVENTS[value % len(ODD_EVENTS)]
            case _:
                raise AssertionError(action)
        self.send_from_upstream(
            json.dumps(event, separators=((", ", ": ") if value % 13 == 12 else (",", ":"))).encode()
        )


def _spoken(entry: JournalEntry) -> bytes:
    """The upstream's audio in a line."""
    event = entry.record.event if isinstance(entry.record, EventRecord) else None
    if isinstance(event, RealtimeServerEvent) and event.body.get("type") == AUDIO_DELTA_TYPE:
        delta = event.body["delta"]
        return pybase64.b64decode(delta) if isinstance(delta, str) and delta != "no base64" else b""
    return bytes(entry.samples) if isinstance(entry.record, OutputAudioRecord) else b""


DELTA_BYTES = (4800, 960, 2, 0, 1, 961, 48_000, 60_000)
ODD_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "error", "error": {"code": "nothing", "message": "No key sk-abcdefghijklmnopqrstuvwx.", "type": "x"}},
    {"type": "rate_limits.updated", "rate_limits": []},
    {"type": "new.event", "value": 1e300, "more": [2**60, -0.0, None, "\x00"]},
    {"type": 7},
    {"type": "response.output_audio.delta", "delta": 7},
    {"type": "conversation.item.deleted", "item_id": "item_1"},
    {"type": "conversation.item.truncated", "item_id": "item_1", "content_index": 0, "audio_end_ms": 10},
    {"type": "session.updated", "session": {}},
    {"type": "input_audio_buffer.cleared"},
)
MODEL = (
    "answer", "answer", "created", "item", "delta", "delta", "delta", "delta", "delta", "delta", "delta", "words",
    "words", "said", "audio done", "done", "speech", "silence", "committed", "heard", "odd", "updated",
)  # fmt: skip
SHARED = ("time", "time", "time", "time", "flush", "client full", "upstream full", "input", "input", "input")


# -- a device ---------------------------------------------------------------------------------------------------------


class DeviceEnds(RecordedEnds):
    """A device's session, and what it and its model should have been sent."""

    def __init__(self, root: Path, options: DeviceOptions, mode: str, *, has_voice: bool) -> None:
        speech = TtsOptions() if has_voice else None
        config = SessionConfig(voice="elevenlabs:voice-1" if has_voice else None, tools=TOOLS)
        options = replace(options, has_external_voice=has_voice)
        policy = Policy()
        now = asyncio.get_running_loop().time()
        setup = SessionSetup("rs_random", config, options, Principal("key-1", policy), now, speech)
        super().__init__(root, setup, mode)
        self.core = setup.device_session()
        self.options = options
        self.writes = has_voice
        self.voice: SilentVoice | None = None
        self.runtime = DeviceRuntime(
            self.core, self.client, DeviceCodec(), OpenAIUpstreamCodec(), self._dial, SlowTools(),
            recorder=self.recorder, connect_tts=self._new_voice if has_voice else None, max_queued_ms=6000,
        )  # fmt: skip

    def _new_voice(self, take: Callable[[TtsOutput], None]) -> SilentVoice:
        self.voice = SilentVoice(take)
        return self.voice

    def happen(self, action: str, value: int) -> None:
        if action == "input":
            samples = samples_of((640, 960, 641, 1, 3, 4800, 19_200)[value % 7], self.number)
            self.said += samples
            self._take_binary(samples)
        elif action == "client":
            self.send_from_client(self._message(value))
        elif action == "voice":
            self._speak(value)
        elif action == "end":
            ends = (
                ev.ServerDraining("maintenance"),
                ev.KeyRevoked(),
                ev.EndSessionRequested("call_1", "done"),
                ev.DeadlineReached(),
            )
            self.runtime.dispatch(ends[value % len(ends)])
        elif action == "hello":
            self.send_from_client(self._hello(value))
        else:
            self.model(action, value)

    def _take_binary(self, samples: bytes) -> None:
        from picows import WSMsgType

        self._take(self.client, self.client_transport, WSMsgType.BINARY, samples)

    def _message(self, value: int) -> dict[str, Any] | str:
        played = {"type": "playback", "itemId": f"item_{self.item}", "playedMs": value * 13}
        calls = [message["callId"] for message in self.messages() if message.get("type") == "toolCall"] or ["call_x"]
        messages: tuple[dict[str, Any] | str, ...] = (
            played, {"type": "text", "text": f"Typed {value}, my key is sk-abcdefghijklmnopqrstuvwx"},
            played, {"type": "commit"}, {"type": "clear"}, played, {"type": "interrupt"},
            {"type": "toolResult", "callId": calls[-1], "output": {"n": 1e22}}, "no JSON", {"type": "nothing"},
            {"type": "toolResult", "callId": calls[-1], "error": "\ud800"}, {"type": "playback", "itemId": 5},
        )  # fmt: skip
        return messages[value % len(messages)]

    def _hello(self, value: int) -> dict[str, Any]:
        hello: dict[str, Any] = {"type": "hello", "v": 1}
        if value % 2:
            hello["output"] = ({"rate": 16_000}, {"rate": 24_000}, {"format": "pcmu", "rate": 8000})[value % 3]
        if value % 3 == 1:
            hello["input"] = ({"rate": 16_000}, {"rate": 24_000}, {"format": "pcma", "rate": 8000})[value // 3 % 3]
        if value % 5 == 1:
            hello["duplex"] = ("full", "half")[value % 2]
        if value % 5 == 2:
            hello["maxAheadMs"] = value * 20 + 100
        if value % 5 == 3:
            hello["tools"] = [{"name": "mine", "description": "Mine.", "parameters": {"type": "object"}}]
        if value % 7 == 3:
            hello |= {"instructions": f"Be brief {value}.", "turn": "manual"}
        return hello

    def _speak(self, value: int) -> None:
        voice = self.voice
        if voice is None:
            return
        context_id = voice.contexts[max(-1 - value % 11 // 9, -len(voice.contexts))]
        kind = value % 8
        if kind < 5:
            n_bytes = (3200, 32_000, 2, 0, 1600)[kind]
            alignment = Alignment(tuple("It is "), (0, 10, 20, 30, 40, 50), (10,) * 6) if value % 2 else None
            voice.take(TtsAudioDelta(context_id, samples_of(n_bytes, self.number), alignment))
        elif kind == 5:
            voice.take(ev.TtsContextDone(context_id))
        elif kind == 6:
            voice.take(ev.TtsConnected())
        else:
            voice.take(ev.TtsFailed("gone", None, value % 3 == 0, context_id if value % 2 else ""))


DEVICE_STEPS = st.lists(
    st.tuples(
        st.sampled_from((*MODEL, *SHARED, "client", "client", "client", "voice", "voice", "voice", "hello", "end")),
        st.integers(0, 400),
    ),
    min_size=25,
    max_size=120,
)
FORMATS = (PCM16_24K, PCM16_16K, PCMU)


def files_of(folder: Path) -> dict[str, bytes]:
    names = (CLIENT_AUDIO_FILE, UPSTREAM_AUDIO_FILE, SENT_AUDIO_FILE, TTS_AUDIO_FILE)
    return {name: (folder / name).read_bytes() if (folder / name).exists() else b"" for name in names}


def sums_of(ledger: MediaLedger) -> tuple[float, ...]:
    return (
        ledger.input_bytes, ledger.dropped_input_bytes, ledger.output_bytes, ledger.last_output_at,
        ledger.playback_ends_at
    )  # fmt: skip


def assert_runs_identically(folder: Path) -> Recording:
    recording = Recording(folder)
    result = verify(recording)
    assert result.difference is None, (result.difference, folder)
    assert recording.has_end
    return recording


def assert_bundle_runs_identically(folder: Path) -> None:
    target = folder.parent / "bundle.zip"
    write_bundle(folder, target, parse_redaction([], ["noon"], []))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder.parent / "bundle")
    (copy,) = (folder.parent / "bundle").iterdir()
    assert_runs_identically(copy)


def replayed_ledger(recording: Recording) -> MediaLedger:
    replayer = Replayer(recording.header.setup)
    for entry in recording.entries():
        assert replayer.step(entry) is None
    return replayer.session.ledger


def assert_heard_is_recorded(ends: DeviceEnds, recording: Recording) -> None:
    client_audio = b"".join(raw for kind, raw in ends.sent if kind == "client binary")
    at = 0
    for entry in recording.entries():
        line = entry.record
        if isinstance(line, SentAudioRecord):
            piece = client_audio[at : at + line.n_bytes]
            assert len(piece) == line.n_bytes
            assert crc32(piece) == line.crc
            assert not line.is_stored or bytes(entry.samples) == piece
            at += line.n_bytes
    assert at == len(client_audio)


def appended(ends: SocketPair) -> bytes:
    head = b'{"type":"input_audio_buffer.append","audio":"'
    return b"".join(pybase64.b64decode(raw[len(head) : -2]) for raw in ends.texts("upstream") if raw.startswith(head))


def assert_appended_is_recorded(ends: DeviceEnds, recording: Recording) -> None:
    """The client's audio through the gates that the rules set is what the upstream was sent."""
    gate, held, sent = "held", HeldInput(), bytearray()
    options = ends.options
    transcoder = Transcoder(options.input, options.upstream_input)
    position = 0

    def send(samples: bytes) -> None:
        nonlocal sent
        if gate != "closed":
            sent += transcoder.direct_feed(options.input.silence(len(samples)) if gate == "muted" else samples)

    for entry in recording.entries():
        line = entry.record
        if isinstance(line, InputAudioRecord):
            position += line.n_bytes
            if gate == "held":
                held.add(bytes(entry.samples), line.n_bytes, position, options.input.bytes_per_ms)
            else:
                send(bytes(entry.samples))
        replayed: Sequence[Any] = line.stored_commands or () if isinstance(line, EventRecord | TtsAudioRecord) else ()
        for command in replayed:
            match command["t"]:
                case "set_input_gate":
                    gate = command["gate"]
                    if gate != "held":
                        for payload in held.take():
                            send(bytes(payload))
                case "release_input":
                    for payload in held.take(command["until_bytes"]):
                        send(bytes(payload))
                case "apply_options":
                    old, new = options, command["options"]
                    options = replace(options, input=AudioFormat(**new["input"]))
                    if (old.input, old.upstream_input) != (options.input, options.upstream_input):
                        transcoder = Transcoder(options.input, options.upstream_input)
    assert bytes(sent) == appended(ends)


@given(
    steps=DEVICE_STEPS,
    output=st.sampled_from(FORMATS),
    input_=st.sampled_from(FORMATS),
    has_voice=st.booleans(),
    max_ahead_ms=st.sampled_from([None, 100, 1000]),
    half_duplex=st.booleans(),
    early=st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_a_devices_session_is_recorded_as_it_was(
    steps: list[Step],
    output: AudioFormat,
    input_: AudioFormat,
    has_voice: bool,
    max_ahead_ms: int | None,
    half_duplex: bool,
    early: int,
) -> None:
    options = DeviceOptions(input_, output, max_ahead_ms=max_ahead_ms, half_duplex=half_duplex)
    with tempfile.TemporaryDirectory() as root:
        _device_session(Path(root), steps, options, has_voice=has_voice, early=early)


@in_virtual_time
async def _device_session(
    root: Path, steps: list[Step], options: DeviceOptions, *, has_voice: bool, early: int
) -> None:
    ends = DeviceEnds(root, options, "on", has_voice=has_voice)
    async with run_harness(ends):
        for number, (action, value) in enumerate(steps):
            if number == early:
                ends.send_from_upstream({"type": "session.created", "session": {}})
            elif number == early + 4:
                ends.send_from_upstream({"type": "session.updated", "session": {}})
            await ends.step(action, value)
    ends.close()
    recording = assert_runs_identically(ends.folder)
    assert sums_of(replayed_ledger(recording)) == sums_of(ends.core.ledger)
    assert_heard_is_recorded(ends, recording)
    assert_appended_is_recorded(ends, recording)
    # A format that changes leaves parts of samples behind.
    if not any(action in ("hello", "voice") for action, _ in steps):
        ends.said = ends.said[: len(files_of(ends.folder)[CLIENT_AUDIO_FILE])]  # too short for an append of its own
        ends.assert_audio_is_recorded()
    write_derived_files(ends.folder)
    assert_bundle_runs_identically(ends.folder)


@given(steps=DEVICE_STEPS, at=st.integers(0, 30), withdrawn_after=st.one_of(st.none(), st.integers(1, 40)))
@settings(max_examples=25, deadline=None)
def test_nothing_before_consent_is_recorded_and_nothing_stays_when_it_is_withdrawn(
    steps: list[Step], at: int, withdrawn_after: int | None
) -> None:
    with tempfile.TemporaryDirectory() as root:
        _consenting_session(Path(root), steps, at, withdrawn_after)


@in_virtual_time
async def _consenting_session(root: Path, steps: list[Step], at: int, withdrawn_after: int | None) -> None:
    ends = DeviceEnds(root, DeviceOptions(PCM16_16K, PCMU), "consent", has_voice=False)
    said_before, withdrawn_at = b"", None if withdrawn_after is None else at + withdrawn_after
    async with run_harness(ends):
        for number, (action, value) in enumerate(steps):
            if number == 2:
                ends.send_from_upstream(
                    {"type": "session.created", "session": {}}, {"type": "session.updated", "session": {}}
                )
            if number == at:
                said_before = bytes(ends.said)
                ends.send_from_client({"type": "consent", "granted": True})
            if number == withdrawn_at:
                ends.send_from_client({"type": "consent", "granted": False})
            await ends.step(action, value)
        was_withdrawn = withdrawn_at is not None and withdrawn_at < len(steps) and not ends.hung_up
    ends.close()
    if was_withdrawn or at >= len(steps):
        assert not ends.folder.exists()
    elif ends.folder.exists():
        said_after = bytes(ends.said[max(len(said_before) - 1, 0) :])  # half a sample waits for its other half
        has_hello = any(action == "hello" for action, _ in steps)  # which may leave half a sample behind
        assert has_hello or files_of(ends.folder)[CLIENT_AUDIO_FILE] in said_after
        if Recording(ends.folder).header.from_start:
            assert_runs_identically(ends.folder)
        write_derived_files(ends.folder)


# -- a Realtime client ------------------------------------------------------------------------------------------------


class RealtimeEnds(RecordedEnds):
    """A Realtime client's session."""

    def __init__(self, root: Path, mode: str, *, has_tools: bool, is_beta: bool, is_upstream_beta: bool) -> None:
        now = asyncio.get_running_loop().time()
        start = RealtimeSetup("gpt-realtime", {"instructions": "Be brief."} if has_tools else None)
        setup = SessionSetup.for_realtime("rs_random", TOOLS if has_tools else (), start, Principal("key-1"), now)
        super().__init__(root, setup, mode)
        self.core = setup.realtime_session()
        codec = ProxyCodec(
            BetaClientDialect() if is_beta else None, BetaUpstreamDialect() if is_upstream_beta else None
        )
        self.runtime = RealtimeRuntime(self.core, self.client, codec, self._dial, SlowTools(), recorder=self.recorder)

    def happen(self, action: str, value: int) -> None:
        if action == "input":
            self.send_from_client(self._append(value))
        elif action == "client":
            self.send_from_client(self._message(value))
        elif action == "end":
            ends = (ev.ServerDraining("maintenance"), ev.KeyRevoked(), ev.DeadlineReached(), ev.ClientMessageStalled())
            self.runtime.dispatch(ends[value % len(ends)])
        else:
            self.model(action, value)

    def _append(self, value: int) -> bytes:
        samples = samples_of((640, 961, 3, 0, 48_000, 90_000, 1)[value % 7], self.number)
        audio = pybase64.b64encode_as_string(samples)
        shape = value // 7 % 10
        self.said += b"\x00" if shape == 5 else b"" if shape in (6, 7) else samples
        kind = '"type":"input_audio_buffer.append"'
        shapes = (
            f'{{{kind},"audio":"{audio}"}}', f'{{{kind},"audio":"{audio}"}}', f'{{"audio":"{audio}",{kind}}}',
            f'{{"event_id":"e_{value}",{kind}, "audio" : "{audio}"}}', f'{{{kind},"audio":"{audio}","more":[1]}}',
            f'{{{kind},"audio":"AB=="}}', f'{{{kind},"audio":"no base64!"}}', f'{{{kind},"audio":7}}',
            f' {{{kind},"audio":"{audio}","audio":"{audio}"}}', f'{{{kind},"event_id":"e","audio":"{audio}"}} ',
        )  # fmt: skip
        return shapes[shape].encode()

    def _message(self, value: int) -> dict[str, Any] | str:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"sk-{'a' * 30}"}]}
        calls = {"type": "function_call_output", "call_id": f"call_{self.number - 3}", "output": '{"n": 1e400}'}
        messages: tuple[dict[str, Any] | str, ...] = (
            {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}},
            {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"format":
                {"type": "audio/pcmu"}}, "input": {"turn_detection": None}}, "tools": []}},
            {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"},
            {"type": "conversation.item.create", "event_id": f"e_{value}", "item": item}, {"type": "response.create"},
            {"type": "conversation.item.create", "item": calls},
            {"type": "response.create", "response": {"metadata": {"a": "b"}}}, {"type": "response.cancel"},
            {"type": "conversation.item.truncate", "item_id": f"item_{self.item}", "content_index": 0,
                "audio_end_ms": value},
            {"type": "response.cancel", "response_id": f"resp_{self.response}"}, "no JSON", {"type": "", "event_id": 7},
            {"type": "made.up", "value": [1e308, -0.0, 2**63, 1e22, "\x00", {"": {}}]}, '{"type":"x","n":1e400}',
            '{"type":"y","n":123456789012345678901234567890}', {"type": "conversation.item.retrieve", "item_id": "u"},
        )  # fmt: skip
        return messages[value % len(messages)]


REALTIME_STEPS = st.lists(
    st.tuples(st.sampled_from((*MODEL, *SHARED, "client", "client", "client", "client", "end")), st.integers(0, 400)),
    min_size=25,
    max_size=120,
)


@given(
    steps=REALTIME_STEPS, has_tools=st.booleans(), is_beta=st.booleans(), is_upstream_beta=st.booleans(),
    early=st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_realtime_clients_session_is_recorded_as_it_was(
    steps: list[Step], has_tools: bool, is_beta: bool, is_upstream_beta: bool, early: int
) -> None:
    with tempfile.TemporaryDirectory() as root:
        _realtime_session(
            Path(root), steps, early, has_tools=has_tools, is_beta=is_beta, is_upstream_beta=is_upstream_beta
        )


@in_virtual_time
async def _realtime_session(root: Path, steps: list[Step], early: int, **kinds: bool) -> None:
    ends = RealtimeEnds(root, "on", **kinds)
    async with run_harness(ends):
        for number, (action, value) in enumerate(steps):
            if number == early:
                ends.send_from_upstream({"type": "session.created", "session": {"type": "realtime"}})
            elif number == early + 4:
                ends.send_from_upstream({"type": "session.updated", "session": {"type": "realtime"}})
            await ends.step(action, value)
    ends.close()
    recording = assert_runs_identically(ends.folder)
    assert sums_of(replayed_ledger(recording)) == sums_of(ends.core.ledger)
    if not kinds["is_upstream_beta"]:  # which makes other events of the model's
        ends.assert_audio_is_recorded()
    write_derived_files(ends.folder)
    assert_bundle_runs_identically(ends.folder)
