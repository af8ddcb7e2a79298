"""The authenticated principal of a session, and the policy that limits what its clients may change (D5, D10).

Authentication makes a `Principal`: an identity, a policy and scopes. The scopes say which routes it may use. The
`Policy` says what its clients may change. `hello_fields`, `voice` and `record` apply to device sessions.
`RealtimePolicy` applies to both kinds of sessions. It has capabilities (`allow`), names of models, voices,
transcription models and tools, caps, and the policy's instructions, which precede the client's.

Names are matched with patterns; "*" allows every name. If a client names nothing, the configured default is used where
the policy allows it, else the first name that the policy lists. A session keeps the policy that it began with.
`relay.config.policy_file` reads policies; `relay.session.realtime.policy_table` applies one to the events of a Realtime
client.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from relay.session.common.model import ELEVENLABS_PREFIX, ReasoningEffort

RecordMode = Literal["off", "on", "consent"]
"""Whether a session is recorded: never, always, or once its client has consented."""

HELLO_FIELDS = frozenset(
    {"input", "output", "maxAheadMs", "voice", "instructions", "language", "turn", "duplex", "tools", "consent"},
)

CAPABILITIES: Mapping[str, str] = {
    "instructions": "set instructions of its own; they come after the server's",
    "client_tools": "offer function tools of its own",
    "tool_choice": "force or forbid the use of tools",
    "history": "put assistant messages, function calls and their outputs into the conversation",
    "system_items": "put system messages into the conversation",
    "images": "send images as data",
    "image_urls": "have the upstream fetch images from the web",
    "mcp": "have the upstream call MCP servers, and approve such calls",
    "prompt": "use stored prompts of the account",
    "tracing": "write traces into the account",
    "out_of_band": "ask for responses outside the conversation",
    "idle_responses": "have the model start a response after silence (`idle_timeout_ms`)",
    "unknown": "use events and fields that this version does not know",
}
"""The capabilities that a policy can allow; each text completes "the client may …"."""

FETCH_CAPABILITIES = frozenset({"mcp", "image_urls"})
"""Capabilities that let a client make the upstream connect to addresses."""
DEFAULT_ALLOW = frozenset(CAPABILITIES) - FETCH_CAPABILITIES
"""Sufficient for every application of the official SDKs."""

RESTRICTED_ALLOW = DEFAULT_ALLOW - {"prompt", "system_items", "unknown"}
"""The default of a policy with its own instructions: without capabilities that could replace or override these."""

PROVIDER_SECRET, MINT, MINT_ANY = "provider_secret", "mint", "mint:*"
SCOPES: Mapping[str, str] = {
    "session": "hold conversations, and list models",
    "tools": "list and run tools over HTTP",
    "speech": "have text spoken over HTTP",
    MINT: "make client secrets",
    MINT_ANY: "make client secrets of every policy",
    PROVIDER_SECRET: "get client secrets of the upstream provider",
}
"""The scopes of a principal; each text completes "may …". Every route names the scope that it requires.

A session that is opened with a provider's client secret bypasses the relay and its policies.
"""

DEFAULT_SCOPES = frozenset({"session", "tools", "speech", MINT})
"""The scopes of a policy that names none. Without a policy file, `PROVIDER_SECRET` is added to them."""
CLIENT_SECRET_SCOPES = frozenset({"session", "tools"})
"""The upper bound of a client secret's scopes, for every policy."""


INSTRUCTIONS_SEPARATOR = "\n\n"
"""Separates a policy's instructions from those of its client."""


@dataclass(frozen=True, slots=True)
class RealtimePolicy:
    """The limits of a Realtime session, which `relay.session.realtime.policy_table` applies field by field.

    `tools` None offers all server tools. Values above `max_output_tokens` and `max_effort` are clamped; names are
    matched against patterns. `denied_fields` says whether a denied field refuses its event or is dropped from it.
    """

    instructions: str = ""
    tools: tuple[str, ...] | None = None
    show_tools: bool = False
    models: tuple[str, ...] = ("*",)
    voices: tuple[str, ...] = ("*",)
    transcription_models: tuple[str, ...] = ("*",)
    max_output_tokens: int | None = None
    max_effort: ReasoningEffort | None = None
    allow: frozenset[str] = DEFAULT_ALLOW
    denied_fields: Literal["refuse", "drop"] = "refuse"

    def allows_model(self, model: str) -> bool:
        """Return whether a client may name this model."""
        return matches(model, self.models)

    def allows_tool(self, name: str) -> bool:
        """Return whether a server tool of this name is offered."""
        return self.tools is None or matches(name, self.tools)

    def first_voice(self, *configured: str | None, kind: "VoiceKind | None" = "model") -> str | None:
        """Return the first of `configured` that is allowed, else the first named voice; `kind` None means any kind."""
        allowed = (voice for voice in configured if voice and matches(voice, self.voices))
        voices = (*allowed, *literal_names(self.voices))
        return next((voice for voice in voices if kind in (None, voice_kind(voice))), None)

    def combine_instructions(self, client_instructions: Any) -> Any:
        """Return the policy's instructions followed by the client's; if it has none, the client's unchanged."""
        policy_instructions = self.instructions
        if not policy_instructions:
            return client_instructions
        return (
            f"{policy_instructions}{INSTRUCTIONS_SEPARATOR}{client_instructions}"
            if isinstance(client_instructions, str) and client_instructions.strip()
            else policy_instructions
        )

    @property
    def session_limits(self) -> dict[str, Any]:
        """The caps as members of a session or a response of the Realtime protocol."""
        limits: dict[str, Any] = {}
        if self.max_output_tokens is not None:
            limits["max_output_tokens"] = self.max_output_tokens
        if self.max_effort is not None:
            limits["reasoning"] = {"effort": self.max_effort}
        return limits

    @property
    def restricts_settings(self) -> bool:
        """Whether a setting is limited; then an unknown field could be another name of the same setting."""
        is_named = all(allows_any(names) for names in (self.models, self.voices, self.transcription_models))
        is_capped = self.max_output_tokens is not None or self.max_effort is not None
        return not is_named or is_capped or bool(self.instructions) or not self.allow >= DEFAULT_ALLOW

    @property
    def forbids_fetches(self) -> bool:
        """Whether the upstream must not connect to addresses that the client chooses."""
        return not self.allow >= FETCH_CAPABILITIES

    @property
    def is_restricted(self) -> bool:
        """Whether anything is limited; then items, parts and tools must have a known shape."""
        return self.restricts_settings or self.forbids_fetches


