"""The engine's faults over real sockets, seen by a raw client; and who may have them."""

import asyncio
import json
from typing import Any

import pytest
import websockets

from relay.errors import ConfigError
from relay.local_engine.server import create_engine_app
from tests.local_engine.engine_stage import TOOLS, connected, running_engine

TEXT: dict[str, Any] = {"output_modalities": ["text"]}


async def kinds(socket: websockets.ClientConnection, until: str) -> list[str]:
    """The types of what comes, up to that one or the end of the connection."""
    found: list[str] = []
    async with asyncio.timeout(10):
        try:
            while until not in found:
                raw = await socket.recv()
                try:
                    found.append(json.loads(raw)["type"])
                except json.JSONDecodeError:
                    found.append("malformed")
        except websockets.ConnectionClosed:
            found.append(f"closed {socket.close_code}")
    return found


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
async def test_refusals_at_the_door(fault: str, status: int, code: str | None):
    async with running_engine() as port:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url(port, fault))
        response = caught.value.response
        assert response.status_code == status
        assert json.loads(response.body or b"")["error"]["code"] == code
        assert response.headers.get("Retry-After") == ("7" if status == 429 else None)


async def test_nobody_answers():
    async with running_engine() as port:
        with pytest.raises(websockets.InvalidMessage):
            await websockets.connect(url(port, "refuse"))
        async with websockets.connect(url(port)) as socket:
            assert await kinds(socket, "session.created") == ["session.created"]


async def test_faults_of_the_command_line_meet_every_connection():
    async with running_engine(faults="500#1, drop=1011@session.created") as port:
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(url(port))
        async with websockets.connect(url(port)) as socket:
            assert await kinds(socket, "never") == ["session.created", "closed 1011"]


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
async def test_faults_by_address_strike_where_they_should(fault: str, seen: list[str]):
    async with running_engine() as port, websockets.connect(url(port, fault)) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", **TEXT}}))
        await socket.send(json.dumps({"type": "response.create"}))
        got = await kinds(socket, "response.done")
        if "never" in seen:
            await socket.send(json.dumps({"type": "never"}))
            got += ["never" if kind == "error" else kind for kind in await kinds(socket, "error")]
        start = len(got) - 1 - got[::-1].index(seen[0]) if seen[0].startswith("response.output") else got.index(seen[0])
        assert got[start : start + len(seen)] == seen


async def test_the_same_call_twice_through_the_engine():
    async with running_engine() as port, websockets.connect(url(port, "duplicate-calls")) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "tools": TOOLS}}))
        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "roll a die"}]}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": said}))
        await socket.send(json.dumps({"type": "response.create"}))
        got = await kinds(socket, "response.done")
        assert got.count("response.function_call_arguments.done") == 2


async def test_a_control_message_makes_a_session_misbehave_from_then_on():
    async with running_engine() as port, connected(port, **TEXT) as wire:
        await wire.send("response.create")
        await wire.wait_for("response.done")
        await wire.send("relay.fault", fault="drop=1011@response.created")
        await wire.send("response.create")
        await wire.wait_for("response.created")
        await wire.socket.wait_closed()
        assert wire.socket.close_code == 1011


async def test_a_wrong_control_message_is_an_error_event():
    async with running_engine() as port, connected(port) as wire:
        await wire.send("relay.fault", fault="explode", event_id="f1")
        error = (await wire.wait_for("error"))["error"]
        assert (error["param"], error["event_id"]) == ("fault", "f1")
        assert "There is no fault 'explode'" in error["message"]


async def test_wrong_faults_are_told_before_anything_starts():
    with pytest.raises(ConfigError, match="There is no fault"):
        create_engine_app(workers=0, faults="explode")
    async with running_engine() as port:
        for query in ("fault=explode", "intent=nonsense"):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime?{query}")
            assert caught.value.response.status_code == 400


async def test_a_session_ends_when_its_time_is_over():
    async with running_engine(max_session_s=0.3) as port, connected(port) as wire:
        assert wire.events[0]["session"]["expires_at"] > 1_700_000_000
        assert (await wire.wait_for("error"))["error"]["code"] == "session_expired"
        await wire.socket.wait_closed()
        assert (wire.socket.close_code, "maximum duration" in (wire.socket.close_reason or "")) == (1001, True)
