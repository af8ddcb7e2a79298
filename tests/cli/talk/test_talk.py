"""`relay talk` against a relay that does what a test says, over a real socket."""

import asyncio
import http
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.files import read_audio, write_wav
from audio.g711 import ulaw_decode
from relay.cli.talk import turn_tracker
from relay.cli.talk.talk import TalkOptions, talk
from relay.testing import ScriptedUpstream
from tests.support.relay_server import running_relay
from tests.support.scripted_relay import TIMEOUT_S, ScriptedConnection, scripted_relay

NOT_A_RELAYS_URL = "--url: the URL must look like ws://127.0.0.1:8080/ (ws, wss, http or https)"


async def nothing(device: ScriptedConnection) -> None:
    await device.begin()


def options(url: str, **given: Any) -> TalkOptions:
    usual: dict[str, Any] = {
        "file": None,
        "rate_hz": 24000,
        "text": None,
        "save": None,
        "json_lines": False,
        "timeout_s": TIMEOUT_S,
    }
    return TalkOptions(url=url, **{**usual, **given})


async def run(url: str, **given: Any) -> tuple[int, str]:
    out = io.StringIO()
    async with asyncio.timeout(TIMEOUT_S):
        code = await talk(options(url, **given), out)
    return code, out.getvalue()


def noise(ms: int, rate_hz: int = 24000) -> bytes:
    return np.random.default_rng(7).integers(-8000, 8000, rate_hz * ms // 1000).astype("<i2").tobytes()


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wav"
    write_wav(path, noise(310), 24000)
    return path


# -- turns ------------------------------------------------------------------------------------------------------------


async def test_a_spoken_turn(speech: Path, tmp_path: Path) -> None:
    reply, ready_at = noise(400), list[float]()

    async def script(device: ScriptedConnection) -> None:
        ready_at.append(asyncio.get_running_loop().time())
        await device.begin()
        await device.until(lambda: len(device.frames) >= 25)
        await device.hear()
        tool = {"callId": "c1", "name": "get_time"}
        await device.send("tool", **tool, status="started", ms=0, arguments={"city": "Paris"})
        await device.send("tool", **tool, status="done", ms=12, output={"time": "15:10"})
        await device.answer(reply)

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, file=speech, save=tmp_path / "reply.wav")

    lines = [line.rstrip() for line in printed.splitlines()]
    assert code == 0
    assert lines == [
        f"connected {relay.url} · session s_1 · pcm16 24000 Hz in, pcm16 24000 Hz out",
        "you       what time is it",
        'tool      get_time {"city": "Paris"}',
        'tool      get_time done in 12 ms → {"time": "15:10"}',
        "relay     Ten past three.",
        "usage     120 tokens in (audio 100, text 20, cached 0), 45 out (audio 30, text 15)",
        "latency   392 ms from end of user turn to first audio (speech end noticed +210 ms,"
        " first audio from the model +180 ms, first audio here +2 ms)",
        f"note      saved 0.4 s of audio to {tmp_path / 'reply.wav'}",
    ]
    assert relay.requests[0].path == "/?rate=24000"
    assert "Authorization" not in relay.requests[0].headers
    assert read_audio(tmp_path / "reply.wav", 24000) == reply
    assert relay.device.received("bye") == [{"type": "bye"}]
    sent = b"".join(frame for _, frame in relay.device.frames)
    assert {len(frame) for _, frame in relay.device.frames} == {960}
    assert sent[: len(noise(310))] == noise(310)
    assert not any(sent[len(noise(310)) :])
    # At the speed of speech: no frame comes before its time.
    assert all(at >= ready_at[0] + index * 0.02 for index, (at, _) in enumerate(relay.device.frames))


async def test_a_file_of_another_rate_is_sent_at_the_relays(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", noise(200, 48000), 48000)

    async def script(device: ScriptedConnection) -> None:
        await device.begin(rate=16000)  # whatever was requested, this is active
        await device.until(lambda: len(device.frames) >= 12)
        await device.hear()
        await device.answer()

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url + "?voice=marin", file=tmp_path / "a.wav")
    assert code == 0
    assert relay.requests[0].path == "/?voice=marin&rate=24000"
    assert {len(frame) for _, frame in relay.device.frames} == {640}


