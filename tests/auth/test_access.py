"""The access table, cell by cell."""

import itertools

import pytest

from relay.auth.access import Access, AccessRules, Caller, authorize, require_scope
from relay.errors import AccessDenied
from relay.session.common.policy import DEFAULT_SCOPES, Policy, Principal

LOOPBACK = AccessRules(is_loopback=True)
LOOPBACK_KEYS = AccessRules(is_loopback=True, has_keys=True)
PUBLIC = AccessRules(is_loopback=False, has_keys=True)
PUBLIC_BY_ORIGIN = AccessRules(is_loopback=False, has_keys=True, trusts_allowed_origins=True)
OPEN = AccessRules(is_loopback=False, is_open=True, has_keys=True)
OPEN_WITHOUT_KEYS = AccessRules(is_loopback=False, is_open=True)

ANY_BIND = (LOOPBACK, LOOPBACK_KEYS, PUBLIC, PUBLIC_BY_ORIGIN, OPEN, OPEN_WITHOUT_KEYS)

# rules, what the caller shows -> status (0: let in)
CELLS = [
    # a credential that is verified, whatever the origin, the host and the peer
    *(
        (rules, {"credential": credential, "origin": origin, "host": "foreign"}, 0)
        for rules in ANY_BIND
        for credential in ("key", "client_secret", "admin")
        for origin in ("none", "allowed", "app", "foreign")
    ),
    # one that is not
    (LOOPBACK, {"credential": "unknown", "is_local": True}, 0),
    (LOOPBACK, {"credential": "unknown"}, 401),
    (LOOPBACK, {"credential": "unknown", "is_local": True, "origin": "foreign"}, 403),
    (LOOPBACK_KEYS, {"credential": "unknown", "is_local": True}, 401),
    (PUBLIC, {"credential": "unknown", "origin": "allowed"}, 401),
    (PUBLIC, {"credential": "unknown", "origin": "foreign"}, 401),
    (PUBLIC_BY_ORIGIN, {"credential": "unknown", "origin": "allowed"}, 401),
    (OPEN, {"credential": "unknown"}, 0),
    (OPEN_WITHOUT_KEYS, {"credential": "unknown"}, 0),
    (OPEN, {"credential": "unknown", "origin": "foreign"}, 403),
    # none, and no Origin
    (LOOPBACK, {"is_local": True}, 0),
    (LOOPBACK_KEYS, {"is_local": True}, 0),
    (LOOPBACK, {"is_local": False}, 401),
    (LOOPBACK, {"is_local": True, "host": "allowed"}, 401),
    (LOOPBACK, {"is_local": True, "host": "foreign"}, 403),
    (PUBLIC, {"is_local": True}, 401),
    (PUBLIC_BY_ORIGIN, {"is_local": True}, 401),
    (OPEN, {"host": "machine"}, 0),
    (OPEN, {"host": "allowed"}, 0),
    (OPEN, {"host": "foreign"}, 403),
    # none, and an allowed Origin
    (LOOPBACK, {"origin": "allowed", "is_local": True}, 0),
    (LOOPBACK, {"origin": "allowed", "is_local": False}, 401),
    (LOOPBACK, {"origin": "allowed", "is_local": True, "host": "foreign"}, 403),
    (PUBLIC, {"origin": "allowed"}, 401),
    (PUBLIC_BY_ORIGIN, {"origin": "allowed", "host": "allowed"}, 0),
    (PUBLIC_BY_ORIGIN, {"origin": "allowed", "host": "foreign"}, 403),
    (OPEN, {"origin": "allowed", "host": "foreign"}, 0),
    # none, and the Origin of an app or a file that is not listed
    (LOOPBACK, {"origin": "app", "is_local": True}, 403),
    (PUBLIC, {"origin": "app"}, 403),
    (PUBLIC_BY_ORIGIN, {"origin": "app"}, 403),
    (OPEN, {"origin": "app"}, 0),
    # none, and any other Origin
    *((rules, {"origin": "foreign", "is_local": True}, 403) for rules in ANY_BIND),
]


