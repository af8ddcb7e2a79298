"""The reference clients against the relay on its local engine, and against a relay that does what the test says."""

import asyncio
import base64
import http
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from audio.files import read_audio
from relay.app.context import SESSION_FACTORY
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.testing import ScriptedUpstream
from tests.scripts.reference_clients import CLIENTS, NAMES, SANITIZERS, client, command, run
from tests.support.relay_server import running_relay
from tests.support.scripted_relay import ScriptedConnection, scripted_relay
from tests.test_end_to_end import SAMPLES, local_relay
from tests.web.chromium import chromium_page

BYTES_PER_MS = 32
PCM = {"format": "pcm16", "rate": 16_000}


def sample(name: str) -> bytes:
    return read_audio(SAMPLES / f"{name}.flac", BYTES_PER_MS * 500)


def noise(ms: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(-9000, 9000, ms * 16).astype("<i2").tobytes()


async def connected(device: ScriptedConnection) -> None:
    await device.begin(rate=16_000)
    await device.until(lambda: device.received("hello"))
    assert device.received("hello") == [
        {"type": "hello", "v": 1, "input": {"rate": 16_000}, "output": {"rate": 16_000}, "maxAheadMs": 500}
    ]


async def send_item(device: ScriptedConnection, item_id: str, pcm: bytes, *, complete: bool = True) -> None:
    await device.send("audioStart", itemId=item_id)
    for at in range(0, len(pcm), 3200):
        await device.socket.send(pcm[at : at + 3200])
    if complete:
        await device.send("audioEnd", itemId=item_id, totalMs=len(pcm) // BYTES_PER_MS)


async def end_turn(device: ScriptedConnection, *, more: bool = False) -> None:
    await device.event("AIResponseEnd", finalText="", status="completed", more=more)


async def wait_bye(device: ScriptedConnection) -> None:
    await device.until(lambda: device.received("bye"))
    await device.socket.close(1000)


# -- a conversation ---------------------------------------------------------------------------------------------------


async def test_all_three_ask_the_relay_and_its_local_engine(tmp_path: Path) -> None:
    question = sample("time-in-tokyo")
    async with local_relay() as local:
        answers = await asyncio.gather(*(run(name, local.ws(), question, tmp_path) for name in NAMES))
    for result in answers:
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("user: what time is it in tokyo\nassistant: In Tokyo it is ")
        samples = np.frombuffer(result.audio, "<i2")
        assert len(samples) > 16_000
        assert np.abs(samples).max() > 3000


async def test_all_three_are_interrupted_in_the_middle_of_a_story(tmp_path: Path) -> None:
    interrupted: list[cmd.SendInterrupted] = []
    listening: set[str] = set()
    all_listen = asyncio.Event()

    def watch(event: ev.Event, now: float, commands: Sequence[cmd.Command]) -> None:
        interrupted.extend(command for command in commands if isinstance(command, cmd.SendInterrupted))
        if isinstance(event, ev.Playback) and event.played_ms >= 1200:
            listening.add(event.item_id)
            if len(listening) == len(NAMES):
                all_listen.set()

    async with local_relay() as local, AsyncExitStack() as stack:
        local.app[SESSION_FACTORY].observer = watch
        story = sample("tell-a-story")
        clients = [await stack.enter_async_context(client(name, local.ws(), story, tmp_path)) for name in NAMES]
        async with asyncio.timeout(30):
            await all_listen.wait()
        for running in clients:
            running.append_audio(sample("stop"))
        for result in await asyncio.gather(*(running.wait() for running in clients)):
            assert (result.exit_code, result.stderr) == (0, "")
            assert "user: stop" in result.stdout
            assert len(result.audio) > 1200 * BYTES_PER_MS
    assert len(interrupted) == len(NAMES)
    assert not any(event.estimated for event in interrupted), "each client reported its playback position"
    assert all(event.played_ms >= 1200 for event in interrupted)


# -- against a script -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_a_turn(name: str, tmp_path: Path) -> None:
    speech, answer = noise(410, seed=2), noise(730)

    async def script(device: ScriptedConnection) -> None:
        await connected(device)
        await device.socket.send('{"type":"weather","of":{"type":"error","more":[true,"}"]}}')  # of a later version
        await device.hear()
        await device.event("AIResponseStart")
        await send_item(device, 'say \\ "hi"', answer[:3201])  # an id is any text; audio comes in any pieces
        await end_turn(device, more=True)
        await asyncio.wait_for(await device.socket.ping(), 5)
        await device.event("AIResponseStart")
        await device.send("textDelta", text="Here it is. " * 2000)
        await end_turn(device)  # text overtakes audio
        await device.until(lambda: device.played('say \\ "hi"'))
        await send_item(device, "item_2", answer[3201:])
        await wait_bye(device)

    async with scripted_relay(script) as relay:
        result = await run(name, relay.url, speech, tmp_path)
        device = relay.device
    assert (result.exit_code, result.stdout, result.stderr) == (0, "user: what time is it\n", "")
    assert result.audio == answer
    assert device.played('say \\ "hi"')[-1] == 100
    reports = device.played("item_2")
    assert reports == sorted(reports)
    assert reports[-1] == (len(answer) - 3201) // BYTES_PER_MS
    assert 3 <= len(reports) <= 7, "every 200 ms, and at the end"
    sent = b"".join(frame for _, frame in device.frames)
    assert sent.startswith(speech)
    assert sent.count(b"\0") >= len(sent) - len(speech), "silence follows the file"
    assert {len(frame) for _, frame in device.frames} == {640}
    seconds = device.frames[-1][0] - device.frames[0][0]
    ahead_s = (len(device.frames) - 1) * 0.02 - seconds
    assert -1 < ahead_s < 0.15, "in real time, as far as the machine lets it"


@pytest.mark.parametrize("name", NAMES)
async def test_an_interrupted_item_falls_silent_at_once(name: str, tmp_path: Path) -> None:
    story, okay = noise(2000), noise(100, seed=3)
    played_ms: list[int] = []

    async def script(device: ScriptedConnection) -> None:
        await connected(device)
        await device.event("AIResponseStart")
        await send_item(device, "story", story[: 900 * BYTES_PER_MS], complete=False)
        await device.until(lambda: device.played("story")[-1:] >= [200])
        played_ms.extend(device.played("story"))
        await device.event("AISpeechDetected")
        await device.send("interrupted", itemId="story", playedMs=played_ms[-1], heardText="", estimated=False)
        await device.event("AIResponseEnd", finalText="One, two", status="cancelled", more=False)
        await device.event("AISpeechEnded")
        n_frames = len(device.frames)
        await device.until(lambda: len(device.frames) > n_frames + 75)  # a model that thinks for 1.5 s
        await device.event("AIResponseStart")
        await send_item(device, "okay", okay)
        await end_turn(device)
        await wait_bye(device)
        played_ms.append(device.played("story")[-1])

    async with scripted_relay(script) as relay:
        result = await run(name, relay.url, b"", tmp_path)
        assert relay.device.played("okay")[-1] == 100
    assert result.exit_code == 0
    assert result.audio.endswith(okay)
    before = result.audio.removesuffix(okay)
    assert story.startswith(before)
    assert played_ms[-1] * BYTES_PER_MS <= len(before) < 700 * BYTES_PER_MS
    assert played_ms[-1] < 700


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("close_code", "retryable", "exit_code"),
    [
        (1001, None, 3),
        (1008, None, 2),
        (1009, None, 2),
        (1011, True, 3),
        (1011, False, 2),
        (1013, True, 3),
        (4002, True, 3),
        (4003, True, 3),
    ],
)
async def test_each_close_says_whether_to_try_again(
    name: str, close_code: int, retryable: bool | None, exit_code: int, tmp_path: Path
) -> None:
    async def script(device: ScriptedConnection) -> None:
        await connected(device)
        if retryable is not None:
            await device.send("error", code="internal_error", message="Too bad.", retryable=retryable)
        await device.socket.close(close_code, "because")

    async with scripted_relay(script) as relay:
        result = await run(name, relay.url, b"", tmp_path)
    assert result.exit_code == exit_code
    assert f"closed with {close_code}" in result.stderr
    assert ("internal_error: Too bad." in result.stderr) == (retryable is not None)


@pytest.mark.parametrize("name", NAMES)
async def test_a_connection_that_breaks_may_be_tried_again(name: str, tmp_path: Path) -> None:
    async def script(device: ScriptedConnection) -> None:
        await connected(device)
        device.socket.transport.abort()

    async with scripted_relay(script) as relay:
        result = await run(name, relay.url, b"", tmp_path)
    assert result.exit_code == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("status", "exit_code"), [(401, 2), (429, 3), (503, 3)])