async def test_telephone_formats(speech: Path, tmp_path: Path) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin(rate=8000, encoding="pcmu")
        await device.until(lambda: len(device.frames) >= 20)
        await device.hear()
        await device.answer(bytes(range(256)) * 10)

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url + "?format=pcmu", file=speech, save=tmp_path / "reply.wav")
    assert code == 0
    assert relay.requests[0].path == "/?format=pcmu&rate=8000"
    assert {len(frame) for _, frame in relay.device.frames} == {160}
    assert relay.device.frames[-1][1] == b"\xff" * 160  # mu-law's silence
    assert read_audio(tmp_path / "reply.wav", 8000) == ulaw_decode(bytes(range(256)) * 10)


async def test_a_typed_turn_needs_no_sound() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.answer(noise(100))

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, text="hello")
    assert code == 0
    assert "relay     Ten past three." in printed
    assert relay.device.received("text") == [{"type": "text", "text": "hello"}]
    assert relay.device.frames == []


async def test_a_typed_turn_follows_the_spoken_one(speech: Path) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: len(device.frames) >= 20)
        assert device.received("text") == []
        await device.hear()
        await device.answer(text="First.")
        await device.until(lambda: device.received("text"))
        await device.answer(text="Second.", item_id="b")

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, file=speech, text="and then?")
    assert code == 0
    assert printed.index("First.") < printed.index("Second.")


async def test_json_mode_prints_every_message_and_nothing_else(speech: Path, tmp_path: Path) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.answer(noise(200), text="Yes.")

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, text="well?", json_lines=True, save=tmp_path / "reply.wav")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert [line.get("name", line["type"]) for line in lines] == [
        *["AIConnected", "AIResponseStart", "textDelta", "audioStart", "binary", "binary", "audioEnd"],
        *["transcript", "usage", "AIResponseEnd", "latency"],
    ]
    assert lines[4] == {"type": "binary", "bytes": 4800, "t_ms": lines[4]["t_ms"]}
    assert lines[0]["input"] == {"format": "pcm16", "rate": 24000}
    times = [line["t_ms"] for line in lines]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < TIMEOUT_S * 1000


async def test_with_the_relay_itself(speech: Path, tmp_path: Path) -> None:
    async def model(upstream: ScriptedUpstream) -> None:
        session = await upstream.accept()
        await session.configure()
        assert (await session.expect_audio(len(noise(310))))[: len(noise(310))] == noise(310)
        said = {"item_id": "item_u", "content_index": 0}
        await session.emit(
            {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
            {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 310},
            {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
            {"type": "conversation.item.input_audio_transcription.completed", "transcript": "hello", **said},
        )
        await session.respond("Good morning to you.", ms=1500)
        await session.closed.wait()

    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as served:
        script = asyncio.create_task(model(upstream))
        code, printed = await run(served.ws(), file=speech, save=tmp_path / "reply.wav")
        async with asyncio.timeout(TIMEOUT_S):
            await script
    assert code == 0
    assert "you       hello\n" in printed
    assert "relay     Good morning to you.\n" in printed
    assert "latency   " in printed
    assert "first played" in printed
    assert len(read_audio(tmp_path / "reply.wav", 24000)) == 1500 * 48


# -- playback ---------------------------------------------------------------------------------------------------------


async def test_playback_is_acknowledged_in_real_time() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.event("AIResponseStart")
        await device.send("audioStart", itemId="a")
        await device.socket.send(noise(700))
        sent_at = asyncio.get_running_loop().time()
        await device.until(lambda: any(played >= 600 for played in device.played("a")))
        assert asyncio.get_running_loop().time() - sent_at >= 0.59
        await device.send("audioEnd", itemId="a", totalMs=700)
        await device.until(lambda: 700 in device.played("a"))
        await device.event("AIResponseEnd", finalText="", status="completed", more=False)

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url, text="talk to me")
    positions = relay.device.played("a")
    assert code == 0
    assert 2 <= len(positions) <= 4, "one every 200 ms, fewer where the machine is busy, and the end"
    assert positions == sorted(positions)
    assert positions[-1] == 700


async def test_an_interruption_silences_at_once() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.event("AIResponseStart")
        await device.send("audioStart", itemId="a")
        await device.socket.send(noise(3000))
        await device.until(lambda: device.played("a"))
        await device.send("interrupted", itemId="a", playedMs=210, heardText="Once upon", estimated=False)
        await device.event("AIResponseEnd", finalText="Once upon a time", status="cancelled", more=True)
        await device.event("AIResponseStart")
        await device.send("audioStart", itemId="b")
        await device.socket.send(noise(500))
        await device.until(lambda: len(device.played("b")) >= 2)
        assert len(device.played("a")) == 1
        await device.send("audioEnd", itemId="b", totalMs=500)
        await device.event("AIResponseEnd", finalText="Yes?", status="completed", more=False)

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, text="tell me a story")
    assert code == 0
    assert "cut       after 210 ms; heard: 'Once upon'" in printed


