"""Whether the other end of a connection is a program of this machine and of the relay's own user.

The kernel is asked who owns the peer's socket: by NETLINK_SOCK_DIAG (sock_diag(7)) for the one connection, else by
/proc/net/tcp in a thread, for that file grows with the machine's connections. A reverse proxy runs as another user, so
that what it forwards is not local. Only an established connection counts: the kernel shows root as the owner of a
connection that its program has closed. In a container with a user namespace, the kernel shows every user from outside
as nobody. A relay that runs as nobody there treats no peer as local.
"""

import asyncio
import errno
import logging
import os
import platform
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from relay.auth.origins import parse_address
from relay.errors import CapacityExceeded

TCP_ESTABLISHED = 1
ROOT_UID = 0

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR = 4, 20, 1, 2
_REQUEST = struct.Struct("=IHHII BBBBI HH16s16sIII")
"""nlmsghdr, inet_diag_req_v2 and its inet_diag_sockid; ports and addresses are in network order."""
_HEADER = struct.Struct("=IHHII")
_UID_OFFSET = 4 + 48 + 3 * 4
"""Where the uid stands in inet_diag_msg: behind four bytes, the sockid, expires, rqueue and wqueue."""
_ANY_COOKIE = 0xFFFFFFFF
_MAX_REPLY_BYTES = 512
_ALL_UIDS = 0xFFFFFFFF
"""How many users the first namespace knows."""

Address = IPv4Address | IPv6Address

_log = logging.getLogger("relay.access")


class SocketOwner(NamedTuple):
    """Who has a socket, and in which state of TCP it is."""

    uid: int
    state: int


class ConnectionAddresses(NamedTuple):
    """A TCP connection as its other end sees it."""

    local: tuple[Address, int]
    remote: tuple[Address, int]


OwnerLookup = Callable[[ConnectionAddresses], SocketOwner | None]


class LocalPeerChecker:
    """Answers for one relay. `lookup` is None where the system does not say who owns a socket."""

    def __init__(self, lookup: OwnerLookup | None, *, is_slow: bool = False, uid: int | None = None) -> None:
        self.lookup = lookup
        self._is_slow = is_slow
        self._uid = uid if uid is not None else _own_uid()
        self._is_uid_unambiguous = not _is_shared_uid(self._uid)

    @classmethod
    def detect(cls) -> "LocalPeerChecker":
        """The fastest way that works here; tried with a connection of our own."""
        for lookup, is_slow in ((lookup_by_sock_diag, False), (lookup_by_proc, True)):
            if _works(lookup):
                return cls(lookup, is_slow=is_slow)
        return cls(None)

    async def is_local(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether the connection's other end is here and ours."""
        addresses = peer_addresses(transport)
        if addresses is None:
            return False
        address, own = addresses.local[0], addresses.remote[0]
        if not address.is_loopback and address != own:
            return False
        if self.lookup is None:
            return True
        try:
            owner = await asyncio.to_thread(self.lookup, addresses) if self._is_slow else self.lookup(addresses)
        except OSError as error:
            _log.warning("the owner of a connection cannot be looked up: %s", error.strerror or error)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise CapacityExceeded("The relay has no descriptor left to see who asks; try again later.") from None
            return False  # whoever is not found is not local
        if owner is None or owner.state != TCP_ESTABLISHED or not self._is_uid_unambiguous:
            return False
        # Windows' side of WSL connects by a program of root's.
        return owner.uid == self._uid or (owner.uid == ROOT_UID and "microsoft" in platform.release().lower())


def peer_addresses(transport: asyncio.BaseTransport | None) -> ConnectionAddresses | None:
    """The connection of a transport, as its other end sees it; None if it is no TCP, or gone."""
    if transport is None:
        return None
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not (isinstance(peer, tuple) and isinstance(own, tuple)):
        return None
    addresses = parse_address(peer[0]), parse_address(own[0])
    if addresses[0] is None or addresses[1] is None:
        return None
    return ConnectionAddresses((addresses[0], peer[1]), (addresses[1], own[1]))


def lookup_by_sock_diag(addresses: ConnectionAddresses) -> SocketOwner | None:
    """Ask the kernel for this one socket. Raises OSError where it cannot be asked."""
    (address, port), (remote_address, remote_port) = addresses
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    request = _REQUEST.pack(
        _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0,
        family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF,
        socket.htons(port), socket.htons(remote_port), address.packed, remote_address.packed,
        0, _ANY_COOKIE, _ANY_COOKIE,
    )  # fmt: skip
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.setblocking(False)  # the kernel has answered when `send` returns
        netlink.sendto(request, (0, 0))
        reply = netlink.recv(_MAX_REPLY_BYTES)
    _, kind, *_ = _HEADER.unpack_from(reply)
    if kind == _NLMSG_ERROR or len(reply) < _HEADER.size + _UID_OFFSET + 4:
        return None
    [uid] = struct.unpack_from("=I", reply, _HEADER.size + _UID_OFFSET)
    return SocketOwner(uid, reply[_HEADER.size + 1])


def lookup_by_proc(addresses: ConnectionAddresses) -> SocketOwner | None:
    """Look the socket up in /proc/net/tcp and tcp6. Raises OSError where there is no such file."""
    ipv4_entry = f"{_proc_address(*addresses.local)} {_proc_address(*addresses.remote)}"
    mapped_entry = f"{_proc_address(*addresses.local, mapped=True)} {_proc_address(*addresses.remote, mapped=True)}"
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        if name == "tcp6" and not path.exists():  # IPv6 is off
            continue
        for line in path.read_text().splitlines()[1:]:
            fields = line.split()
            if f"{fields[1]} {fields[2]}" in (ipv4_entry, mapped_entry):
                return SocketOwner(int(fields[7]), int(fields[3], 16))
    return None


def _proc_address(address: Address, port: int, *, mapped: bool = False) -> str:
    """An end as /proc writes it: words of four bytes in the machine's order, in hexadecimal."""
    packed = address.packed
    if mapped and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"


def _works(lookup: OwnerLookup) -> bool:
    """Whether a lookup finds a connection of our own."""
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        own, peer = client.getsockname(), client.getpeername()
        ends = ConnectionAddresses((IPv4Address(own[0]), own[1]), (IPv4Address(peer[0]), peer[1]))
        try:
            return lookup(ends) == SocketOwner(_own_uid(), TCP_ESTABLISHED)
        except (OSError, AttributeError, ValueError):  # no such socket family, file or call
            return False


def _own_uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1


def _is_shared_uid(uid: int) -> bool:
    """Whether the kernel shows as `uid` also all users that this process's user namespace does not know: as nobody."""
    try:
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
        n_known = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return False
    return uid == nobody and n_known < _ALL_UIDS
