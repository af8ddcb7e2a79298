"""A relay with every kind of secret, used in every way, by peers that repeat all of them: nothing shows one.

All that the process wrote (log, recordings), gave its children (their environments) and sent to clients is searched for
every secret. Deltas are the exception; the peers here put no secret into one.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.relay_server import serve_app

Obj = dict[str, Any]
RELAY = Path(sys.executable).with_name("relay")
MCP_SERVER = Path(__file__).parent / "support" / "mcp_server.py"
TIMEOUT_S = 60.0

CLIENT_KEY, OTHER_KEY, ADMIN_KEY = "rk-9f2c41d07ab86e35c1", "rk-b70e5d2a94c81f63e2", "ak-03d9e6f1b58c72a4e3"
SECRETS = {
    "RELAY_API_KEYS": f"{CLIENT_KEY},{OTHER_KEY}",
    "RELAY_ADMIN_KEYS": ADMIN_KEY,
    "RELAY_TICKET_KEYS": "tk-5e81b3f6d2907c4ae4",
    "RELAY_UPSTREAM_KEY": "up/5a7d+0c93e1f8b264e5",
    "OPENAI_API_KEY": "oa_c6e20f9b7d31a845e6",
    "AZURE_OPENAI_API_KEY": "az8b4f1d6a0e97c253e7",
    "ELEVENLABS_API_KEY": "el71f5c8e3a92d06b4e8",
    "WAREHOUSE_TOKEN": "wh-2d60b9a4f7e138c5e9",
    "DB_DSN": "postgres://relay:pw-84c1e7f3@db.internal/calls",
}
"""The last one is no setting of the relay's: it may stand in no child's environment."""
URL_KEY = "uk-e4a7c0d58f1b3962ea"
ALL = [CLIENT_KEY, OTHER_KEY, URL_KEY, *(one for name, one in SECRETS.items() if name != "RELAY_API_KEYS")]
KNOWN = [one for one in ALL if one != SECRETS["DB_DSN"]]
LOUD = " and ".join(KNOWN)
HIDDEN = "".join(f"\\u{ord(char):04x}" for char in SECRETS["OPENAI_API_KEY"])

TOOLS = '''
import os
from relay import ClientResult, ToolContext, ToolError, tool

LOUD = os.environ["LOUD"]


@tool(expose=("model", "http", "client"))
def tell() -> dict:
    """Tell all."""
    return {"all": LOUD}


@tool(expose=("model", "http", "client"))
def show() -> ClientResult:
    """Show all."""
    return ClientResult({"all": LOUD}, note=LOUD)


@tool(expose=("model", "http", "client"))
def crash() -> str:
    """Crash."""
    raise ValueError(LOUD)


@tool(expose=("model", "http", "client"))
def refuse(context: ToolContext) -> str:
    """Refuse."""
    context.progress(LOUD)
    raise ToolError(LOUD)


@tool(expose=("model", "http", "client"))
def leave(context: ToolContext) -> str:
    """Leave."""
    context.end_session(LOUD)
    return LOUD
'''
TOOL_NAMES = ("tell", "show", "crash", "refuse", "leave")
MCP = """
import os, sys
sys.path.insert(0, {folder!r})
print("my token is", os.environ["TOKEN"], file=sys.stderr, flush=True)
from mcp_server import server


@server.tool()
def token() -> str:
    return os.environ["TOKEN"]


