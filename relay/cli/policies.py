"""`relay policies`: who may do what, by the settings and the policy file."""

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
            help="Print the identity of a key instead: -, to read it from standard input, or the key itself, which "
            "then stays in the shell's history.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check RELAY_POLICIES and show each policy and key by its identity; configured keys themselves are never shown."""
    from relay.auth.keyring import key_identity
    from relay.config.policy_file import Policies
    from relay.config.settings import Settings
    from relay.upstreams.clients.elevenlabs import ExternalVoices

    if key is not None:
        say(key_identity(sys.stdin.readline().strip() if key == "-" else key))
        return
    settings = Settings.load()
    known = Policies.load(settings.access.policies, settings.name_of("access.policies"))
    ExternalVoices.from_settings(
        settings.navai_options(), settings, known.external_voices()
    )  # as the start checks them
    for name in known.names():
        policy = known.get(name)
        if policy is not None:
            first, *others = lines_of(policy)
            say(f"policy  {name:<16} {first}")
            for line in others:
                say(f"        {'':<16} {line}")
    identities = {}
    for kind, keys in (("key", settings.access.api_keys), ("admin", settings.access.admin_keys)):
        for identity in map(key_identity, keys):
            identities[identity] = kind
            say(f"{kind:<7} {identity:<16} {known.of(identity).name}")
    for identity in sorted(known.by_identity.keys() - identities.keys()):
        say(f"unknown {identity:<16} {known.by_identity[identity]}: no configured key has this identity")


def lines_of(policy: "Policy") -> Iterator[str]:
    """What a policy says, a line for each thing that it limits."""
    limits = policy.realtime
    yield f"may {', '.join(sorted(limits.allow)) or 'nothing special'}"
    yield f"scopes {', '.join(sorted(policy.scopes)) or 'none'}"
    if policy.may_mint and policy.allows_minting(policy.name):
        yield f"makes client secrets for {', '.join((policy.name, *policy.may_mint))}"
    if limits.instructions:
        yield f"instructions of its own, {len(limits.instructions)} characters"
    for what, names in (
        ("tools", limits.tools),
        ("models", limits.models),
        ("voices", limits.voices),
        ("transcription models", limits.transcription_models),
    ):
        if names is not None and names != ("*",):
            yield f"{what} {', '.join(names) or 'none'}"
    if policy.voice:
        yield f"devices hear {policy.voice}"
    if limits.max_output_tokens is not None:
        yield f"at most {limits.max_output_tokens} tokens an answer"
    if limits.max_effort is not None:
        yield f"effort at most {limits.max_effort}"
    if limits.denied_fields == "drop":
        yield "what is denied is dropped without a word"
    if policy.record is not None:
        yield f"recording {policy.record}"
