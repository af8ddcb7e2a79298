"""The client address of a request behind proxies, and its Host and Origin headers."""

import re
import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from aiohttp import web

from relay.auth.access import HostKind, OriginKind
from relay.loopback import is_loopback_host

_LOOPBACK_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\]|[a-z0-9-]+\.localhost)(:\d{1,5})?", re.I)
_APP_ORIGIN = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://.*", re.I)


class ClientAddressResolver:
    """Resolves the client addresses of requests; `proxies` are addresses and networks (RELAY_PROXIES)."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._networks = [ip_network(proxy) for proxy in proxies]

    def resolve(self, request: web.Request) -> str:
        """Return the client's address: the rightmost address in X-Forwarded-For that is not one of our proxies.

        A proxy appends its peer's address to the header line or adds a line; the entries before come from the client.
        An entry that is not an address ends the search at the proxy that wrote it.
        """
        peer = parse_address(request.remote or "")
        if peer is None:
            return request.remote or ""
        lines = request.headers.getall("X-Forwarded-For", ())
        hops = [hop for line in lines for hop in line.split(",")]
        while hops and self._is_in_proxies(peer):
            hop = parse_address(hops.pop())
            if hop is None:
                break
            peer = hop
        return str(peer)

    @property
    def has_proxies(self) -> bool:
        """Whether any proxy is configured."""
        return bool(self._networks)

    def is_proxy(self, address: str) -> bool:
        """Whether an address is one of the proxies."""
        parsed = parse_address(address)
        return parsed is not None and self._is_in_proxies(parsed)

    def _is_in_proxies(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address as proxies write it: bare, with a port, or IPv6 in brackets; unwraps IPv4-mapped IPv6."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class HostOriginClassifier:
    """The host names of one relay, and its allowed origins."""

    def __init__(
        self, bind: str, hosts: Iterable[str] = (), origins: Collection[str] = (), *, is_loopback: bool = True
    ) -> None:
        own = socket.gethostname().lower()
        self._machine_names = {bind.lower(), own, f"{own}.local", *(host.lower() for host in hosts)}
        self._allowed_hosts = {urlsplit(origin).hostname for origin in origins if origin not in ("*", "null")}
        self._origins = frozenset(origins)
        self._is_loopback = is_loopback

    def classify_host(self, request: web.Request) -> HostKind:
        """Classify the Host header. Every IP address is allowed: DNS rebinding cannot use one."""
        name = request_host(request)
        if is_loopback_name(name) or name in self._machine_names:
            return "machine"
        return "allowed" if is_ip_address(name) or name in self._allowed_hosts else "foreign"

    def classify_origin(self, request: web.Request) -> OriginKind:
        """Classify the Origin header."""
        value = request.headers.get("Origin")
        if value is None:
            return "none"
        if "*" in self._origins or value.lower() in self._origins:
            return "allowed"
        if self._is_loopback and _LOOPBACK_ORIGIN.fullmatch(value) is not None:
            return "allowed"
        if self._is_own_page(value, request):
            return "allowed"
        return "app" if _APP_ORIGIN.fullmatch(value) else "foreign"

    def _is_own_page(self, origin: str, request: web.Request) -> bool:
        """Whether a page of this relay sent the request.

        The host must be one of ours as well: with DNS rebinding, a foreign name resolves to this relay, and is then in
        the Host header too.
        """
        return is_same_host(origin, request) and self.classify_host(request) != "foreign"


def is_same_host(origin: str, request: web.Request) -> bool:
    """Whether an Origin and the request's Host header name the same host and port."""
    return origin.lower().partition("://")[2] == request.headers.get("Host", "").lower() != ""


def request_host(request: web.Request) -> str:
    """Return the name in the Host header, without its port; empty if invalid."""
    return url_host(f"//{request.headers.get('Host', '')}")


def url_host(url: str) -> str:
    """Return the host of a URL or an Origin, without its port; empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_ip_address(host: str) -> bool:
    """Whether `host` is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback_name(host: str) -> bool:
    """Whether `host` is a loopback name or address: localhost, a name below it, 127.0.0.0/8 or ::1."""
    return is_loopback_host(host) or host.endswith(".localhost")