@pytest.mark.parametrize(("rules", "shown", "status"), CELLS)
def test_a_client_route(rules: AccessRules, shown: dict, status: int) -> None:
    caller = Caller(identity="key-1", **shown)
    if status == 0:
        assert authorize(Access.CLIENT, caller, rules).identity == "key-1"
        return
    with pytest.raises(AccessDenied) as denied:
        authorize(Access.CLIENT, caller, rules)
    assert denied.value.status == status


@pytest.mark.parametrize("rules", ANY_BIND)
@pytest.mark.parametrize("origin", ["none", "allowed", "app", "foreign"])
def test_an_admin_route_takes_an_admin_and_nobody_else(rules: AccessRules, origin) -> None:
    admin = authorize(Access.ADMIN, Caller(origin, "admin", is_local=False), rules)
    assert "admin" in admin.scopes
    for credential, status in (("none", 401), ("unknown", 401), ("key", 403), ("client_secret", 403)):
        with pytest.raises(AccessDenied) as denied:
            authorize(Access.ADMIN, Caller(origin, credential, is_local=True), rules)
        assert denied.value.status == status


def test_open_routes_are_open_to_all() -> None:
    for origin, credential in itertools.product(("none", "allowed", "foreign"), ("none", "key", "unknown")):
        assert authorize(Access.OPEN, Caller(origin, credential, host="foreign"), PUBLIC)


def test_relay_local_off_ends_all_local_trust() -> None:
    with pytest.raises(AccessDenied) as denied:
        authorize(Access.CLIENT, Caller(), AccessRules(trusts_local=False))
    assert denied.value.status == 401


# -- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [*DEFAULT_SCOPES, "provider_secret"])
def test_a_policys_scopes_are_what_its_keys_have(scope: str) -> None:
    require_scope(Principal(scopes=frozenset({scope})), scope)
    with pytest.raises(AccessDenied, match=f"'{scope}'.*policy 'kiosk'"):
        require_scope(Principal(policy=Policy("kiosk"), scopes=frozenset()), scope)


def test_who_may_mint_every_policy_may_mint() -> None:
    require_scope(Principal(scopes=frozenset({"mint:*"})), "mint")


def test_a_client_secret_has_what_its_policy_and_its_kind_both_allow() -> None:
    generous = Policy("staff", scopes=DEFAULT_SCOPES | {"mint:*", "provider_secret"})
    scopes = frozenset({"session", "tools", "mint"})
    holder = Caller("none", "client_secret", policy=generous, secret_id="1", secret_scopes=scopes).principal
    assert holder.scopes == {"session", "tools"}
    narrow = Policy("kiosk", scopes=frozenset({"session"}))
    assert Caller("none", "client_secret", policy=narrow, secret_id="1", secret_scopes=scopes).principal.scopes == {
        "session"
    }
    with pytest.raises(AccessDenied, match="client secret"):
        require_scope(holder, "mint")


@pytest.mark.parametrize(
    ("policy", "wanted", "allowed"),
    [
        (Policy("kiosk"), "kiosk", True),
        (Policy("kiosk"), "staff", False),
        (Policy("kiosk"), "default", False),
        (Policy("default"), "kiosk", False),
        (Policy("desk", may_mint=("kiosk",)), "kiosk", True),
        (Policy("desk", may_mint=("kiosk",)), "staff", False),
        (Policy("boss", scopes=frozenset({"mint:*"})), "staff", True),
        (Policy("mute", scopes=frozenset({"session"})), "mute", False),
        (Policy("mute", scopes=frozenset({"session"}), may_mint=("kiosk",)), "kiosk", False),
    ],
)
def test_which_policies_a_key_may_mint_for(policy: Policy, wanted: str, allowed: bool) -> None:
    assert policy.allows_minting(wanted) is allowed
