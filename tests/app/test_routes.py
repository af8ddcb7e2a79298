"""Every route of the router held against its row, and the access rules over real sockets."""

import asyncio
import re
import socket
from pathlib import Path

import aiohttp
import pytest

from relay.app.context import SETTINGS, reload_access
from relay.app.middleware import NO_CORS_PATHS
from relay.app.server import Route, all_routes
from relay.auth.access import Access
from relay.auth.keyring import key_identity
from relay.config.environment import Environment
from relay.config.settings import Settings
from relay.errors import ConfigError
from tests.support.relay_server import running_relay, settings_for

KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"

# -- the router -------------------------------------------------------------------------------------------------------

OPEN, CLIENT, ADMIN = Access.OPEN, Access.CLIENT, Access.ADMIN
EXPECTED = {
    ("GET", "/"): (OPEN, CLIENT, "session"),
    ("GET", "/ws"): (CLIENT, CLIENT, "session"),
    ("GET", "/static/{name}"): (OPEN, None, None),
    ("GET", "/healthz"): (OPEN, None, None),
    ("GET", "/readyz"): (OPEN, None, None),
    ("GET", "/login"): (OPEN, None, None),
    ("POST", "/login"): (OPEN, None, None),
    ("POST", "/logout"): (OPEN, None, None),
    ("POST", "/navai/realtime/client-secret"): (CLIENT, None, "provider_secret"),
    ("POST", "/navai/speech/synthesize"): (CLIENT, None, "speech"),
    ("GET", "/navai/functions"): (CLIENT, None, "tools"),
    ("POST", "/navai/functions/execute"): (CLIENT, None, "tools"),
    ("POST", "/api/ai-assistant/realtime/session"): (CLIENT, None, "provider_secret"),
    ("GET", "/api/ai-assistant/realtime/tools"): (CLIENT, None, "tools"),
    ("POST", "/api/ai-assistant/realtime/tools/exec"): (CLIENT, None, "tools"),
    ("GET", "/api/ai-assistant/realtime/user"): (CLIENT, None, None),
    ("GET", "/api/ai-assistant/realtime/health"): (CLIENT, None, None),
    ("GET", "/v1/realtime"): (CLIENT, CLIENT, "session"),
    ("GET", "/openai/v1/realtime"): (CLIENT, CLIENT, "session"),
    ("GET", "/openai/realtime"): (CLIENT, CLIENT, "session"),
    ("GET", "/v1/models"): (CLIENT, None, "session"),
    ("POST", "/v1/realtime/client_secrets"): (CLIENT, None, "mint"),
    ("POST", "/v1/realtime/calls"): (CLIENT, None, "session"),
    ("GET", "/v1/realtime/translations"): (CLIENT, None, "session"),
    ("POST", "/v1/realtime/translations/client_secrets"): (CLIENT, None, "mint"),
    ("GET", "/recordings"): (ADMIN, None, None),
    ("GET", "/recordings/list"): (ADMIN, None, None),
    ("GET", "/recordings/{name}/{file}"): (ADMIN, None, None),
}
"""Every route there is, with the access of a plain request and of a WebSocket upgrade, and the scope; a new one is
added here too."""


def test_the_route_table_is_the_one_that_was_decided() -> None:
    table = {
        (route.method, route.path): (route.access, route.websocket and route.websocket[0], route.scope)
        for route in all_routes()
    }
    assert table == EXPECTED


def test_no_other_page_may_read_what_is_for_admins() -> None:
    admin = {route.path for route in all_routes() if route.access is ADMIN or route.path.startswith("/log")}
    assert admin == {route.path for route in all_routes() if route.path.startswith(NO_CORS_PATHS)}


async def test_the_router_holds_nothing_but_the_table() -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        routed = {
            (route.method, route.resource.canonical) for route in relay.app.router.routes() if route.method != "HEAD"
        }
    assert routed == {(route.method, canonical(route)) for route in all_routes()}


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


def url_of(relay, path: str) -> str:
    return relay.http(path.replace("{name}", "page.js").replace("{file}", "user.flac"))


