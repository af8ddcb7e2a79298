"""The commands that all kinds of sessions use: for the uplink's gate, and for the end of a connection."""

from dataclasses import dataclass
from typing import get_args

from relay.session.common.media_types import InputGate


@dataclass(frozen=True, slots=True)
class SetInputGate:
    """Apply `gate` to the client's audio from here on. An opened gate releases the held audio first."""

    gate: InputGate


@dataclass(frozen=True, slots=True)
class ReleaseInput:
    """Send the held audio that ends at or before this position in the client's stream."""

    until_bytes: int


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Close the connection to the upstream."""


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Close the client's connection; an error or farewell message was sent before, where the protocol has one."""

    code: int
    reason: str


InputCommand = SetInputGate | ReleaseInput

INPUT_COMMANDS = frozenset(get_args(InputCommand))
