"""Which key a credential is, and when the holder of one has lost it."""

from relay.auth.keyring import Keyring, key_identity

KEY = "relay-key-0123456789abcdef"
ADMIN_KEY = "admin-key-0123456789abcdef"


def test_a_removed_key_is_revoked_and_so_is_whoever_got_a_client_secret_from_it() -> None:
    keys = Keyring((KEY,), (ADMIN_KEY,))
    for identity in (key_identity(KEY), f"{key_identity(KEY)}/alice", key_identity(ADMIN_KEY)):
        assert not keys.has_revoked(identity)
        assert Keyring().has_revoked(identity)


def test_who_came_without_a_key_has_none_to_lose() -> None:
    for identity in ("anonymous", "anonymous/alice", "console"):
        assert not Keyring().has_revoked(identity)