@pytest.mark.parametrize(("method", "path"), EXPECTED)
async def test_every_route_refuses_what_its_row_refuses(method: str, path: str) -> None:
    plain, websocket, _ = EXPECTED[method, path]
    async with running_relay("ws://127.0.0.1:9/", server_host="0.0.0.0", access_api_keys=(KEY,)) as relay:
        url = url_of(relay, path)
        refused = plain is not OPEN
        assert (await status(url, method) == 401) is refused
        other_page = await status(url, method, Origin="https://evil.example")
        assert other_page == (401 if plain is ADMIN else 403) or not refused
        if websocket is not None:
            assert await status(url, **upgrade()) == 401
            assert await status(url, **upgrade(Authorization="Bearer wrong-key-0123456789")) == 401
            assert await status(url, **upgrade(Origin="https://evil.example")) == 403
            # A Realtime client is let in as far as the dial, and nobody listens at this upstream. A page is let in
            # before it, for it could not read the refusal.
            let_in = 504 if path.endswith("/realtime") else 101
            assert await status(url, **upgrade(Authorization=f"Bearer {KEY}")) == let_in
            assert await status(url, **upgrade(**{"api-key": KEY})) == let_in
            assert await status(url, **upgrade(Origin="https://evil.example", Authorization=f"Bearer {KEY}")) == 101


@pytest.mark.parametrize(("method", "path"), [row for row, (_, _, scope) in EXPECTED.items() if scope is not None])
async def test_every_route_asks_for_its_scope(method: str, path: str, tmp_path: Path) -> None:
    policies = tmp_path / "policies.toml"
    policies.write_text(f'[policies.nothing]\nscopes = []\nkeys = ["{key_identity(KEY)}"]\n')
    plain, websocket, scope = EXPECTED[method, path]
    async with running_relay(
        "ws://127.0.0.1:9/", server_host="0.0.0.0", access_api_keys=(KEY,), access_policies=policies
    ) as relay:
        url, bearer = url_of(relay, path), {"Authorization": f"Bearer {KEY}"}
        headers = bearer if plain is CLIENT else upgrade(**bearer)
        async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers) as answer:
            assert answer.status == 403
            assert f"'{scope}'" in await answer.text()
        assert websocket is None or await status(url, **upgrade(**bearer)) == 403


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
    async with running_relay("ws://127.0.0.1:9/", access_allowed_origins=("https://voice.example.com",)) as relay:
        headers = {"Origin": origin} if origin else {}
        assert await status(relay.http("/ws"), **upgrade(**headers)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", 101), ("127.0.0.1:8080", 101), ("relay.test", 101), ("voice.example.com", 401),
     ("evil.example", 403), ("", 403)],
)  # fmt: skip
async def test_who_shows_no_key_must_name_this_machine(host: str, expected: int) -> None:
    options = {
        "access_allowed_origins": ("https://voice.example.com",),
        "access_hosts": ("relay.test",),
        "access_api_keys": (KEY,),
    }
    async with running_relay("ws://127.0.0.1:9/", **options) as relay:
        assert await status(relay.http("/ws"), **upgrade(Host=host)) == expected
        assert await status(relay.http("/ws"), **upgrade(Host=host, Authorization=f"Bearer {KEY}")) == 101
        assert await status(relay.http("/"), Host=host) == 200, "open routes are open under every name"


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "x-forwarded-host",
        "X-FORWARDED-ANYTHING",
        "Forwarded",
        "X-Real-IP",
        "Via",
    ],
)
async def test_what_a_proxy_sent_on_is_not_local(header: str) -> None:
    async with running_relay("ws://127.0.0.1:9/", access_api_keys=(KEY,)) as relay:
        assert await status(relay.http("/ws"), **upgrade()) == 101
        assert await status(relay.http("/ws"), **upgrade(**{header: "127.0.0.1"})) == 401
        assert await status(relay.http("/ws"), **upgrade(**{header: "1", "Authorization": f"Bearer {KEY}"})) == 101


async def test_a_proxy_of_ours_is_never_local_and_relay_local_off_trusts_nobody() -> None:
    for options in ({"access_proxies": ("127.0.0.0/8",)}, {"access_local": "off"}):
        async with running_relay("ws://127.0.0.1:9/", **options) as relay:
            assert await status(relay.http("/ws"), **upgrade()) == 401