server.run()
"""


class Provider:
    """OpenAI's, Azure's and ElevenLabs' HTTP, and the voice's socket: all of them repeat every secret."""

    def __init__(self) -> None:
        self.n_asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.n_asked += 1
        if "websocket" in request.headers.get("Upgrade", "").lower():
            return await self._voice(request)
        headers = {"X-Echo": SECRETS["OPENAI_API_KEY"], "Location": f"http://x/?key={SECRETS['AZURE_OPENAI_API_KEY']}"}
        if self.n_asked % 3 == 0:
            session = {"id": "sess_1", "instructions": LOUD}
            body = {
                "value": "ek_1",
                "expires_at": 1,
                "session": session,
                "client_secret": {"value": "e", "expires_at": 1},
            }
            return web.json_response(body, headers=headers)
        error = {"code": SECRETS["OPENAI_API_KEY"], "type": LOUD, "message": LOUD, "param": LOUD}
        body = {"error": error, "detail": {"status": SECRETS["ELEVENLABS_API_KEY"], "message": LOUD}}
        return web.json_response(body, status=(401, 307)[self.n_asked % 3 - 1], headers=headers)

    async def _voice(self, request: web.Request) -> web.StreamResponse:
        if self.n_asked % 2:
            return web.json_response({"detail": {"status": LOUD, "message": LOUD}}, status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT and "hello" in message.data.lower():
                told = {"message": f"{'x' * 290}{LOUD}", "error": SECRETS["ELEVENLABS_API_KEY"], "code": 1008}
                await socket.send_json(told)
                await socket.close(code=1008, message=LOUD.encode()[:120])
        return socket


class Everything:
    """A served relay, what it was told, and all that it said."""

    def __init__(self, folder: Path, port: int, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.port = port
        self.process = process
        self.said: list[str] = []

    def url(self, path: str, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def listen(self, connection: Any, awaited: str, heard: asyncio.Event) -> None:
        """Keep all that comes, until the relay hangs up; `heard` is set once `awaited` was among it."""
        with suppress(ConnectionClosed):
            async for message in connection:
                self.said.append(message if isinstance(message, str) else message.decode("latin-1"))
                if awaited in self.said[-1]:
                    heard.set()
        self.said.append(str(connection.close_reason))

    async def ask(self, http: aiohttp.ClientSession, method: str, path: str, body: Any = None, key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key or CLIENT_KEY}"}
        async with http.request(method, self.url(path, "http"), json=body, headers=headers) as response:
            self.said.append(f"{dict(response.headers)} {(await response.read()).decode('latin-1')}")
            return response.status

    async def send_raw(self, raw: bytes) -> None:
        """What is no request. The answer holds the client's own bytes, and is only waited for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10)
        writer.close()


