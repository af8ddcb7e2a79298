"""What the Host and Origin headers of a request name."""

import socket

import pytest
from aiohttp.test_utils import make_mocked_request

from relay.auth.origins import HostOriginClassifier

OWN = socket.gethostname().lower()


def names(*, is_loopback: bool = True, bind: str = "127.0.0.1") -> HostOriginClassifier:
    origins = ("https://app.example.com", "capacitor://localhost", "https://other.example.com:8443")
    return HostOriginClassifier(bind, ("voice.example.com",), origins, is_loopback=is_loopback)


def request(host: str, origin: str | None = None):
    return make_mocked_request("GET", "/", headers={"Host": host} | ({"Origin": origin} if origin else {}))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", "machine"),
        ("LOCALHOST:8080", "machine"),
        ("app.localhost", "machine"),
        ("127.0.0.1:8080", "machine"),
        ("127.8.9.1", "machine"),
        ("[::1]:8080", "machine"),
        (OWN, "machine"),
        (f"{OWN}.local", "machine"),
        ("voice.example.com:443", "machine"),
        ("192.168.1.5:8080", "allowed"),
        ("[2001:db8::1]", "allowed"),
        ("app.example.com", "allowed"),
        ("other.example.com", "allowed"),
        ("evil.example", "foreign"),
        ("localhost.evil.example", "foreign"),
        ("127.0.0.1.evil.example", "foreign"),
        ("", "foreign"),
        ("[", "foreign"),
    ],
)
def test_hosts(host: str, expected: str) -> None:
    assert names().classify_host(request(host)) == expected


@pytest.mark.parametrize(
    ("origin", "on_loopback", "elsewhere"),
    [
        (None, "none", "none"),
        ("https://app.example.com", "allowed", "allowed"),
        ("https://APP.example.com", "allowed", "allowed"),
        ("capacitor://localhost", "allowed", "allowed"),
        ("http://localhost:3000", "allowed", "foreign"),
        ("http://127.0.0.1", "allowed", "foreign"),
        ("http://app.example.com", "foreign", "foreign"),
        ("https://app.example.com:444", "foreign", "foreign"),
        ("https://evil.example", "foreign", "foreign"),
        ("http://localhost.evil.example", "foreign", "foreign"),
        ("http://localhost@evil.example", "foreign", "foreign"),
        ("null", "foreign", "foreign"),
        ("file://", "app", "app"),
        ("ionic://localhost", "app", "app"),
        ("HTTPS://evil.example", "foreign", "foreign"),
        ("httpx://anything", "app", "app"),
        ("", "foreign", "foreign"),
    ],
)
def test_origins(origin: str | None, on_loopback: str, elsewhere: str) -> None:
    headers = {"Host": "voice.example.com"} | ({"Origin": origin} if origin is not None else {})
    mocked_request = make_mocked_request("GET", "/", headers=headers)
    assert names().classify_origin(mocked_request) == on_loopback
    assert names(is_loopback=False, bind="0.0.0.0").classify_origin(mocked_request) == elsewhere


def test_a_page_of_the_relays_own_is_allowed_under_a_name_that_is_ours() -> None:
    public = names(is_loopback=False, bind="0.0.0.0")
    assert public.classify_origin(request("voice.example.com:8080", "http://voice.example.com:8080")) == "allowed"
    assert public.classify_origin(request("192.168.1.5:8080", "http://192.168.1.5:8080")) == "allowed"
    assert public.classify_origin(request("voice.example.com:8080", "http://voice.example.com:9090")) == "foreign"
    rebound = request("evil.example", "http://evil.example")
    assert public.classify_origin(rebound) == "foreign", "a name that was made to lead here is not ours"


def test_a_star_allows_every_page() -> None:
    assert (
        HostOriginClassifier("0.0.0.0", (), ("*",), is_loopback=False).classify_origin(
            request("a", "https://evil.example")
        )
        == "allowed"
    )
