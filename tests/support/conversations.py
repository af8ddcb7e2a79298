"""Conversations with the local engine, recorded: golden recordings are made of them, and replays tested with them."""

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
from tests.support.voice_stage import local_engine, speaking_relay

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "recordings" / "samples"
FRAME_MS = 20


class SpeakingDevice:
    """A device: streams what it is told to say and silence in between, plays in real time and acknowledges."""

    def __init__(self, client: DeviceClient, sound: AudioFormat) -> None:
        self.client = client
        self.audio_format = sound
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._player = VirtualPlayer(sound.bytes_per_ms)
        self._seen = [0, 0]
        self._quiet = asyncio.Event()
        self._task = asyncio.create_task(self._stream())

    async def speak_sample(self, name: str) -> None:
        pcm = await asyncio.to_thread(read_audio, SAMPLES / f"{name}.flac", self.audio_format.rate_hz)
        raw = encode(pcm, self.audio_format)
        step = self.audio_format.frame_bytes(FRAME_MS)
        for start in range(0, len(raw) - step, step):
            self._frames.put_nowait(raw[start : start + step])

    async def speech_sent(self) -> None:
        """All of it went out."""
        await self._frames.join()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def turn_ended(self) -> None:
        while (await self.client.expect("AIResponseEnd", timeout_s=30))["more"]:
            pass

    async def playback_done(self) -> None:
        """What came has been played."""
        async with asyncio.timeout(30):
            self._quiet.clear()
            await self._quiet.wait()

    async def _stream(self) -> None:
        loop = asyncio.get_running_loop()
        quiet = self.audio_format.silence(self.audio_format.frame_bytes(FRAME_MS))
        due = loop.time()
        while True:
            due += FRAME_MS / 1000
            is_speech = not self._frames.empty()
            await self.client.speak(self._frames.get_nowait() if is_speech else quiet)
            if is_speech:
                self._frames.task_done()
            await self._play(loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _play(self, now: float) -> None:
        messages, n_bytes = self.client.messages, len(self.client.audio)
        for message in messages[self._seen[0] :]:
            match message["type"]:
                case "audioStart":
                    self._player.start(message["itemId"])
                case "audioEnd":
                    self._player.end(message["itemId"])
                case "interrupted":
                    self._player.interrupt(message["itemId"])
        self._seen[0] = len(messages)
        if n_bytes > self._seen[1]:
            self._player.feed(n_bytes - self._seen[1], now)
            self._seen[1] = n_bytes
        for item_id, played_ms in self._player.reports(now):
            await self.client.send(type="playback", itemId=item_id, playedMs=played_ms)
        if self._player.next_at() is None:
            self._quiet.set()


async def plain_turn(talker: SpeakingDevice) -> None:
    await talker.speak_sample("hello")
    await talker.turn_ended()  # it leaves before all is played: the recording is to be small


async def two_tools(talker: SpeakingDevice) -> None:
    await talker.speak_sample("dice-and-time")
    await talker.turn_ended()
    await talker.playback_done()


async def barge_in(talker: SpeakingDevice) -> None:
    await talker.speak_sample("tell-a-story")
    await talker.client.expect("audioStart", timeout_s=30)
    await talker.client.expect_audio(2000 * talker.audio_format.bytes_per_ms)
    await talker.speak_sample("stop")
    await talker.client.expect("interrupted", timeout_s=30)
    await talker.client.expect("audioStart", timeout_s=30)
    await talker.turn_ended()
    await talker.playback_done()


async def manual_turn(talker: SpeakingDevice) -> None:
    await talker.speak_sample("roll-two-dice")
    await talker.speech_sent()
    await talker.client.send(type="commit")
    await talker.turn_ended()
    await talker.playback_done()


async def fault_in_the_middle(talker: SpeakingDevice) -> None:
    await talker.speak_sample("hello")
    await talker.client.expect("audioStart", timeout_s=30)
    await talker.client.connection.send("{")
    await talker.client.send(type="playback", itemId="never", playedMs=1)
    await talker.client.connection.send('{"type": "dance"}')
    await talker.client.expect("AIResponseEnd", timeout_s=30)
    await talker.playback_done()


async def another_voice(talker: SpeakingDevice) -> None:
    await talker.speak_sample("hello")
    await talker.turn_ended()
    await talker.client.expect("audioEnd", timeout_s=30)
    await talker.speak_sample("stop")  # into what is still heard of it
    await talker.client.expect("interrupted", timeout_s=30)


Conversation = Callable[[SpeakingDevice], Awaitable[None]]
CONVERSATIONS: dict[str, tuple[Conversation, AudioFormat, str]] = {
    "plain-turn-16k": (plain_turn, AudioFormat("pcm16", 16_000), "server_vad"),
    "two-tools-pcmu": (two_tools, AudioFormat("pcmu", 8000), "server_vad"),
    "barge-in-pcmu": (barge_in, AudioFormat("pcmu", 8000), "server_vad"),
    "manual-turn-pcma": (manual_turn, AudioFormat("pcma", 8000), "manual"),
    "another-voice-pcmu": (another_voice, AudioFormat("pcmu", 8000), "server_vad"),
    "fault-in-the-middle-pcmu": (fault_in_the_middle, AudioFormat("pcmu", 8000), "server_vad"),
}


@asynccontextmanager
async def speaking_device(client: DeviceClient, sound: AudioFormat, turn: str) -> AsyncIterator[SpeakingDevice]:
    form = {"format": sound.encoding, "rate": sound.rate_hz}
    await client.send(type="hello", v=1, input=form, output=form, turn=turn, consent=True)
    await client.expect("ready")
    talker = SpeakingDevice(client, sound)
    try:
        yield talker
    finally:
        await talker.stop()


async def hold_conversation(name: str, url: str) -> str:
    """Have one of the conversations, and leave. Returns its session's id."""
    conversation, sound, turn = CONVERSATIONS[name]
    async with await DeviceClient.connect(url) as client:
        session_id: str = (await client.expect("AIConnected", timeout_s=30))["sessionId"]
        async with speaking_device(client, sound, turn) as talker:
            await conversation(talker)
            await client.send(type="bye")
            await client.wait_closed()
    return session_id


async def record_conversations(names: Iterable[str], root: Path, *, at_once: bool = False) -> dict[str, Path]:
    """Have conversations through relays that record below `root`. Returns their folders."""
    names = list(names)
    async with _relay(root, "own-voice") as own, _relay(root, "another-voice") as other:
        talks = [hold_conversation(name, (other if name.startswith("another-voice") else own).ws()) for name in names]
        ids = await asyncio.gather(*talks) if at_once else [await talk for talk in talks]
    return {name: find_recording(root, session_id) for name, session_id in zip(names, ids, strict=True)}


@asynccontextmanager
async def _relay(root: Path, voice: str) -> AsyncIterator[RunningRelay]:
    """A relay with the local engine, whose model speaks itself or has another voice speak for it."""
    registry, settings = load_tools("tools"), {"record": "consent", "recordings_dir": root}
    if voice == "another-voice":
        async with (
            local_engine() as engine,
            speaking_relay(f"{engine.replace('http', 'ws')}/v1/realtime", engine, None, registry, **settings) as relay,
        ):
            yield relay
    else:
        async with running_relay(None, registry, **settings) as relay:
            yield relay