@pytest.mark.parametrize("settings", [{"access_local": "off"}, {"server_host": "0.0.0.0"}])
async def test_settings_that_are_gone_at_a_reload_open_nothing(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_relay("ws://127.0.0.1:9/", access_api_keys=(KEY,), **settings) as relay:
        monkeypatch.setattr(Settings, "reread", lambda own: settings_for())  # of an .env that is being written
        reload_access(relay.app)
        assert await status(relay.http("/ws"), **upgrade()) == 401
        assert await status(relay.http("/ws"), **upgrade(Authorization=f"Bearer {KEY}")) == 401


async def test_admin_routes_are_not_for_who_is_near_nor_for_other_pages() -> None:
    localhost = {"Origin": "http://localhost:3000"}
    for options in ({}, {"access_open": True, "server_host": "0.0.0.0"}):
        async with (
            running_relay("ws://127.0.0.1:9/", access_admin_keys=(ADMIN_KEY,), **options) as relay,
            aiohttp.ClientSession() as http,
        ):
            assert await status(relay.http("/recordings/list")) == 401
            assert await status(relay.http("/recordings/list"), **localhost) == 401
            bearer = {"Authorization": f"Bearer {ADMIN_KEY}"}
            async with http.get(relay.http("/recordings/list"), headers=bearer | localhost) as answer:
                assert answer.status == 200
                assert "Access-Control-Allow-Origin" not in answer.headers
            async with http.get(relay.http("/recordings"), headers=localhost | {"Accept": "text/html"}) as answer:
                assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (401, False)
            for path in ("/recordings/list", "/login", "/logout"):
                preflight = localhost | {"Access-Control-Request-Method": "POST"}
                async with http.options(relay.http(path), headers=preflight) as answer:
                    assert (answer.status, "Access-Control-Allow-Origin" in answer.headers) == (403, False)


@pytest.mark.parametrize("origin", ["file://", "capacitor://localhost", "null"])
async def test_origins_of_any_scheme_can_be_listed(origin: str) -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        assert await status(relay.http("/ws"), **upgrade(Origin=origin)) == 403
    async with running_relay("ws://127.0.0.1:9/", access_allowed_origins=(origin,)) as relay:
        assert await status(relay.http("/ws"), **upgrade(Origin=origin)) == 101
        assert relay.app[SETTINGS].warnings(), "what that opens is said"
    async with running_relay("ws://127.0.0.1:9/", access_open=True) as relay:
        assert await status(relay.http("/ws"), **upgrade(Origin=origin)) == (403 if origin == "null" else 101)


@pytest.mark.parametrize(
    "origin", ["localhost", "https://a/b", "https://", "https://a:99999", "file:///etc", "a b://c"]
)
def test_what_is_no_origin_stops_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match="is not an origin"):
        settings_for(access_allowed_origins=origin)


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
        running_relay(
            "ws://127.0.0.1:9/", server_host="0.0.0.0", access_api_keys=(KEY,), access_admin_keys=(ADMIN_KEY,)
        ) as relay,
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
        Settings.load(Environment({"HOST": "0.0.0.0"}))
    assert settings_for(server_host="0.0.0.0", access_open=True).warnings()
    assert not settings_for(server_host="127.0.0.1").warnings()


async def test_relay_open_means_as_on_loopback() -> None:
    async with running_relay("ws://127.0.0.1:9/", server_host="0.0.0.0", access_open=True) as relay:
        assert await status(relay.http("/ws"), **upgrade()) == 101
        assert await status(relay.http("/"), Host=socket.gethostname()) == 200
        assert await status(relay.http("/ws"), **upgrade(Origin="https://evil.example")) == 403
        own = f"http://{socket.gethostname()}"
        assert await status(relay.http("/ws"), **upgrade(Origin=own, Host=socket.gethostname())) == 101
        rebound = upgrade(Origin="http://evil.example", Host="evil.example")
        assert await status(relay.http("/ws"), **rebound) == 403, "a name that was made to lead here is not ours"


async def test_behind_a_proxy_on_this_machine_the_keys_are_asked_for() -> None:
    origins = ("https://voice.example.com",)
    async with running_relay("ws://127.0.0.1:9/", access_api_keys=(KEY,), access_allowed_origins=origins) as relay:
        through = upgrade(Host="voice.example.com", Origin="https://voice.example.com")
        assert await status(relay.http("/ws"), **through) == 401
        assert await status(relay.http("/ws"), **through, Authorization=f"Bearer {KEY}") == 101
        assert await status(relay.http("/ws"), **upgrade()) == 101