async def test_a_refused_handshake(name: str, status: int, exit_code: int, tmp_path: Path) -> None:
    async def nothing(device: ScriptedConnection) -> None: ...

    async with scripted_relay(nothing, refuse=http.HTTPStatus(status)) as relay:
        result = await run(name, relay.url, b"", tmp_path)
    if name == "javascript":  # a WebSocket of the web is not told why
        assert result.exit_code == 3
    else:
        assert (result.exit_code, result.stderr) == (exit_code, f"refused with HTTP {status}\n")


@pytest.mark.parametrize("name", NAMES)
async def test_nobody_there_and_used_wrongly(name: str, tmp_path: Path) -> None:
    result = await run(name, "ws://127.0.0.1:9/", b"", tmp_path)
    assert result.exit_code == 3
    assert result.stderr
    process = await asyncio.create_subprocess_exec(*command(name), stderr=asyncio.subprocess.PIPE)
    _, complained = await process.communicate()
    assert process.returncode == 1
    assert b"MICROPHONE.pcm" in complained


@pytest.mark.parametrize("name", NAMES)
async def test_the_key_opens_a_relay_that_wants_one(name: str, tmp_path: Path) -> None:
    key = "a-long-enough-key-for-devices"
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, server_host="0.0.0.0", access_api_keys=key) as locked,
        client(name, locked.ws(), b"", tmp_path, key) as running,
    ):
        session = await upstream.accept()
        await session.configure()
        await session.expect_audio(640)  # what is said before the client's hello would come too early for it
        await session.respond("Hello there.", ms=200)
        result = await running.wait()
        assert (await run(name, locked.ws(), b"", tmp_path)).exit_code == (3 if name == "javascript" else 2)
    assert result.exit_code == 0
    assert len(result.audio) == pytest.approx(200 * BYTES_PER_MS, abs=2 * BYTES_PER_MS)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
