"""Real MCP servers, written with the SDK, in processes of their own: over stdio and over HTTP."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay import ToolContext
from relay.errors import ConfigError
from relay.toolkit.mcp.client import McpServer, McpServers
from relay.toolkit.mcp.config import McpServerConfig, read_mcp_config
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.running.runner import ToolCall, ToolOutcome, ToolRunner

SERVER = Path(__file__).parents[2] / "support" / "mcp_server.py"
PATIENCE_S = 30.0
CONTEXT = ToolContext(session_id="s1")


def stdio(**more: Any) -> McpServerConfig:
    return McpServerConfig(name="wh", command=sys.executable, args=(str(SERVER),), **more)


@asynccontextmanager
async def mounted(config: McpServerConfig) -> AsyncIterator[tuple[ToolRunner, McpServer]]:
    registry = ToolRegistry()
    servers = McpServers([config], registry)
    await servers.start(PATIENCE_S)
    runner = ToolRunner(registry)
    try:
        yield runner, servers.servers[0]
    finally:
        await runner.close(1.0)
        await servers.stop()


async def call(runner: ToolRunner, name: str, arguments: str = "{}") -> ToolOutcome:
    async with asyncio.timeout(PATIENCE_S):
        return await runner.run(ToolCall("c1", name, arguments), CONTEXT)


def message_of(result: ToolOutcome) -> str:
    return str(json.loads(result.output)["message"])


async def test_over_stdio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours-0123456789")
    async with mounted(stdio(env={"ROOT": "/data"})) as (runner, server):
        registry = server._registry
        assert registry.names()[:2] == ("wh_stock_of", "wh_greet")
        tool = registry.get("wh_stock_of")
        assert tool is not None
        assert (tool.source, tool.description) == ("mcp:wh#stock_of", "How many pieces of a fruit are on a shelf.")
        assert tool.parameters["required"] == ["fruit"]

        assert (await call(runner, "wh_stock_of", '{"fruit": "pears", "shelf": 2}')).output == (
            '{"fruit": "pears", "left": 24}'
        )
        assert (await call(runner, "wh_greet", '{"name": "Ann"}')).output == "Hello Ann!"
        variables = json.loads((await call(runner, "wh_environment")).output)
        assert "ROOT" in variables
        assert "OPENAI_API_KEY" not in variables

        refused = await call(runner, "wh_stock_of", '{"fruit": 5}')
        assert refused.status == "failed"
        assert "Input should be a valid string" in message_of(refused)
        assert (await call(runner, "wh_stock_of", "[1]")).code == "invalid_arguments"
        assert message_of(await call(runner, "wh_fail")) == "Error executing tool fail"


async def test_a_server_that_dies_is_started_again_and_its_tools_stay() -> None:
    async with mounted(stdio()) as (runner, server):
        server._retry_delay_s = 0.01
        assert "Connection closed" in message_of(await call(runner, "wh_die"))
        async with asyncio.timeout(PATIENCE_S):
            while True:  # each try is an answer: refused until the loss is noticed, then the result
                await server.connected.wait()
                result = await call(runner, "wh_greet", '{"name": "Ann"}')
                if result.status == "done":
                    break
                assert "cannot be reached now" in message_of(result) or "Connection closed" in message_of(result)


async def test_a_server_that_hangs_costs_its_own_call_only() -> None:
    async with mounted(stdio(timeoutS=0.5)) as (runner, _):
        hung = await call(runner, "wh_hang")
        assert hung.status in ("timeout", "failed")
        assert hung.ms < 5000


async def test_only_the_tools_that_are_allowed_under_the_prefix_that_is_wanted() -> None:
    async with mounted(stdio(prefix="", tools=("greet", "teleport"))) as (_, server):
        assert server._registry.names() == ("greet",)
        assert server._registry.warnings == ["MCP server wh has no tool teleport."]


async def test_a_server_that_cannot_be_started_has_no_tools_and_harms_nobody() -> None:
    registry = ToolRegistry()
    servers = McpServers([McpServerConfig(name="no", command="/no/such/command")], registry)
    await servers.start(0.5)
    assert len(registry) == 0
    await servers.stop()


async def test_over_streamable_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), str(port), stderr=-3, stdout=-3)
    config = McpServerConfig(name="net", url=f"http://127.0.0.1:{port}/mcp", headers={"X-Team": "a"})
    registry = ToolRegistry()
    server = McpServer(config, registry, retry_delay_s=0.1)
    server.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await server.tools_listed.wait()
        runner = ToolRunner(registry)
        assert (await call(runner, "net_greet", '{"name": "Bob"}')).output == "Hello Bob!"
        process.kill()
        await process.wait()
        assert (await call(runner, "net_greet", '{"name": "Bob"}')).status == "failed"
        assert "net_greet" in registry
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await server.stop()


# -- the file ---------------------------------------------------------------------------------------------------------


def config_of(tmp_path: Path, content: Any, **environment: str) -> tuple[McpServerConfig, ...]:
    path = tmp_path / "mcp.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_mcp_config(path, environment)


def test_the_file(tmp_path: Path) -> None:
    entry = {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}, "timeoutS": 5}
    files = {"command": "uvx", "args": ["x"], "tools": ["read"], "prefix": "fs_"}
    (net, local) = config_of(tmp_path, {"mcpServers": {"net": entry, "files": files}}, TOKEN="t-1")
    assert net.headers == {"Authorization": "Bearer t-1"}
    assert (net.timeout_s, local.command, local.tools, local.prefix) == (5.0, "uvx", ("read",), "fs_")
    assert "t-1" not in repr(net)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'must hold {"mcpServers"'),
        ({"mcpServers": {"a": {}}}, 'a: give either "command" or "url"'),
        ({"mcpServers": {"a": 1}}, "a: must be an object"),
        ({"mcpServers": {"a": {"command": "x", "cmd": 1}}}, "a.cmd: Extra inputs are not permitted"),
        ({"mcpServers": {"a b": {"command": "x"}}}, "a b.name: String should match"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, "a.url: String should match"),
        ({"mcpServers": {"a": {"url": "http://x", "headers": {"k": "${NO}"}}}}, "the environment has no NO"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_mistake(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, content)
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mcp_config(tmp_path / "no.json", {})
