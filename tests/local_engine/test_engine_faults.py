"""Faults injected into the engine, over real sockets."""

import asyncio
import json
from typing import Any

import pytest
import websockets

from relay.errors import ConfigError
from relay.local_engine.server import create_engine_app
from tests.local_engine.engine_harness import TOOLS, connected, running_engine

TEXT: dict[str, Any] = {"output_modalities": ["text"]}


async def event_types_until(socket: websockets.ClientConnection, until: str) -> list[str]:
    """Return the event types received up to one type or the end of the connection."""
    event_types: list[str] = []
    async with asyncio.timeout(10):
        try:
            while until not in event_types:
                raw = await socket.recv()
                try:
                    event_types.append(json.loads(raw)["type"])
                except json.JSONDecodeError:
                    event_types.append("malformed")
        except websockets.ConnectionClosed:
            event_types.append(f"closed {socket.close_code}")
    return event_types


def url(port: int, fault: str = "") -> str:
    return f"ws://127.0.0.1:{port}/v1/realtime?model=m" + (f"&fault={fault.replace('#', '%23')}" if fault else "")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("401", 401, "invalid_api_key"),
        ("403", 403, "model_not_found"),
        ("429=7", 429, "rate_limit_exceeded"),
        ("500", 500, None),
    ],
)
async def test_refused_handshakes(fault: str, status: int, code: str | None):
    async with running_engine() as port:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url(port, fault))
        response = caught.value.response
        assert response.status_code == status
        assert json.loads(response.body or b"")["error"]["code"] == code
        assert response.headers.get("Retry-After") == ("7" if status == 429 else None)


async def test_an_aborted_handshake():
    async with running_engine() as port:
        with pytest.raises(websockets.InvalidMessage):
            await websockets.connect(url(port, "refuse"))
        async with websockets.connect(url(port)) as socket:
            assert await event_types_until(socket, "session.created") == ["session.created"]


async def test_faults_of_the_server_apply_to_every_connection():
    async with running_engine(faults="500#1, drop=1011@session.created") as port:
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(url(port))
        async with websockets.connect(url(port)) as socket:
            assert await event_types_until(socket, "never") == ["session.created", "closed 1011"]


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("drop=1001@response.created", ["response.created", "closed 1001"]),
        ("drop=1006@response.created", ["response.created", "closed 1006"]),
        ("session_expired@response.created", ["response.created", "error", "closed 1001"]),
        ("malformed@response.created", ["response.created", "malformed"]),
        ("unknown-event@response.created", ["response.created", "response.mystery.delta"]),
        ("error=server_error@response.created", ["response.created", "error"]),
        ("wrong-order", ["rate_limits.updated", "response.output_item.added"]),
        ("double-done", ["response.done", "response.done", "never"]),
        ("late-done=50", ["response.done", "never"]),
        ("stall=50@response.created", ["response.created", "rate_limits.updated"]),
        ("burst", ["response.created", "rate_limits.updated"]),
        ("two-items", ["response.output_item.added", "conversation.item.added"]),
    ],
)
async def test_faults_of_the_url_are_triggered_at_their_point(fault: str, seen: list[str]):
    async with running_engine() as port, websockets.connect(url(port, fault)) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", **TEXT}}))
        await socket.send(json.dumps({"type": "response.create"}))
        types = await event_types_until(socket, "response.done")
        if "never" in seen:
            await socket.send(json.dumps({"type": "never"}))
            types += ["never" if kind == "error" else kind for kind in await event_types_until(socket, "error")]
        start = (
            len(types) - 1 - types[::-1].index(seen[0])
            if seen[0].startswith("response.output")
            else types.index(seen[0])
        )
        assert types[start : start + len(seen)] == seen


async def test_the_same_call_twice_through_the_engine():
    async with running_engine() as port, websockets.connect(url(port, "duplicate-calls")) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "tools": TOOLS}}))
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "roll a die"}]}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": message}))
        await socket.send(json.dumps({"type": "response.create"}))
        types = await event_types_until(socket, "response.done")
        assert types.count("response.function_call_arguments.done") == 2


async def test_a_control_message_injects_a_fault():
    async with running_engine() as port, connected(port, **TEXT) as client:
        await client.send("response.create")
        await client.wait_for("response.done")
        await client.send("relay.fault", fault="drop=1011@response.created")
        await client.send("response.create")
        await client.wait_for("response.created")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1011


async def test_an_invalid_control_message_is_an_error_event():
    async with running_engine() as port, connected(port) as client:
        await client.send("relay.fault", fault="explode", event_id="f1")
        error = (await client.wait_for("error"))["error"]
        assert (error["param"], error["event_id"]) == ("fault", "f1")
        assert "There is no fault 'explode'" in error["message"]


async def test_invalid_faults_are_refused_before_the_start():
    with pytest.raises(ConfigError, match="There is no fault"):
        create_engine_app(workers=0, faults="explode")
    async with running_engine() as port:
        for query in ("fault=explode", "intent=nonsense"):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime?{query}")
            assert caught.value.response.status_code == 400


async def test_a_session_ends_when_its_time_is_over():
    async with running_engine(max_session_s=0.3) as port, connected(port) as client:
        assert client.events[0]["session"]["expires_at"] > 1_700_000_000
        assert (await client.wait_for("error"))["error"]["code"] == "session_expired"
        await client.socket.wait_closed()
        assert (client.socket.close_code, "maximum duration" in (client.socket.close_reason or "")) == (1001, True)
