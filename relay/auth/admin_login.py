"""The admin's login in a browser: a one-time code or an admin key is exchanged for a cookie.

`relay console` writes the hash of a code to RELAY_STATE_DIR, where only the relay's user can write. It prints a link
with the code in its fragment, which no server and no log gets. The cookie is a JSON Web Token for this relay's port
only, because browsers send cookies to every port of a host.
"""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web

from relay.auth.client_secrets import ALGORITHM, key_id, signing_key
from relay.auth.keyring import Keyring
from relay.auth.origins import is_loopback_name, is_same_host, url_host
from relay.errors import ConfigError
from relay.private_files import create_file, create_folder
from relay.session.common.bounded_set import BoundedSet

CODE_TTL_S = 60
LOGIN_TTL_S = 12 * 3600
CONSOLE_IDENTITY = "console"
"""The identity of an admin who signed in with `relay console`."""
MAX_REVOKED_COOKIES = 1000
MAX_COOKIE_CHARS = 4096
"""The limit for all cookies of a request: browsers send those of every port of the host."""
_CODE_PREFIX = "login-"
_CODE_NAME = re.compile(_CODE_PREFIX + "[0-9a-f]{32}")
_MAX_EXPIRY_BYTES = 32


class AdminLogins:
    """Issues and verifies the admin cookies of one relay; each is valid for the port of its request.

    RELAY_TICKET_KEYS sign them, else a key generated at the start. Revoking an admin key revokes its cookies.
    """

    def __init__(self, keys: Sequence[str] = (), clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._process_key = secrets.token_hex(32)
        self._revoked = BoundedSet(MAX_REVOKED_COOKIES)
        self.set_keys(keys)

    def set_keys(self, keys: Sequence[str]) -> None:
        """Replace the keys that sign and verify."""
        self._keys = {key_id(key): signing_key("admin login", key) for key in keys or (self._process_key,)}

    def issue_cookie(self, request: web.Request, identity: str) -> str:
        """Return the value of a new cookie for an admin, valid for the port of the request."""
        now = int(self._clock())
        claims = {
            "aud": _audience(request),
            "jti": secrets.token_hex(8),
            "sub": identity,
            "iat": now,
            "exp": now + LOGIN_TTL_S,
        }
        kid, key = next(iter(self._keys.items()))
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid})

    def signed_in_identity(self, request: web.Request, keys: Keyring) -> str | None:
        """Return the identity of the signed-in admin; None without a valid cookie or for a cross-origin request."""
        claims = self._verified_claims(request)
        if claims is None or not is_same_origin_request(request):
            return None
        identity: str = claims["sub"]
        # A removed admin key may still be configured as a client key: that does not make its owner an admin.
        return identity if identity == CONSOLE_IDENTITY or keys.is_admin(identity) else None

    def sign_out(self, request: web.Request) -> None:
        """Revoke the request's cookie."""
        claims = self._verified_claims(request)
        if claims is not None:
            self._revoked.add(claims["jti"])

    def _verified_claims(self, request: web.Request) -> dict[str, Any] | None:
        if sum(map(len, request.headers.getall("Cookie", ()))) > MAX_COOKIE_CHARS:
            return None  # checked before parsing: the parser is slow on quotes
        token = request.cookies.get(cookie_name(request), "")
        if not token.isascii():  # invalid UTF-8 arrives as surrogates, which PyJWT cannot encode
            return None
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                return None
            options: Any = {"require": ["exp", "jti", "sub", "aud"], "verify_exp": False, "verify_iat": False}
            claims: dict[str, Any] = jwt.decode(token, key, [ALGORITHM], audience=_audience(request), options=options)
        except jwt.InvalidTokenError:
            return None
        is_over = self._clock() >= claims["exp"] or claims["jti"] in self._revoked
        return None if is_over else claims


def cookie_name(request: web.Request) -> str:
    """Return the name of the cookie for the port of the request."""
    return f"relay_admin_{_local_port(request)}"


def _audience(request: web.Request) -> str:
    return f"relay-admin-{_local_port(request)}"


def _local_port(request: web.Request) -> int:
    own = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return own[1] if isinstance(own, tuple) else 0


def is_same_origin_request(request: web.Request) -> bool:
    """Whether a page of this relay sent the request, or the user opened the URL; also for WebSockets.

    SameSite cookies do not ensure this: pages on other ports of the same host are same-site.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin" or (site == "none" and request.headers.get("Sec-Fetch-Mode") == "navigate")
    origin = request.headers.get("Origin")
    return origin is not None and is_same_host(origin, request)


def needs_secure_cookie(request: web.Request) -> bool:
    """Whether the cookie needs the Secure attribute: always, except for plain http on this machine.

    The Origin has the scheme that the browser used. Scheme and Host may be those of a proxy that terminates TLS.
    """
    origin = request.headers.get("Origin", f"{request.scheme}://{request.headers.get('Host', '')}")
    return not (origin.lower().startswith("http://") and is_loopback_name(url_host(origin)))


# -- one-time codes ---------------------------------------------------------------------------------------------------


def create_login_code(folder: Path, now: float) -> str:
    """Create a code, valid for a minute, and store its hash in `folder`. Raises ConfigError for an unsafe folder."""
    ensure_private_folder(folder)
    for path in folder.glob(f"{_CODE_PREFIX}*"):
        if _CODE_NAME.fullmatch(path.name) and _code_expiry(path) <= now:  # the folder may have other files
            with contextlib.suppress(OSError):  # deleted already, or a folder
                path.unlink()
    code = secrets.token_urlsafe(24)
    with create_file(_code_path(folder, code)) as file:
        file.write(b"%d" % (now + CODE_TTL_S))
    return code


def redeem_login_code(folder: Path, code: str, now: float) -> bool:
    """Use up a code; returns whether it was valid. Raises ConfigError for an unsafe folder."""
    if not folder.is_dir():
        return False
    ensure_private_folder(folder)
    path = _code_path(folder, code)
    expires_at = _code_expiry(path)
    try:
        path.unlink()  # of two concurrent attempts, one succeeds
    except OSError:
        return False
    return now < expires_at


def ensure_private_folder(folder: Path) -> None:
    """Create the folder for its user only. Raises ConfigError if another user owns it or can write to it."""
    try:
        create_folder(folder)
        status = folder.stat()
    except OSError as error:
        raise ConfigError(f"RELAY_STATE_DIR={folder} cannot be used: {error.strerror}.") from None
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"RELAY_STATE_DIR={folder} belongs to another user, so logins from there are not trusted. Set "
            "RELAY_STATE_DIR to a folder of the relay's own user, and run `relay console` as that user"
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise ConfigError(
            f"RELAY_STATE_DIR={folder} is writable by other users, so logins from there are not trusted. "
            f"Run: chmod 700 {folder}"
        )


def _code_path(folder: Path, code: str) -> Path:
    return folder / f"{_CODE_PREFIX}{hashlib.sha256(code.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _code_expiry(path: Path) -> int:
    """Return the expiry time in a code's file; 0 if the file is missing, invalid, or not owned by our user.

    A user who can write to the parent folder could replace the folder after `ensure_private_folder`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            is_ours = stat.S_ISREG(status.st_mode) and (not hasattr(os, "geteuid") or status.st_uid == os.geteuid())
            return int(file.read(_MAX_EXPIRY_BYTES)) if is_ours else 0
    except (OSError, ValueError):
        return 0