@asynccontextmanager
async def everything(folder: Path, upstream: str, provider: str, log_format: str) -> AsyncIterator[Everything]:
    tools, servers = folder / "my_tools", folder / "mcp.json"
    tools.mkdir()
    (tools / "loud.py").write_text(TOOLS)
    (folder / "server.py").write_text(MCP.format(folder=str(MCP_SERVER.parent)))
    entry = {"command": sys.executable, "args": [str(folder / "server.py")], "env": {"TOKEN": "${WAREHOUSE_TOKEN}"}}
    servers.write_text(json.dumps({"mcpServers": {"wh": entry}}))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LOUD": LOUD} | SECRETS | {
        "PORT": "0",
        "RELAY_UPSTREAM": f"{upstream}?api-key={URL_KEY}",
        "OPENAI_BASE_URL": f"{provider}/v1",
        "AZURE_OPENAI_ENDPOINT": provider,
        "AZURE_OPENAI_DEPLOYMENT": "dep",
        "NAVAI_TTS_PROVIDER": "elevenlabs",
        "ELEVENLABS_BASE_URL": provider,
        "ELEVENLABS_VOICE_ID": "voice-1",
        "RELAY_MCP_SERVERS": str(servers),
        "RELAY_TOOLS": str(tools),
        "RELAY_RECORD": "on",
        "RELAY_RECORDINGS_DIR": str(folder / "recordings"),
        "RELAY_LOG_LEVEL": "debug",
        "RELAY_LOG_FORMAT": log_format,
        "RELAY_MINTS_PER_MINUTE": "0",
        "RELAY_SPEECH_PER_MINUTE": "0",
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(RELAY, "serve", stdout=log, stderr=log, env=environ, cwd=folder)
    try:
        yield Everything(folder, await _port(folder / "log", process), process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port(log: Path, process: asyncio.subprocess.Process) -> int:
    while True:
        said = await asyncio.to_thread(log.read_text)
        if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", said):
            return int(found[1])
        assert process.returncode is None, said
        await asyncio.sleep(0.02)


def loud_events() -> Iterator[Obj | str]:
    """Every kind of event that is no delta, with every secret in it."""
    item = {"id": "item_u", "type": "message", "role": "user", "content": [{"type": "input_text", "text": LOUD}]}
    about = {"response_id": "resp_l", "item_id": "item_l", "output_index": 0, "content_index": 0}
    shown = {"id": "item_l", "type": "message", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": LOUD}]}  # fmt: skip
    error = {"type": LOUD, "code": SECRETS["OPENAI_API_KEY"], "message": LOUD, "param": LOUD, "event_id": None}
    yield {"type": "conversation.item.added", "previous_item_id": None, "item": item}
    yield {"type": "conversation.item.done", "previous_item_id": None, "item": item}
    yield {"type": "conversation.item.retrieved", "item": item}
    transcribed = {"item_id": "item_u", "content_index": 0, "transcript": LOUD}
    yield {"type": "conversation.item.input_audio_transcription.completed", **transcribed}
    failed = {"item_id": "item_u", "content_index": 0, "error": error}
    yield {"type": "conversation.item.input_audio_transcription.failed", **failed}
    yield {"type": "response.created", "response": {"id": "resp_l", "output": [], "metadata": {"x": LOUD}}}
    yield {"type": "response.output_item.added", "response_id": "resp_l", "output_index": 0, "item": shown}
    yield {"type": "response.content_part.added", "part": {"type": "text", "text": LOUD}, **about}
    yield {"type": "response.output_text.delta", "delta": "Hello there. ", **about}
    yield {"type": "response.output_audio_transcript.delta", "delta": "Hello there. ", **about}
    yield {"type": "response.output_text.done", "text": LOUD, **about}
    yield {"type": "response.output_audio_transcript.done", "transcript": LOUD, **about}
    yield {"type": "response.content_part.done", "part": {"type": "text", "text": LOUD}, **about}
    yield {"type": "response.output_item.done", "response_id": "resp_l", "output_index": 0, "item": shown}
    details = {"type": "failed", "error": error}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    response = {"id": "resp_l", "status": "failed", "status_details": details, "output": [shown], "usage": usage}
    yield {"type": "response.done", "response": response}
    yield {"type": "error", "error": error}
    yield f'{{"type":"error","error":{{"type":"x","code":"y","message":"escaped {HIDDEN}","param":null}}}}'
    slashed = SECRETS["RELAY_UPSTREAM_KEY"].replace("/", "\\/")
    yield f'{{"type":"error","error":{{"type":"x","code":"y","message":"escaped {slashed}","param":null}}}}'
    yield {"type": f"nobody.knows.{KNOWN[0]}", "what": LOUD}
    yield f"no JSON: {LOUD}"
    yield {"type": "session.updated", "session": {"type": "realtime", "instructions": LOUD}}


async def loud_session(session: ScriptedSession, heard: asyncio.Event) -> None:
    """The upstream of one session: all of the events, a call of every tool, and a close that tells a secret."""
    await session.configure(instructions=LOUD, id=LOUD)
    await session.expect("conversation.item.create")
    for event in loud_events():
        await (session.emit_raw(event) if isinstance(event, str) else session.emit(event))
    calls: list[tuple[str, str, Obj]] = [(f"call_{name}", name, {}) for name in (*TOOL_NAMES, "wh_token")]
    await session.call(*calls, ("call_wrong", "tell", {"x": LOUD}))
    for _ in range(len(calls) + 1):
        answer = await session.expect("conversation.item.create")
        await session.emit({"type": "conversation.item.added", "previous_item_id": None, "item": answer["item"]})
    await heard.wait()
    await session.close(1008, f"{SECRETS['RELAY_UPSTREAM_KEY']} {OTHER_KEY}")


async def farewell(session: ScriptedSession, heard: asyncio.Event) -> None:
    """The model calls the tool that ends the session, for a reason that tells all, and says its last words."""
    await session.configure()
    create = await session.expect("response.create")
    metadata = create.get("response", {}).get("metadata")
    call = {"id": "item_c", "type": "function_call", "status": "completed", "call_id": "call_leave", "name": "leave"}
    await session.emit({"type": "response.created", "response": {"id": "resp_c", "output": [], "metadata": metadata}})
    await session.done("resp_c", [call | {"arguments": "{}"}], metadata=metadata)
    create = await session.expect("response.create")
    metadata = create.get("response", {}).get("metadata")
    await session.respond("Bye.", 20, response_id="resp_b", item_id="item_b", metadata=metadata)
    await session.closed.wait()


async def converse(
    relay: Everything,
    upstream: ScriptedUpstream,
    path: str,
    said: Obj,
    awaited: str,
    model: Callable[[ScriptedSession, asyncio.Event], Coroutine[Any, Any, None]] = loud_session,
    **options: Any,
) -> None:
    heard = asyncio.Event()
    async with connect(relay.url(path), compression=None, **options) as client:
        listening = asyncio.create_task(relay.listen(client, awaited, heard))
        speaking = asyncio.create_task(model(await upstream.accept(), heard))
        await client.send(json.dumps(said))
        await asyncio.wait_for(speaking, 20)
        await asyncio.wait_for(listening, 20)
        assert heard.is_set(), f"{awaited} was never told"


async def talk(relay: Everything, upstream: ScriptedUpstream) -> None:
    """Device sessions with the model's own and with an external TTS voice, Realtime ones in both dialects."""
    key: Any = {"additional_headers": {"Authorization": f"Bearer {CLIENT_KEY}"}}
    beta = {"additional_headers": {**key["additional_headers"], "OpenAI-Beta": "realtime=v1"}}
    text = {"type": "text", "text": "hello"}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"hello {LOUD}"}]}
    create, realtime = {"type": "conversation.item.create", "item": item}, "/v1/realtime?model=m"
    await converse(relay, upstream, "/", text, "AIResponseEnd", **key)
    await converse(relay, upstream, "/", text, "goodbye", farewell, **key)
    for voice in ("v1", "v2"):
        await converse(relay, upstream, f"/?voice=elevenlabs:{voice}", text, "voice_failed", **key)
    await converse(relay, upstream, realtime, create, "response.done", **key)
    await converse(relay, upstream, realtime, {"type": "response.create"}, "response.done", farewell, **key)
    await converse(relay, upstream, realtime, create, "response.done", **beta)
    offered: Any = ["realtime", f"openai-insecure-api-key.{CLIENT_KEY}"]
    origin: Any = f"http://127.0.0.1:{relay.port}"
    await converse(relay, upstream, realtime, create, "response.done", origin=origin, subprotocols=offered)


