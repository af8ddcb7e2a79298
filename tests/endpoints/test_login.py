"""The admin's login over HTTP: what is traded for the cookie, what the cookie opens, and who may ask."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.app.context import SETTINGS
from relay.auth.admin_login import create_login_code
from relay.endpoints.login import ATTEMPTS_PER_MINUTE
from tests.support.relay_server import RunningRelay, running_relay

ADMIN_KEY = "admin-key-0123456789abcdef"
KEY = "relay-key-0123456789abcdef"
SAME = {"Sec-Fetch-Site": "same-origin"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[RunningRelay]:
    options = {"recording_dir": tmp_path / "recordings", "access_state_dir": tmp_path / "state"}
    async with running_relay(
        "ws://127.0.0.1:9/", access_api_keys=(KEY,), access_admin_keys=(ADMIN_KEY,), **options
    ) as running:
        yield running


def code_of(relay: RunningRelay, at: float) -> str:
    return create_login_code(relay.app[SETTINGS].access.state_dir, at)


class Browser:
    """Sends what a browser would, cookies included."""

    def __init__(self, relay: RunningRelay) -> None:
        self._relay = relay
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> "Browser":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
        async with self._http.request(method, self._relay.http(path), json=body, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers


async def test_a_key_is_traded_for_a_cookie_that_opens_the_recordings(relay: RunningRelay) -> None:
    async with Browser(relay) as browser:
        status, _, headers = await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **SAME)
        assert status == 200
        cookie = headers["Set-Cookie"]
        assert cookie.startswith(f"relay_admin_{relay.port}=ey")
        for attribute in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
            assert attribute in cookie
        assert "Secure" not in cookie, "plain http on this machine"
        assert headers["Cache-Control"] == "no-store"
        assert (await browser.ask("GET", "/recordings/list", **SAME))[0] == 200
        status, page, _ = await browser.ask("GET", "/recordings", **PAGE, **SAME)
        assert status == 200
        assert "recordings.js" in page


async def test_a_code_of_the_console_works_once(relay: RunningRelay) -> None:
    import time

    code = code_of(relay, time.time())
    async with Browser(relay) as browser:
        assert (await browser.ask("POST", "/login", {"code": code}, **SAME))[0] == 200
        assert (await browser.ask("GET", "/recordings/list", **SAME))[0] == 200
    async with Browser(relay) as other:
        status, text, _ = await other.ask("POST", "/login", {"code": code}, **SAME)
        assert status == 401
        assert "relay console" in text
        late = code_of(relay, time.time() - 61)
        assert (await other.ask("POST", "/login", {"code": late}, **SAME))[0] == 401


async def test_signing_out_ends_the_cookie_here_and_for_whoever_copied_it(relay: RunningRelay) -> None:
    async with Browser(relay) as browser, aiohttp.ClientSession() as thief:
        _, _, headers = await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **SAME)
        copied = {"Cookie": headers["Set-Cookie"].partition(";")[0]} | SAME
        assert (await browser.ask("POST", "/logout", **SAME))[0] == 200
        assert (await browser.ask("GET", "/recordings/list", **SAME))[0] == 401
        async with thief.get(relay.http("/recordings/list"), headers=copied) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_other_pages_neither_sign_in_nor_out_nor_use_the_cookie(relay: RunningRelay, headers) -> None:
    async with Browser(relay) as browser:
        assert (await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **headers))[0] == 403
        await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **SAME)
        assert (await browser.ask("POST", "/logout", **headers))[0] == 403
        status, _, answer = await browser.ask("GET", "/recordings/list", **headers)
        assert status == 401
        assert "Access-Control-Allow-Origin" not in answer
        assert (await browser.ask("GET", "/recordings/list", **SAME))[0] == 200


async def test_the_cookie_is_no_credential_for_clients(relay: RunningRelay) -> None:
    async with Browser(relay) as browser:
        await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **SAME)
        forwarded = {"X-Forwarded-For": "203.0.113.7"}
        assert (await browser.ask("GET", "/v1/models", **SAME, **forwarded))[0] == 401


async def test_a_browser_that_is_not_signed_in_gets_the_form_and_a_program_gets_json(relay: RunningRelay) -> None:
    async with Browser(relay) as browser:
        status, page, headers = await browser.ask("GET", "/recordings", **PAGE)
        assert status == 401
        assert "login.js" in page
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        status, text, headers = await browser.ask("GET", "/recordings")
        assert status == 401
        assert "/login" in text
        assert headers["WWW-Authenticate"] == "Bearer"
        assert (await browser.ask("GET", "/login", **PAGE))[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": KEY}, 401),
        ({"key": "wrong-key-0123456789abcdef"}, 401),
        ({"code": "wrong"}, 401),
        ({"code": "../../../etc/passwd"}, 401),
        ({}, 400),
        ({"key": ADMIN_KEY, "code": "both"}, 400),
        ({"key": 7}, 400),
        ([], 400),
    ],
)
async def test_anything_else_signs_nobody_in(relay: RunningRelay, body, status: int) -> None:
    async with Browser(relay) as browser:
        seen, text, headers = await browser.ask("POST", "/login", body, **SAME)
        assert seen == status
        assert "Set-Cookie" not in headers
        assert ADMIN_KEY not in text


async def test_a_cookie_that_is_no_utf_8_signs_nobody_in(relay: RunningRelay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(
        b"GET /recordings/list HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n"
        b"Cookie: relay_admin_%d=\xff.b.c\r\n\r\n" % relay.port
    )
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_of_another_page_signs_nobody_in(relay: RunningRelay, content_type: str) -> None:
    headers = SAME | {"Content-Type": content_type}
    body = f'{{"key": "{ADMIN_KEY}"}}'
    async with (
        aiohttp.ClientSession() as http,
        http.post(relay.http("/login"), data=body, headers=headers) as answer,
    ):
        assert (answer.status, (await answer.json())["field"]) == (400, "Content-Type")
        assert "Set-Cookie" not in answer.headers


async def test_attempts_are_bounded_for_one_address(relay: RunningRelay) -> None:
    async with Browser(relay) as browser:
        for _ in range(ATTEMPTS_PER_MINUTE):
            assert (await browser.ask("POST", "/login", {"key": "wrong-key-0123456789"}, **SAME))[0] == 401
        status, _, headers = await browser.ask("POST", "/login", {"key": ADMIN_KEY}, **SAME)
        assert status == 429
        assert 0 < int(headers["Retry-After"]) <= 7


async def test_elsewhere_the_cookie_is_for_https_alone(relay: RunningRelay) -> None:
    async with Browser(relay) as browser:
        _, _, headers = await browser.ask("POST", "/login", {"key": ADMIN_KEY}, Host="voice.example.com", **SAME)
        assert "Secure" in headers["Set-Cookie"]


async def test_a_folder_that_others_may_write_to_is_told_in_the_log_alone(relay: RunningRelay, caplog) -> None:
    code = code_of(relay, 0)
    relay.app[SETTINGS].access.state_dir.chmod(0o777)
    async with Browser(relay) as browser:
        status, text, _ = await browser.ask("POST", "/login", {"code": code}, **SAME)
    assert status == 503
    assert str(relay.app[SETTINGS].access.state_dir) not in text
    assert "chmod 700" in caplog.text
