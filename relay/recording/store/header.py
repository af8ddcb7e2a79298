"""`session.json`: everything a session was made of, so that it can be made again."""

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
"""What is written; format 1 is read as well."""


@dataclass(frozen=True, slots=True)
class RealtimeSetup:
    """What a Realtime client's session begins with besides: the model of its URL, the session of its client secret."""

    model: str = ""
    initial_session: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """All that a session was made of, besides what happened to it."""

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
        """That of a Realtime client's session, to which the relay brings `tools`."""
        config, options = SessionConfig(tools=tools), DeviceOptions(PCM16_24K, PCM16_24K, max_ahead_ms=None)
        return cls(session_id, config, options, principal, started_at, limits=limits, realtime=start)

    @property
    def kind(self) -> str:
        """Whose session it was: "device", or "realtime"."""
        return "device" if self.realtime is None else "realtime"

    def device_session(self, ledger: MediaLedger | None = None) -> DeviceSession:
        """A device's session as it is before anything has happened; its ids are counted."""
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
        """A Realtime client's session as it is before anything has happened; its ids are counted."""
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
    """What the samples of converted sound can depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
    }


@dataclass(frozen=True, slots=True)
class RecordingHeader:
    """One recording's header; `from_start` is False where consent came after somebody had spoken."""

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
    """What it was read from; what is written is always of `FORMAT`."""
    has_format_1_commands: bool = False
    """Whether the commands are those of a session that was recorded in format 1: today's rules have others besides."""

    @property
    def timestamp(self) -> str:
        """The start as folders are named by it."""
        return self.started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")

    def to_json(self) -> bytes:
        """The file's content."""
        beginning = self.setup
        obj: dict[str, Any] = {
            "format": FORMAT,
            "kind": beginning.kind,
            "session_id": beginning.session_id,
            "started": self.started.astimezone(UTC).isoformat(timespec="milliseconds"),
            "started_at": beginning.started_at,
            "relay": self.relay_version,
            "made_on": self.recorded_platform,
            "upstream": self.upstream,
            "model": self.model,
            "mode": self.record_mode,
            "from_start": self.from_start,
            "redacted": self.is_redacted,
            **({"converted": True} if self.has_format_1_commands else {}),
            "identity": beginning.principal.identity,
            "scopes": sorted(beginning.principal.scopes),
            "policy": encode_value(beginning.principal.policy),
            "options": encode_value(beginning.options),
            "speech": encode_value(beginning.tts_options),
            "limits": encode_value(beginning.limits),
            "config": redact_value(encode_value(beginning.config)),
        }
        if beginning.realtime is not None:
            obj["realtime"] = {
                "model": beginning.realtime.model,
                "initial": redact_value(beginning.realtime.initial_session),
            }
        raw = orjson.dumps(obj, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return escape_json(raw.decode()).encode()


def read_header(folder: Path) -> RecordingHeader:
    """The header of a recording. Raises RecordingError naming the file and what is wrong in it."""
    obj = read_json(folder, HEADER_FILE)
    format_ = _format(obj, folder / HEADER_FILE)
    build = (FORMAT_1 if format_ == 1 else FORMAT_2).decode_value
    if obj.get("kind") not in ("device", "realtime"):
        raise RecordingError(
            f"{folder / HEADER_FILE}: sessions of kind {obj.get('kind')!r:.20} are not known to this relay"
        )
    try:
        started_at = obj["started_at"]
        if type(started_at) not in (int, float):
            raise ValueError("started_at must be a number of seconds")
        speech = obj.get("speech")
        return RecordingHeader(
            setup=SessionSetup(
                _text(obj, "session_id"),
                build(SessionConfig, obj["config"]),
                build(DeviceOptions, obj["options"]),
                Principal(_text(obj, "identity"), build(Policy, obj["policy"]), frozenset(map(str, obj["scopes"]))),
                float(started_at),
                None if speech is None else build(TtsOptions, speech),
                build(SessionLimits, obj.get("limits") or {}),
                _realtime_start(obj["realtime"]) if obj["kind"] == "realtime" else None,
            ),
            started=datetime.fromisoformat(_text(obj, "started")),
            upstream=_text(obj, "upstream"),
            model=_text(obj, "model"),
            record_mode=_text(obj, "mode"),
            from_start=obj["from_start"] is True,
            relay_version=_text(obj, "relay"),
            recorded_platform={str(key): str(value) for key, value in dict(obj["made_on"]).items()},
            is_redacted=obj.get("redacted") is True,
            format=format_,
            has_format_1_commands=format_ == 1 or obj.get("converted") is True,
        )
    except KeyError as error:
        raise RecordingError(f"{folder / HEADER_FILE}: {error.args[0]} is missing") from None
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{folder / HEADER_FILE}: {error}") from None


def _format(obj: dict[str, Any], path: Path) -> int:
    """The number of the format. Raises RecordingError for one that this relay does not read."""
    found = obj.get("format")
    if type(found) is int and 1 <= found <= FORMAT:
        return found
    if type(found) is int and found > FORMAT:
        raise RecordingError(
            f"{path}: the recording has format {found} and was made by Relay {obj.get('relay')!s:.40}. "
            f"This is Relay {__version__}, which reads formats 1 to {FORMAT}: update it to that version or a later one"
        )
    raise RecordingError(f"{path}: the format must be a whole number from 1 to {FORMAT}, not {found!r:.20}")


def _realtime_start(obj: Any) -> RealtimeSetup:
    if not isinstance(obj, dict):
        raise ValueError("realtime must be an object")
    initial = obj.get("initial")
    if initial is not None and not isinstance(initial, dict):
        raise ValueError("realtime: initial must be an object")
    return RealtimeSetup(_text(obj, "model"), initial)


def _text(obj: dict[str, Any], name: str) -> str:
    value = obj[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value
