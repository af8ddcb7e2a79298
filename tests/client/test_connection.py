"""`relay.client` against a relay that does what a test says, over a real socket."""

import asyncio
import http
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import CloseCode

from audio.formats import PCM16_24K, PCMU, AudioFormat
from relay.client import (
    AudioEndEvent,
    AudioEvent,
    ClosedError,
    ConnectedEvent,
    ConnectError,
    ErrorEvent,
    FunctionTool,
    GoodbyeEvent,
    InvalidURL,
    PlaybackTracker,
    ProtocolError,
    ReadyEvent,
    RelayClient,
    ToolCallEvent,
    ToolError,
    UnknownEvent,
    VirtualPlayer,
    connect,
)
from relay.client.connection import MAX_RUNNING_TOOLS
from tests.support.relay_server import running_relay
from tests.support.scripted_relay import TIMEOUT_S, ScriptedConnection, scripted_relay

READY: dict[str, Any] = {
    "voice": "marin", "turn": "manual", "maxAheadMs": 1000, "duplex": "full", "language": None, "tools": [],
}  # fmt: skip
NO_KEY = {"key": ""}


async def ready(device: ScriptedConnection, **fields: Any) -> None:
    await device.begin()
    await device.until(lambda: device.received("hello"))
    form = {"format": "pcm16", "rate": 24000}
    await device.send("ready", **{"input": form, "output": form, **READY, **fields})


async def until(client: RelayClient, kind: type) -> Any:
    async with asyncio.timeout(TIMEOUT_S):
        async for event in client:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the client closed before {kind}")


# -- connecting -------------------------------------------------------------------------------------------------------


async def test_without_options_no_hello_is_sent_and_no_event_is_lost() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness:
        async with connect(harness.url) as client:
            assert (client.session_id, client.input_format, client.output_format) == ("s_1", PCM16_24K, PCM16_24K)
            assert isinstance(await client.recv(), ConnectedEvent)
        assert [message["type"] for message in harness.device.messages] == ["bye"]


async def test_options_become_a_hello_and_the_relay_has_the_last_word() -> None:
    async def script(device: ScriptedConnection) -> None:
        await ready(device, input={"format": "pcmu", "rate": 8000})

    async with (
        scripted_relay(script) as harness,
        connect(
            harness.url, key="key-1", input_format=AudioFormat("pcm16", 16_000), output_format=PCM16_24K, voice="cedar",
            instructions="Be brief.", language="German", turn="manual", duplex="half", max_ahead_ms=None, consent=True,
            tools=[FunctionTool("set_lamp", description="Switches the lamp.", timeout_ms=5000)],
        ) as client,
    ):  # fmt: skip
        assert (client.input_format, client.output_format) == (PCMU, PCM16_24K)
        assert [type(await client.recv()) for _ in range(2)] == [ConnectedEvent, ReadyEvent]
    assert harness.requests[0].headers["Authorization"] == "Bearer key-1"
    assert harness.device.received("hello") == [
        {
            "type": "hello", "v": 1, "input": {"format": "pcm16", "rate": 16_000},
            "output": {"format": "pcm16", "rate": 24_000}, "voice": "cedar", "instructions": "Be brief.",
            "language": "German", "turn": "manual", "duplex": "half", "maxAheadMs": None, "consent": True,
            "tools": [
                {
                    "name": "set_lamp", "description": "Switches the lamp.",
                    "parameters": {"type": "object", "properties": {}}, "timeoutMs": 5000,
                }
            ],
        }
    ]  # fmt: skip


async def test_the_key_comes_from_the_environment_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_KEY", "key-of-environment")
    async with (
        scripted_relay(ScriptedConnection.begin) as harness,
        connect(harness.url),
        connect(harness.url, key="key-1"),
        connect(harness.url, key=""),
    ):
        pass
    keys = [request.headers.get("Authorization") for request in harness.requests]
    assert keys == ["Bearer key-of-environment", "Bearer key-1", None]


async def test_a_refused_hello_says_why() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.send("error", code="hello_refused", message="There is no voice marvin.", retryable=False)

    async with scripted_relay(script) as harness:
        with pytest.raises(ProtocolError, match=r"^the relay refused the options .*: There is no voice marvin\.$"):
            async with connect(harness.url, voice="marvin"):
                pass