@pytest.mark.parametrize("origins", [("https://App.Example.com",), ("https://app.example.com:443",)])
async def test_origins_are_compared_as_browsers_send_them(origins: tuple[str, ...]) -> None:
    async with running_relay("ws://127.0.0.1:9/", access_allowed_origins=origins) as relay:
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
    async with running_relay("ws://127.0.0.1:9/", access_api_keys=(KEY,)) as relay:
        assert await raw_status(relay.port, b"GET /ws HTTP/1.1\r\n" + header) == expected
    assert "Traceback" not in caplog.text


async def test_a_cookie_that_makes_no_sense_is_nobodys(caplog) -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        cookie = b"Host: localhost\r\nCookie: relay_admin_%d=\xff.a.b" % relay.port
        assert await raw_status(relay.port, b"GET /recordings/list HTTP/1.1\r\n" + cookie) == 401
        assert await raw_status(relay.port, b"POST /logout HTTP/1.1\r\n" + cookie) == 200
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


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/ws?ticket=bogus", {}),
        (f"/ws?ticket={KEY}", {}),
        ("/ws?ticket=ek_relay_bogus", {}),
        ("/ws", {"Authorization": "Basic dXNlcjpwYXNz"}),
        ("/ws", {"Authorization": KEY}),
        ("/ws", {"Authorization": "Bearer"}),
    ],
)
async def test_a_credential_that_cannot_be_used_is_not_the_same_as_none(path: str, headers: dict[str, str]) -> None:
    async with running_relay("ws://127.0.0.1:9/", access_api_keys=(KEY,)) as relay:
        assert await status(relay.http(path), **upgrade(**headers)) == 401
        both = headers | {"api-key": KEY}
        assert await status(relay.http("/ws"), **upgrade(**both)) == 101, "a proxy's own login may come along"
        assert await status(relay.http("/ws?ticket="), **upgrade()) == 101


async def test_a_client_secret_ends_when_its_key_may_not_make_it_any_more(tmp_path: Path) -> None:
    policies = tmp_path / "policies.toml"
    backend = f'[policies.backend]\nmay_mint = ["kiosk"]\nkeys = ["{key_identity(KEY)}"]\n[policies.kiosk]\n'
    policies.write_text(backend)
    async with (
        running_relay(
            "ws://127.0.0.1:9/", server_host="0.0.0.0", access_api_keys=(KEY,), access_policies=policies
        ) as relay,
        aiohttp.ClientSession() as http,
    ):
        url, bearer = relay.http("/v1/realtime/client_secrets"), {"Authorization": f"Bearer {KEY}"}
        async with http.post(url, json={"policy": "kiosk"}, headers=bearer) as answer:
            secret = (await answer.json())["value"]
        assert await status(relay.http("/v1/models"), Authorization=f"Bearer {secret}") == 200
        policies.write_text(backend.replace('may_mint = ["kiosk"]', ""))
        reload_access(relay.app)
        assert await status(relay.http("/v1/models"), Authorization=f"Bearer {secret}") == 401


@pytest.mark.parametrize(
    ("method", "path", "headers", "refused"),
    [
        ("GET", "/ws?ticket=ek_relay_bogus", upgrade(), "GET /ws: 401 The client secret"),
        ("GET", "/v1/models", {"Origin": "https://evil.example"}, "GET /v1/models: 403 This origin"),
        (
            "OPTIONS",
            "/v1/models",
            {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"},
            "OPTIONS",
        ),
        ("GET", "/recordings", {"Accept": "text/html"}, "GET /recordings: 401 This route is for admins"),
        ("POST", "/navai/functions/execute", {"X-Real-IP": "1"}, "POST /navai/functions/execute: 401 A key"),
        ("GET", "/ws", {}, "GET /ws: 400 This is a WebSocket endpoint"),
        ("GET", "/healthz", {}, None),
        ("GET", "/nothing", {}, None),
    ],
)
async def test_each_refusal_is_one_line_without_the_query(
    method: str, path: str, headers: dict[str, str], refused: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_relay("ws://127.0.0.1:9/") as relay:
        await status(relay.http(path), method, **headers)
    lines = [record.getMessage() for record in caplog.records if record.name == "relay.access"]
    assert [line.startswith(f"refused 127.0.0.1 {refused}") for line in lines] == ([True] if refused else [])
    assert not any("ek_relay" in line for line in lines)
