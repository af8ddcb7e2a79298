"""Descriptors: the limit is raised, sessions that do not fit are refused, and running out ends nothing."""

import asyncio
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.app import context
from relay.app.file_descriptors import DescriptorBudget, raise_soft_limit
from relay.app.session_limiter import SessionLimiter
from relay.errors import CapacityExceeded
from relay.testing import ScriptedUpstream
from tests.support.raw_requests import head, send_request
from tests.support.relay_command import serve_process
from tests.support.relay_server import DeviceClient, running_relay, settings_for


@pytest.mark.parametrize(
    ("soft", "most", "tried", "left"),
    [
        (256, 100_000, [65_536], 65_536),
        (256, 10_240, [65_536, 10_240], 10_240),
        (20_000, 20_000, [65_536], 20_000),
        (256, 256, [65_536, 10_240], 256),
    ],
)
def test_a_system_that_takes_less_than_its_hard_limit_never_lowers_the_soft_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, most: int, tried: list[int], left: int
) -> None:
    limits, seen = [soft], []

    def set_limit(_: int, wanted: tuple[int, int]) -> None:
        seen.append(wanted[0])
        if wanted[0] > most:
            raise ValueError("not allowed to exceed OPEN_MAX")
        limits[0] = wanted[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[0], resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    raise_soft_limit()
    assert (seen, limits) == (tried, [left])


def test_what_a_session_needs_is_counted() -> None:
    needs = [
        DescriptorBudget.for_process(has_recordings=recordings, has_external_voice=voice).per_session
        for recordings in (False, True)
        for voice in (False, True)
    ]
    assert needs == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("limit", "per_session", "sessions", "idle_connections"),
    [(1024, 2, 320, 128), (1024, 5, 128, 128), (4096, 2, 1664, 512), (65_536, 5, 12_953, 512), (64, 2, 16, 16)],
)
def test_sessions_get_what_is_not_reserved(limit: int, per_session: int, sessions: int, idle_connections: int) -> None:
    descriptors = DescriptorBudget(limit, per_session)
    assert (descriptors.max_sessions, descriptors.max_idle_connections) == (sessions, idle_connections)


def test_a_bound_that_does_not_fit_is_told_with_what_to_do() -> None:
    [warning] = DescriptorBudget(1024, 4).warnings(500)
    for text in ("RELAY_MAX_SESSIONS=500", "may open 1024", "up to 4", "at most 160", "ulimit -n 2768", "LimitNOFILE="):
        assert text in warning
    assert DescriptorBudget(2768, 4).warnings(500) == []
    assert DescriptorBudget(None).warnings(100_000) == []


def test_no_more_sessions_are_admitted_than_fit() -> None:
    limiter = SessionLimiter(settings_for(limits_max_sessions=500))
    limiter.use_descriptor_budget(DescriptorBudget(20, 5))
    text = r"All 2 sessions .* 20 files and sockets .*ulimit -n"
    with (
        limiter.acquire_session("127.0.0.1"),
        limiter.acquire_session("127.0.0.1"),
        pytest.raises(CapacityExceeded, match=text),
        limiter.acquire_session("127.0.0.1"),
    ):
        pass


async def test_policies_that_record_from_a_reload_on_leave_fewer_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    policies, recordings = tmp_path / "policies.toml", tmp_path / "recordings"
    policies.write_text("")
    monkeypatch.setenv("RELAY_POLICIES", str(policies))
    monkeypatch.chdir(tmp_path)  # no .env is read
    recordings.mkdir(mode=0o755)
    async with running_relay(
        "ws://127.0.0.1:1", limits_max_sessions=16, access_policies=policies, recording_dir=recordings
    ) as relay:
        assert context.warnings(relay.app) == []
        policies.write_text('[policies.default]\nrecord = "on"\n')
        context.reload_access(relay.app)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning for warning in warnings if "at most 8 sessions are admitted" in warning]
    assert [
        warning for warning in warnings if f"RELAY_RECORDINGS_DIR: {recordings} is accessible to other users" in warning
    ]


async def test_where_few_descriptors_are_the_relay_says_so_refuses_and_goes_on(tmp_path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        serve_process(tmp_path, open_files=(64, 64), RELAY_UPSTREAM=upstream.url) as served,
    ):
        assert "WARNING RELAY_MAX_SESSIONS=500 does not fit: this process may open 64 files" in served.log
        url = f"ws://127.0.0.1:{served.port}/"
        clients = [await DeviceClient.connect(url) for _ in range(16)]
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 503
        assert b"64 files and sockets" in refused.value.response.body

        with running_out(served.process.pid):
            await flood(served.port, 300)

        assert (await send_request(served.port, head("GET", "/healthz"))).status == 200
        for _ in clients:  # the relay's dials end in any order
            await (await upstream.accept()).configure()
        for client in clients:
            await client.expect("AIConnected")
        for client in clients:
            await client.connection.close()
        async with await DeviceClient.connect(url) as client:
            await (await upstream.accept()).configure()
            await client.expect("AIConnected")


@contextmanager
def running_out(pid: int) -> Iterator[None]:
    """A process that may open two more files and sockets, where the system allows to change that from outside."""
    if not sys.platform.startswith("linux"):
        yield
        return
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    n_open = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open + 2, limit[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


async def flood(port: int, count: int) -> None:
    """Connect so many times at once, and leave."""
    dials = [asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for dialled in await asyncio.gather(*dials, return_exceptions=True):
        if not isinstance(dialled, BaseException):
            dialled[1].transport.abort()
