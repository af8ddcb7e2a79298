"""The login's cookie is for https alone, unless a browser of this machine came by plain http."""

import aiohttp
import pytest

from tests.support.relay_server import running_relay

ADMIN_KEY = "admin-key-0123456789abcdef"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    ("host", "origin", "is_secure"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("127.0.0.1:8080", "http://localhost:8080", False),
        ("localhost", None, False),
        ("127.0.0.1:8080", "https://voice.example.com", True),  # a proxy ends TLS, and does not pass the name on
        ("localhost", "https://localhost", True),
        ("voice.example.com", "http://voice.example.com", True),  # a browser does not keep it then
        ("voice.example.com", None, True),
        ("localhost", "null", True),
        ("localhost", "http://[", True),
    ],
)
async def test_how_the_browser_came_says_whether_the_cookie_is_for_https_alone(
    host: str, origin: str | None, is_secure: bool
) -> None:
    headers = {"Host": host, **OWN_PAGE} | ({"Origin": origin} if origin else {})
    async with (
        running_relay("ws://127.0.0.1:9/", access_admin_keys=(ADMIN_KEY,)) as relay,
        aiohttp.ClientSession() as http,
    ):
        for path, body in (("/login", {"key": ADMIN_KEY}), ("/logout", {})):
            async with http.post(relay.http(path), json=body, headers=headers) as answer:
                assert answer.status == 200
                [cookie] = answer.headers.getall("Set-Cookie")
            assert ("; Secure" in cookie) is is_secure, path
            assert "; HttpOnly" in cookie
            assert "; SameSite=Strict" in cookie
