"""`relay check`: dial what is configured, and say what to change."""

import asyncio
from typing import TYPE_CHECKING

import typer

from relay.terminal import say

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.navai_options import NavaiOptions


def check() -> None:
    """Dial what is configured (model, voice, Azure, ElevenLabs) and name the setting behind each failure.

    Exit code 1 if anything failed. Nothing is generated, so nothing is spent.
    """
    from relay.logs import setup_logging
    from relay.server import load_all

    setup_logging("error", "text")  # what fails is said below
    settings, navai = load_all()
    failed = asyncio.run(_show(settings, navai))
    raise typer.Exit(1 if failed else 0)


async def _show(settings: "Settings", navai: "NavaiOptions") -> bool:
    from datetime import UTC, datetime

    from relay.checkup import check_all
    from relay.core.known_secrets import KnownSecrets
    from relay.secret_values import secret_values

    known = KnownSecrets(secret_values(settings))
    failed = False
    for warning in (*settings.warnings(), *navai.warnings):
        say(f"warn  settings       {warning}")
    async for finding in check_all(settings, navai, today=datetime.now(UTC).date()):
        failed = failed or finding.status == "fail"
        say(f"{finding.status:<4}  {finding.what:<13}  {known.redact(finding.text)}")
    return failed
