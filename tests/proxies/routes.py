"""The relay's routes as requests, and the names and keys that these tests use."""

from collections.abc import Iterable

from relay.app.routes import all_routes
from relay.auth.access import Access
from tests.proxies.raw_http import UPGRADE, Headers, request_bytes

KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"
NAME = "voice.example.com"
ALLOWED = "https://app.example.com"
NOWHERE = "ws://127.0.0.1:9/"


def routes(access: Access, *, with_upgrades: bool = True) -> list[tuple[str, str, Headers]]:
    """Every route of the relay with that access: method, path, and the headers of an upgrade where there is one."""
    found: list[tuple[str, str, Headers]] = []
    for route in all_routes():
        path = route.path.replace("{name}", "20261121T063847Z-rs_1").replace("{file}", "user.flac")
        if route.access is access:
            found.append((route.method, path, []))
            if route.ignores_case and route.method == "GET":
                found.append(("HEAD", path, []))
        if with_upgrades and route.websocket is not None and route.websocket[0] is access:
            found.append((route.method, path, UPGRADE))
    return found


def sent(table: Iterable[tuple[str, str, Headers]], host: str, *more: tuple[str, str]) -> list[bytes]:
    return [request_bytes(method, path, host, [*headers, *more]) for method, path, headers in table]
