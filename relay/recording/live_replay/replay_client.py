"""`relay replay --against`: send the recorded user audio to a live relay or upstream, and compare the conversations.

Turns keep their place: one that followed a response starts after the live response, and one that interrupted a response
starts as far into the live one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from audio.files import write_wav
from audio.formats import AudioFormat
from audio.transcode import decode
from relay.client import ClosedError, ConnectError, InvalidURL, SessionOptions, VirtualPlayer, connect
from relay.errors import RelayError
from relay.json_types import JsonObject
from relay.recording.derive.normalize import NormalizedEntry, normalize_entries
from relay.recording.derive.timeline import Timeline
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.format.records import InputAudioRecord
from relay.recording.live_replay.comparison import ComparedTurn, Comparison, recorded_turns
from relay.recording.live_replay.live_run import TURN_TIMEOUT_S, LiveRun, WaitForTurn, recorded_tools
from relay.recording.store.layout import RecordingError, write_private
from relay.recording.store.reader import Recording
from relay.session.common.model import ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev

TURN_LEAD_MS = 500.0
"""The replay waits this long before the start of a turn, so that its first word is never truncated."""
MAX_SPEED = 20.0
"""The speed `max`: a live relay drops audio that its upstream does not accept in time."""


def client_script(recording: Recording, timeline: Timeline) -> Iterator[tuple[float, bytes | JsonObject | WaitForTurn]]:
    """Yield the recorded messages of the client, each with its time (s), and a wait before each turn."""
    started_at = recording.header.setup.started_at
    turns = sorted(timeline.speech, key=lambda turn: turn.start_ms)
    waits = deque(
        (turn.start_ms - TURN_LEAD_MS, WaitForTurn(_ms_into_response(timeline, turn.start_ms))) for turn in turns
    )
    if waits:
        waits[0] = (waits[0][0], WaitForTurn(None))
    for normalized in normalize_entries(recording):
        message, time_s = _client_message(normalized), getattr(normalized.entry.record, "time_s", 0.0)
        if message is None:
            continue
        at_ms = (time_s - started_at) * 1000
        while waits and (at_ms >= waits[0][0] or isinstance(message, dict)):
            if at_ms < waits[0][0] and turns[len(turns) - len(waits)].start_ms > at_ms + TURN_LEAD_MS:
                break
            yield time_s, waits.popleft()[1]
        yield time_s, message


def _client_message(normalized: NormalizedEntry) -> bytes | JsonObject | None:
    if isinstance(normalized.entry.record, InputAudioRecord):
        return bytes(normalized.entry.samples)
    match normalized.event:
        case ev.UserText(text):
            return {"type": "text", "text": text}
        case ev.Commit():
            return {"type": "commit"}
        case ev.Clear():
            return {"type": "clear"}
        case ev.Interrupt():
            return {"type": "interrupt"}
        case _:
            return None


def _ms_into_response(timeline: Timeline, at_ms: float) -> float | None:
    """Return the position in the response at which the user began to speak; None if nothing was playing."""
    playing = [item for item in timeline.heard if item.start_ms < at_ms <= item.end_ms + 100]
    return at_ms - playing[-1].start_ms if playing else None


async def replay_against(folder: Path, url: str, speed: float | None, save: Path | None) -> Comparison:
    """Repeat the conversation and compare. Raises RecordingError, ClientError."""
    speed = speed or MAX_SPEED
    if save is not None and not await asyncio.to_thread(save.is_dir):
        raise RecordingError(f"--save {save}: no such folder")
    recording = Recording(folder)
    timeline = build_timeline(recording).timeline
    try:
        async with _device_address(url) as address:
            live, output_format = await _run_conversation(recording, timeline, address, speed)
    except InvalidURL as error:
        raise RecordingError(f"--against: {error}") from error
    comparison = Comparison(recorded_turns(timeline), live.turns, live.notes)
    if save is not None:
        write_private(save / f"{folder.name}.comparison.json", comparison.to_json())
        if live.output_audio:
            pcm = decode(bytes(live.output_audio), output_format)
            write_wav(save / f"{folder.name}.now.wav", pcm, output_format.rate_hz)
    return comparison


async def _run_conversation(
    recording: Recording, timeline: Timeline, url: str, speed: float
) -> tuple[LiveRun, AudioFormat]:
    options, specs = _recorded_hello(recording)
    loop = asyncio.get_running_loop()
    player = VirtualPlayer(clock=lambda: loop.time() * speed)
    tools = recorded_tools(specs, timeline)
    async with connect(
        url, tools=tools, playback=player, open_timeout_s=TURN_TIMEOUT_S, ready_timeout_s=None, **options
    ) as client:
        live = LiveRun(client, player, speed)
        receiver = asyncio.create_task(live.receive())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_TIMEOUT_S):
                    await live.connected.wait()
            if not live.is_ready:
                raise ConnectError(live.close_reason or f"the relay was not ready within {TURN_TIMEOUT_S:.0f} s")
            try:
                await _run_script(recording, timeline, live, speed)
            except ClosedError:
                await receiver  # sets the close reason
            if live.close_reason:
                live.notes.append(f"{live.close_reason}, in turn {len(live.turns)} of {len(recorded_turns(timeline))}")
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)
        return live, client.output_format


async def _run_script(recording: Recording, timeline: Timeline, run: LiveRun, speed: float) -> None:
    last_s: float | None = None
    recorded = recorded_turns(timeline)
    for time_s, step in client_script(recording, timeline):
        if run.close_reason:
            return
        if isinstance(step, WaitForTurn):
            await run.wait_for_turn(step)
            run.begin_turn(recorded[len(run.turns)] if len(run.turns) < len(recorded) else ComparedTurn())
            last_s = time_s
            continue
        if last_s is not None:
            await asyncio.sleep(max(0.0, time_s - last_s) / speed)
        last_s = time_s
        if isinstance(step, dict) and step["type"] in ("text", "commit"):
            run.expect_response(step)
        await run.send(step)
    run.turns = run.turns or [ComparedTurn()]
    await run.wait_for_turn(WaitForTurn(None))


def _recorded_hello(recording: Recording) -> tuple[SessionOptions, Sequence[ToolSpec]]:
    """Return the options of the recorded client's last hello, and its tools."""
    options = recording.header.setup.options
    hello: JsonObject = {"turn": recording.header.setup.config.turn.kind}
    tools: Sequence[ToolSpec] = ()
    for _, event, commands in normalize_entries(recording):
        if isinstance(event, ev.Hello):
            for name in ("voice", "instructions", "language", "turn"):
                value = getattr(event, name)
                if name in event.fields_set and value is not None:
                    hello[name] = value
            tools = event.tools or tools
        for command in commands:
            if isinstance(command, cmd.ApplyOptions):
                options = command.options
    hello |= {"input_format": options.input, "output_format": options.output, "max_ahead_ms": None}
    return cast(SessionOptions, hello), tools


@asynccontextmanager
async def _device_address(url: str) -> AsyncIterator[str]:
    """Return the URL for the device protocol; for a Realtime endpoint, a temporary relay in front of it."""
    if "/realtime" not in urlsplit(url).path:
        yield url
        return
    from aiohttp import web

    from relay.app.server import create_app
    from relay.config.server_settings import RecordingSettings, ServerSettings
    from relay.config.settings import Settings
    from relay.config.upstream_settings import UpstreamSettings

    settings = Settings.load(
        upstream=UpstreamSettings(target=url),
        server=ServerSettings(host="127.0.0.1", port=0),
        recording=RecordingSettings(mode="off"),
    )
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    except OSError as error:
        raise RelayError(f"the relay in front of {url} cannot listen: {error.strerror}") from error
    finally:
        await runner.cleanup()
