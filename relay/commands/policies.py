"""`relay policies`: who may do what, by the settings and the policy file."""

from typing import Annotated

import typer


def policies(
    key: Annotated[
        str | None, typer.Argument(help="Show the identity of this key instead.", show_default=False)
    ] = None,
) -> None:
    """Check RELAY_POLICIES and show each key's identity and policy; keys themselves are never shown."""
    from relay.auth.keyring import identity_of
    from relay.config import Settings
    from relay.policies import Policies

    if key is not None:
        typer.echo(identity_of(key))
        return
    settings = Settings.load()
    known = Policies.load(settings.policies)
    for name in known.names():
        policy = known.get(name)
        if policy is not None:
            voice = f"; devices hear {policy.voice}" if policy.voice else ""
            may = ", ".join(sorted(policy.realtime.allow)) or "nothing special"
            typer.echo(f"policy  {name:<16} may {may}{voice}")
            minting = f"; mints for {', '.join((name, *policy.may_mint))}" if policy.may_mint else ""
            typer.echo(f"        {'':<16} scopes {', '.join(sorted(policy.scopes)) or 'none'}{minting}")
    identities = {identity_of(one) for one in settings.api_keys}
    for identity in sorted(identities):
        typer.echo(f"key     {identity:<16} {known.of(identity).name}")
    for identity in sorted(known.by_identity.keys() - identities):
        typer.echo(f"unknown {identity:<16} {known.by_identity[identity]}: no key of RELAY_API_KEYS has this identity")
