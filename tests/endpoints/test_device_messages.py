"""One conversation over real sockets in which every message of the device protocol occurs, in both directions.

The client's helper holds each of them against the schema (tests/support/device_schema.py).
"""

from relay.testing import ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry, tool
from tests.support.device_schema import MESSAGES, name_of
from tests.support.relay_server import DeviceClient, running_relay

AHEAD = {"consent"}
"""What the schema has already, and the code may not have yet."""


@tool(expose={"model", "client"})
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_every_message_occurs() -> None:
    async with ScriptedUpstream() as upstream:
        async with running_relay(upstream.url, ToolRegistry([Tool.from_function(add)])) as relay:
            client = await DeviceClient.connect(relay.ws("/?rate=24000"))
            session = await upstream.accept()
            await session.configure()
            await client.expect("AIConnected")

            await client.send(type="hello", v=1, turn="manual", tools=[{"name": "set_lamp"}])
            update = await session.expect("session.update")
            await session.emit({"type": "session.updated", "session": update["session"]})
            await client.expect("ready")

            await client.send(type="clear")
            await session.expect("input_audio_buffer.clear")
            await client.send(type="commit")
            assert (await client.expect("error"))["code"] == "commit_too_short"

            await session.emit(
                {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
                {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 500},
                {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
                {
                    "type": "conversation.item.input_audio_transcription.completed",
                    "item_id": "item_u",
                    "content_index": 0,
                    "transcript": "two and three",
                },
            )
            await client.expect("transcript")
            await session.respond("One moment, I add them.", ms=400)
            await client.expect("audioEnd")
            await client.send(type="playback", itemId="item_1", playedMs=400)
            await client.expect("latency")

            await session.call(
                ("call_1", "add", {"a": 2, "b": 3}), ("call_2", "set_lamp", {"on": True}), response_id="resp_2"
            )
            asked = await client.expect("toolCall")
            assert (asked["name"], asked["arguments"]) == ("set_lamp", {"on": True})
            await client.send(type="toolResult", callId=asked["callId"], output={"lamp": "on"})
            create = await session.expect("response.create")
            await session.respond(
                "Five, and here is a long story.",
                ms=3000,
                response_id="resp_3",
                item_id="item_3",
                metadata=create["response"]["metadata"],
                finish=False,
            )
            await client.expect_audio(1000 * 48)
            await client.send(type="interrupt")
            await client.expect("interrupted")
            await session.done("resp_3", [], status="cancelled")
            await client.send(type="text", text="Thank you.")
            await session.expect("conversation.item.create")

            leaving = await DeviceClient.connect(relay.ws())
            await leaving.send(type="bye")
            assert (await leaving.wait_closed())[0] == 1000
        await client.expect("goodbye")
        assert (await client.wait_closed())[0] == 1001

    assert {*MESSAGES["toClient"]} - AHEAD <= {name_of(message) for message in client.messages}
    assert {*MESSAGES["toRelay"]} - AHEAD <= {*client.sent, *leaving.sent}
