"""Who is at the other end of a session, and what that one may ask for."""

from dataclasses import dataclass
from typing import Literal

RecordMode = Literal["off", "on", "consent"]
"""Whether a session is recorded: never, always, or once its client has consented."""

HELLO_FIELDS = frozenset(
    {"input", "output", "maxAheadMs", "voice", "instructions", "language", "turn", "duplex", "tools", "consent"},
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the clients of one kind may change. The default lets everything pass that the protocol has."""

    name: str = "default"
    hello_fields: frozenset[str] = HELLO_FIELDS
    record: RecordMode | None = None
    """None: as RELAY_RECORD says."""

    def refused(self, given: tuple[str, ...]) -> list[str]:
        """The fields of a hello that this policy does not let a client set."""
        return [name for name in given if name not in self.hello_fields]


@dataclass(frozen=True, slots=True)
class Principal:
    """The one a session belongs to: `identity` for quotas and records, never a credential."""

    identity: str = "anonymous"
    policy: Policy = Policy()
    scopes: frozenset[str] = frozenset({"session"})
