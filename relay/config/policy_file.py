"""The policies of a relay, from a TOML file (`RELAY_POLICIES`).

    [policies.kiosk]
    instructions = "You are the voice of the museum. Speak of nothing else."
    tools = ["opening_hours"]
    models = ["gpt-realtime-2.1"]
    max_output_tokens = 1000
    deny = ["client_tools", "tool_choice"]
    keys = ["key-1a2b3c4d5e6f"]

A key is named by its identity, which `relay policies` prints. A key without a policy, and a client without a key, has
the policy `default`, which may be in the file as well.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from relay.errors import ConfigError
from relay.session.common.model import ELEVENLABS_PREFIX
from relay.session.common.policy import (
    CAPABILITIES,
    DEFAULT_ALLOW,
    DEFAULT_SCOPES,
    HELLO_FIELDS,
    PROVIDER_SECRET,
    RESTRICTED_ALLOW,
    SCOPES,
    Policy,
    RealtimePolicy,
    RecordMode,
)

DEFAULT = "default"
MAX_FILE_BYTES = 1024 * 1024
Names = tuple[Annotated[str, Field(min_length=1, max_length=200)], ...]


class _PolicyEntry(BaseModel):
    """One `[policies.<name>]` of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instructions: str = Field("", max_length=100_000)
    tools: Names | None = None
    show_tools: bool = False
    models: Names = ("*",)
    voice: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    voices: Names = ("*",)
    transcription_models: Names = ("*",)
    max_output_tokens: int | None = Field(None, ge=1, le=4096)
    max_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    allow: Names | None = None
    deny: Names = ()
    denied_fields: Literal["refuse", "drop"] = "refuse"
    hello_fields: Names | None = None
    record: RecordMode | None = None
    scopes: Names | None = None
    may_mint: Names = ()
    keys: Names = ()

    @field_validator("*", mode="before")
    @classmethod
    def _lists_to_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("voice")
    @classmethod
    def _check_voice(cls, value: str | None) -> str | None:
        if value is not None and not value.removeprefix(ELEVENLABS_PREFIX).strip():
            raise ValueError(f"write the name of a voice after {ELEVENLABS_PREFIX}")
        return value

    @field_validator("allow", "deny", "hello_fields", "scopes")
    @classmethod
    def _check_names(cls, value: Names | None, info: ValidationInfo) -> Names | None:
        known = {"hello_fields": HELLO_FIELDS, "scopes": SCOPES}.get(info.field_name or "", CAPABILITIES)
        unknown = [name for name in value or () if name not in known]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is not one of {', '.join(sorted(known))}")
        return value

    @field_validator("keys")
    @classmethod
    def _check_identities(cls, value: Names) -> Names:
        for index, name in enumerate(value):
            if not name.startswith("key-"):  # it may be the key itself: never repeated
                raise ValueError(
                    f"[{index}] is not an identity such as key-1a2b3c4d5e6f; `relay policies -` prints that of a key"
                )
        return value

    def to_policy(self, name: str) -> Policy:
        """Convert the entry to the policy that the rules use."""
        default_allow = RESTRICTED_ALLOW if self.instructions.strip() else DEFAULT_ALLOW
        allow = default_allow if self.allow is None else frozenset(self.allow)
        realtime = RealtimePolicy(
            instructions=self.instructions.strip(),
            tools=self.tools,
            show_tools=self.show_tools,
            models=self.models,
            voices=self.voices,
            transcription_models=self.transcription_models,
            max_output_tokens=self.max_output_tokens,
            max_effort=self.max_effort,
            allow=allow - frozenset(self.deny),
            denied_fields=self.denied_fields,
        )
        hello_fields = HELLO_FIELDS if self.hello_fields is None else frozenset(self.hello_fields)
        scopes = DEFAULT_SCOPES if self.scopes is None else frozenset(self.scopes)
        return Policy(name, hello_fields, self.record, realtime, self.voice, scopes, self.may_mint)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    policies: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")], _PolicyEntry] = {}


_UNRESTRICTED = Policy(scopes=DEFAULT_SCOPES | {PROVIDER_SECRET})
"""The default policy without a policy file: there are no rules that a provider secret could bypass."""


class Policies:
    """All policies by name, and the policy of each identity."""

    def __init__(
        self, by_name: Mapping[str, Policy] | None = None, by_identity: Mapping[str, str] | None = None
    ) -> None:
        self._by_name = {DEFAULT: _UNRESTRICTED if by_name is None else Policy()} | dict(by_name or {})
        self.by_identity = dict(by_identity or {})

    def names(self) -> list[str]:
        """Return the names of all policies."""
        return list(self._by_name)

    def get(self, name: str) -> Policy | None:
        """Return a policy by its name."""
        return self._by_name.get(name)

    def records_sessions(self) -> bool:
        """Whether a policy records sessions, regardless of RELAY_RECORD."""
        return any(policy.record in ("on", "consent") for policy in self._by_name.values())

    def external_voices(self) -> dict[str, str]:
        """Return the external voices by the names of the policies that use them."""
        named = {name: policy.voice or "" for name, policy in self._by_name.items()}
        return {name: voice for name, voice in named.items() if voice.startswith(ELEVENLABS_PREFIX)}

    def for_identity(self, identity: str) -> Policy:
        """Return the policy of an identity."""
        return self._by_name[self.by_identity.get(identity, DEFAULT)]

    @classmethod
    def load(cls, path: Path | None, setting: str = "RELAY_POLICIES") -> "Policies":
        """Read the file that `setting` names, if any. Raises ConfigError with all problems."""
        if path is None:
            return cls()
        try:
            return cls._read(path)
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}") from error

    @classmethod
    def _read(cls, path: Path) -> "Policies":
        try:
            entries = _File.model_validate(tomllib.loads(_read_text(path))).policies
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(f"{path} is invalid:\n{_format_problems(error)}") from None
        except (ValueError, RecursionError) as error:  # also for too long numbers and too deep nesting
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        by_identity: dict[str, str] = {}
        for name, entry in entries.items():
            for key in entry.keys:
                if key in by_identity:
                    raise ConfigError(f"{key} has two policies: {by_identity[key]} and {name}")
                by_identity[key] = name
        unknown = [
            f"  policies.{name}.may_mint: there is no policy {other}"
            for name, entry in entries.items()
            for other in entry.may_mint
            if other != DEFAULT and other not in entries
        ]
        if unknown:
            raise ConfigError(f"{path} is invalid:\n" + "\n".join(unknown))
        return cls({name: entry.to_policy(name) for name, entry in entries.items()}, by_identity)


def _read_text(path: Path) -> str:
    """Read the whole file, or raise ConfigError: keys beyond a limit would get the default policy."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return raw.decode()


def _format_problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "is not a field" + (f"; the fields are {_FIELD_NAMES}" if len(problem["loc"]) == 3 else "")
        elif problem["type"] == "tuple_type":
            text = 'must be a list, such as ["kiosk"]'
        lines.append(f"  {where}: {text}")
    return "\n".join(dict.fromkeys(lines))


_FIELD_NAMES = ", ".join(_PolicyEntry.model_fields)