async def test_without_an_answer_it_gives_up_after_half_a_minute(name: str, tmp_path: Path) -> None:
    async with scripted_relay(connected) as relay:
        result = await run(name, relay.url, noise(100), tmp_path)
        assert relay.device.received("bye")
    assert result.exit_code == 4


# -- in a page --------------------------------------------------------------------------------------------------------

IN_A_PAGE = """async (microphone) => {
  const { talk } = await import("/device.mjs");
  const said = [], played = [];
  const heard = Uint8Array.from(atob(microphone), (one) => one.charCodeAt(0));
  let at = 0;
  const code = await talk(`ws://${location.host}/`, (n) => heard.subarray(at, (at += n)), (pcm) => played.push(...pcm),
                          { log: { log: (line) => said.push(line), error: (line) => said.push(line) } });
  return { code, said, played: played.length };
}"""


@pytest.mark.browser
async def test_the_javascript_client_runs_in_a_browser_too() -> None:
    module = (CLIENTS / "device.mjs").read_text("utf-8")
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url) as served,
        chromium_page(served.http("/"), microphone="absent") as page,
    ):
        await page.route("**/device.mjs", lambda route: route.fulfill(body=module, content_type="text/javascript"))
        talking = asyncio.create_task(page.evaluate(IN_A_PAGE, base64.b64encode(noise(100)).decode()))
        session = await upstream.accept()
        await session.configure()
        await session.expect_audio(640)  # what is said before the client's hello would come too early for it
        await session.respond("Hello there.", ms=300)
        async with asyncio.timeout(20):
            result = await talking
    assert (result["code"], result["said"]) == (0, ["assistant: Hello there."])
    assert result["played"] == pytest.approx(300 * BYTES_PER_MS, abs=2 * BYTES_PER_MS)


# -- what only C has to fear ------------------------------------------------------------------------------------------


def hostile(number: int) -> bytes:
    """A stream of frames as no relay sends it: right ones, wrong ones, cut ones."""
    chance = random.Random(number)
    stream = bytearray()
    texts = [
        b"{}", b"", b"{", b'{"type":"audioStart","itemId":"' + b"i" * 5000, b'{"type":"audioStart","itemId":"\\',
        b'{"type":"event","name":"AIResponseEnd","more":', b"\xff" * 300, b'{"type":"audioStart"}', b"[" * 40_000,
        b'{"type":"audioStart","itemId":"a"}', b'{"type":"audioEnd","itemId":"a"}', b'{"type":"interrupted"}',
        b'{"type":"error","message":"' + b"\\" * 2001,
    ]  # fmt: skip
    for _ in range(chance.randint(1, 60)):
        opcode = chance.choice([0, 0, 1, 1, 1, 2, 2, 2, 8, 9, 9, 10, *range(16)])
        payload = chance.choice([*texts, chance.randbytes(chance.randint(0, 70_000))])
        if opcode >= 8 and chance.random() < 0.9:
            payload = payload[:125]
        length = len(payload) if chance.random() < 0.95 else chance.getrandbits(chance.choice([8, 20, 64]))
        stream.append(opcode | (0x80 if chance.random() < 0.8 else 0) | chance.choice([0] * 19 + [0x40]))
        if length < 126:
            stream.append(length)
        elif length < 1 << 16:
            stream += bytes([126]) + length.to_bytes(2)
        else:
            stream += bytes([127]) + length.to_bytes(8)
        stream += payload
    return bytes(stream[: chance.randint(0, len(stream))] if chance.random() < 0.3 else stream)


async def test_nothing_that_a_server_sends_breaks_the_c_client(tmp_path: Path) -> None:
    """60 streams of hostile frames; the program is built with the address and the undefined-behaviour sanitizer."""
    assert SANITIZERS[0] == "-fsanitize=address,undefined"
    for number in range(60):

        async def script(device: ScriptedConnection, number: int = number) -> None:
            await device.until(lambda: device.received("hello"))
            device.socket.transport.write(hostile(number))
            device.socket.transport.close()

        async with scripted_relay(script) as relay:
            result = await run("c", relay.url, b"", tmp_path)
        assert result.exit_code in (2, 3), (number, result)
        assert "Sanitizer" not in result.stderr
        assert "runtime error" not in result.stderr