async def test_a_session_that_does_not_become_ready_says_why() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.send("error", code="upstream_unreachable", message="The model cannot be reached.", retryable=True)

    async with scripted_relay(script) as harness:
        with pytest.raises(ConnectError) as refused:
            async with connect(harness.url, ready_timeout_s=0.3):
                pass
    assert str(refused.value) == "the relay was not ready within 0.3 s: The model cannot be reached."
    assert refused.value.status is None


async def test_a_refusal_has_its_status() -> None:
    async with scripted_relay(ScriptedConnection.begin, refuse=http.HTTPStatus.SERVICE_UNAVAILABLE) as harness:
        with pytest.raises(ConnectError, match="the relay is full or shutting down") as refused:
            async with connect(harness.url):
                pass
    assert refused.value.status == 503


@pytest.mark.parametrize("url", ["ftp://host/", "ws:///x", "ws://host:port/"])
async def test_a_wrong_url_is_an_error_of_its_own(url: str) -> None:
    with pytest.raises(InvalidURL):
        async with connect(url):
            pass


async def test_an_audio_format_that_does_not_exist_is_an_error_of_the_relay() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.socket.send('{"type":"event","name":"AIConnected","input":{"rate":1}}')

    async with scripted_relay(script) as harness:
        with pytest.raises(ProtocolError, match="announced an audio format that does not exist: rate of pcm16"):
            async with connect(harness.url):
                pass


async def test_a_relay_that_sends_on_and_on_before_it_is_ready_is_left() -> None:
    async def script(device: ScriptedConnection) -> None:
        while True:
            await device.send("textDelta", text="word")

    async with scripted_relay(script) as harness:
        with pytest.raises(ProtocolError, match=r"^the relay sent 256 events, but the session is not ready$"):
            async with connect(harness.url):
                pass


# -- sending ----------------------------------------------------------------------------------------------------------


async def test_everything_that_a_client_may_send() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness, connect(harness.url) as client:
        await client.send_text("Hello.")
        await client.commit()
        await client.clear()
        await client.interrupt()
        await client.send_consent(False)
        await client.send_playback("item_1", 200)
        await client.send_tool_result("call_1", {"lamp": "on"})
        await client.send_tool_error("call_2", "The lamp does not answer.")
        await client.send({"type": "hello", "v": 1, "language": "German"})
    assert harness.device.messages == [
        {"type": "text", "text": "Hello."},
        {"type": "commit"},
        {"type": "clear"},
        {"type": "interrupt"},
        {"type": "consent", "granted": False},
        {"type": "playback", "itemId": "item_1", "playedMs": 200},
        {"type": "toolResult", "callId": "call_1", "output": {"lamp": "on"}},
        {"type": "toolResult", "callId": "call_2", "error": "The lamp does not answer."},
        {"type": "hello", "v": 1, "language": "German"},
        {"type": "bye"},
    ]


async def test_audio_of_any_size_is_sent_in_messages_that_a_relay_takes() -> None:
    pcm = bytes(range(250)) * 400
    async with scripted_relay(ScriptedConnection.begin) as harness, connect(harness.url) as client:
        await client.send_audio(b"")
        await client.send_audio(pcm)
    frames = [frame for _, frame in harness.device.frames]
    assert b"".join(frames) == pcm
    assert max(map(len, frames)) <= 64 * 1024


async def test_sending_waits_for_a_relay_that_does_not_read() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        device.socket.transport.pause_reading()
        await asyncio.sleep(0.3)
        device.socket.transport.resume_reading()

    async def send_forever(client: RelayClient) -> None:
        while True:
            await client.send_audio(bytes(32_000))

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_forever(client), 0.2)


# -- receiving --------------------------------------------------------------------------------------------------------


async def test_audio_belongs_to_its_item() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.socket.send(b"\0\0")
        await device.answer(bytes(9600), item_id="item_7")

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        audio = [await until(client, AudioEvent) for _ in range(3)]
        assert (await until(client, AudioEndEvent)).item_id == "item_7"
    assert [(event.item_id, len(event.data)) for event in audio] == [("", 2), ("item_7", 4800), ("item_7", 4800)]


