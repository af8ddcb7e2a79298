"""JSON that was made to do harm, on every route that takes a body: refused in JSON, and soon."""

import gc
import time
from collections.abc import AsyncIterator

import pytest

from relay.app.routes import all_routes
from relay.config.navai_options import NavaiOptions
from tests.support.raw_requests import RawResponse, head, send_request
from tests.support.relay_server import RunningRelay, running_relay

ADMIN_KEY = "an-admin-key-of-24-chars"
WITHOUT_BODY = {"/logout", "/v1/realtime/calls", "/v1/realtime/translations/client_secrets"}
SECRETS = "/v1/realtime/client_secrets"
JSON_ROUTES = [row.path for row in all_routes() if row.method == "POST" and row.path not in WITHOUT_BODY]

USUAL = b'{"session": {' + b",".join(b'"%d": 1' % n for n in range(9_900)) + b"}}"
"""Nearly as many members as a body may have: what it costs, no hostile one may exceed by much."""

TWICE_DEEP_INSIDE = b'{"session": {"type": "realtime", "type": "x"}, "payload": {"a": 1, "a": 1}}'

HOSTILE = {
    "lists 100,000 deep": b'{"text":' + b"[" * 100_000,
    "objects 100,000 deep": b'{"text":' * 100_000 + b"0" + b"}" * 100_000,
    "lists 1,100 deep": b'{"text":' + b"[" * 1100 + b"]" * 1100 + b"}",
    "1 MiB of brackets": b"[" * (1024 * 1024 - 1),
    "340,000 objects": b"[" + b"{}," * 340_000 + b"{}]",
    "90,000 members": b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}",
    "500,000 list elements": b'{"session":[' + b"0," * 499_999 + b"0]}",
    "500,000 escapes": b'{"session":"' + b"\\n" * 500_000 + b'"}',
    "half of a surrogate pair": b'{"text": "\\ud800"}',
    "half of a surrogate pair in a name": b'{"\\udc00": 1}',
    "half of a surrogate pair in UTF-8": b'{"text": "\xed\xa0\x80"}',
    "a member that comes twice": b'{"text": "a", "text": "b"}',
    "a member that comes twice, deep inside": TWICE_DEEP_INSIDE,
    "the last of 9,000 members comes twice": b"{" + b"".join(b'"%d":1,' % n for n in range(9000)) + b'"8999":1}',
    "a number of 90,000 digits": b'{"text": ' + b"1" * 90_000 + b"}",
}


@pytest.fixture
async def relay() -> AsyncIterator[RunningRelay]:
    nowhere = "http://127.0.0.1:1"
    voice = {
        "NAVAI_TTS_PROVIDER": "elevenlabs",
        "ELEVENLABS_API_KEY": "el-key-0003",
        "ELEVENLABS_VOICE_ID": "voice-1",
        "ELEVENLABS_BASE_URL": nowhere,
    }
    azure = {"azure_endpoint": nowhere, "azure_api_key": "az-key-0001", "azure_deployment": "d"}
    async with running_relay(
        "ws://127.0.0.1:1", access_admin_keys=(ADMIN_KEY,), navai=NavaiOptions.from_env(voice), **azure
    ) as running:
        gc.disable()  # it would look through all that pytest holds
        yield running
        gc.enable()


async def post(relay: RunningRelay, path: str, body: bytes) -> RawResponse:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content_Type": "application/json"}
    return await send_request(relay.port, head("POST", path, Content_Length=str(len(body)), **headers) + body)


async def cost_s(relay: RunningRelay, path: str, body: bytes) -> float:
    """The processor time of one request, both ends of it."""
    started_s = time.thread_time()
    answer = await post(relay, path, body)
    took_s = time.thread_time() - started_s
    assert 400 <= answer.status < 500, (path, answer)
    assert answer.json()["error"], path
    return took_s


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_json_is_a_4xx_in_json_and_costs_little(relay: RunningRelay, what: str) -> None:
    usual_s = min([await cost_s(relay, SECRETS, USUAL) for _ in range(3)])
    for path in JSON_ROUTES:
        for _ in range(5):  # once is enough, but for a machine that does something else as well
            took_s = await cost_s(relay, path, HOSTILE[what])
            if took_s < 3 * usual_s:
                break
        else:
            pytest.fail(f"{path} takes {took_s * 1000:.1f} ms, and a usual body {usual_s * 1000:.1f} ms")


@pytest.mark.parametrize(
    "body",
    [
        b'{"session": {' + b",".join(b'"%d": 1' % n for n in range(10_001)) + b"}}",
        b'{"session": [' + b"0," * 10_000 + b"0]}",
        b'{"session": [' + b"[]," * 5_000 + b"[]]}",
        HOSTILE["500,000 escapes"],
    ],
    ids=["members", "list elements", "lists", "escapes"],
)
async def test_a_body_of_too_many_members_is_told_the_bound(relay: RunningRelay, body: bytes) -> None:
    answer = await post(relay, SECRETS, body)
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert "at most 10000 members and list elements, and 200000 escapes" in answer.json()["error"]["message"]


async def test_brackets_and_commas_in_a_text_are_no_members(relay: RunningRelay) -> None:
    session = b'{"type": "realtime", "instructions": "' + b"[{," * 5_000 + b'"}'
    answer = await post(relay, SECRETS, b'{"session": ' + session + b"}")
    assert answer.status == 200


@pytest.mark.parametrize("depth", [254, 300, 900])
async def test_a_session_nested_deeply_is_a_400(relay: RunningRelay, depth: int) -> None:
    session = b'{"type": "realtime", "tools": ' + b"[" * depth + b"]" * depth + b"}"
    answer = await post(relay, SECRETS, b'{"session": ' + session + b"}")
    assert answer.status == 400
    assert answer.json()["error"]["param"].startswith("session")
