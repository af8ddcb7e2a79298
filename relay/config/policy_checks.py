"""Checks of a request's fields against the policy of its client."""

from collections.abc import Callable

from relay.errors import AccessDenied
from relay.session.common.policy import Policy


def permitted_value(policy: Policy, field: str, requested: str | None, is_allowed: Callable[[str], bool]) -> str | None:
    """Return the requested value of a field if the policy allows it.

    Returns None if there is none, or if the policy drops denied fields. Otherwise raises AccessDenied with the field.
    """
    if requested is None or is_allowed(requested):
        return requested
    if policy.realtime.denied_fields == "drop":
        return None
    raise AccessDenied(f"This client may not set {field} to that; leave {field} out.", field=field)


def permitted_phrase(policy: Policy, field: str, requested: str | None) -> str | None:
    """Check a phrase that becomes part of the instructions, such as a language, as `permitted_value` does."""
    return permitted_value(policy, field, requested, policy.allows_phrase)


def permitted_instructions(policy: Policy, requested: str | None) -> str | None:
    """Check instructions, which require a capability, as `permitted_value` does."""
    return permitted_value(policy, "instructions", requested, lambda _: policy.allows("instructions"))


def require_value(field: str, value: str | None) -> str:
    """Return the value. Raises AccessDenied if it is None: the policy allows no default and the client names none."""
    if value is None:
        raise no_default_error(field)
    return value


def no_default_error(field: str) -> AccessDenied:
    """Return the error for a field without a value: neither the policy nor the client names one."""
    return AccessDenied(
        f"This client must request a {field}: its policy does not allow the configured {field} and has no other.",
        field=field,
    )
