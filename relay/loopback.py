"""Which host names and addresses mean this machine."""

from ipaddress import ip_address


def is_loopback_host(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address, in 127.0.0.0/8 (also written as IPv6) or ::1.

    A name below `localhost` is not one: resolvers may ask a DNS server for it, and a key may be sent to the answer.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
