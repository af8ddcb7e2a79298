"""The `relay` command as its user runs it: start, log, health, bad settings, and the end on SIGTERM."""

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from relay import __version__
from relay.auth.refusals import LINES_PER_MINUTE
from relay.testing import ScriptedUpstream
from tests.support.navai_project import write_file
from tests.support.relay_command import RELAY_COMMAND, START_TIMEOUT_S, relay_environment, serve_process
from tests.support.relay_server import DeviceClient, running_relay


async def test_the_start_says_what_is_in_force_and_no_key(tmp_path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = {"RELAY_UPSTREAM": upstream.url, "RELAY_UPSTREAM_KEY": "sk-secret-0123456789"}
        async with serve_process(tmp_path, OPENAI_REALTIME_MODEL="my-model", **settings) as served:
            for told in (__version__, "my-model", "127.0.0.1", "pcm16", "localhost", "current_time", "roll_dice"):
                assert told in served.log, told
            assert "sk-secret" not in served.log


async def test_a_setting_without_effect_is_one_warning_a_start(tmp_path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = {"RELAY_UPSTREAM": upstream.url, "RELAY_UPSTREAM_KEY": "sk-secret-0123456789"}
        async with serve_process(tmp_path, RELAY_TICK_MS="5", **settings) as served:
            served.process.send_signal(signal.SIGHUP)
            await served.read_until("reloaded tools: ")
            lines = [line for line in served.log.splitlines() if "RELAY_TICK_MS" in line]
            assert len(lines) == 1
            assert lines[0].endswith("WARNING RELAY_TICK_MS has no effect any more and can be removed")


async def test_sigterm_says_goodbye_and_exits_0_in_bounded_time_and_what_is_left_is_its_own(tmp_path) -> None:
    """It runs under a umask of nothing; what others may open is named once at the start, and stays as it is."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    async with ScriptedUpstream() as upstream:
        (tmp_path / ".env").write_text(f"RELAY_UPSTREAM={upstream.url}\nRELAY_UPSTREAM_KEY=sk-secret-0123456789\n")
        (tmp_path / ".env").chmod(0o644)
        async with serve_process(tmp_path, umask=0, RELAY_RECORD="on", RELAY_RECORDINGS_DIR="open") as served:
            assert served.log.count("chmod 600 .env") == 1
            assert served.log.count("chmod 700 open") == 1
            client = await DeviceClient.connect(f"ws://127.0.0.1:{served.port}/")
            session = await upstream.accept()
            await session.configure()
            await client.expect("AIConnected")
            await client.speak(bytes(6400))
            await session.expect_audio(6400)
            served.process.send_signal(signal.SIGTERM)
            await client.expect("goodbye")
            assert (await client.wait_closed())[0] == 1001
            async with asyncio.timeout(8):
                assert await served.process.wait() == 0
            async with asyncio.timeout(2):
                await session.closed.wait()
    left = modes_below(tmp_path)
    assert (left.pop(".env"), left.pop("open")) == ("0o644", "0o755")
    assert {Path(path).name for path in left} >= {"journal.jsonl", "client.pcm", "session.json"}
    assert set(left.values()) == {"0o600", "0o700"}


def modes_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")}


async def test_sighup_loads_the_tools_anew_and_no_session_notices(tmp_path) -> None:
    write_file(tmp_path / "tools" / "a.py", "def one() -> int:\n    return 1\n")
    async with ScriptedUpstream() as upstream, serve_process(tmp_path, RELAY_UPSTREAM=upstream.url) as served:
        assert re.search(r"tools one\n", served.log)
        async with await DeviceClient.connect(f"ws://127.0.0.1:{served.port}/") as client:
            session = await upstream.accept()
            await session.configure()
            await client.expect("AIConnected")
            write_file(tmp_path / "tools" / "a.py", "def two() -> int:\n    return 2\n")
            served.process.send_signal(signal.SIGHUP)
            await served.read_until(r"reloaded tools: two\n")
            await client.send(type="hello", v=1)
            await client.expect("ready")
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{served.port}/navai/functions/execute"
            async with http.post(url, json={"function_name": "two"}) as answer:
                assert (await answer.json())["result"] == 2


async def test_a_file_of_settings_that_is_wrong_changes_nothing_and_is_one_line(tmp_path) -> None:
    env = tmp_path / ".env"
    async with serve_process(tmp_path, RELAY_UPSTREAM="local") as served:
        for content, problem in (
            (
                b"RELAY_API_KEYS=a-secret\nRELAY_MAX_SESSIONS=x\n",
                "invalid settings: RELAY_API_KEYS: a key must .*; RELAY_MAX_SESSIONS: must be",
            ),
            (b"RELAY_API_KEYS=\xff\n", r"\.env cannot be read: "),
        ):
            env.write_bytes(content)
            served.process.send_signal(signal.SIGHUP)
            await served.read_until(f"ERROR   keys and policies not reloaded, the previous ones stay: {problem}")
            await served.read_until("reloaded tools: ")
        assert "a-secret" not in served.log


async def test_sighup_reads_keys_and_policies_anew_and_ends_the_sessions_of_a_revoked_key(tmp_path) -> None:
    old, kept, new = "old-key-0123456789abcdef", "kept-key-0123456789abcdef", "new-key-0123456789abcdef"
    settings = tmp_path / ".env"
    settings.write_text(f"RELAY_API_KEYS={old},{kept}\nRELAY_POLICIES=policies.toml\n")
    policies = tmp_path / "policies.toml"
    policies.write_text("[policies.before]\n")
    async with ScriptedUpstream() as upstream, serve_process(tmp_path, RELAY_UPSTREAM=upstream.url) as served:
        url, http = f"ws://127.0.0.1:{served.port}", f"http://127.0.0.1:{served.port}"

        async def connect(key: str, path: str = "/") -> DeviceClient:
            client = await DeviceClient.connect(url + path, additional_headers={"Authorization": f"Bearer {key}"})
            await (await upstream.accept()).configure()
            await client.expect("AIConnected")
            return client

        async def mint(key: str, status: int = 200, **body: str) -> str:
            headers = {"Authorization": f"Bearer {key}"}
            address = f"{http}/v1/realtime/client_secrets"
            async with aiohttp.ClientSession() as client, client.post(address, json=body, headers=headers) as answer:
                assert answer.status == status
                return (await answer.json()).get("value", "")

        secret = await mint(old)
        revoked, of_secret, stays = await connect(old), await connect(secret), await connect(kept)

        settings.write_text(f"RELAY_API_KEYS={kept},short\n")
        served.process.send_signal(signal.SIGHUP)
        await served.read_until(r"keys and policies not reloaded, the previous ones stay: invalid settings")
        await mint(old)

        settings.write_text(f"RELAY_API_KEYS={kept},{new}\nRELAY_POLICIES=policies.toml\n")
        policies.write_text('[policies.default]\nmay_mint = ["after"]\n[policies.after]\n')
        served.process.send_signal(signal.SIGHUP)
        await served.read_until(
            r"reloaded access: 2 keys, 0 admin keys, policies default, after; ended 2 sessions of revoked keys"
        )
        for client in (revoked, of_secret):
            assert (await client.expect("error"))["code"] == "key_revoked"
            assert await client.wait_closed() == (1008, "the key was revoked")
        await mint(old, 401)
        await mint(secret, 401)
        await mint(new, policy="after")
        await stays.send(type="hello", v=1)
        await stays.expect("ready")
        await stays.connection.close()


async def test_what_is_no_http_is_a_line_and_not_a_traceback(tmp_path) -> None:
    secret = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"
    requests = [
        f"GET /?key={secret} HTTP/9.9\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {secret * 200}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization {secret}\r\n\r\n",
        "GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        "\r\nno!\r\n",
    ]
    async with serve_process(tmp_path) as served:
        for request in requests * 5:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(request.encode("latin-1"))
            async with asyncio.timeout(5):
                assert b" 400 " in await reader.readline()
            writer.close()
        served.process.send_signal(signal.SIGHUP)
        await served.read_until(r"reloaded tools: ")
    assert "refused 127.0.0.1 ? ?: 400 This is not a valid HTTP/1.1 request" in served.log
    assert LINES_PER_MINUTE <= served.log.count("refused 127.0.0.1") < LINES_PER_MINUTE + 5
    assert "Traceback" not in served.log
    assert secret not in served.log


async def test_health_and_readiness(tmp_path) -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay, aiohttp.ClientSession() as http:
        async with http.get(relay.http("/healthz")) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok", "version": __version__})
        async with http.get(relay.http("/readyz")) as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "ready")
        relay.sessions.is_draining = True
        async with http.get(relay.http("/readyz")) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (503, "the relay is shutting down")


async def test_what_is_not_there_is_json_too() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay, aiohttp.ClientSession() as http:
        for method, path, status in (("GET", "/nothing", 404), ("POST", "/healthz", 405), ("GET", "/static/x.py", 404)):
            async with http.request(method, relay.http(path)) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]
        async with http.get(relay.http("/ws")) as answer:
            assert (answer.status, (await answer.json())["field"]) == (400, "Upgrade")


async def test_the_page_and_its_files_are_served_with_a_policy() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay, aiohttp.ClientSession() as http:
        async with http.get(relay.http("/")) as answer:
            text = await answer.text()
            assert answer.content_type == "text/html"
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        for name in re.findall(r"/static/([\w.-]+)", text):
            async with http.get(relay.http(f"/static/{name}")) as answer:
                assert answer.status == 200, name


async def run_relay(tmp_path: Path, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        RELAY_COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=relay_environment(tmp_path, **settings), cwd=tmp_path,
    )  # fmt: skip
    async with asyncio.timeout(START_TIMEOUT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_wrong_settings_are_told_by_name_without_a_traceback(tmp_path) -> None:
    code, _, err = await run_relay(tmp_path, "serve", RELAY_TURN="sometimes", PORT="x", HOST="0.0.0.0")
    assert code == 2
    assert "RELAY_TURN" in err
    assert "PORT" in err
    assert "Traceback" not in err


async def test_an_address_that_is_taken_is_a_sentence(tmp_path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        code, _, err = await run_relay(tmp_path, "serve", "--port", str(port), RELAY_UPSTREAM="ws://127.0.0.1:9/")
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "Traceback" not in err


async def test_a_tools_folder_that_is_not_there_is_a_sentence(tmp_path) -> None:
    code, _, err = await run_relay(tmp_path, "serve", "--tools", "nowhere", RELAY_UPSTREAM="ws://127.0.0.1:9/")
    assert code == 2
    assert "nowhere" in err
    assert "Traceback" not in err


async def test_help_and_version(tmp_path) -> None:
    code, out, _ = await run_relay(tmp_path, "--version")
    assert (code, out) == (0, f"relay {__version__}\n")
    code, out, _ = await run_relay(tmp_path, "--help")
    assert code == 0
    for command in ("serve", "talk", "local"):
        assert command in out


async def test_the_module_names_a_package_that_hides_ours(tmp_path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "__init__.py").write_text("")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "--version",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=relay_environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 2
    assert str(tmp_path / "audio") in err.decode()
    code, out, _ = await run_relay(tmp_path, "--version")
    assert (code, out) == (0, f"relay {__version__}\n"), "the console script is not touched by it"


async def test_json_logs_are_one_object_a_line(tmp_path) -> None:
    async with ScriptedUpstream() as upstream:
        process = await asyncio.create_subprocess_exec(
            RELAY_COMMAND, "serve", "--port", "0", stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
            env=relay_environment(tmp_path, RELAY_UPSTREAM=upstream.url, RELAY_LOG_FORMAT="json"),
        )  # fmt: skip
        assert process.stderr is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            entry = json.loads(await process.stderr.readline())
        process.terminate()
        await process.communicate()
    assert entry["level"] == "info"
    assert entry["message"].startswith("relay ")


@pytest.mark.parametrize("exit_by", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_run_can_have_the_port_at_once(tmp_path, exit_by) -> None:
    async with ScriptedUpstream() as upstream:
        async with serve_process(tmp_path, RELAY_UPSTREAM=upstream.url) as served:
            port = served.port
            served.process.send_signal(exit_by)
            async with asyncio.timeout(8):
                assert await served.process.wait() == 0
        async with serve_process(tmp_path, "--port", str(port), RELAY_UPSTREAM=upstream.url) as served:
            assert served.port == port
