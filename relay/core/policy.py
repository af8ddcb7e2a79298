"""Who is at the other end of a session, and what that one may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

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
    "image_urls": "have the model's end fetch images from the web",
    "mcp": "have the model's end call MCP servers, and approve such calls",
    "prompt": "use stored prompts of the account",
    "tracing": "write traces into the account",
    "out_of_band": "ask for responses outside the conversation",
    "idle_responses": "have the model speak up by itself when nobody does",
    "unknown": "use events and fields that this version does not know",
}
"""What a policy can let a Realtime client do, each as the end of "the client may …"."""

DEFAULT_ALLOW = frozenset(CAPABILITIES) - {"mcp", "image_urls"}
"""Enough for every application of the official SDKs; what is left out makes the model's end visit addresses."""

GUARDED_ALLOW = DEFAULT_ALLOW - {"prompt", "system_items", "unknown"}
"""The default of a policy with instructions of its own: what could replace or outvote them is left out as well."""

PROVIDER_SECRET, MINT, MINT_ANY = "provider_secret", "mint", "mint:*"
SCOPES: Mapping[str, str] = {
    "session": "hold conversations, and list models",
    "tools": "list and run tools over HTTP",
    "speech": "have text spoken over HTTP",
    MINT: "make client secrets of its own policy, and of those in may_mint",
    MINT_ANY: "make client secrets of every policy",
    PROVIDER_SECRET: "buy secrets of the provider, which no policy can govern afterwards",
}
"""What a principal may use at all, each as the end of "may …"; every route names the one it needs."""

DEFAULT_SCOPES = frozenset({"session", "tools", "speech", MINT})
"""Of a policy that names none. Without any policy file there is nothing to get around: `PROVIDER_SECRET` as well."""
CLIENT_SECRET_SCOPES = frozenset({"session", "tools"})
"""All that a client secret can give, whatever its policy."""


@dataclass(frozen=True, slots=True)
class RealtimePolicy:
    """What a Realtime client may do with its session; `relay.core.policy_table` applies it field by field.

    `tools` None offers all server tools. `max_output_tokens` and `max_effort` are clamped to, names are matched against
    patterns. `denied_fields` says whether a field that is not allowed refuses its event or is left out of it.
    """

    instructions: str = ""
    tools: tuple[str, ...] | None = None
    show_tools: bool = False
    models: tuple[str, ...] = ("*",)
    voices: tuple[str, ...] = ("*",)
    transcription_models: tuple[str, ...] = ("*",)
    max_output_tokens: int | None = None
    max_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    allow: frozenset[str] = DEFAULT_ALLOW
    denied_fields: Literal["refuse", "drop"] = "refuse"

    def allows_model(self, model: str) -> bool:
        """Whether a client may name this model."""
        return matches(model, self.models)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` fits one of the patterns; `*` stands for anything."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the clients of one kind may change. The default lets everything pass that the protocol has."""

    name: str = "default"
    hello_fields: frozenset[str] = HELLO_FIELDS
    record: RecordMode | None = None
    """None: as RELAY_RECORD says."""
    realtime: RealtimePolicy = field(default_factory=RealtimePolicy)
    voice: str | None = None
    """Who speaks in device sessions whose client names nobody; None: as the settings say."""
    scopes: frozenset[str] = DEFAULT_SCOPES
    may_mint: tuple[str, ...] = ()
    """The policies besides this one whose client secrets may be made."""

    def allows_minting(self, policy_name: str) -> bool:
        """Whether the holders of this policy may make client secrets of the policy of that name."""
        if MINT_ANY in self.scopes:
            return True
        return MINT in self.scopes and (policy_name == self.name or policy_name in self.may_mint)

    def refused(self, given: tuple[str, ...]) -> list[str]:
        """The fields of a hello that this policy does not let a client set."""
        return [name for name in given if name not in self.hello_fields]

    def allows_voice(self, voice: str) -> bool:
        """Whether a device client may name this voice, the model's or an external one."""
        return voice == self.voice or matches(voice, self.realtime.voices)


@dataclass(frozen=True, slots=True)
class Principal:
    """The one a session belongs to: `identity` for quotas and records, never a credential.

    `scopes` are those of its policy (`SCOPES`), fewer for a client secret; `admin` for who may use admin routes.
    `ticket_id` names the client secret that was shown.
    """

    identity: str = "anonymous"
    policy: Policy = Policy()
    scopes: frozenset[str] = DEFAULT_SCOPES
    ticket_id: str | None = None