async def test_a_client_that_does_not_read_holds_the_relay_back() -> None:
    n_messages, n_sent, is_blocked = 2000, 0, asyncio.Event()

    async def script(device: ScriptedConnection) -> None:
        nonlocal n_sent
        await device.begin()
        for _ in range(n_messages):
            try:
                await asyncio.wait_for(device.socket.send(bytes(64_000)), 0.5)
            except TimeoutError:
                is_blocked.set()
                return
            n_sent += 1

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        await asyncio.wait_for(is_blocked.wait(), TIMEOUT_S)
        for _ in range(n_sent):
            assert len((await until(client, AudioEvent)).data) == 64_000
    assert n_sent < n_messages / 2


async def test_iteration_ends_when_the_client_closes() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness, connect(harness.url) as client:
        asyncio.get_running_loop().call_later(0.05, asyncio.ensure_future, client.close())
        assert [type(event) async for event in client] == [ConnectedEvent]


@pytest.mark.parametrize(
    ("code", "error", "retryable", "text"),
    [
        (1001, None, True, "the relay closed the connection (1001): why"),
        (1008, None, False, "the relay closed the connection (1008): why"),
        (1011, {"message": "No.", "retryable": False}, False, "the relay closed the connection (1011): No."),
        (1011, {"message": "It broke.", "retryable": True}, True, "the relay closed the connection (1011): It broke."),
        (4002, None, True, "the relay closed the connection (4002): why"),
    ],
)  # fmt: skip
async def test_a_close_has_its_code_and_reason(
    code: int, error: dict[str, Any] | None, retryable: bool, text: str
) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        if error:
            await device.send("error", code="upstream_refused", **error)
        await device.socket.close(code, "why")

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        with pytest.raises(ClosedError) as closed:
            await until(client, GoodbyeEvent)
    assert (closed.value.code, closed.value.reason, closed.value.retryable) == (code, "why", retryable)
    assert str(closed.value) == text


async def test_a_broken_connection_has_code_1006_and_sending_raises_too() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.send("error", code="too_fast", message="Slower.", retryable=True)
        await device.until(lambda: device.received("commit"))
        device.socket.transport.abort()

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        error = await until(client, ErrorEvent)
        await client.commit()
        for use in (until(client, GoodbyeEvent), client.send_text("Hello?"), client.recv()):
            with pytest.raises(
                ClosedError, match=r"^the connection was lost; the relay's last error: Slower\.$"
            ) as closed:
                await use
            assert (closed.value.code, closed.value.retryable, closed.value.error) == (1006, True, error)


async def test_messages_of_later_versions_are_events_too() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.socket.send('{"type":"weather","temperature":20}')
        await device.socket.send("not JSON")

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        assert (await until(client, UnknownEvent)).raw == {"type": "weather", "temperature": 20}
        assert (await until(client, UnknownEvent)).raw == {}


async def test_an_error_in_the_block_leaves_without_a_bye() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness:
        with pytest.raises(KeyError):
            async with connect(harness.url):
                raise KeyError
        await harness.device.until(lambda: harness.device.is_closed)
    assert harness.device.messages == []
    assert harness.device.socket.close_code == CloseCode.NORMAL_CLOSURE


# -- tools ------------------------------------------------------------------------------------------------------------


async def call(tools: list[FunctionTool], name: str, arguments: Any = None, *, timeout_ms: int = 5000) -> Any:
    """What the relay gets for a call of the model; None if it gets nothing."""

    async def script(device: ScriptedConnection) -> None:
        await ready(device)
        await device.send("toolCall", callId="c1", name=name, arguments=arguments or {}, timeoutMs=timeout_ms)
        await device.until(lambda: device.received("toolResult"))
        await device.send("goodbye", reason="done")

    async with scripted_relay(script) as harness, connect(harness.url, tools=tools) as client:
        assert (await until(client, ToolCallEvent)).name == name
        await until(client, GoodbyeEvent)
    [result] = harness.device.received("toolResult")
    assert result.pop("callId") == "c1"
    return result.get("output", result.get("error"))


