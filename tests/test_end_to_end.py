"""A spoken conversation, end to end: samples through the relay and its local engine, as a newcomer would have it.

The relay runs in the test's loop, the engine as the child process that `relay serve` starts; sound goes in real time.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from audio.files import read_audio
from relay.app.context import UPSTREAM
from relay.toolkit.loading.loader import load_tools
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "recordings" / "samples"
FRAME_MS = 20


@asynccontextmanager
async def local_relay() -> AsyncIterator[RunningRelay]:
    registry = load_tools(ROOT / "tools")
    async with running_relay(None, registry) as relay:
        yield relay


class Speaker:
    """Streams sound in real time and silence in between, as a microphone does; acknowledges what it plays."""

    def __init__(self, client: DeviceClient, rate_hz: int) -> None:
        self.client = client
        self.rate_hz = rate_hz
        self.position_ms = 0.0
        self._frame_bytes = rate_hz * 2 * FRAME_MS // 1000
        self._sound: asyncio.Queue[bytes] = asyncio.Queue()
        self._task = asyncio.create_task(self._stream())

    def say(self, name: str) -> None:
        pcm = read_audio(SAMPLES / f"{name}.flac", self.rate_hz)
        for start in range(0, len(pcm), self._frame_bytes):
            self._sound.put_nowait(pcm[start : start + self._frame_bytes])

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _stream(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(10_000):
            due += FRAME_MS / 1000
            frame = bytes(self._frame_bytes) if self._sound.empty() else self._sound.get_nowait()
            await self.client.speak(frame)
            await self._play(number)
            await asyncio.sleep(due - loop.time())

    async def _play(self, number: int) -> None:
        """A speaker that plays 20 ms of what has come, and says so every 200 ms."""
        starts = [message for message in self.client.messages if message["type"] == "audioStart"]
        if not starts:
            return
        came_ms = len(self.client.audio) / (self.rate_hz * 2 / 1000)
        self.position_ms = min(self.position_ms + FRAME_MS, came_ms)
        if number % 10 == 0:
            item_id = starts[0]["itemId"]
            await self.client.send(type="playback", itemId=item_id, playedMs=int(self.position_ms))


@asynccontextmanager
async def speaking_to(relay: RunningRelay, rate_hz: int = 24_000) -> AsyncIterator[tuple[DeviceClient, Speaker]]:
    async with await DeviceClient.connect(relay.ws(f"/?rate={rate_hz}")) as client:
        await client.expect("AIConnected")
        speaker = Speaker(client, rate_hz)
        try:
            yield client, speaker
        finally:
            await speaker.stop()


async def end_of_turn(client: DeviceClient) -> dict:
    while True:
        end = await client.expect("AIResponseEnd", timeout_s=30)
        if not end["more"]:
            return end


def tools_of(client: DeviceClient) -> dict[str, dict]:
    return {one["name"]: one for one in client.messages if one["type"] == "tool" and one["status"] == "done"}


@pytest.mark.parametrize("rate_hz", [24_000, 16_000])
async def test_a_question_is_heard_a_tool_is_called_and_the_answer_names_its_result(rate_hz: int) -> None:
    async with local_relay() as relay, speaking_to(relay, rate_hz) as (client, speaker):
        speaker.say("convert-five-miles")
        end = await end_of_turn(client)
        said = next(one for one in client.messages if one["type"] == "transcript" and one["role"] == "user")
        assert said["text"].lower().strip(".") == "convert five miles to kilometers"
        tool = tools_of(client)["convert_units"]
        assert tool["arguments"] == {"value": 5, "from_unit": "miles", "to_unit": "kilometers"}
        assert "8.05 kilometers" in end["finalText"]
        heard = await client.expect_audio(rate_hz * 2)
        assert max(heard[1::2]) > 0, "an answer that is not silence"
        latency = await client.expect("latency")
        assert latency["totalMs"] < 3000


async def test_two_tools_in_one_sentence_are_answered_once() -> None:
    async with local_relay() as relay, speaking_to(relay) as (client, speaker):
        speaker.say("dice-and-time")
        end = await end_of_turn(client)
        done = tools_of(client)
        assert done["roll_dice"]["arguments"] == {"count": 2}
        assert done["current_time"]["arguments"] == {"city": "Paris"}
        total = done["roll_dice"]["output"]["total"]
        assert str(total) in end["finalText"]
        assert "Paris" in end["finalText"]
        assert client.kinds().count("AIResponseEnd") == 1


async def test_a_barge_in_in_the_middle_of_the_story() -> None:
    async with local_relay() as relay, speaking_to(relay) as (client, speaker):
        speaker.say("tell-a-story")
        await client.expect("audioStart", timeout_s=30)
        await client.expect_audio(4 * 48_000)  # some seconds into it
        speaker.say("stop")
        told = await client.expect("interrupted", timeout_s=30)
        played_ms, bytes_then = speaker.position_ms, len(client.audio)
        assert told["estimated"] is False
        assert abs(told["playedMs"] - played_ms) <= 150
        assert told["heardText"]
        end = await client.expect("AIResponseEnd")
        assert (end["status"], end["more"]) == ("cancelled", False)
        assert told["heardText"] in end["finalText"]
        assert len(client.audio) == bytes_then, "silence until the next answer"
        assert "audioEnd" not in client.kinds()[: client.kinds().index("AIResponseEnd")]


async def test_an_unknown_sentence_is_told_apart() -> None:
    async with local_relay() as relay, speaking_to(relay) as (client, speaker):
        speaker.say("unknown")
        end = await end_of_turn(client)
        assert not tools_of(client)
        assert "understand" in end["finalText"].lower()


async def test_the_session_goes_on_after_bad_input() -> None:
    async with local_relay() as relay, await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
        await client.expect("AIConnected")
        await client.connection.send("{")
        await client.connection.send('{"type":"dance"}')
        assert (await client.expect("error"))["code"] == "bad_json"
        assert (await client.expect("error"))["code"] == "unknown_type"
        await client.send(type="text", text="what time is it in Tokyo?")
        assert "Tokyo" in (await end_of_turn(client))["finalText"]


async def test_an_engine_that_dies_is_started_again() -> None:
    async with local_relay() as relay:
        engine = relay.app[UPSTREAM].engine
        assert engine is not None
        first = engine.url
        async with await DeviceClient.connect(relay.ws()) as client:
            await client.expect("AIConnected")
            assert engine._process is not None
            engine._process.kill()
            assert (await client.expect("error"))["code"] == "upstream_closed"
            assert (await client.wait_closed())[0] == 1011
        async with asyncio.timeout(15):
            while not await _connects(relay):
                pass  # an error that says "retryable" is retried
        assert engine.url != first


async def _connects(relay: RunningRelay) -> bool:
    async with await DeviceClient.connect(relay.ws()) as client:
        first = await client.expect_any()
        assert first.get("retryable", True) is True
        return first.get("name") == "AIConnected"


async def run_talk(relay: RunningRelay, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("relay"), "talk", *arguments, "--url", relay.http("/"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_terminal_talks_prints_and_saves(tmp_path) -> None:
    reply = tmp_path / "reply.wav"
    async with local_relay() as relay:
        code, out, err = await run_talk(relay, str(SAMPLES / "time-in-tokyo.flac"), "--save", str(reply))
        assert (code, err) == (0, "")
        for told in ("time", "tokyo", "current_time", "ms"):
            assert told in out.lower()
        assert len(read_audio(reply, 24_000)) > 48_000
        code, out, _ = await run_talk(relay, "--text", "roll two dice", "--json")
        messages = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert all("t_ms" in message for message in messages)
        assert any(message.get("name") == "roll_dice" for message in messages)
        code, _, err = await run_talk(relay, str(tmp_path / "nothing.wav"))
        assert code == 1
        assert "nothing.wav" in err
        assert "Traceback" not in err
