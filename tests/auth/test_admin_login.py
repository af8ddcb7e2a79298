"""The admin's login: one-time codes in a folder of the relay's own user, and cookies for one port."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from relay.auth.admin_login import (
    CODE_TTL_S,
    CONSOLE_IDENTITY,
    LOGIN_TTL_S,
    AdminLogins,
    cookie_name,
    create_login_code,
    needs_secure_cookie,
    redeem_login_code,
)
from relay.auth.keyring import Keyring, key_identity
from relay.errors import ConfigError
from relay.testing import FakeClock
from tests.proxies.reverse_proxies import require_linux_root

ADMIN_KEY = "admin-key-0123456789abcdef"
KEYS = Keyring(admin_keys=(ADMIN_KEY,))
SAME = {"Sec-Fetch-Site": "same-origin"}


class _Own:
    """A transport that knows which port the request came to."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", self._port) if name == "sockname" else default


def request(cookie: str = "", port: int = 8080, host: str = "127.0.0.1:8080", **headers: str):
    own = {"Host": host} | ({"Cookie": f"relay_admin_{port}={cookie}"} if cookie else {})
    return make_mocked_request("GET", "/recordings", headers=own | headers, transport=_Own(port))


# -- cookies ----------------------------------------------------------------------------------------------------------


def test_a_cookie_says_who_signed_in_for_twelve_hours() -> None:
    clock = FakeClock(1000.0)
    logins = AdminLogins(clock=clock)
    cookie = logins.issue_cookie(request(), CONSOLE_IDENTITY)
    clock.advance(LOGIN_TTL_S - 1)
    assert logins.signed_in_identity(request(cookie, **SAME), KEYS) == CONSOLE_IDENTITY
    clock.advance(1)
    assert logins.signed_in_identity(request(cookie, **SAME), KEYS) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (SAME, CONSOLE_IDENTITY),
        ({"Origin": "http://127.0.0.1:8080"}, CONSOLE_IDENTITY),
        ({"Origin": "http://127.0.0.1:8080"} | SAME, CONSOLE_IDENTITY),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, CONSOLE_IDENTITY),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "no-cors"}, None),
        ({"Sec-Fetch-Site": "same-site"}, None),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8080"}, None),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, None),
        ({"Sec-Fetch-Site": "cross-site"}, None),
        ({"Origin": "http://127.0.0.1:3000"}, None),
        ({"Origin": "http://localhost:8080"}, None),
        ({"Origin": "null"}, None),
        ({}, None),
    ],
)
def test_a_cookie_counts_only_for_the_relays_own_pages(headers: dict[str, str], expected: str | None) -> None:
    logins = AdminLogins()
    assert (
        logins.signed_in_identity(request(logins.issue_cookie(request(), CONSOLE_IDENTITY), **headers), KEYS)
        == expected
    )


@pytest.mark.parametrize("cookie", ["x", "a.b.c", "ü.b.c"])
def test_a_cookie_that_is_no_token_signs_nobody_in(cookie: str) -> None:
    assert AdminLogins().signed_in_identity(request(cookie, **SAME), KEYS) is None


def test_a_cookie_is_for_one_port() -> None:
    logins = AdminLogins(("shared-ticket-key-0123456789",))
    cookie = logins.issue_cookie(request(port=8080), CONSOLE_IDENTITY)
    assert cookie_name(request(port=8080)) == "relay_admin_8080"
    other = AdminLogins(("shared-ticket-key-0123456789",))
    assert other.signed_in_identity(request(cookie, port=8080, **SAME), KEYS) == CONSOLE_IDENTITY
    assert other.signed_in_identity(request(cookie, port=9090, **SAME), KEYS) is None


def test_a_cookie_got_by_a_key_ends_with_the_key() -> None:
    logins = AdminLogins()
    cookie = logins.issue_cookie(request(), key_identity(ADMIN_KEY))
    assert logins.signed_in_identity(request(cookie, **SAME), KEYS) == key_identity(ADMIN_KEY)
    assert logins.signed_in_identity(request(cookie, **SAME), Keyring(admin_keys=("another-key-0123456789",))) is None


def test_a_cookie_ends_as_well_where_its_key_stays_as_one_for_clients_alone() -> None:
    logins = AdminLogins()
    cookie = logins.issue_cookie(request(), key_identity(ADMIN_KEY))
    assert logins.signed_in_identity(request(cookie, **SAME), Keyring(api_keys=(ADMIN_KEY,))) is None


