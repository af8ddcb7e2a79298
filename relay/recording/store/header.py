"""`session.json`: the setup of a recorded session, from which it can be created again."""

import itertools
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import orjson

from audio.formats import PCM16_24K
from relay import __version__
from relay.escaping import escape_json
from relay.recording.format.serialize import FORMAT_2, encode_value
from relay.recording.format.version1 import FORMAT_1
from relay.recording.store.layout import HEADER_FILE, RecordingError, read_json
from relay.session.common.limits import SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import DeviceOptions, SessionConfig, ToolSpec, TtsOptions
from relay.session.common.policy import Policy, Principal
from relay.session.common.redact import redact_value
from relay.session.device.session import DeviceSession
from relay.session.realtime.session import RealtimeSession

FORMAT: Final = 2
"""The format that is written; format 1 can still be read."""


@dataclass(frozen=True, slots=True)
class RealtimeSetup:
    """The setup of a Realtime client's session: the model of its URL and the session of its client secret."""

    model: str = ""
    initial_session: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """Everything that a session was created from."""

    session_id: str
    config: SessionConfig
    options: DeviceOptions
    principal: Principal
    started_at: float
    tts_options: TtsOptions | None = None
    limits: SessionLimits = SessionLimits()  # frozen
    realtime: RealtimeSetup | None = None

    @classmethod
    def for_realtime(
        cls,
        session_id: str,
        tools: tuple[ToolSpec, ...],
        start: RealtimeSetup,
        principal: Principal,
        started_at: float,
        limits: SessionLimits = SessionLimits(),  # noqa: B008  # frozen
    ) -> Self:
        """Return the setup of a Realtime client's session; `tools` are the relay's."""
        config, options = SessionConfig(tools=tools), DeviceOptions(PCM16_24K, PCM16_24K, max_ahead_ms=None)
        return cls(session_id, config, options, principal, started_at, limits=limits, realtime=start)

    @property
    def kind(self) -> str:
        """The kind of client: "device" or "realtime"."""
        return "device" if self.realtime is None else "realtime"

    def device_session(self, ledger: MediaLedger | None = None) -> DeviceSession:
        """Create the session of a device. Its ids come from a counter."""
        numbers = itertools.count(1)
        return DeviceSession(
            self.session_id,
            self.config,
            self.options,
            lambda: f"relay_{next(numbers)}",
            principal=self.principal,
            limits=self.limits,
            started_at=self.started_at,
            tts_options=self.tts_options,
            ledger=ledger,
        )

    def realtime_session(self, ledger: MediaLedger | None = None) -> RealtimeSession:
        """Create the session of a Realtime client. Its ids come from a counter."""
        numbers, start = itertools.count(1), self.realtime or RealtimeSetup()
        return RealtimeSession(
            self.session_id,
            self.principal,
            self.config.tools,
            lambda: str(next(numbers)),
            model=start.model,
            initial=start.initial_session,
            limits=self.limits,
            started_at=self.started_at,
            ledger=ledger,
        )


