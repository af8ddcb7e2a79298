"""`relay policies`: show the policies and the policy of each key."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.terminal import say

if TYPE_CHECKING:
    from relay.session.common.policy import Policy


def policies(
    key: Annotated[
        str | None,
        typer.Argument(
            help="Only print the identity of this key; - reads it from standard input, so that it does not stay in the "
            "shell's history.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check RELAY_POLICIES, and show every policy and the policy of every key. Keys are shown by identity only."""
    from relay.auth.keyring import key_identity
    from relay.config.policy_file import Policies
    from relay.config.settings import Settings
    from relay.upstreams.clients.elevenlabs import ExternalVoices

    if key is not None:
        say(key_identity(sys.stdin.readline().strip() if key == "-" else key))
        return
    settings = Settings.load()
    loaded = Policies.load(settings.access.policies, settings.name_of("access.policies"))
    ExternalVoices.from_settings(
        settings.navai_options(), settings, loaded.external_voices()
    )  # raises what `relay serve` would raise
    for name in loaded.names():
        policy = loaded.get(name)
        if policy is not None:
            first, *others = policy_lines(policy)
            say(f"policy  {name:<16} {first}")
            for line in others:
                say(f"        {'':<16} {line}")
    identities = {}
    for kind, keys in (("key", settings.access.api_keys), ("admin", settings.access.admin_keys)):
        for identity in map(key_identity, keys):
            identities[identity] = kind
            say(f"{kind:<7} {identity:<16} {loaded.for_identity(identity).name}")
    for identity in sorted(loaded.by_identity.keys() - identities.keys()):
        say(f"unknown {identity:<16} {loaded.by_identity[identity]}: no configured key has this identity")


def policy_lines(policy: "Policy") -> Iterator[str]:
    """Describe a policy, a line for each limit."""
    limits = policy.realtime
    yield f"allow {', '.join(sorted(limits.allow)) or 'nothing'}"
    yield f"scopes {', '.join(sorted(policy.scopes)) or 'none'}"
    if policy.may_mint and policy.allows_minting(policy.name):
        yield f"mints client secrets for {', '.join((policy.name, *policy.may_mint))}"
    if limits.instructions:
        yield f"own instructions, {len(limits.instructions)} characters"
    for label, names in (
        ("tools", limits.tools),
        ("models", limits.models),
        ("voices", limits.voices),
        ("transcription models", limits.transcription_models),
    ):
        if names is not None and names != ("*",):
            yield f"{label} {', '.join(names) or 'none'}"
    if policy.voice:
        yield f"voice for devices {policy.voice}"
    if limits.max_output_tokens is not None:
        yield f"at most {limits.max_output_tokens} output tokens per response"
    if limits.max_effort is not None:
        yield f"reasoning effort at most {limits.max_effort}"
    if limits.denied_fields == "drop":
        yield "denied fields are dropped silently"
    if policy.record is not None:
        yield f"recording {policy.record}"