def test_signing_out_ends_every_copy_of_the_cookie_and_no_other() -> None:
    logins = AdminLogins()
    mine, other = logins.issue_cookie(request(), CONSOLE_IDENTITY), logins.issue_cookie(request(), CONSOLE_IDENTITY)
    logins.sign_out(request(mine, **SAME))
    assert logins.signed_in_identity(request(mine, **SAME), KEYS) is None
    assert logins.signed_in_identity(request(other, **SAME), KEYS) == CONSOLE_IDENTITY


@pytest.mark.parametrize("cookie", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "…"])
def test_what_is_no_cookie_of_ours_is_nobody(cookie: str) -> None:
    logins = AdminLogins()
    assert logins.signed_in_identity(request(cookie, **SAME), KEYS) is None
    assert (
        AdminLogins().signed_in_identity(request(logins.issue_cookie(request(), CONSOLE_IDENTITY), **SAME), KEYS)
        is None
    )


@pytest.mark.parametrize(
    ("host", "secure"),
    [("localhost:8080", False), ("127.0.0.1", False), ("voice.example.com", True), ("10.0.0.5", True)],
)
def test_the_cookie_is_for_https_but_on_this_machine(host: str, secure: bool) -> None:
    assert needs_secure_cookie(request(host=host)) is secure


# -- codes ------------------------------------------------------------------------------------------------------------


def test_a_code_works_once_within_a_minute(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "relay"
    code = create_login_code(folder, 1000.0)
    assert redeem_login_code(folder, code, 1000.0 + CODE_TTL_S - 1)
    assert not redeem_login_code(folder, code, 1000.0)
    late = create_login_code(folder, 1000.0)
    assert not redeem_login_code(folder, late, 1000.0 + CODE_TTL_S)
    assert not list(folder.iterdir())


def test_the_folder_is_for_its_user_alone_and_holds_no_code(tmp_path: Path) -> None:
    folder = tmp_path / "relay"
    before = os.umask(0)
    try:
        code = create_login_code(folder, 1000.0)
    finally:
        os.umask(before)
    [file] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert code not in file.name + file.read_text()


def test_old_codes_are_swept(tmp_path: Path) -> None:
    for _ in range(3):
        create_login_code(tmp_path, 1000.0)
    create_login_code(tmp_path, 1000.0 + CODE_TTL_S)
    assert len(list(tmp_path.glob("login-*"))) == 1


@pytest.mark.parametrize("code", ["", "x", "../../etc/passwd", "\0", "é" * 9999, "\ud83d"])
def test_what_is_no_code(tmp_path: Path, code: str) -> None:
    create_login_code(tmp_path, 1000.0)
    assert not redeem_login_code(tmp_path, code, 1000.0)
    assert not redeem_login_code(tmp_path / "nothing", code, 1000.0)


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    code = create_login_code(tmp_path, 1000.0)
    tmp_path.chmod(0o777)
    for attempt in (lambda: create_login_code(tmp_path, 1000.0), lambda: redeem_login_code(tmp_path, code, 1000.0)):
        with pytest.raises(ConfigError, match="chmod 700"):
            attempt()


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / "login-page.html", tmp_path / f"login-{'f' * 32}.bak", tmp_path / "login-notes"]
    for path in others:
        path.write_text("1")
    (tmp_path / f"login-{'0' * 32}").mkdir()
    create_login_code(tmp_path, 1000.0)
    assert all(path.exists() for path in others)


def code_file(folder: Path, code: str) -> Path:
    [path] = folder.glob(f"login-{hashlib.sha256(code.encode()).hexdigest()[:32]}")
    return path


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def anothers(path: Path) -> None:
    require_linux_root()
    os.chown(path, 65534, -1)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("become", [linked, anothers, fifo, folder])
def test_what_is_no_file_of_our_own_is_no_code(tmp_path: Path, become: Callable[[Path], None]) -> None:
    code = create_login_code(tmp_path, 1000.0)
    become(code_file(tmp_path, code))
    assert not redeem_login_code(tmp_path, code, 1000.0)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="RELAY_STATE_DIR"):
        create_login_code(tmp_path / "file" / "state", 1000.0)


def test_more_cookies_than_a_browser_sends_are_not_read() -> None:
    logins = AdminLogins()
    cookie = logins.issue_cookie(request(), CONSOLE_IDENTITY)
    padded = f'{cookie}; other="{"x" * 5000}"'
    assert logins.signed_in_identity(request(padded, **SAME), KEYS) is None
    assert logins.signed_in_identity(request(f"{cookie}; other=x", **SAME), KEYS) == CONSOLE_IDENTITY