# -- what can go wrong ------------------------------------------------------------------------------------------------


async def test_a_file_without_speech(
    speech: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(turn_tracker, "NO_SPEECH_S", 0.2)
    async with scripted_relay(nothing) as relay:
        code, _ = await run(relay.url, file=speech)
    assert code == 1
    assert capsys.readouterr().err == f"relay: the relay detected no speech in {speech}: 0.3 s were sent, at -17 dBFS\n"


async def test_no_answer_says_what_was_heard(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.hear("what time is it")

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url, file=speech, timeout_s=0.3)
    assert code == 1
    assert (
        capsys.readouterr().err
        == 'relay: "what time is it" was transcribed, but there was no answer: the relay sent nothing for 0.3 s\n'
    )


async def test_a_relay_that_never_gets_ready(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.send("error", code="upstream_unreachable", message="The model cannot be reached.", retryable=True)

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url, text="hello", timeout_s=0.3)
    assert code == 1
    assert capsys.readouterr().err == "relay: the relay was not ready within 0.3 s: The model cannot be reached.\n"


async def test_an_error_before_the_close_is_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.send("error", code="upstream_refused", message="The model's key is wrong.", retryable=False)
        await device.socket.close(1011, "invalid_api_key")

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, text="hello")
    assert code == 1
    assert "error     The model's key is wrong. (upstream_refused)" in printed
    assert capsys.readouterr().err == "relay: the relay closed the connection (1011): The model's key is wrong.\n"


async def test_an_answer_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.send("error", code="response_failed", message="The model could not answer.", retryable=True)
        await device.event("AIResponseStart")
        await device.event("AIResponseEnd", finalText="", status="failed", more=False)

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url, text="hello")
    assert code == 1
    assert capsys.readouterr().err == "relay: the answer failed: The model could not answer.\n"