def current_platform() -> dict[str, str]:
    """Return the versions of the libraries and the machine that converted audio can depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
    }


@dataclass(frozen=True, slots=True)
class RecordingHeader:
    """The header of a recording; `from_start` is False if consent came after the conversation had begun."""

    setup: SessionSetup
    started: datetime
    upstream: str = ""
    model: str = ""
    record_mode: str = "on"
    from_start: bool = True
    relay_version: str = __version__
    recorded_platform: dict[str, str] = field(default_factory=current_platform)
    is_redacted: bool = False
    format: int = FORMAT
    """The format that it was read from; it is always written in `FORMAT`."""
    has_format_1_commands: bool = False
    """Whether the session was recorded in format 1: the current rules return other commands."""

    @property
    def timestamp(self) -> str:
        """The start time, as it is used in folder names."""
        return self.started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")

    def to_json(self) -> bytes:
        """Encode the file."""
        setup = self.setup
        obj: dict[str, Any] = {
            "format": FORMAT,
            "kind": setup.kind,
            "session_id": setup.session_id,
            "started": self.started.astimezone(UTC).isoformat(timespec="milliseconds"),
            "started_at": setup.started_at,
            "relay": self.relay_version,
            "made_on": self.recorded_platform,
            "upstream": self.upstream,
            "model": self.model,
            "mode": self.record_mode,
            "from_start": self.from_start,
            "redacted": self.is_redacted,
            **({"converted": True} if self.has_format_1_commands else {}),
            "identity": setup.principal.identity,
            "scopes": sorted(setup.principal.scopes),
            "policy": encode_value(setup.principal.policy),
            "options": encode_value(setup.options),
            "speech": encode_value(setup.tts_options),
            "limits": encode_value(setup.limits),
            "config": redact_value(encode_value(setup.config)),
        }
        if setup.realtime is not None:
            obj["realtime"] = {
                "model": setup.realtime.model,
                "initial": redact_value(setup.realtime.initial_session),
            }
        raw = orjson.dumps(obj, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return escape_json(raw.decode()).encode()


def read_header(folder: Path) -> RecordingHeader:
    """Read the header of a recording. Raises RecordingError that names the file and the member."""
    obj = read_json(folder, HEADER_FILE)
    format_number = _parse_format(obj, folder / HEADER_FILE)
    build = (FORMAT_1 if format_number == 1 else FORMAT_2).decode_value
    if obj.get("kind") not in ("device", "realtime"):
        raise RecordingError(f"{folder / HEADER_FILE}: kind must be device or realtime, not {obj.get('kind')!r:.20}")
    try:
        started_at = obj["started_at"]
        if type(started_at) not in (int, float):
            raise ValueError("started_at must be a number of seconds")
        speech = obj.get("speech")
        return RecordingHeader(
            setup=SessionSetup(
                _get_text(obj, "session_id"),
                build(SessionConfig, obj["config"]),
                build(DeviceOptions, obj["options"]),
                Principal(_get_text(obj, "identity"), build(Policy, obj["policy"]), frozenset(map(str, obj["scopes"]))),
                float(started_at),
                None if speech is None else build(TtsOptions, speech),
                build(SessionLimits, obj.get("limits") or {}),
                _parse_realtime_setup(obj["realtime"]) if obj["kind"] == "realtime" else None,
            ),
            started=datetime.fromisoformat(_get_text(obj, "started")),
            upstream=_get_text(obj, "upstream"),
            model=_get_text(obj, "model"),
            record_mode=_get_text(obj, "mode"),
            from_start=obj["from_start"] is True,
            relay_version=_get_text(obj, "relay"),
            recorded_platform={str(key): str(value) for key, value in dict(obj["made_on"]).items()},
            is_redacted=obj.get("redacted") is True,
            format=format_number,
            has_format_1_commands=format_number == 1 or obj.get("converted") is True,
        )
    except KeyError as error:
        raise RecordingError(f"{folder / HEADER_FILE}: {error.args[0]} is missing") from None
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{folder / HEADER_FILE}: {error}") from None


def _parse_format(obj: dict[str, Any], path: Path) -> int:
    """Return the number of the format. Raises RecordingError if this relay cannot read it."""
    number = obj.get("format")
    if type(number) is int and 1 <= number <= FORMAT:
        return number
    if type(number) is int and number > FORMAT:
        raise RecordingError(
            f"{path}: the recording has format {number} and was made by Relay {obj.get('relay')!s:.40}. "
            f"This is Relay {__version__}, which reads formats 1 to {FORMAT}: update it to that version or a later one"
        )
    raise RecordingError(f"{path}: the format must be a whole number from 1 to {FORMAT}, not {number!r:.20}")


def _parse_realtime_setup(obj: Any) -> RealtimeSetup:
    if not isinstance(obj, dict):
        raise ValueError("realtime must be an object")
    initial = obj.get("initial")
    if initial is not None and not isinstance(initial, dict):
        raise ValueError("realtime: initial must be an object")
    return RealtimeSetup(_get_text(obj, "model"), initial)


def _get_text(obj: dict[str, Any], name: str) -> str:
    value = obj[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value
