"""Who may do what: the rule as a table, and every route of the router held against its row."""

import asyncio
import itertools
import re
import socket

import aiohttp
import pytest
from relay.access import Access, Caller, Rules, decide

from relay.config import Settings
from relay.errors import AccessDenied, ConfigError
from relay.server import ROUTES, Route
from tests.support.relay_server import running_relay, settings_for

KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"

TRUSTING = Rules(trusting=True)
PUBLIC = Rules(trusting=False)
PUBLIC_BY_ORIGIN = Rules(trusting=False, browser_by_origin=True)

# access, rules, origin, credential -> status (0: let in)
TABLE = [
    (Access.BROWSER, TRUSTING, "none", "none", 0),
    (Access.BROWSER, TRUSTING, "allowed", "none", 0),
    (Access.BROWSER, TRUSTING, "foreign", "none", 403),
    (Access.BROWSER, TRUSTING, "foreign", "valid", 403),
    (Access.BROWSER, TRUSTING, "none", "valid", 0),
    (Access.BROWSER, TRUSTING, "none", "invalid", 401),
    (Access.BROWSER, PUBLIC, "none", "none", 401),
    (Access.BROWSER, PUBLIC, "allowed", "none", 401),
    (Access.BROWSER, PUBLIC, "foreign", "valid", 403),
    (Access.BROWSER, PUBLIC, "none", "valid", 0),
    (Access.BROWSER, PUBLIC, "allowed", "valid", 0),
    (Access.BROWSER, PUBLIC, "allowed", "invalid", 401),
    (Access.BROWSER, PUBLIC_BY_ORIGIN, "allowed", "none", 0),
    (Access.BROWSER, PUBLIC_BY_ORIGIN, "none", "none", 401),
    (Access.CREDENTIAL, PUBLIC_BY_ORIGIN, "allowed", "none", 401),
    (Access.CREDENTIAL, PUBLIC, "none", "valid", 0),
    (Access.CREDENTIAL, TRUSTING, "none", "none", 0),
    (Access.ADMIN, PUBLIC, "none", "valid", 403),
    (Access.ADMIN, PUBLIC, "none", "none", 401),
    (Access.ADMIN, PUBLIC, "none", "admin", 0),
    (Access.ADMIN, PUBLIC, "foreign", "admin", 403),
]


@pytest.mark.parametrize(("access", "rules", "origin", "credential", "status"), TABLE)
def test_the_table(access, rules, origin, credential, status) -> None:
    caller = Caller(origin, credential, "key-1")
    if status == 0:
        assert decide(access, caller, rules).identity == "key-1"
    else:
        with pytest.raises(AccessDenied) as denied:
            decide(access, caller, rules)
        assert denied.value.status == status


def test_admin_on_a_loopback_bind_is_for_this_machine_alone() -> None:
    here = Caller("none", "none", from_loopback=True)
    assert "admin" in decide(Access.ADMIN, here, TRUSTING).scopes
    with pytest.raises(AccessDenied):
        decide(Access.ADMIN, Caller("none", "none", from_loopback=False), TRUSTING)
    with pytest.raises(AccessDenied):
        decide(Access.ADMIN, here, PUBLIC)


def test_open_routes_are_open_to_all() -> None:
    for origin, credential in itertools.product(("none", "allowed", "foreign"), ("none", "valid", "invalid")):
        assert decide(Access.OPEN, Caller(origin, credential), PUBLIC)


# -- the router -------------------------------------------------------------------------------------------------------

