"""The functions routes beyond what was recorded: bad input, what tools do, the relay's access, other applications."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from relay import ClientResult, ToolContext, ToolError, tool
from relay.config.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.navai import add_routes, resolve_runtime_config
from relay.endpoints.request_body import MAX_BODY_BYTES
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.runner import ToolRunner
from tests.support.navai_project import write_file
from tests.support.relay_server import running_relay

Answer = tuple[int, Any]
KEY = "relay-key-0123456789abcdef"


def registry_of(*functions: Callable[..., Any]) -> ToolRegistry:
    return ToolRegistry(Tool.from_function(one, source=f"tools/x.py#{one.__name__}") for one in functions)


@asynccontextmanager
async def mounted(*functions: Callable[..., Any], **more: Any) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application()
    options = more.pop("options", NavaiOptions(allow_api_key_from_request=True))
    add_routes(app, options, registry_of(*functions), **more)
    async with TestClient(TestServer(app)) as client:
        yield client


async def execute(client: TestClient[Any, Any], name: object, payload: object = None) -> Answer:
    return await post(client, json={"function_name": name, "payload": payload})


async def post(client: TestClient[Any, Any], **request: Any) -> Answer:
    async with client.post("/navai/functions/execute", **request) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "status", "error"),
    [
        (b"{", "application/json", 400, "The body is not valid JSON"),
        (b"[1]", "application/json", 400, "The body must be a JSON object."),
        (b"\xff", "application/json", 400, "The body is not valid JSON"),
        (b"{}", "application/json; charset=latin1", 400, "The body must be UTF-8."),
        (b"[" * 5_000, "application/json", 400, "The body is not valid JSON"),
        (b"[" * 50_000, "application/json", 400, "The body may have at most 10000 members"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "application/json", 400, "The body has the member 'c' twice."),
        (b'{"payload": "\\ud800"}', "application/json", 400, "The body is not valid JSON"),
        (b'{"payload": NaN}', "application/json", 400, "The body is not valid JSON"),
        (b"\xef\xbb\xbf{}", "application/json", 400, "function_name is required."),
        (b"", "application/json", 400, "function_name is required."),
        (b'{"function_name": "add"}', "text/plain", 400, "function_name is required."),
        (b'{"function_name": 5}', "application/json", 400, "function_name is required."),
        (b'{"function_name": " "}', "application/json", 400, "function_name is required."),
        (b'{"x": "' + b"x" * MAX_BODY_BYTES + b'"}', "application/json", 413, "The body may have at most"),
    ],
)
async def test_a_body_that_is_none(body: bytes, content_type: str, status: int, error: str) -> None:
    async with mounted(add) as client:
        got, answer = await post(client, data=body, headers={"Content-Type": content_type})
    assert got == status
    assert answer["error"].startswith(error)


async def test_arguments_that_do_not_fit_are_named() -> None:
    async with mounted(add) as client:
        assert await execute(client, "add", {"args": ["x"]}) == (
            400,
            {
                "error": '"a" must be a valid integer, unable to parse string as an integer (got "x").',
                "field": "payload",
            },
        )
        status, answer = await execute(client, "add", {"c": 1})
        assert (status, answer["error"]) == (
            400, '"a" is missing. "c" is not a parameter (the parameters are: a, b).'
        )  # fmt: skip


async def test_what_is_not_exposed_is_forbidden_and_not_listed() -> None:
    @tool(expose={"model"})
    def secret() -> int:
        return 1

    async with mounted(add, secret) as client:
        assert await execute(client, "secret") == (403, {"error": 'The function "secret" is not exposed to HTTP.'})
        status, answer = await execute(client, "nope")
        assert (status, answer["available_functions"]) == (404, ["add"])
        async with client.get("/navai/functions") as response:
            assert [item["name"] for item in (await response.json())["items"]] == ["add"]


@pytest.mark.parametrize(
    ("payload", "bound"),
    [({f"k{n}": n for n in range(5_000)}, "the limit is 256"), ([[1] * 3_000], "more than 2048 values")],
)
async def test_a_payload_has_bounds(payload: object, bound: str) -> None:
    async with mounted(add) as client:
        status, answer = await execute(client, "add", payload)
        assert (status, answer["field"]) == (400, "payload")
        assert bound in answer["error"]


@pytest.mark.parametrize(("path", "allowed"), [("/navai/functions", "GET"), ("/navai/functions/execute", "POST")])
async def test_another_method_is_405_as_json(path: str, allowed: str) -> None:
    async with mounted(add) as client, client.delete(path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert "error" in await response.json()


async def test_the_list_answers_head_and_leaves_options_to_the_application() -> None:
    async with mounted(add) as client:
        async with client.head("/navai/functions") as response:
            assert response.status == 200
        async with client.options("/navai/functions") as response:
            assert response.status == 405  # aiohttp's own: no route of ours stands in the way of a CORS middleware
    async with (
        running_relay("ws://127.0.0.1:9/", registry_of(add)) as relay,
        aiohttp.ClientSession() as http,
        http.head(relay.http("/navai/functions")) as response,
    ):
        assert response.status == 200


async def test_paths_have_no_case_and_may_end_in_a_slash() -> None:
    async with mounted(add) as client:
        for path in ("/NAVAI/Functions", "/navai/functions/"):
            async with client.get(path) as response:
                assert response.status == 200
        async with client.get("/navai/functionsx") as response:
            assert response.status == 404


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        ({"args": [2, 3]}, 5),
        ({"args": None, "arguments": [2, 3]}, 5),
        ({"value": 4}, 5),
        ({"a": 2, "b": 5}, 7),  # what the list's `parameters` say
        ({"args": [1, 2, 3]}, 3),  # what has no place is left out
        ({"a": "2"}, 3),
    ],
)
async def test_the_ways_to_send_arguments(payload: object, result: int) -> None:
    async with mounted(add) as client:
        status, answer = await execute(client, "add", payload)
    assert (status, answer["result"]) == (200, result)


async def test_no_arguments_in_three_ways_and_the_caller_in_the_context() -> None:
    def who(context: ToolContext, greeting: str = "hi") -> str:
        return f"{greeting} {context.session.identity}{context.session.id}"

    async with mounted(who) as client:
        for payload in ({}, {"args": []}, None):
            assert (await execute(client, "who", payload))[1]["result"] == "hi anonymous"


async def test_credentials_of_the_request_are_not_shown_to_tools() -> None:
    def headers(context: ToolContext) -> list[str]:
        return sorted(context.metadata["req"]["headers"])  # type: ignore[index]

    async with mounted(headers) as client:
        secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "api-key": "k", "X-Tenant": "acme"}
        _, answer = await post(client, json={"function_name": "headers"}, headers=secrets)
    assert "x-tenant" in answer["result"]
    assert not {"authorization", "cookie", "api-key"} & set(answer["result"])


# -- what tools do ----------------------------------------------------------------------------------------------------


def leaks() -> None:
    raise FileNotFoundError(2, "No such file or directory", "/srv/app/secrets/key.txt")


def tells_a_key() -> None:
    raise ValueError("the key sk-proj-0123456789abcdef was refused")


def refuses() -> None:
    raise ToolError("Closed on Sundays.")


def says_nothing() -> None:
    raise RuntimeError


def huge() -> str:
    return "x" * 10_000_000


def a_lock() -> object:
    return threading.Lock()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (leaks, "[Errno 2] No such file or directory: '…/key.txt'"),
        (tells_a_key, "the key […] was refused"),
        (refuses, "Closed on Sundays."),
        (says_nothing, "RuntimeError"),
        (huge, "The result has 10000002 bytes, the limit is 1048576."),
        (a_lock, "The function returned a lock that is not JSON"),
    ],
)
async def test_a_tool_that_fails_is_500_with_its_message_and_nothing_else(
    function: Callable[..., Any], error: str
) -> None:
    async with mounted(function) as client:
        status, answer = await execute(client, function.__name__)
    assert status == 500
    assert answer.keys() == {"error"}
    assert answer["error"].startswith(error)


async def test_odd_results_are_json() -> None:
    def odd() -> object:
        return {"nan": float("nan"), "inf": float("inf"), "nested": [None, 1], "set": {2, 1}, 5: "five"}

    def shown() -> ClientResult:
        return ClientResult({"rows": [1]}, note="On the screen.")

    async with mounted(odd, shown) as client:
        result = (await execute(client, "odd"))[1]["result"]
        assert result == {"nan": None, "inf": None, "nested": [None, 1], "set": [1, 2], "5": "five"}
        assert (await execute(client, "shown"))[1]["result"] == {"rows": [1]}


async def test_a_timeout_is_504_and_too_many_are_429() -> None:
    release = threading.Event()

    @tool(timeout_s=0.05, concurrency=1)
    def hang() -> bool:
        return release.wait(20)

    async with mounted(hang) as client:
        assert (await execute(client, "hang")) == (504, {"error": "The tool did not answer within 0.05 s."})
        async with client.post("/navai/functions/execute", json={"function_name": "hang"}) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
        release.set()


async def test_calls_at_the_same_time_do_not_take_each_other_for_repetitions() -> None:
    both = asyncio.Barrier(2)

    async def meet() -> str:
        await both.wait()
        return "met"

    async with mounted(meet) as client:
        answers = await asyncio.gather(execute(client, "meet"), execute(client, "meet"))
    assert [status for status, _ in answers] == [200, 200]


# -- the library face -------------------------------------------------------------------------------------------------


async def test_the_functions_can_be_left_out_and_moved() -> None:
    options = NavaiOptions(allow_api_key_from_request=True, include_functions=False)
    async with mounted(add, options=options) as client, client.get("/navai/functions") as response:
        assert response.status == 404
    paths = NavaiPaths(functions_list="/api/list")
    async with (
        mounted(add, options=NavaiOptions(allow_api_key_from_request=True, paths=paths)) as client,
        client.get("/api/list") as response,
    ):
        assert response.status == 200


async def test_a_load_that_failed_is_tried_again_on_the_next_call(tmp_path: Path) -> None:
    base = tmp_path / "app"
    app = web.Application()
    add_routes(app, NavaiOptions.from_env({"NAVAI_FUNCTIONS_BASE_DIR": str(base)}))
    async with TestClient(TestServer(app)) as client:
        async with client.get("/navai/functions") as response:
            assert response.status == 500
            assert str(tmp_path) not in (text := await response.text())
            assert json.loads(text)["error"].startswith("The functions could not be loaded")
        write_file(base / "src/ai/functions-modules/a.py", "def here():\n    return 1\n")
        assert (await execute(client, "here"))[1]["result"] == 1


async def test_the_modules_of_the_options_without_running_them(tmp_path: Path) -> None:
    write_file(tmp_path / "src/features/cart/tools/a.py", "raise SystemExit('was run')")
    options = NavaiOptions.from_env(
        {"NAVAI_FUNCTIONS_BASE_DIR": str(tmp_path), "NAVAI_FUNCTIONS_FOLDERS": "features/*/tools"}
    )
    config = resolve_runtime_config(options)
    assert [module.source for module in config.modules] == ["src/features/cart/tools/a.py"]
    assert config.warnings == ()


async def test_a_runner_can_be_shared_and_outlives_the_application() -> None:
    registry = registry_of(add)
    runner = ToolRunner(registry)
    async with mounted(add, runner=runner):
        pass
    async with mounted(add, runner=runner) as client:
        assert (await execute(client, "add", {"a": 1}))[0] == 200
    await runner.close(1.0)


# -- the relay --------------------------------------------------------------------------------------------------------


async def test_the_relay_asks_for_its_keys() -> None:
    async with (
        running_relay("ws://127.0.0.1:9/", registry_of(add), server_host="0.0.0.0", access_api_keys=(KEY,)) as relay,
        aiohttp.ClientSession() as http,
    ):
        url = relay.http("/navai/functions/execute")
        body = {"function_name": "add", "payload": {"args": [1, 2]}}
        async with http.post(url, json=body) as response:
            assert (response.status, "error" in await response.json()) == (401, True)
        async with http.post(url, json=body, headers={"Authorization": f"Bearer {KEY}"}) as response:
            assert (response.status, (await response.json())["result"]) == (200, 3)
        async with http.put(url, json=body, headers={"Authorization": f"Bearer {KEY}"}) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            assert "error" in await response.json()


async def test_the_relay_lets_localhost_pages_read_the_list() -> None:
    async with running_relay("ws://127.0.0.1:9/", registry_of(add)) as relay, aiohttp.ClientSession() as http:
        origin = {"Origin": "http://localhost:5173"}
        async with http.get(relay.http("/navai/functions"), headers=origin) as response:
            assert response.headers["Access-Control-Allow-Origin"] == origin["Origin"]
            [item] = (await response.json())["items"]
        assert (item["name"], item["parameters"]["required"]) == ("add", ["a"])