MAX_NAME_CHARS = 512


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether `name` matches one of the patterns; `*` matches anything."""
    return len(name) <= MAX_NAME_CHARS and any(fnmatchcase(name, pattern) for pattern in patterns)


def allows_any(patterns: tuple[str, ...]) -> bool:
    """Return whether the patterns match every name."""
    return "*" in patterns


def literal_names(patterns: tuple[str, ...]) -> list[str]:
    """Return the patterns without a wildcard."""
    return [pattern for pattern in patterns if not set(pattern) & set("*?[")]


def first_literal_name(patterns: tuple[str, ...]) -> str | None:
    """Return the first pattern without a wildcard; None if there is none."""
    return next(iter(literal_names(patterns)), None)


VoiceKind = Literal["model", "external"]
"""A voice of the model's own, or an external one."""

_MAX_PHRASE_CHARS = 40
_MAX_PHRASE_WORDS = 3
_PHRASE = re.compile(r"[\w()'’-]+(?: [\w()'’-]+){0,2}")
_WORD = re.compile(r"[^\W_]{2,}")
"""A word of a phrase. Hyphens and brackets separate words; a single letter, as in d'Oc, does not count."""


def voice_kind(voice: str) -> VoiceKind:
    """Return whether a voice is one of the model's own or an external one."""
    return "external" if voice.startswith(ELEVENLABS_PREFIX) else "model"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a group of clients may change. The default allows everything that the protocol has."""

    name: str = "default"
    hello_fields: frozenset[str] = HELLO_FIELDS
    record: RecordMode | None = None
    """None: RELAY_RECORD decides."""
    realtime: RealtimePolicy = field(default_factory=RealtimePolicy)
    voice: str | None = None
    """The voice of device sessions whose client names none; None: the settings decide."""
    scopes: frozenset[str] = DEFAULT_SCOPES
    may_mint: tuple[str, ...] = ()
    """The other policies for which client secrets may be made."""

    def allows_minting(self, policy_name: str) -> bool:
        """Return whether a client with this policy may make client secrets with the policy `policy_name`."""
        if MINT_ANY in self.scopes:
            return True
        return MINT in self.scopes and (policy_name == self.name or policy_name in self.may_mint)

    def allows(self, capability: str) -> bool:
        """Return whether a client has this capability (`CAPABILITIES`)."""
        return capability in self.realtime.allow

    def allows_tool(self, name: str) -> bool:
        """Return whether a server tool of this name is offered."""
        return self.realtime.allows_tool(name)

    def allows_model(self, model: str) -> bool:
        """Return whether a client may name this model."""
        return self.realtime.allows_model(model)

    def allows_voice(self, voice: str) -> bool:
        """Return whether a client may name this voice, which may be an external one."""
        return voice == self.voice or matches(voice, self.realtime.voices)

    def allows_phrase(self, phrase: str) -> bool:
        """Return whether a client may add this phrase to the instructions, for example its language.

        Without the capability `instructions`, a phrase of more than three words could be instructions of its own.
        """
        if self.allows("instructions"):
            return True
        if len(phrase) > _MAX_PHRASE_CHARS or _PHRASE.fullmatch(phrase.strip()) is None:
            return False
        return len(_WORD.findall(phrase)) <= _MAX_PHRASE_WORDS

    def default_model(self, configured: str) -> str | None:
        """Return the model for a client that names none; None if `configured` is not allowed and none is listed."""
        if self.allows_model(configured):
            return configured
        return first_literal_name(self.realtime.models)

    def default_voice(self, *configured: str | None, kind: VoiceKind | None = None) -> str | None:
        """Return the voice for a client that names none; None if there is none of this kind.

        The policy's own voice comes first, then those of `configured` that it allows, then those that it lists.
        """
        if self.voice and kind in (None, voice_kind(self.voice)):
            return self.voice
        return self.realtime.first_voice(*configured, kind=kind)

    def transcription_model(self, configured: str | None) -> str | None:
        """Return the transcription model: `configured` if it is allowed, else the first one listed."""
        if configured is None or matches(configured, self.realtime.transcription_models):
            return configured
        return first_literal_name(self.realtime.transcription_models)

    def combine_instructions(self, client_instructions: str | None, default: str = "") -> str:
        """Return the policy's instructions followed by the client's; if it has none, the client's or `default`."""
        instructions: str | None = self.realtime.combine_instructions(client_instructions)
        return default if instructions is None else instructions


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated client of a session; `identity` is used for quotas and records, and is never a credential.

    `scopes` are those of its policy (`SCOPES`), or fewer for a client secret. `secret_id` identifies the client secret
    that was used.
    """

    identity: str = "anonymous"
    policy: Policy = Policy()
    scopes: frozenset[str] = DEFAULT_SCOPES
    secret_id: str | None = None