EXPECTED = {
    ("GET", "/"): (Access.OPEN, Access.BROWSER),
    ("GET", "/ws"): (Access.BROWSER, Access.BROWSER),
    ("GET", "/static/{name}"): (Access.OPEN, None),
    ("GET", "/healthz"): (Access.OPEN, None),
    ("GET", "/readyz"): (Access.OPEN, None),
    ("POST", "/navai/realtime/client-secret"): (Access.BROWSER, None),
    ("POST", "/navai/speech/synthesize"): (Access.BROWSER, None),
    ("GET", "/navai/functions"): (Access.BROWSER, None),
    ("POST", "/api/ai-assistant/realtime/session"): (Access.BROWSER, None),
    ("GET", "/api/ai-assistant/realtime/tools"): (Access.BROWSER, None),
    ("POST", "/api/ai-assistant/realtime/tools/exec"): (Access.BROWSER, None),
    ("GET", "/api/ai-assistant/realtime/user"): (Access.BROWSER, None),
    ("GET", "/api/ai-assistant/realtime/health"): (Access.BROWSER, None),
    ("POST", "/navai/functions/execute"): (Access.BROWSER, None),
    ("GET", "/v1/realtime"): (Access.CREDENTIAL, Access.CREDENTIAL),
    ("GET", "/openai/v1/realtime"): (Access.CREDENTIAL, Access.CREDENTIAL),
    ("GET", "/openai/realtime"): (Access.CREDENTIAL, Access.CREDENTIAL),
    ("GET", "/recordings"): (Access.ADMIN, None),
    ("GET", "/recordings/list"): (Access.ADMIN, None),
    ("GET", "/recordings/{name}/{file}"): (Access.ADMIN, None),
    ("GET", "/v1/models"): (Access.CREDENTIAL, None),
    ("POST", "/v1/realtime/client_secrets"): (Access.CREDENTIAL, None),
    ("POST", "/v1/realtime/calls"): (Access.CREDENTIAL, None),
    ("GET", "/v1/realtime/translations"): (Access.CREDENTIAL, None),
    ("POST", "/v1/realtime/translations/client_secrets"): (Access.CREDENTIAL, None),
}
"""Every route there is, with the access of a plain request and of a WebSocket upgrade; a new one is added here too."""


def test_the_route_table_is_the_one_that_was_decided() -> None:
    table = {(route.method, route.path): (route.access, route.websocket and route.websocket[0]) for route in ROUTES}
    assert table == EXPECTED


async def test_the_router_holds_nothing_but_the_table() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        routed = {
            (route.method, route.resource.canonical) for route in relay.app.router.routes() if route.method != "HEAD"
        }
    assert routed == {(route.method, canonical(route)) for route in ROUTES}


def canonical(route: Route) -> str:
    """What the router calls a route's path: without the patterns of its variables."""
    return re.sub(r"\{(\w+):.*\}", r"{\1}", route.pattern)


async def status(url: str, method: str = "GET", **headers: str) -> int:
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers) as response:
        return response.status


def upgrade(**headers: str) -> dict[str, str]:
    return {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    } | headers  # fmt: skip


@pytest.mark.parametrize(("method", "path"), EXPECTED)
async def test_every_route_refuses_what_its_row_refuses(method: str, path: str) -> None:
    plain, websocket = EXPECTED[method, path]
    async with running_relay("ws://127.0.0.1:9/", host="0.0.0.0", api_keys=(KEY,)) as relay:
        url = relay.http(path.replace("{name}", "page.js").replace("{file}", "user.flac"))
        refused = plain is not Access.OPEN
        assert (await status(url, method) == 401) is refused
        assert (await status(url, method, Origin="https://evil.example") == 403) is refused
        if websocket is not None:
            assert await status(url, **upgrade()) == 401
            assert await status(url, **upgrade(Authorization="Bearer wrong-key-0123456789")) == 401
            assert await status(url, **upgrade(Origin="https://evil.example", Authorization=f"Bearer {KEY}")) == 403
            # A Realtime client is let in as far as the dial, and nobody listens at this upstream.
            let_in = 504 if path.endswith("/realtime") else 101
            assert await status(url, **upgrade(Authorization=f"Bearer {KEY}")) == let_in
            assert await status(url, **upgrade(**{"api-key": KEY})) == let_in


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, 101),
        ("http://localhost:5173", 101),
        ("http://127.0.0.1:3000", 101),
        ("https://app.localhost", 101),
        ("http://[::1]:99", 101),
        ("https://voice.example.com", 101),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost@evil.example", 403),
    ],
)
async def test_origins_on_a_loopback_bind(origin: str | None, expected: int) -> None:
    async with running_relay("ws://127.0.0.1:9/", allowed_origins=("https://voice.example.com",)) as relay:
        headers = {"Origin": origin} if origin else {}
        assert await status(relay.http("/ws"), **upgrade(**headers)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", 200), ("127.0.0.1:8080", 200), ("voice.example.com", 200), ("evil.example", 403), ("", 403)],
)
async def test_a_loopback_bind_answers_only_under_the_names_of_this_machine(host: str, expected: int) -> None:
    async with running_relay("ws://127.0.0.1:9/", allowed_origins=("https://voice.example.com",)) as relay:
        assert await status(relay.http("/"), Host=host) == expected


