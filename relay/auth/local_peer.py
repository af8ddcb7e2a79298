"""Checks whether the peer of a connection is a program of the relay's own user on this machine.

The kernel knows the owner of the peer's socket: NETLINK_SOCK_DIAG (sock_diag(7)) returns it for one connection.
/proc/net/tcp is the fallback, read in a thread because it lists all connections. A reverse proxy runs as another user,
so that forwarded requests are not local. Only established connections count: the kernel reports root as the owner of a
closed one. In a user namespace, the kernel reports every outside user as nobody; a relay that itself runs as nobody
there treats no peer as local.
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
"""nlmsghdr, inet_diag_req_v2 and its inet_diag_sockid; ports and addresses in network byte order."""
_HEADER = struct.Struct("=IHHII")
_UID_OFFSET = 4 + 48 + 3 * 4
"""The offset of the uid in inet_diag_msg: after four bytes, the sockid, expires, rqueue and wqueue."""
_ANY_COOKIE = 0xFFFFFFFF
_MAX_REPLY_BYTES = 512
_ALL_UIDS = 0xFFFFFFFF
"""The number of users of the initial namespace."""

Address = IPv4Address | IPv6Address

_log = logging.getLogger("relay.access")


class SocketOwner(NamedTuple):
    """The owner of a socket, and its TCP state."""

    uid: int
    state: int


class ConnectionAddresses(NamedTuple):
    """The addresses of a TCP connection from the peer's side."""

    local: tuple[Address, int]
    remote: tuple[Address, int]


OwnerLookup = Callable[[ConnectionAddresses], SocketOwner | None]


class LocalPeerChecker:
    """Checks peers for one relay. `lookup` is None if the system cannot look up the owner of a socket."""

    def __init__(self, lookup: OwnerLookup | None, *, is_slow: bool = False, uid: int | None = None) -> None:
        self.lookup = lookup
        self._is_slow = is_slow
        self._uid = uid if uid is not None else _own_uid()
        self._is_uid_unambiguous = not _is_shared_uid(self._uid)

    @classmethod
    def detect(cls) -> "LocalPeerChecker":
        """Return a checker with the fastest lookup that works here, tested with a connection of our own."""
        for lookup, is_slow in ((lookup_by_sock_diag, False), (lookup_by_proc, True)):
            if _finds_own_connection(lookup):
                return cls(lookup, is_slow=is_slow)
        return cls(None)

    async def is_local(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether the peer is on this machine and belongs to the relay's user."""
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
            _log.warning("looking up the owner of a connection failed: %s", error.strerror or error)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise CapacityExceeded("The relay has no file descriptor left; try again later.") from None
            return False  # an unknown owner is not local
        if owner is None or owner.state != TCP_ESTABLISHED or not self._is_uid_unambiguous:
            return False
        # The Windows side of WSL connects through a program of root.
        return owner.uid == self._uid or (owner.uid == ROOT_UID and "microsoft" in platform.release().lower())


def peer_addresses(transport: asyncio.BaseTransport | None) -> ConnectionAddresses | None:
    """Return the addresses of a connection from the peer's side; None if it is not TCP or is gone."""
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
    """Look up one socket by a netlink request. Raises OSError where that is not supported."""
    (address, port), (remote_address, remote_port) = addresses
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    request = _REQUEST.pack(
        _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0,
        family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF,
        socket.htons(port), socket.htons(remote_port), address.packed, remote_address.packed,
        0, _ANY_COOKIE, _ANY_COOKIE,
    )  # fmt: skip
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.setblocking(False)  # the kernel has replied when `sendto` returns
        netlink.sendto(request, (0, 0))
        reply = netlink.recv(_MAX_REPLY_BYTES)
    _, kind, *_ = _HEADER.unpack_from(reply)
    if kind == _NLMSG_ERROR or len(reply) < _HEADER.size + _UID_OFFSET + 4:
        return None
    [uid] = struct.unpack_from("=I", reply, _HEADER.size + _UID_OFFSET)
    return SocketOwner(uid, reply[_HEADER.size + 1])


def lookup_by_proc(addresses: ConnectionAddresses) -> SocketOwner | None:
    """Look up the socket in /proc/net/tcp and tcp6. Raises OSError if there is no such file."""
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
    """Format an address as /proc does: four-byte words in native byte order, in hexadecimal."""
    packed = address.packed
    if mapped and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"


def _finds_own_connection(lookup: OwnerLookup) -> bool:
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
    """Whether the kernel reports unknown users of this process's user namespace as `uid` (nobody)."""
    try:
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
        n_known = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return False
    return uid == nobody and n_known < _ALL_UIDS
