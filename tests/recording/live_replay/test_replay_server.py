"""A recording as upstream: it is replayed as the client proceeds, and divergences are reported."""

from pathlib import Path
from typing import Any

import pybase64
import pytest
from openai import AsyncOpenAI

from relay.recording.live_replay.replay_server import ReplayServer, parse_speed
from relay.recording.store.layout import RecordingError
from relay.toolkit.registry import Tool, ToolRegistry, tool
from tests.support.relay_server import DeviceClient, running_relay
from tests.support.scripted_recordings import make_recording, tone


@tool
def clock(city: str) -> dict[str, str]:
    """Tells the time."""
    return {"time": "noon" if city == "Rome" else "midnight"}


def registry(function: Any = clock) -> ToolRegistry:
    return ToolRegistry([Tool.from_function(function)])


async def test_a_relay_hears_what_was_recorded(tmp_path: Path) -> None:
    reports: list[str] = []
    folder = make_recording(tmp_path)
    async with (
        ReplayServer(folder, 0, None, reports.append) as upstream,
        running_relay(upstream.url, registry()) as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        await client.expect("AIConnected")
        await client.speak(tone(1200, 16_000))
        tool_message = await client.expect("tool")
        assert (tool_message["name"], tool_message["status"]) == ("clock", "started")
        assert (await client.expect("transcript"))["text"].startswith("what time is it in Rome")
        assert (await client.expect("textDelta"))["text"] == "It is noon in Rome, and "
        await client.expect("audioStart")
        await client.expect_audio(500 * 32)
        await client.expect("interrupted")
        assert (await client.expect("AIResponseEnd"))["status"] == "cancelled"
        divergences = upstream.connections[0].divergences
    assert [divergence for divergence in divergences if "output of call_1" not in divergence] == []


async def test_another_output_is_a_departure_with_its_time(tmp_path: Path) -> None:
    @tool(name="clock")
    def other(city: str) -> str:
        """Tells another time."""
        return f"never in {city}"

    folder = make_recording(tmp_path)
    async with (
        ReplayServer(folder, 0, None, lambda _: None) as upstream,
        running_relay(upstream.url, registry(other)) as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        await client.expect("AIConnected")
        await client.speak(tone(1200, 16_000))
        await client.expect("interrupted")
        (divergence,) = upstream.connections[0].divergences
    assert "divergence at 1.65 s: the output of call_1 is" in divergence
    assert "never in Rome" in divergence
    assert "noon" in divergence


async def test_the_official_client_reads_it_and_a_cancel_ends_a_response(tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    async with ReplayServer(folder, 0, 2.0, lambda _: None) as upstream:
        sdk = AsyncOpenAI(api_key="any", base_url=upstream.url.replace("ws:", "http:").removesuffix("/realtime"))
        async with sdk.realtime.connect(model="gpt-realtime") as connection:
            await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
            await connection.input_audio_buffer.append(audio=pybase64.b64encode(tone(1200)).decode())
            seen = []
            async for event in connection:
                seen.append(event.type)
                if event.type == "response.done" and event.response.output:
                    call = event.response.output[0]
                    assert (call.type, call.arguments) == ("function_call", '{"city":"Rome"}')
                    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": '{"time":"noon"}'}
                    await connection.conversation.item.create(item=output)
                    await connection.response.create()
                if event.type == "response.output_audio.delta":
                    await connection.response.cancel(response_id=event.response_id)
                if event.type == "response.done" and event.response.status == "cancelled":
                    break
        assert seen[:3] == ["session.created", "session.updated", "input_audio_buffer.speech_started"]
        assert "response.function_call_arguments.done" in seen
        assert any("cancelled resp_1" in divergence for divergence in upstream.connections[0].divergences)
        await sdk.close()


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("2.5", 2.5), ("max", None)])
def test_speeds(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "1e9", ""])
def test_speeds_that_are_none(text: str) -> None:
    with pytest.raises(RecordingError, match="--speed"):
        parse_speed(text)