async def ask_everything(relay: Everything) -> None:
    """Every route, with the right key and with wrong ones, in headers and in the query."""
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        execute, azure = "/navai/functions/execute", "/api/ai-assistant/realtime"
        asked: list[tuple[str, str, Any]] = [
            *(("GET", path, None) for path in ("/", "/healthz", "/readyz", "/v1/models", "/none", "/navai/functions")),
            ("GET", f"/?ticket={OTHER_KEY}&key={ADMIN_KEY}", None),
            ("GET", f"/recordings/{SECRETS['OPENAI_API_KEY']}/{ADMIN_KEY}", None),
            ("GET", f"/v1/realtime?model={SECRETS['OPENAI_API_KEY']}", None),
            ("POST", "/v1/realtime/client_secrets", {"session": {"type": "realtime", "instructions": LOUD}}),
            ("POST", "/v1/realtime/calls", {"sdp": LOUD}),
            *(("POST", execute, {"function_name": name, "payload": {}}) for name in TOOL_NAMES),
            ("POST", execute, {"function_name": "wh_token", "payload": {}}),
            *(("POST", f"{azure}/tools/exec", {"name": name, "arguments": {}}) for name in TOOL_NAMES),
            ("GET", f"{azure}/tools", None),
            *[("POST", f"{azure}/session", {})] * 3,
            *[("POST", "/navai/realtime/client-secret", {})] * 3,
            *[("POST", "/navai/speech/synthesize", {"text": "hello"})] * 3,
        ]
        for method, path, body in asked:
            await relay.ask(http, method, path, body)
        assert await relay.ask(http, "GET", "/v1/models", key=OTHER_KEY + "x") == 401
        assert await relay.ask(http, "GET", "/recordings/list", key=ADMIN_KEY) == 200
        assert await relay.ask(http, "GET", f"/v1/models?api-key={OTHER_KEY}", key="wrong-key-0123456789") == 401
    with pytest.raises(InvalidStatus):
        await connect(relay.url(f"/?ticket={OTHER_KEY}x"), origin="http://evil.example")


