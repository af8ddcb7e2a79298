"""Which host names mean this machine."""

import pytest

from relay.loopback import is_loopback_host


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.168.1.5", False),
        ("app.localhost", False),
        ("localhost.example.com", False),
        ("192.168.1.5", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_only_localhost_and_loopback_addresses_mean_this_machine(host: str, is_loopback: bool) -> None:
    assert is_loopback_host(host) is is_loopback