async def test_a_connection_that_breaks(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.send("audioStart", itemId="a")
        await device.socket.send(noise(100))
        await device.until(lambda: device.frames)
        device.socket.transport.abort()

    async with scripted_relay(script) as relay:
        code, _ = await run(relay.url, file=speech, save=tmp_path / "reply.wav")
    assert code == 1
    assert capsys.readouterr().err == "relay: the connection was lost\n"
    assert read_audio(tmp_path / "reply.wav", 24000) == noise(100)  # what there was is kept


@pytest.mark.parametrize(
    ("status", "key", "says"),
    [
        (401, "", "answered HTTP 401: a key is required; set RELAY_KEY (A key is needed.)"),
        (401, "sk-secret", "answered HTTP 401: the key in RELAY_KEY is not accepted (A key is needed.)"),
        (403, "", "answered HTTP 403: this client is not allowed (A key is needed.)"),
        (503, "", "answered HTTP 503: the relay is full or shutting down; try again later (A key is needed.)"),
        (418, "", "answered HTTP 418: the connection was refused (A key is needed.)"),
    ],
)
async def test_a_refusal_and_its_meaning(
    status: int, key: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELAY_KEY", key)
    refusal = '{"error": "A key is needed."}'
    async with scripted_relay(nothing, refuse=http.HTTPStatus(status), body=refusal) as relay:
        code, printed = await run(relay.url, text="hello")
    said = capsys.readouterr().err
    assert code == 1
    assert said == f"relay: {relay.url} {says}\n"
    assert relay.requests[0].headers.get("Authorization") == (f"Bearer {key}" if key else None)
    assert "sk-secret" not in said + printed


async def test_a_ticket_in_the_url_is_not_shown() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.answer()

    async with scripted_relay(script) as relay:
        _, printed = await run(relay.url.replace("ws://", "http://") + "ws?ticket=ek_relay_secret", text="hello")
    assert relay.requests[0].path == "/ws?ticket=ek_relay_secret&rate=24000"
    assert f"connected {relay.url}ws ·" in printed
    assert "secret" not in printed


async def test_nothing_listens(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = await run(f"127.0.0.1:{unused_tcp_port}", text="hello")
    assert (code, printed) == (1, "")
    assert (
        capsys.readouterr().err
        == f"relay: cannot reach ws://127.0.0.1:{unused_tcp_port}/: nothing listens there; is the relay running?\n"
    )


async def test_something_else_listens(capsys: pytest.CaptureFixture[str]) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        code, _ = await run(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", text="hello")
    assert code == 1
    assert "is not a relay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing to send: specify an audio file or --text"),
        ({"text": "  "}, "--text is empty"),
        ({"file": Path("no/such.wav")}, "cannot open no/such.wav: no such file or directory"),
        ({"file": Path(__file__)}, f"{__file__} is not an audio file that can be read (WAV, FLAC, Ogg, MP3)"),
        ({"text": "a", "save": Path("no/such/reply.wav")}, "cannot write no/such/reply.wav: its folder does not exist"),
        ({"text": "a", "rate_hz": 44100}, "rate of pcm16 must be one of 8000, 16000, 24000, 48000 Hz, not 44100"),
        ({"text": "a", "url": "ftp://host/"}, NOT_A_RELAYS_URL),
        ({"text": "a", "url": "ws:///x"}, NOT_A_RELAYS_URL),
        ({"text": "a", "url": "ws://me:password"}, NOT_A_RELAYS_URL),
    ],
)
async def test_what_can_be_known_beforehand(
    given: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = await run(**{"url": "ws://127.0.0.1:1/", **given})
    assert (code, printed) == (1, "")
    assert capsys.readouterr().err == f"relay: {says}\n"


async def test_a_key_that_would_break_the_header(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELAY_KEY", "a\r\nX-Evil: 1")
    assert (await run("ws://127.0.0.1:1/", text="hello"))[0] == 1
    assert capsys.readouterr().err == "relay: RELAY_KEY contains characters other than printable ASCII\n"


async def test_strange_messages_are_survived() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        for text in ("", "[]", "{", "null", '{"type": 5}', '{"type": "tool", "name": [1], "ms": "x", "arguments": 3}'):
            await device.socket.send(text)
        for text in (
            '{"type":"audioStart","itemId":null}',
            '{"type":"latency"}',
            '{"type":"usage","inputTokens":"many"}',
        ):
            await device.socket.send(text)
        await device.socket.send(b"")
        await device.until(lambda: device.received("text"))
        await device.answer(noise(60) + b"x", text="\x1b[2J\x07[bold]Words.[/bold]")

    async with scripted_relay(script) as relay:
        code, printed = await run(relay.url, text="hello")
    assert code == 0
    assert "\x1b" not in printed
    assert "[bold]Words.[/bold]" in printed


async def test_the_reader_of_the_output_may_leave() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    async with scripted_relay(nothing) as relay:
        assert await talk(options(relay.url, text="hello"), Closed()) == 1
        assert await talk(options(relay.url, text="hello", json_lines=True), Closed()) == 1


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "relay", "talk", *arguments],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A shell starts what runs behind it with SIGINT ignored, and that would be inherited from the tests' own.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
async def test_control_c_ends_it_without_a_traceback(speech: Path) -> None:
    async with scripted_relay(nothing) as relay, process(str(speech), "--url", relay.url) as talking:
        assert talking.stdout is not None
        assert (await talking.stdout.readline()).startswith(b"connected")
        talking.send_signal(signal.SIGINT)
        _, said = await talking.communicate()
    assert (talking.returncode, said) == (130, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break in another way there")
async def test_a_pipe_that_breaks_ends_it_without_a_traceback() -> None:
    gone = asyncio.Event()

    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await gone.wait()
        while not device.is_closed:  # until a line meets the broken pipe
            await device.send("textDelta", text="word")
            await asyncio.sleep(0)

    async with scripted_relay(script) as relay:
        script_line = (
            f"{sys.executable} -m relay talk --json --text hello --url {relay.url} | head -n 1; echo ${{PIPESTATUS[0]}}"
        )
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script_line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert shell.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert b"AIConnected" in await shell.stdout.readline()
            gone.set()
            printed, said = await shell.communicate()
    assert (printed, said) == (b"1\n", b"")
