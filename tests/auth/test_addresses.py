"""Which address a request counts for, behind proxies that tell and clients that lie."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from relay.auth.authenticator import Authenticator
from relay.auth.origins import ClientAddressResolver, parse_address
from tests.support.relay_server import settings_for


class _Peer:
    """A transport that knows where its other end is."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self._address, 40000) if name == "peername" else default


def address(*forwarded: str, peer: str = "10.0.0.1", proxies: tuple[str, ...] = ("10.0.0.0/24", "::1")) -> str:
    headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
    request = make_mocked_request("GET", "/", headers=headers, transport=_Peer(peer))
    return ClientAddressResolver(proxies).resolve(request)


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.0.0.9"], "203.0.113.7"),
        (["203.0.113.7:51234"], "203.0.113.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:51234"], "2001:db8::7"),
        (['"[2001:db8::7]:51234"'], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["fe80::1%eth0"], "fe80::1"),
        (["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        # what is no address counts for the proxy that wrote it, so that inventing some gains nothing
        (["203.0.113.7, unknown"], "10.0.0.1"),
        (["203.0.113.7, "], "10.0.0.1"),
        (["203.0.113.7, _hidden, 10.0.0.9"], "10.0.0.9"),
        ([], "10.0.0.1"),
    ],
)
def test_the_first_from_the_right_that_is_no_proxy(forwarded: list[str], expected: str) -> None:
    assert address(*forwarded) == expected


@pytest.mark.parametrize("peer", ["198.51.100.9", "2001:db8::9"])
def test_a_peer_that_is_no_proxy_is_not_believed(peer: str) -> None:
    assert address("203.0.113.7", peer=peer) == peer


def test_twelve_invented_addresses_are_one_client() -> None:
    assert {address(f"192.0.2.{n}", "203.0.113.7") for n in range(12)} == {"203.0.113.7"}


@pytest.mark.parametrize("text", ["", "nobody", "1.2.3", "[", "[::1", "1.2.3.4:5:6", "é"])
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None or text == "[::1"


def test_addresses_that_stand_for_many_clients_are_those_of_proxies_and_of_this_machine() -> None:
    auth = Authenticator(settings_for(access_proxies=("10.0.0.0/24",)))
    many = ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "10.0.0.7", "")
    assert [address for address in many if not auth.is_shared_address(address)] == []
    assert not any(
        auth.is_shared_address(address) for address in ("10.0.1.7", "203.0.113.1", "2001:db8::1", "no address")
    )
