"""Fault specifications: the syntax of faults, and the faults of a handshake."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson

from relay.errors import ConfigError

HANDSHAKE = "handshake"
"""A `FaultSpec.point`: before the connection is accepted."""
EVERY = 0
"""A `FaultSpec.nth`: every occurrence."""
_SYNTAX = re.compile(r"(?P<name>[a-z0-9_-]+)(?:=(?P<value>[^@#]+))?(?:@(?P<point>[^#]+))?(?:#(?P<nth>\d+|\*))?")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
_EVENT = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")
_CLOSE_CODES = (1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
MAX_FAULT_S = 3600.0


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault. `value_type` is "ms", "s", "code", "word" or None (no value); `point` is where it applies.

    A `point` of "" means that the user may choose it; "handshake" is before the connection is accepted.
    """

    help: str
    point: str
    value_type: str | None = None
    default: str | None = None


FAULT_KINDS: dict[str, FaultKind] = {
    name: FaultKind(*fields)
    for name, fields in orjson.loads(files(__package__).joinpath("kinds.json").read_bytes()).items()
}


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One fault. `point` is an event type, "handshake", or "" (immediately); `after_s` is set if it is a time."""

    name: str
    value: str | None
    point: str
    after_s: float | None = None
    nth: int = 1

    @property
    def seconds(self) -> float:
        """The value in seconds, if it is a time."""
        return float(self.value or 0) / (1000 if FAULT_KINDS[self.name].value_type == "ms" else 1)


def parse_faults(text: str) -> tuple[FaultSpec, ...]:
    """Parse a comma-separated list of faults. Raises ConfigError."""
    return tuple(_parse_fault(part.strip()) for part in text.split(",") if part.strip())


def _parse_fault(text: str) -> FaultSpec:
    match = _SYNTAX.fullmatch(text)
    kind = FAULT_KINDS.get(match["name"]) if match else None
    if match is None or kind is None:
        raise ConfigError(
            f"There is no fault '{text[:80]}'. Write NAME[=VALUE][@POINT][#N]; names: {', '.join(FAULT_KINDS)}."
        )
    name, value, point, nth = match["name"], match["value"], match["point"], match["nth"]
    if value is None:
        value = kind.default
    elif kind.value_type is None:
        raise ConfigError(f"The fault '{name}' takes no value: leave out '={value}'.")
    if value is not None:
        _check_value(name, kind, value)
    if point is not None and kind.point:
        raise ConfigError(f"The fault '{name}' takes no point: leave out '@{point}'.")
    after = _TIME.fullmatch(point) if point else None
    if after:
        after_s = float(after[1]) / (1000 if after[2] == "ms" else 1)
        return FaultSpec(name, value, "", after_s)
    if point and (point == HANDSHAKE or not _EVENT.fullmatch(point)):
        raise ConfigError(f"'@{point}' is neither an event type nor a time such as 500ms or 2s.")
    is_every = nth == "*" or (kind.point == HANDSHAKE and nth is None)
    return FaultSpec(name, value, kind.point or point or "", None, EVERY if is_every else int(nth or 1))


def _check_value(name: str, kind: FaultKind, value: str) -> None:
    if kind.value_type == "code" and (not value.isdecimal() or int(value) not in _CLOSE_CODES):
        raise ConfigError(f"'{name}={value}': the value must be a close code: {', '.join(map(str, _CLOSE_CODES))}.")
    if kind.value_type in ("ms", "s"):
        try:
            seconds = float(value) / (1000 if kind.value_type == "ms" else 1)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= MAX_FAULT_S:
            raise ConfigError(f"'{name}={value}': the value must be a number of {kind.value_type}, at most an hour.")
    if kind.value_type == "word" and not re.fullmatch(r"[a-z0-9_]{1,64}", value):
        raise ConfigError(f"'{name}={value}': the value must be an error code such as insufficient_quota.")


@dataclass(frozen=True, slots=True)
class HandshakeFault:
    """The fault of a handshake: a delay, and a response. `status` None: no fault; 0: abort without a response."""

    delay_s: float = 0.0
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: dict[str, Any] | None = None


_REFUSALS: dict[str, tuple[str, str | None, str]] = {
    "401": ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "403": ("invalid_request_error", "model_not_found", "You do not have access to this model."),
    "429": ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    "500": ("server_error", None, "The server had an error while processing your request."),
}


def handshake_fault(faults: Sequence[FaultSpec], number: int) -> HandshakeFault:
    """Return the handshake fault of the `number`-th connection (from 1)."""
    delay_s = 0.0
    for fault in faults:
        if fault.point != HANDSHAKE or fault.nth not in (EVERY, number):
            continue
        if fault.name == "slow-accept":
            delay_s += fault.seconds
        elif fault.name == "refuse":
            return HandshakeFault(delay_s, 0)
        else:
            kind, code, message = _REFUSALS[fault.name]
            headers = (("Retry-After", f"{fault.seconds:g}"),) if fault.name == "429" else ()
            error = {"message": message, "type": kind, "param": None, "code": code}
            return HandshakeFault(delay_s, int(fault.name), headers, {"error": error})
    return HandshakeFault(delay_s)
