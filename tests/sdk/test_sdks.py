"""The official SDKs, unchanged, against the relay on its own engine; the official types judge what they received.

Each driver beside this file is an application as the SDK's users write it; it runs in what `scripts/sdk-env` makes and
prints every event that its SDK was sent. `test_openai_python.py` has the SDK that lies in the tests' own environment.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import soundfile

from relay import load_tools
from relay.app.context import SESSION_FACTORY
from relay.session.realtime.events import ForwardToClient, SendToClient
from tests.local_engine.engine_harness import running_engine
from tests.support.npm import NODE
from tests.support.realtime_client import is_valid
from tests.support.relay_server import RunningRelay, running_relay

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INSTALL_TIMEOUT_S = 180.0
DRIVE_TIMEOUT_S = 90.0
KEY = "relay-key-0123456789abcdef"
SILENCE_S = 1.5

Obj = dict[str, Any]


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence for the server's tools as 24 kHz PCM, with the silence that ends a turn."""
    return saying("dice-and-time", tmp_path_factory.mktemp("sdk"))


def saying(sample: str, folder: Path) -> Path:
    samples, rate = soundfile.read(ROOT / f"recordings/samples/{sample}.flac", dtype="int16")
    assert rate == 24_000
    path = folder / f"{sample}.pcm"
    path.write_bytes(samples.astype("<i2").tobytes() + bytes(int(2 * rate * SILENCE_S)))
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `scripts/dev-cert` makes."""
    folder = tmp_path_factory.mktemp("certs")
    subprocess.run([ROOT / "scripts/dev-cert", folder], check=True, capture_output=True)
    return folder


def environment(name: str) -> Path:
    """The folder of an SDK's environment, made if need be."""
    done = subprocess.run(
        [ROOT / "scripts/sdk-env", name], capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.strip()


@pytest.fixture(scope="session")
def environments() -> Iterator[dict[str, "Future[Path]"]]:
    """What the SDKs of the ordinary run need, made at the same time."""
    with ThreadPoolExecutor() as pool:
        yield {name: pool.submit(environment, name) for name in ("npm", "agents")}


@pytest.fixture(scope="session")
def npm(environments: dict[str, "Future[Path]"]) -> Path:
    return environments["npm"].result()


@pytest.fixture(scope="session")
def agents(environments: dict[str, "Future[Path]"]) -> Path:
    return environments["agents"].result()


async def drive(command: list[Path | str], **variables: str | Path) -> list[Obj]:
    """Run a driver to its end and return the events that it was sent; a failure of its is one of the test."""
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=clean | {name: str(value) for name, value in variables.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DRIVE_TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    events = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    kinds = [event.get("type") for event in events if not str(event.get("type")).endswith(".delta")]
    assert process.returncode == 0, f"{err.decode()[-2000:]}\nafter {kinds[-20:]}"
    return events


@asynccontextmanager
async def relay_on_its_engine(**settings: Any) -> AsyncIterator[RunningRelay]:
    tools = load_tools("tools")
    async with running_relay("local", tools, **settings) as relay:
        yield relay


def judge(events: list[Obj]) -> None:
    """Every event is valid, no id of a server tool is among them, every chain of items is whole."""
    assert len(events) > 20
    known = {None}
    for event in events:
        assert is_valid(event), event
        if event["type"] == "conversation.item.added":
            assert event.get("previous_item_id") in known, "an item stands behind one that was never shown"
            known.add(event["item"]["id"])
    text = json.dumps([event for event in events if not event["type"].endswith(".delta")])
    for hidden in ("roll_dice", "current_time", "relay_request", "x-examples"):
        assert hidden not in text
    active: set[str] = set()
    for event in events:
        if event["type"] == "response.created":
            active.add(event["response"]["id"])
            assert len(active) == 1, "two responses at once"
        elif event["type"] == "response.done":
            active.discard(event["response"]["id"])


async def test_openai_from_npm(npm: Path, spoken: Path, certificate: Path) -> None:
    async with relay_on_its_engine(
        server_tls_cert=certificate / "cert.pem", server_tls_key=certificate / "key.pem"
    ) as relay:
        events = await drive(
            [NODE, link(npm, "openai_npm.mjs")],
            BASE_URL=f"https://localhost:{relay.port}/v1",
            NODE_EXTRA_CA_CERTS=certificate / "cert.pem",
            API_KEY=KEY,
            PCM=spoken,
        )
    judge(events)


async def test_agents_from_npm(npm: Path, spoken: Path) -> None:
    async with relay_on_its_engine() as relay:
        events = await drive(
            [NODE, link(npm, "agents_npm.mjs")],
            WS_URL=relay.ws("/v1/realtime?model=gpt-realtime"),
            API_KEY=KEY,
            PCM=spoken,
        )
    judge(events)


async def test_agents_from_python(agents: Path, spoken: Path) -> None:
    async with relay_on_its_engine() as relay:
        events = await drive_agents(agents, spoken, relay.ws("/v1/realtime?model=gpt-realtime"))
    judge(events)


async def test_agents_from_python_with_the_engine_alone(agents: Path, tmp_path: Path) -> None:
    async with running_engine() as port:
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=gpt-realtime"
        events = await drive_agents(agents, saying("roll-two-dice", tmp_path), url, ALONE="1")
    assert all(is_valid(event) for event in events)
    assert any(event.get("name") == "roll_two_dice" for event in events)


async def drive_agents(agents: Path, spoken: Path, url: str, **variables: str) -> list[Obj]:
    return await drive(
        [sys.executable, HERE / "agents_py.py"],
        PYTHONPATH=agents,
        WS_URL=url,
        API_KEY=KEY,
        PCM=spoken,
        OPENAI_AGENTS_DISABLE_TRACING="1",
        **variables,
    )


class Watch:
    """What the relay sends to its Realtime clients but audio, seen from inside: for SDKs that do not show it."""

    def __init__(self, relay: RunningRelay) -> None:
        self.events: list[Obj] = []
        relay.app[SESSION_FACTORY].observer = self

    def __call__(self, event: Any, now: float, commands: Sequence[Any]) -> None:
        for command in commands:
            if isinstance(command, ForwardToClient):
                self.events.append(json.loads(bytes(command.raw)))
            elif isinstance(command, SendToClient):
                self.events.append(json.loads(orjson.dumps(command.body)))


@pytest.mark.long
async def test_livekit(spoken: Path) -> None:
    place = await asyncio.to_thread(environment, "livekit")
    async with relay_on_its_engine() as relay:
        watch = Watch(relay)
        base_url = relay.http("/v1")
        await drive([place / "bin/python", HERE / "livekit_py.py"], BASE_URL=base_url, API_KEY=KEY, PCM=spoken)
    judge(watch.events)


@pytest.mark.long
async def test_pipecat(spoken: Path) -> None:
    place = await asyncio.to_thread(environment, "pipecat")
    async with relay_on_its_engine() as relay:
        watch = Watch(relay)
        ws_url = relay.ws("/v1/realtime")
        await drive([place / "bin/python", HERE / "pipecat_py.py"], WS_URL=ws_url, API_KEY=KEY, PCM=spoken)
    judge(watch.events)


def link(place: Path, name: str) -> Path:
    """The driver beside its `node_modules`, where Node looks for packages."""
    target = place / name
    target.write_bytes((HERE / name).read_bytes())
    return target
