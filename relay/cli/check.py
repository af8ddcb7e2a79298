"""`relay check`: dial what is configured, and say what to change."""

import asyncio
from datetime import UTC, datetime

import typer

from relay.cli.terminal import say


def check() -> None:
    """Dial what is configured (model, voice, Azure, ElevenLabs) and name the setting behind each failure.

    Exit code 1 if anything failed. Nothing is generated, so nothing is spent.
    """
    from relay.app.log_setup import setup_logging
    from relay.app.secret_values import collect_secrets
    from relay.cli.doctor import check_all
    from relay.config.settings import Settings
    from relay.session.common.known_secrets import KnownSecrets

    setup_logging("error", "text")  # what fails is said below
    settings = Settings.load()
    navai = settings.navai_options()
    known = KnownSecrets(collect_secrets(settings))
    for warning in (*settings.warnings(), *navai.warnings):
        say(f"warn  settings       {warning}")

    async def show() -> bool:
        failed = False
        async for finding in check_all(settings, navai, today=datetime.now(UTC).date()):
            failed = failed or finding.status == "fail"
            say(f"{finding.status:<4}  {finding.what:<13}  {known.redact(finding.text)}")
        return failed

    raise typer.Exit(1 if asyncio.run(show()) else 0)
