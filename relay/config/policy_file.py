"""The policies of a relay, from a TOML file (`RELAY_POLICIES`), and how one is applied to the fields of a request.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from relay.errors import AccessDenied, ConfigError
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
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("voice")
    @classmethod
    def _whole(cls, value: str | None) -> str | None:
        if value is not None and not value.removeprefix(ELEVENLABS_PREFIX).strip():
            raise ValueError(f"write the name of a voice after {ELEVENLABS_PREFIX}")
        return value

    @field_validator("allow", "deny", "hello_fields", "scopes")
    @classmethod
    def _known(cls, value: Names | None, info: ValidationInfo) -> Names | None:
        known = {"hello_fields": HELLO_FIELDS, "scopes": SCOPES}.get(info.field_name or "", CAPABILITIES)
        unknown = [name for name in value or () if name not in known]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not among {', '.join(sorted(known))}")
        return value

    @field_validator("keys")
    @classmethod
    def _identities(cls, value: Names) -> Names:
        for index, name in enumerate(value):
            if not name.startswith("key-"):  # it may be the key itself: never repeated
                raise ValueError(
                    f"[{index}] is not an identity such as key-1a2b3c4d5e6f; `relay policies -` prints that of a key"
                )
        return value

    def policy(self, name: str) -> Policy:
        """The entry as the rules know it."""
        usual = RESTRICTED_ALLOW if self.instructions.strip() else DEFAULT_ALLOW
        allow = usual if self.allow is None else frozenset(self.allow)
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


_UNGOVERNED = Policy(scopes=DEFAULT_SCOPES | {PROVIDER_SECRET})
"""Where no policy file is configured, there is nothing that a provider secret could get around."""


class Policies:
    """All policies by name, and which identity has which."""

    def __init__(
        self, by_name: Mapping[str, Policy] | None = None, by_identity: Mapping[str, str] | None = None
    ) -> None:
        self._by_name = {DEFAULT: _UNGOVERNED if by_name is None else Policy()} | dict(by_name or {})
        self.by_identity = dict(by_identity or {})

    def names(self) -> list[str]:
        """Their names."""
        return list(self._by_name)

    def get(self, name: str) -> Policy | None:
        """A policy by its name."""
        return self._by_name.get(name)

    def records(self) -> bool:
        """Whether a policy has sessions recorded, whatever RELAY_RECORD says."""
        return any(policy.record in ("on", "consent") for policy in self._by_name.values())

    def external_voices(self) -> dict[str, str]:
        """The external voices by the names of the policies that have them speak."""
        named = {name: policy.voice or "" for name, policy in self._by_name.items()}
        return {name: voice for name, voice in named.items() if voice.startswith(ELEVENLABS_PREFIX)}

    def of(self, identity: str) -> Policy:
        """The policy of a key, by its identity."""
        return self._by_name[self.by_identity.get(identity, DEFAULT)]

    @classmethod
    def load(cls, path: Path | None, setting: str = "RELAY_POLICIES") -> "Policies":
        """Read the file that `setting` names, if any. Raises ConfigError with every mistake at once."""
        if path is None:
            return cls()
        try:
            return cls._read(path)
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}") from error

    @classmethod
    def _read(cls, path: Path) -> "Policies":
        try:
            entries = _File.model_validate(tomllib.loads(_text_of(path))).policies
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(f"{path} is wrong:\n{_report(error)}") from None
        except (ValueError, RecursionError) as error:  # also for numbers too long, and what is nested too deeply
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
            raise ConfigError(f"{path} is wrong:\n" + "\n".join(unknown))
        return cls({name: entry.policy(name) for name, entry in entries.items()}, by_identity)


def _text_of(path: Path) -> str:
    """The whole file or nothing: keys of policies that were cut off would get the default one."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return raw.decode()


def _report(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "is not known" + (f"; known are {_FIELDS}" if len(problem["loc"]) == 3 else "")
        elif problem["type"] == "tuple_type":
            text = 'must be a list, such as ["kiosk"]'
        lines.append(f"  {where}: {text}")
    return "\n".join(dict.fromkeys(lines))


_FIELDS = ", ".join(_PolicyEntry.model_fields)


def permitted(policy: Policy, field: str, requested: str | None, is_allowed: Callable[[str], bool]) -> str | None:
    """The value that a client requested for `field`.

    Returns None where there is none, or where `denied_fields` of its policy drops it. Raises AccessDenied naming the
    field where the policy refuses it.
    """
    if requested is None or is_allowed(requested):
        return requested
    if policy.realtime.denied_fields == "drop":
        return None
    raise AccessDenied(f"This client may not set {field} to that; leave {field} out.", field=field)


def permitted_words(policy: Policy, field: str, requested: str | None) -> str | None:
    """The same for words that become part of the instructions, such as a language."""
    return permitted(policy, field, requested, policy.allows_phrase)


def permitted_instructions(policy: Policy, requested: str | None) -> str | None:
    """The same for instructions, which need a capability."""
    return permitted(policy, "instructions", requested, lambda _: policy.allows("instructions"))


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
