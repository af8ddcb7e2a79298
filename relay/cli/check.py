"""`relay check`: connect to every configured upstream, and name the setting behind each failure."""

import asyncio
from datetime import UTC, datetime

import typer

from relay.cli.terminal import say


def check() -> None:
    """Connect to what is configured (model, voice, Azure, ElevenLabs), and name the setting behind each failure.

    Exit code 1 if a check failed. Nothing is generated, so nothing is billed.
    """
    from relay.app.log_setup import setup_logging
    from relay.app.secret_values import collect_secrets
    from relay.cli.upstream_checks import check_upstreams
    from relay.config.settings import Settings
    from relay.session.common.known_secrets import KnownSecrets

    setup_logging("error", "text")  # failures are printed below
    settings = Settings.load()
    navai = settings.navai_options()
    secrets = KnownSecrets(collect_secrets(settings))
    for warning in (*settings.warnings(), *navai.warnings):
        say(f"warn  settings       {warning}")

    async def print_findings() -> bool:
        failed = False
        async for finding in check_upstreams(settings, navai, today=datetime.now(UTC).date()):
            failed = failed or finding.status == "fail"
            say(f"{finding.status:<4}  {finding.subject:<13}  {secrets.redact(finding.text)}")
        return failed

    raise typer.Exit(1 if asyncio.run(print_findings()) else 0)