async def test_cors_lets_allowed_pages_read_and_no_others() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay, aiohttp.ClientSession() as http:
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
        async with http.options(relay.http("/healthz"), headers=preflight | {"Origin": "http://localhost:1"}) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
            assert answer.headers["Access-Control-Allow-Headers"] == "x-a"
        async with http.options(
            relay.http("/healthz"), headers=preflight | {"Origin": "https://evil.example"}
        ) as answer:
            assert answer.status == 403
        async with http.get(relay.http("/healthz"), headers={"Origin": "http://localhost:1"}) as answer:
            assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"]) == (
                "http://localhost:1",
                "Origin",
            )
        async with http.get(relay.http("/healthz"), headers={"Origin": "https://evil.example"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_refusal_says_how_to_get_in_and_names_no_key() -> None:
    async with (
        running_relay("ws://127.0.0.1:9/", host="0.0.0.0", api_keys=(KEY,), admin_keys=(ADMIN_KEY,)) as relay,
        aiohttp.ClientSession() as http,
        http.get(relay.http("/ws"), headers=upgrade(Authorization="Bearer nobody-knows-this")) as answer,
    ):
        text = await answer.text()
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert KEY not in text
        assert "nobody-knows-this" not in text


def test_a_public_bind_without_keys_refuses_to_start_and_names_both_ways_out() -> None:
    with pytest.raises(ConfigError, match=r"RELAY_API_KEYS.*RELAY_OPEN"):
        Settings.load(_env_file=None, host="0.0.0.0")
    assert settings_for(host="0.0.0.0", open_access=True).warnings()
    assert not settings_for(host="127.0.0.1").warnings()


async def test_relay_open_means_as_on_loopback() -> None:
    async with running_relay("ws://127.0.0.1:9/", host="0.0.0.0", open_access=True) as relay:
        assert await status(relay.http("/ws"), **upgrade()) == 101
        assert await status(relay.http("/"), Host=socket.gethostname()) == 200
        assert await status(relay.http("/ws"), **upgrade(Origin="https://evil.example")) == 403
        own = f"http://{socket.gethostname()}"
        assert await status(relay.http("/ws"), **upgrade(Origin=own, Host=socket.gethostname())) == 101
        rebound = upgrade(Origin="http://evil.example", Host="evil.example")
        assert await status(relay.http("/ws"), **rebound) == 403, "a name that was made to lead here is not ours"


async def test_behind_a_proxy_on_this_machine_the_keys_are_asked_for() -> None:
    origins = ("https://voice.example.com",)
    async with running_relay("ws://127.0.0.1:9/", api_keys=(KEY,), allowed_origins=origins) as relay:
        through = upgrade(Host="voice.example.com", Origin="https://voice.example.com")
        assert await status(relay.http("/ws"), **through) == 401
        assert await status(relay.http("/ws"), **through, Authorization=f"Bearer {KEY}") == 101
        assert await status(relay.http("/ws"), **upgrade()) == 101


@pytest.mark.parametrize("origins", [("https://App.Example.com",), ("https://app.example.com:443",)])
async def test_origins_are_compared_as_browsers_send_them(origins: tuple[str, ...]) -> None:
    async with running_relay("ws://127.0.0.1:9/", allowed_origins=origins) as relay:
        assert await status(relay.http("/ws"), **upgrade(Origin="https://app.example.com")) == 101


async def raw_status(port: int, head: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"\r\n\r\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Host: [", 403),
        (b"Host: localhost\r\nOrigin: http://[", 403),
        (b"Host: localhost\r\nAuthorization: Bearer \xff\xff", 401),
        (b"Host: localhost\r\napi-key: \xe9", 401),
    ],
)
async def test_headers_that_make_no_sense_are_refused_like_any_other(header: bytes, expected: int, caplog) -> None:
    async with running_relay("ws://127.0.0.1:9/", api_keys=(KEY,)) as relay:
        assert await raw_status(relay.port, b"GET /ws HTTP/1.1\r\n" + header) == expected
    assert "Traceback" not in caplog.text


async def test_an_allowed_page_can_read_why_it_was_refused() -> None:
    origin = {"Origin": "http://localhost:1"}
    async with (
        running_relay("ws://127.0.0.1:9/") as relay,
        aiohttp.ClientSession(headers=origin) as http,
        http.get(relay.http("/nothing")) as answer,
    ):
        assert answer.status == 404
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
