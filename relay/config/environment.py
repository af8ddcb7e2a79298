"""The only reader of the environment: the variables of the process first, then those of `.env`.

Other code gets an `Environment`, or a value from one. An empty or blank value is unset.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values

from relay.errors import ConfigError

DOTENV = Path(".env")
PREFIXES = ("RELAY_", "OPENAI_", "AZURE_OPENAI_", "ELEVENLABS_", "NAVAI_")
"""Prefixes of the relay's settings."""
SHARED_PREFIXES = ("OPENAI_", "AZURE_OPENAI_", "ELEVENLABS_")
"""Prefixes that other programs use as well: only probable typing mistakes are reported."""
TYPO_SIMILARITY = 0.85
MAX_REPORTED = 20
MAX_NAME_CHARS = 64

OTHER_NAMES = {
    "RELAY_KEY": "`relay.client`, `relay talk`, `relay replay` and the reference clients, as their key",
    "RELAY_TEST_SOAK_S": "the relay's own tests",
    "OPENAI_ADMIN_KEY": "OpenAI's SDKs",
    "OPENAI_AGENTS_DISABLE_TRACING": "OpenAI's agents SDK",
    "OPENAI_API_VERSION": "OpenAI's SDKs for Azure",
    "OPENAI_LOG": "OpenAI's SDKs",
    "OPENAI_ORGANIZATION": "other clients of OpenAI's API",
    "OPENAI_ORG_ID": "OpenAI's SDKs",
    "OPENAI_PROJECT": "other clients of OpenAI's API",
    "OPENAI_PROJECT_ID": "OpenAI's SDKs",
    "OPENAI_WEBHOOK_SECRET": "OpenAI's SDKs",
    "AZURE_OPENAI_AD_TOKEN": "OpenAI's SDKs for Azure",
    "NAVAI_API_URL": "NAVAI's frontends",
    "NAVAI_REALTIME_MODEL": "NAVAI's frontends",
}
"""Names that are not settings of the relay and are never reported, with the programs that read them."""

RETIRED_NAMES = ("RELAY_TICK_MS",)
KUBERNETES_NAME = re.compile(r"RELAY_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")
"""Kubernetes sets these in every pod beside a service of the name `relay`: `RELAY_SERVICE_HOST` is one of them."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A snapshot of the variables.

    `options` maps a variable to the command-line option that replaces it, as (name, value). `dotenv` has only the
    variables of the `.env` file at `path`.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, tuple[str, Any]] = field(default_factory=dict, repr=False)
    dotenv: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: Path | None = None

    @classmethod
    def read(cls, options: Mapping[str, tuple[str, Any]] | None = None) -> Self:
        """Read the process's variables and `.env`; an option that is None is ignored. Raises ConfigError."""
        try:
            in_file = {name: value for name, value in dotenv_values(DOTENV).items() if value}
            path = DOTENV if DOTENV.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f".env cannot be read: {error}") from None
        in_process = {name: value for name, value in os.environ.items() if value.strip() or name not in in_file}
        chosen = {name: option for name, option in (options or {}).items() if option[1] is not None}
        return cls(in_file | in_process, chosen, in_file, path)

    def reread(self) -> Self:
        """Read again, with the same options. Raises ConfigError."""
        return type(self).read(self.options)

    def find(self, names: Iterable[str]) -> tuple[str, Any] | None:
        """Return the first variable that is set, as (name that the user wrote, value)."""
        for name in names:
            if name in self.options:
                return self.options[name]
            if text := self.values.get(name, "").strip():
                return name, text
        return None

    def unknown_names_warning(self, known: Iterable[str]) -> str | None:
        """Return one warning about all names that look like settings and are not in `known`, without their values."""
        known = [*known]
        reports: list[str] = []
        for name in sorted(self.values):
            if len(reports) == MAX_REPORTED:
                reports.append("and others")
                break
            prefix, _ = split_name(name)
            is_ours = prefix or (name in self.dotenv and name.upper() in known)  # such as `port` in `.env`
            if not is_ours or name in known or name in OTHER_NAMES or name in RETIRED_NAMES:
                continue
            if "RELAY_SERVICE_HOST" in self.values and KUBERNETES_NAME.fullmatch(name):
                continue
            may_be_foreign = prefix in SHARED_PREFIXES and name not in self.dotenv
            label = printable_name(name)
            nearest = nearest_name(label.rstrip("…"), known, TYPO_SIMILARITY if may_be_foreign else 0.6)
            if nearest:
                reports.append(f"{label} (did you mean {nearest}?)")
            elif not may_be_foreign:
                reports.append(label)
        return f"unknown settings are ignored: {', '.join(reports)}" if reports else None


def printable_name(name: str) -> str:
    """Cut a name before its first character that no name has: `OPENAI_API_KEY:sk-…` in `.env` is a name and a key."""
    match = re.match(r"[A-Za-z0-9_]*", name)
    start = match[0][:MAX_NAME_CHARS] if match else ""
    return name if start == name else f"{start}…"


def split_name(name: str) -> tuple[str, str]:
    """Split a name, in upper case, into its prefix of `PREFIXES` (empty if it has none) and the rest."""
    upper = name.upper()
    prefix = next((prefix for prefix in PREFIXES if upper.startswith(prefix)), "")
    return prefix, upper.removeprefix(prefix)


def nearest_name(name: str, known: Iterable[str], similarity: float) -> str | None:
    """Return the most similar known name with the same prefix, else one that differs only in its prefix."""
    prefix, rest = split_name(name)
    names = {split_name(candidate): candidate for candidate in known}
    alike = get_close_matches(rest, [other for start, other in names if start == prefix], 1, similarity)
    if alike:
        return names[prefix, alike[0]]
    return next((candidate for (_, other), candidate in names.items() if other == rest), None)