async def test_a_function_and_a_coroutine_function_are_run() -> None:
    async def set_lamp(on: bool) -> dict[str, bool]:
        return {"on": on}

    tools = [FunctionTool("set_lamp", set_lamp), FunctionTool("add", lambda a, b: a + b)]
    assert await call(tools, "set_lamp", {"on": True}) == {"on": True}
    assert await call(tools, "add", {"a": 1, "b": 2}) == 3


async def test_a_failure_is_a_sentence_for_the_model(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise ToolError("The lamp does not answer.")

    def fail() -> None:
        raise OSError("/dev/lamp0 secret")

    async def wait() -> None:
        await asyncio.sleep(60)

    def logged() -> set[str]:
        return {record.getMessage() for record in caplog.records if record.name.startswith("relay.")}

    assert await call([FunctionTool("f", refuse)], "f") == "The lamp does not answer."
    assert logged() == set()
    assert await call([FunctionTool("f", fail)], "f") == "f failed: OSError"
    assert await call([FunctionTool("f", lambda: object())], "f") == "f failed: TypeError"
    assert await call([FunctionTool("f", lambda: 1)], "f", {"unasked": 1}) == "f failed: TypeError"
    assert await call([FunctionTool("f", wait)], "f", timeout_ms=100) == "f failed: TimeoutError"
    assert logged() == {"tool failed name=f call_id=c1"}


async def test_calls_at_once_are_bounded() -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    async def script(device: ScriptedConnection) -> None:
        await ready(device)
        for number in range(MAX_RUNNING_TOOLS + 1):
            await device.send("toolCall", callId=f"c{number}", name="f", arguments={}, timeoutMs=60_000)
        await device.until(lambda: device.received("toolResult"))
        await device.send("goodbye", reason="done")

    async with scripted_relay(script) as harness, connect(harness.url, tools=[FunctionTool("f", wait)]) as client:
        await until(client, GoodbyeEvent)
    [result] = harness.device.received("toolResult")
    assert result["callId"] == f"c{MAX_RUNNING_TOOLS}"
    assert result["error"] == "Too many calls at once; try again after the others."


# -- playback ---------------------------------------------------------------------------------------------------------


async def test_a_virtual_player_acknowledges_what_it_plays() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.answer(bytes(250 * 48))
        await device.until(lambda: 250 in device.played("a"))
        await device.send("goodbye", reason="done")

    async with scripted_relay(script) as harness, connect(harness.url, playback=VirtualPlayer()) as client:
        await until(client, GoodbyeEvent)
    assert harness.device.played("a") == sorted({*harness.device.played("a"), 250})


async def test_a_speaker_acknowledges_the_bytes_that_it_took() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.answer(bytes(100 * 48))
        await device.until(lambda: device.played("a"))
        await device.send("goodbye", reason="done")

    tracker = PlaybackTracker()
    async with scripted_relay(script) as harness, connect(harness.url, playback=tracker) as client:
        await until(client, AudioEndEvent)
        tracker.played(60 * 48)
        tracker.played(60 * 48)  # the last of it was silence
        await until(client, GoodbyeEvent)
    assert harness.device.played("a") == [100]


# -- TLS --------------------------------------------------------------------------------------------------------------

CERTIFICATE = Path(__file__).parent.parent / "support" / "self_signed.pem"


async def test_a_certificate_that_is_not_trusted_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_relay(server_tls_cert=CERTIFICATE, server_tls_key=CERTIFICATE) as served:
        url = f"wss://localhost:{served.port}/"
        with pytest.raises(ConnectError) as refused:
            async with connect(url):
                pass
        assert str(refused.value) == (
            f"cannot reach {url}: its certificate is not trusted (self-signed certificate);"
            " name the certificate's file in SSL_CERT_FILE"
        )
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        async with connect(url, ssl_context=context) as client:
            assert client.session_id
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        async with connect(url) as client:
            assert client.session_id


async def test_a_relay_without_tls_at_a_url_with_it_says_what_to_do() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness:
        with pytest.raises(ConnectError, match=r"; if it does not use TLS, write ws:// instead of wss://$"):
            async with connect(harness.url.replace("ws:", "wss:")):
                pass
