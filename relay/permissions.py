"""Applies a policy to request fields: a denied one is dropped, or answered with a 403 that names it."""

from collections.abc import Callable

from relay.core.policy import Policy
from relay.errors import AccessDenied


def permitted(policy: Policy, field: str, given: str | None, is_allowed: Callable[[str], bool]) -> str | None:
    """What a client gave for `field`; None where that is nothing, or is dropped by its policy's `denied_fields`.

    Raises AccessDenied naming the field where the policy refuses it.
    """
    if given is None or is_allowed(given):
        return given
    if policy.realtime.denied_fields == "drop":
        return None
    raise AccessDenied(f"This client may not set {field} to that; leave {field} out.", field=field)


def permitted_words(policy: Policy, field: str, given: str | None) -> str | None:
    """The same for words that become part of the instructions, such as a language."""
    return permitted(policy, field, given, policy.allows_phrase)


def permitted_instructions(policy: Policy, given: str | None) -> str | None:
    """The same for instructions, which need a capability."""
    return permitted(policy, "instructions", given, lambda _: policy.allows("instructions"))


def require_value(field: str, value: str | None) -> str:
    """The value that is used. Raises AccessDenied where the policy allows no default and the client names none."""
    if value is None:
        raise no_default(field)
    return value


def no_default(field: str) -> AccessDenied:
    """The error of a client whose policy allows neither the configured value of `field` nor names one."""
    return AccessDenied(
        f"There is no {field} for this client: its policy does not allow the configured {field} and names none.",
        field=field,
    )
