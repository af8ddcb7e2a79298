"""NAVAI's own frontend, as npm has it, against our backend in another application's aiohttp server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay import tool
from relay.config.navai_options import NavaiOptions
from relay.endpoints.navai import add_routes
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.npm import FRONTEND_FOLDER, NODE, install_packages

RUN_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def frontend() -> Path:
    """The frontend's folder with its packages, installed by the lock unless they are there already."""
    install_packages()
    return FRONTEND_FOLDER


def weather(city: str, days: int = 1) -> dict[str, Any]:
    """The weather in a city."""
    return {"city": city, "days": days}


def boom() -> None:
    raise ValueError("boom")


@tool(expose={"model"})
def hidden() -> int:
    return 1


async def test_it_lists_executes_and_reads_our_errors(frontend: Path) -> None:
    app = web.Application()
    functions = [Tool.from_function(one, source=f"tools/x.py#{one.__name__}") for one in (weather, boom, hidden)]
    add_routes(app, NavaiOptions(allow_api_key_from_request=True), ToolRegistry(functions))
    calls = [
        ["by_name", "weather", {"city": "Lima"}],
        ["by_place", "weather", {"args": ["Lima", 3]}],
        ["nothing", "weather", None],
        ["raises", "boom", None],
        ["unknown", "nope", {}],
        ["hidden", "hidden", {}],
    ]
    async with TestServer(app) as server, asyncio.timeout(RUN_TIMEOUT_S):
        process = await asyncio.create_subprocess_exec(
            NODE, "drive.mjs", str(server.make_url("")), json.dumps(calls), "weather", '{"city": "Oslo"}',
            cwd=frontend, stdout=-1, stderr=-1,
        )  # fmt: skip
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = json.loads(out)

    assert [one["name"] for one in told["list"]["functions"]] == ["weather", "boom"]
    assert told["list"]["warnings"] == []
    results = told["results"]
    assert results["by_name"] == {"city": "Lima", "days": 1}
    assert results["by_place"] == {"city": "Lima", "days": 3}
    assert json.loads(results["nothing"]["thrown"]) == {"error": '"city" is missing.', "field": "payload"}
    assert json.loads(results["raises"]["thrown"]) == {"error": "boom"}
    assert json.loads(results["unknown"]["thrown"])["available_functions"] == ["weather", "boom"]
    assert json.loads(results["hidden"]["thrown"]) == {"error": 'The function "hidden" is not exposed to HTTP.'}

    assert {"navigate_to", "execute_app_function", "weather", "boom"} <= set(told["tools"])
    via_agent = json.loads(told["viaAgent"]) if isinstance(told["viaAgent"], str) else told["viaAgent"]
    assert via_agent["ok"] is True
    assert via_agent["result"] == {"city": "Oslo", "days": 1}
