"""Real reverse proxies in front of a test's relay: Debian's nginx and HAProxy, as other users than the relay's.

Each runs from a file of its own, in a folder of its own, and ends with the test; Debian's services are left alone.
"""

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

START_TIMEOUT_S = 10.0
CERTIFICATE = Path(__file__).parent.parent / "support" / "self_signed.pem"
PAGE = Path(__file__).parent.parent.parent / "docs" / "access.md"
ADDRESS = "127.0.0.9"
"""Where the proxies listen: connections that go out from 127.0.0.1 cannot take a port of it meanwhile."""

NGINX_USER, HAPROXY_USER = "www-data", "haproxy"
KINDS = ("nginx", "haproxy")

_NGINX = """
daemon off;
user {user};
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
}}
"""

_NGINX_UPGRADE = """
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection;
"""

_HAPROXY = f"""
global
    user {HAPROXY_USER}
    group {HAPROXY_USER}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
"""

NGINX_FORWARDING = {
    "proxy_pass alone": "",
    "Host": f"proxy_set_header Host $http_host; {_NGINX_UPGRADE}",
    "X-Forwarded-For": f"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; {_NGINX_UPGRADE}",
    "X-Real-IP": f"proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr; {_NGINX_UPGRADE}",
    "Forwarded": f'proxy_set_header Forwarded "for=$remote_addr"; {_NGINX_UPGRADE}',
}
HAPROXY_FORWARDING = {
    "server alone": "",
    "Host": "http-request set-header Host localhost",
    "X-Forwarded-For": "option forwardfor",
    "X-Real-IP": "http-request set-header X-Real-IP %[src]",
    "Forwarded": "http-request set-header Forwarded for=%[src]",
}
FORWARDING = [
    *(("nginx", forwarding) for forwarding in NGINX_FORWARDING),
    *(("haproxy", forwarding) for forwarding in HAPROXY_FORWARDING),
]
"""What a proxy tells of its client; without any word of it, the relay only has the kernel's."""


def require_linux_root() -> None:
    """Skip the test where it cannot start programs of other users."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can start programs that run as another user")


def require_proxies() -> None:
    """Skip the test where the proxies cannot be what they are on a server: programs of other users."""
    require_linux_root()
    for kind, user in (("nginx", NGINX_USER), ("haproxy", HAPROXY_USER)):
        if _program(kind) is None:
            pytest.skip(f"{kind} is missing; install it with: sudo apt-get install {kind}")
        pwd.getpwnam(user)


class ReverseProxy:
    """A proxy that runs; `ports` are where it listens, one for each relay behind it."""

    def __init__(self, process: asyncio.subprocess.Process, ports: list[int]) -> None:
        self._process = process
        self.ports = ports

    @property
    def port(self) -> int:
        return self.ports[0]

    def worker_users(self) -> set[str]:
        """Whose the processes are that talk to the relay."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return {pwd.getpwuid(_uid(pid)).pw_name for pid in children or [self._process.pid]}


@asynccontextmanager
async def forwarding_proxy(
    folder: Path, kind: str, forwarding: str, *relay_ports: int, notices_aborts: bool = True
) -> AsyncIterator[ReverseProxy]:
    """A proxy that tells of its client as FORWARDING says, with a port for each of the relays.

    `notices_aborts`: a request of a client that is gone is given up, as nginx does of itself.
    """
    ports = free_ports(len(relay_ports))
    pairs = list(zip(ports, relay_ports, strict=True))
    if kind == "nginx":
        lines = NGINX_FORWARDING[forwarding]
        config = "\n".join(
            f"server {{ listen {ADDRESS}:{port}; location / {{ proxy_pass http://127.0.0.1:{relay}; {lines} }} }}"
            for port, relay in pairs
        )
    else:
        lines = HAPROXY_FORWARDING[forwarding]
        abort = "option abortonclose" if notices_aborts else ""
        config = "\n".join(
            f"listen relay{port}\n  bind {ADDRESS}:{port}\n  {lines}\n  {abort}\n  server relay 127.0.0.1:{relay}\n"
            for port, relay in pairs
        )
        config = _HAPROXY + config
    async with _running(folder, kind, config, ports) as proxy:
        yield proxy


@asynccontextmanager
async def documented_proxy(
    folder: Path, kind: str, relay_port: int, *, without: str = "", more: str = ""
) -> AsyncIterator[ReverseProxy]:
    """The proxy of the page's own snippet, with this machine's ports and certificate.

    `without` is left out of the snippet, and `more` stands in place of it.
    """
    [port] = free_ports(1)
    changes = {
        "nginx": {
            "listen 443 ssl": f"listen {ADDRESS}:{port} ssl",
            "/etc/letsencrypt/live/voice.example.com/fullchain.pem": str(CERTIFICATE),
            "/etc/letsencrypt/live/voice.example.com/privkey.pem": str(CERTIFICATE),
            "127.0.0.1:8080": f"127.0.0.1:{relay_port}",
        },
        "haproxy": {
            "bind :443": f"bind {ADDRESS}:{port}",
            "/etc/haproxy/voice.example.com.pem": str(CERTIFICATE),
            "127.0.0.1:8080": f"127.0.0.1:{relay_port}",
        },
    }
    config = readme_snippet(kind)
    for old, new in (changes[kind] | ({without: more} if without else {})).items():
        assert config.count(old) == 1, f"the page's snippet for {kind} holds {old!r} {config.count(old)} times"
        config = config.replace(old, new)
    async with _running(folder, kind, config, [port]) as proxy:
        yield proxy


def readme_snippet(kind: str) -> str:
    """The page's one fenced block in the language of a proxy's files."""
    [snippet] = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return str(snippet)


def free_ports(n: int) -> list[int]:
    """Ports on which nobody listens at ADDRESS."""
    listeners = [socket.create_server((ADDRESS, 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@asynccontextmanager
async def _running(folder: Path, kind: str, config: str, ports: list[int]) -> AsyncIterator[ReverseProxy]:
    file, log = folder / f"{kind}.conf", folder / f"{kind}.log"
    if kind == "nginx":
        config = _NGINX.format(user=NGINX_USER, http=config)
        options = ["-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]
    else:
        options = ["-db", "-f", str(file)]
    file.write_text(config + "\n")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(str(_program(kind)), *options, stdout=output, stderr=output)
    try:
        for port in ports:
            await _listens(process, port, log)
        yield ReverseProxy(process, ports)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection(ADDRESS, port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.005)  # there is no event for it but the next try
                continue
            writer.close()
            await writer.wait_closed()
            return
    raise AssertionError(f"the proxy did not start: {_text(log)}")


def _text(file: Path) -> str:
    return file.read_text(errors="replace")


def _program(kind: str) -> str | None:
    return shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _uid(pid: int | str) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