async def send_nonsense(relay: Everything) -> None:
    for secret in (CLIENT_KEY, SECRETS["RELAY_UPSTREAM_KEY"]):
        for raw in (
            f"GET / HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nbad header {secret}\r\n\r\n",
            f"{secret} / HTTP/1.1\r\n\r\n",
            f"GET /{secret} HTTP/9.9{secret}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nX-{secret}\x01: 1\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nX-Long: {secret}{'x' * 9000}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 85}{secret}{'x' * 9000}\r\n\r\n",
            f"GET /?key={secret}{'x' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            await relay.send_raw(raw.encode())


def environments_below(pid: int) -> Iterator[tuple[int, str]]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child, Path(f"/proc/{child}/environ").read_text()
            yield from environments_below(child)


def check(said: str, where: str, secrets: list[str] = ALL) -> None:
    shown = [
        secret for secret in secrets if secret in said or secret.replace("/", "\\/") in said or secret[:13] in said
    ]
    assert not shown, f"{shown} in {where}: {said[max(0, said.find(shown[0][:13]) - 200) :][:500]}"


async def exercise(folder: Path, log_format: str) -> None:
    provider = Provider()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", provider.answer)
    async with ScriptedUpstream() as upstream, serve_app(app) as port:
        async with everything(folder, upstream.url, f"http://127.0.0.1:{port}", log_format) as relay:
            environments = dict(environments_below(relay.process.pid))
            await ask_everything(relay)
            await send_nonsense(relay)
            await talk(relay, upstream)
        assert relay.process.returncode == 0
    assert environments, "the MCP server is a child"
    for pid, environment in environments.items():
        check(environment.replace(f"TOKEN={SECRETS['WAREHOUSE_TOKEN']}", ""), f"the environment of {pid}")
    assert provider.n_asked > 8
    for one in relay.said:
        check(one, "what a client was sent", KNOWN)
    kinds = "\n".join(relay.said)
    for part in ('"type":"tool"', "response.done", "session.created", "conversation.item.retrieved"):
        assert part in kinds, f"{part} was never sent"
    files = [path for path in (folder / "recordings").rglob("*") if path.is_file()]
    assert len([path for path in files if path.name == "journal.jsonl"]) >= 8
    for path in files:
        check(path.read_bytes().decode("latin-1"), str(path))
    log = (folder / "log").read_text()
    assert "MCP server wh: my token is […]" in log
    check(log, "the log")


async def test_no_secret_leaves_the_relay(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(exercise(tmp_path_factory.mktemp(form), form) for form in ("text", "json")))
