"""Conversations with the local engine, for the golden recordings and for the tests of replays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from audio.files import read_audio
from audio.formats import AudioFormat
from audio.transcode import encode
from relay import load_tools
from relay.client import VirtualPlayer
from relay.recording.store.layout import find_recording
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay
from tests.support.scripted_elevenlabs import local_engine, speaking_relay

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "recordings" / "samples"
FRAME_MS = 20


class SpeakingDevice:
    """A device that streams samples and silence, plays audio in real time, and acknowledges its playback."""

    def __init__(self, client: DeviceClient, audio_format: AudioFormat) -> None:
        self.client = client
        self.audio_format = audio_format
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._player = VirtualPlayer(audio_format.bytes_per_ms)
        self._processed = [0, 0]
        self._is_silent = asyncio.Event()
        self._task = asyncio.create_task(self._stream())

    async def speak_sample(self, name: str) -> None:
        pcm = await asyncio.to_thread(read_audio, SAMPLES / f"{name}.flac", self.audio_format.rate_hz)
        raw = encode(pcm, self.audio_format)
        step = self.audio_format.frame_bytes(FRAME_MS)
        for start in range(0, len(raw) - step, step):
            self._frames.put_nowait(raw[start : start + step])

    async def wait_speech_sent(self) -> None:
        """Wait until all audio is sent."""
        await self._frames.join()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def wait_turn_end(self) -> None:
        while (await self.client.expect("AIResponseEnd", timeout_s=30))["more"]:
            pass

    async def wait_playback_done(self) -> None:
        """Wait until all received audio is played."""
        async with asyncio.timeout(30):
            self._is_silent.clear()
            await self._is_silent.wait()

    async def _stream(self) -> None:
        loop = asyncio.get_running_loop()
        silence = self.audio_format.silence(self.audio_format.frame_bytes(FRAME_MS))
        due = loop.time()
        while True:
            due += FRAME_MS / 1000
            is_speech = not self._frames.empty()
            await self.client.speak(self._frames.get_nowait() if is_speech else silence)
            if is_speech:
                self._frames.task_done()
            await self._play(loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _play(self, now: float) -> None:
        messages, n_bytes = self.client.messages, len(self.client.audio)
        for message in messages[self._processed[0] :]:
            match message["type"]:
                case "audioStart":
                    self._player.start(message["itemId"])
                case "audioEnd":
                    self._player.end(message["itemId"])
                case "interrupted":
                    self._player.interrupt(message["itemId"])
        self._processed[0] = len(messages)
        if n_bytes > self._processed[1]:
            self._player.feed(n_bytes - self._processed[1], now)
            self._processed[1] = n_bytes
        for item_id, played_ms in self._player.reports(now):
            await self.client.send(type="playback", itemId=item_id, playedMs=played_ms)
        if self._player.next_report_at() is None:
            self._is_silent.set()


async def plain_turn(device: SpeakingDevice) -> None:
    await device.speak_sample("hello")
    await device.wait_turn_end()  # leave before the end of the playback, to keep the recording small


async def two_tools(device: SpeakingDevice) -> None:
    await device.speak_sample("dice-and-time")
    await device.wait_turn_end()
    await device.wait_playback_done()


async def barge_in(device: SpeakingDevice) -> None:
    await device.speak_sample("tell-a-story")
    await device.client.expect("audioStart", timeout_s=30)
    await device.client.expect_audio(2000 * device.audio_format.bytes_per_ms)
    await device.speak_sample("stop")
    await device.client.expect("interrupted", timeout_s=30)
    await device.client.expect("audioStart", timeout_s=30)
    await device.wait_turn_end()
    await device.wait_playback_done()


async def manual_turn(device: SpeakingDevice) -> None:
    await device.speak_sample("roll-two-dice")
    await device.wait_speech_sent()
    await device.client.send(type="commit")
    await device.wait_turn_end()
    await device.wait_playback_done()


async def fault_in_the_middle(device: SpeakingDevice) -> None:
    await device.speak_sample("hello")
    await device.client.expect("audioStart", timeout_s=30)
    await device.client.connection.send("{")
    await device.client.send(type="playback", itemId="never", playedMs=1)
    await device.client.connection.send('{"type": "dance"}')
    await device.client.expect("AIResponseEnd", timeout_s=30)
    await device.wait_playback_done()


async def external_voice(device: SpeakingDevice) -> None:
    await device.speak_sample("hello")
    await device.wait_turn_end()
    await device.client.expect("audioEnd", timeout_s=30)
    await device.speak_sample("stop")  # while the answer still plays
    await device.client.expect("interrupted", timeout_s=30)


Conversation = Callable[[SpeakingDevice], Awaitable[None]]
CONVERSATIONS: dict[str, tuple[Conversation, AudioFormat, str]] = {
    "plain-turn-16k": (plain_turn, AudioFormat("pcm16", 16_000), "server_vad"),
    "two-tools-pcmu": (two_tools, AudioFormat("pcmu", 8000), "server_vad"),
    "barge-in-pcmu": (barge_in, AudioFormat("pcmu", 8000), "server_vad"),
    "manual-turn-pcma": (manual_turn, AudioFormat("pcma", 8000), "manual"),
    "another-voice-pcmu": (external_voice, AudioFormat("pcmu", 8000), "server_vad"),
    "fault-in-the-middle-pcmu": (fault_in_the_middle, AudioFormat("pcmu", 8000), "server_vad"),
}


@asynccontextmanager
async def speaking_device(client: DeviceClient, audio_format: AudioFormat, turn: str) -> AsyncIterator[SpeakingDevice]:
    form = {"format": audio_format.encoding, "rate": audio_format.rate_hz}
    await client.send(type="hello", v=1, input=form, output=form, turn=turn, consent=True)
    await client.expect("ready")
    device = SpeakingDevice(client, audio_format)
    try:
        yield device
    finally:
        await device.stop()


async def run_conversation(name: str, url: str) -> str:
    """Run one of the conversations; returns the id of its session."""
    conversation, audio_format, turn = CONVERSATIONS[name]
    async with await DeviceClient.connect(url) as client:
        session_id: str = (await client.expect("AIConnected", timeout_s=30))["sessionId"]
        async with speaking_device(client, audio_format, turn) as device:
            await conversation(device)
            await client.send(type="bye")
            await client.wait_closed()
    return session_id


async def record_conversations(names: Iterable[str], root: Path, *, at_once: bool = False) -> dict[str, Path]:
    """Run conversations through relays that record below `root`; returns their folders."""
    names = list(names)
    async with _relay(root, "own-voice") as own, _relay(root, "another-voice") as other:
        runs = [run_conversation(name, (other if name.startswith("another-voice") else own).ws()) for name in names]
        ids = await asyncio.gather(*runs) if at_once else [await run for run in runs]
    return {name: find_recording(root, session_id) for name, session_id in zip(names, ids, strict=True)}


@asynccontextmanager
async def _relay(root: Path, voice: str) -> AsyncIterator[RunningRelay]:
    """A relay with the local engine, with the voice of the model or an external TTS voice."""
    registry, settings = load_tools("tools"), {"recording_mode": "consent", "recording_dir": root}
    if voice == "another-voice":
        async with (
            local_engine() as engine,
            speaking_relay(f"{engine.replace('http', 'ws')}/v1/realtime", engine, None, registry, **settings) as relay,
        ):
            yield relay
    else:
        async with running_relay(None, registry, **settings) as relay:
            yield relay
