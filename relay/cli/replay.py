"""`relay replay`: replay a recorded session through today's rules, as the model, or as the client."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.recordings import RecordingId, RecordingsDir, recordings_dir
from relay.cli.terminal import os_error_text, say

if TYPE_CHECKING:
    from relay.recording.replay.replayer import Difference, RecordSummary
    from relay.recording.replay.verify import VerifyResult


def replay(
    recording: RecordingId,
    as_upstream: Annotated[
        bool, typer.Option("--as-upstream", help="Serve the recorded model to any Realtime client.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --as-upstream: the port to listen on; 0 picks a free one.")
    ] = 8091,
    against: Annotated[
        str | None,
        typer.Option(help="Send the recorded user's audio to this relay or Realtime endpoint (ws or wss URL)."),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="With --as-upstream and --against: a speed factor such as 1, or max for no waiting.")
    ] = "1",
    equal: Annotated[
        str,
        typer.Option(help="With --against: fields that must be equal for exit code 0: user,assistant,tools,arguments."),
    ] = "user,tools,arguments",
    save: Annotated[
        Path | None, typer.Option(help="With --against: folder for the audio of the live answers and the comparison.")
    ] = None,
    folder: RecordingsDir = None,
) -> None:
    """Replay a recording through today's rules, as the model, or as the client.

    Without an option it runs the journal through today's rules and prints "identical", or the first difference and the
    lines around it (exit code 1).
    """
    from relay.errors import RelayError
    from relay.recording.store.layout import find_recording

    path = find_recording(recordings_dir(folder), recording)
    if as_upstream and against is not None:
        raise RelayError("--as-upstream and --against cannot be used together")
    if as_upstream:
        _serve_as_upstream(path, port, speed)
    elif against is not None:
        _replay_against(path, against, speed, equal, save)
    else:
        _verify_journal(path)


def _serve_as_upstream(path: Path, port: int, speed: str) -> None:
    import asyncio

    from relay.errors import RelayError
    from relay.recording.live_replay.replay_server import parse_speed, serve

    try:
        asyncio.run(serve(path, port, parse_speed(speed), lambda line: say(line, err=True)))
    except OSError as error:
        raise RelayError(f"cannot listen on port {port}: {os_error_text(error)}; try another --port") from error


def _replay_against(path: Path, url: str, speed: str, equal: str, save: Path | None) -> None:
    import asyncio

    from relay.recording.live_replay.comparison import parse_equal_fields
    from relay.recording.live_replay.replay_client import replay_against
    from relay.recording.live_replay.replay_server import parse_speed

    comparison = asyncio.run(replay_against(path, url, parse_speed(speed), save))
    for line in comparison.render():
        say(line)
    unequal = comparison.differences(parse_equal_fields(equal))
    if unequal:
        say(f"not equal: {', '.join(unequal)}")
        raise typer.Exit(1)


def _verify_journal(path: Path) -> None:
    from relay.recording.replay.verify import verify
    from relay.recording.store.reader import Recording

    recording = Recording(path)
    result = verify(recording)
    for line in describe(path, result, recording.header.setup.started_at):
        say(line)
    if not result.is_identical:
        raise typer.Exit(1)


def describe(path: Path, result: "VerifyResult", started_at: float) -> list[str]:
    """Describe the result of a replay in lines of text."""
    lines = [f"note: {note}" for note in result.notes]
    difference = result.difference
    if difference is None:
        how = "identical" if result.is_exact else "identical within the tolerance"
        return [
            *lines,
            f"{how}: {result.n_records} events and frames, {result.sent_bytes} bytes of audio to the client",
        ]
    lines.append(
        f"different: {path / 'journal.jsonl'} line {difference.number}, {difference.time_s - started_at:.3f} s"
    )
    return [*lines, *_difference_lines(difference, started_at)]


def _difference_lines(difference: "Difference", started_at: float) -> list[str]:
    def line(near: "RecordSummary") -> str:
        return f"  {near.number:>7}  {near.time_s - started_at:9.3f} s  {near.text}"

    lines = [line(near) for near in difference.preceding]
    lines.append(f"> {difference.number:>7}  {difference.time_s - started_at:9.3f} s  {difference.description}")
    if difference.recorded is not None:
        lines += _command_diff(
            [*map(_format_command, difference.recorded)], [*map(_format_command, difference.replayed)]
        )
    return lines


def _command_diff(recorded: list[str], today: list[str]) -> list[str]:
    import difflib

    signs = {"- ": "recorded", "+ ": "today   ", "  ": "both    "}
    lines = [line for line in difflib.ndiff(recorded, today) if line[:2] in signs]
    return [f"           {signs[line[:2]]}  {line[2:]}" for line in lines] or ["           both do nothing"]


def _format_command(command: object) -> str:
    if isinstance(command, dict):
        fields = ", ".join(f"{name}={json.dumps(value)}" for name, value in command.items() if name != "t")
        return f"{command.get('t')}({fields})"
    return "(the event itself, forwarded)" if command == "=" else str(command)
