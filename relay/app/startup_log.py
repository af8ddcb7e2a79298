"""What the start-up log says of a relay: what it is made of; never a key."""

from aiohttp import web

from relay import __version__
from relay.app.context import AUTHENTICATOR, SETTINGS, TOOLS, UPSTREAM, VOICES
from relay.config import Settings


def describe(app: web.Application) -> list[str]:
    """The lines of the start-up log."""
    settings, upstream, authenticator = app[SETTINGS], app[UPSTREAM].endpoint, app[AUTHENTICATOR]
    config = settings.session_config()
    model = settings.model if upstream.url is not None else "a rehearsal partner on this machine, not a model"
    origins = ", ".join(("its own page", *(("localhost",) if settings.is_loopback else ()), *settings.allowed_origins))
    return [
        f"relay {__version__} · upstream {upstream.label} · model {model} · voice {config.voice}",
        f"audio pcm16 at 8, 16, 24, 48 kHz, pcmu, pcma · turns {config.turn.kind} · origins {origins}",
        f"tools {', '.join(tool.name for tool in app[TOOLS].registry) or 'none'}",
        f"access {authenticator.describe()} · policies {', '.join(authenticator.policies.names())}",
        _bounds(settings),
        *app[VOICES].describe(),
    ]


def _bounds(settings: Settings) -> str:
    """How many sessions there may be, how long they last, and what is kept of them."""
    parts = [f"at most {settings.max_sessions} sessions"]
    parts += [f"each at most {settings.max_duration_s:g} s"] if settings.max_duration_s else []
    parts += [f"ended after {settings.max_idle_s:g} s idle"] if settings.max_idle_s else []
    kept = f"recordings {settings.record}"
    return " · ".join([*parts, kept if settings.record == "off" else f"{kept}, in {settings.recordings_dir}"])
