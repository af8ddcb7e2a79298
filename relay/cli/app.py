"""The root of the `relay` command. A new command is a function, registered here."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from relay import __version__
from relay.cli import recordings
from relay.cli import tools as tools_commands
from relay.cli.check import check
from relay.cli.console import console
from relay.cli.policies import policies
from relay.cli.replay import replay
from relay.cli.secret import secret
from relay.cli.terminal import os_error_text, say
from relay.errors import RelayError

app = typer.Typer(
    name="relay",
    help="A self-hosted gateway between anything with a microphone and a realtime voice model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        say(f"relay {__version__}")
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (HOST; 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (PORT; 8080).")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="auto, openai, azure, local, or a ws(s):// URL (RELAY_UPSTREAM; auto).")
    ] = None,
    tools: Annotated[
        str | None, typer.Option(help="Folders, files or glob patterns of server tools (RELAY_TOOLS; tools).")
    ] = None,
) -> None:
    """Start the relay. All settings come from the environment or `.env`; see docs/configuration.md."""
    from relay.app.log_setup import redact_from_logs, setup_logging
    from relay.app.secret_values import collect_secrets
    from relay.app.server import serve as run_server
    from relay.config.environment import Environment
    from relay.config.settings import Settings
    from relay.session.common.known_secrets import KnownSecrets

    options = {
        "HOST": ("--host", host),
        "PORT": ("--port", port),
        "RELAY_UPSTREAM": ("--upstream", upstream),
        "RELAY_TOOLS": ("--tools", tools),
    }
    settings = Settings.load(Environment.read(options))
    redact_from_logs(KnownSecrets(collect_secrets(settings)))
    setup_logging(settings.log.level, settings.log.format)
    _run(run_server(settings), f"{settings.server.host}:{settings.server.port}")


@app.command()
def talk(
    file: Annotated[
        Path | None, typer.Argument(help="Audio file to send: WAV, FLAC, Ogg or MP3.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option(help="URL of the relay; its key comes from RELAY_KEY.")] = "ws://127.0.0.1:8080/",
    rate: Annotated[int, typer.Option(help="Sample rate of both directions, in Hz.")] = 24_000,
    text: Annotated[str | None, typer.Option(help="Text of a typed turn, sent after the file.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the answer's audio to this WAV file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each received message as a line of JSON.")] = False,
) -> None:
    """Talk to a relay from the terminal: send an audio file or a text, and print the conversation.

    Exit code 1 if there was no answer.
    """
    from relay.cli.talk.talk import TalkOptions
    from relay.cli.talk.talk import talk as run_talk

    options = TalkOptions(file=file, url=url, rate_hz=rate, text=text, save=save, json_lines=json)
    raise typer.Exit(asyncio.run(run_talk(options, sys.stdout)))


@app.command()
def local(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    fault: Annotated[
        str,
        typer.Option(
            help="Inject faults: NAME[=VALUE]\\[@POINT]\\[#N], separated by commas; `--fault list` explains them."
        ),
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(min=0, max=8, help="Processes for speech recognition; 0 for none (default: one per core)."),
    ] = None,
    max_minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="Maximum length of a session, in minutes.")
    ] = 60.0,
) -> None:
    """Run the local engine alone: a server of the OpenAI Realtime protocol that needs no key and no network."""
    from relay.cli.local import list_faults, run_local

    if fault == "list":
        list_faults()
        return
    _run(run_local(host, port, fault=fault, workers=workers, max_session_s=max_minutes * 60), f"{host}:{port}")


for _command in (check, policies, secret, console, replay):
    app.command()(_command)
app.add_typer(tools_commands.app, name="tools")
app.add_typer(recordings.app)


def _run(coroutine: Coroutine[Any, Any, None], address: str) -> None:
    """Run on uvloop if it is installed. Raises RelayError if the address is not available."""
    try:
        from uvloop import new_event_loop as loop_factory
    except ImportError:  # Windows, PyPy
        loop_factory = None  # type: ignore[assignment]
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(coroutine)
    except OSError as error:
        raise RelayError(f"cannot listen on {address}: {os_error_text(error)}; try another --port") from error
