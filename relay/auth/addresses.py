"""Where a request comes from, through the proxies that the settings name."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import web


class ClientAddresses:
    """Reads the addresses of requests; `proxies` are addresses and networks (RELAY_PROXIES)."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._networks = [ip_network(proxy) for proxy in proxies]

    def of(self, request: web.Request) -> str:
        """The client's address: the first from the right in X-Forwarded-For that is no proxy of ours.

        A proxy appends the address of its peer, to the same header line or as a new one. Entries before that come from
        the client. An entry that is not an address ends the search at the proxy that wrote it.
        """
        peer = parse_address(request.remote or "")
        if peer is None:
            return request.remote or ""
        lines = request.headers.getall("X-Forwarded-For", ())
        hops = [hop for line in lines for hop in line.split(",")]
        while hops and self._is_proxy(peer):
            hop = parse_address(hops.pop())
            if hop is None:
                break
            peer = hop
        return str(peer)

    @property
    def has_proxies(self) -> bool:
        """Whether the settings name any proxy."""
        return bool(self._networks)

    def has_proxy(self, address: str) -> bool:
        """Whether an address is one of the proxies."""
        found = parse_address(address)
        return found is not None and self._is_proxy(found)

    def _is_proxy(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: bare, with a port, or an IPv6 one in brackets; IPv4 in IPv6 is unwrapped."""
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
