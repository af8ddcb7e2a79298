"""Host names and addresses of this machine."""

from ipaddress import ip_address


def is_loopback_host(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address: 127.0.0.0/8, the same mapped to IPv6, or ::1.

    A name below `localhost` does not count: a resolver may ask a DNS server for it, and a key may be sent to the
    address that it returns.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
