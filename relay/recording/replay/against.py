"""`relay replay --against`: the recorded user speaks to a live relay or model, and both conversations are compared.

The user waits as the recorded one did: a turn that came after an answer begins after the live answer, and one that cut
an answer short begins as far into the live one.
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
from relay.recording.derive.normalize import NormalizedEntry, normalized_entries
from relay.recording.derive.timeline import Timeline
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.format.records import InputAudioRecord
from relay.recording.replay.comparison import ComparedTurn, Comparison, recorded_turns
from relay.recording.replay.live_run import TURN_TIMEOUT_S, LiveRun, WaitForTurn, recorded_tools
from relay.recording.store.layout import RecordingError, write_private
from relay.recording.store.reader import Recording
from relay.session.common.model import ToolSpec
from relay.session.device import commands as cmd
from relay.session.device import events as ev

TURN_LEAD_MS = 500.0
"""A turn is held this long before its first word, so that its beginning is never cut."""
MAX_SPEED = 20.0
"""What `max` means to a live relay, which leaves out audio that its model does not take in time."""


def client_script(recording: Recording, timeline: Timeline) -> Iterator[tuple[float, bytes | JsonObject | WaitForTurn]]:
    """What the recorded client sent, each with its time (s), with the holds before each turn."""
    started_at = recording.header.setup.started_at
    turns = sorted(timeline.speech, key=lambda one: one.start_ms)
    holds = deque(
        (turn.start_ms - TURN_LEAD_MS, WaitForTurn(_ms_into_response(timeline, turn.start_ms))) for turn in turns
    )
    if holds:
        holds[0] = (holds[0][0], WaitForTurn(None))
    for normalized in normalized_entries(recording):
        what, now = _client_message(normalized), getattr(normalized.entry.record, "time_s", 0.0)
        if what is None:
            continue
        at_ms = (now - started_at) * 1000
        while holds and (at_ms >= holds[0][0] or isinstance(what, dict)):
            if at_ms < holds[0][0] and turns[len(turns) - len(holds)].start_ms > at_ms + TURN_LEAD_MS:
                break
            yield now, holds.popleft()[1]
        yield now, what


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
    """How far into an answer the user began to speak; None if nothing was to be heard then."""
    playing = [item for item in timeline.heard if item.start_ms < at_ms <= item.end_ms + 100]
    return at_ms - playing[-1].start_ms if playing else None


async def replay_against(folder: Path, url: str, speed: float | None, save: Path | None) -> Comparison:
    """Have the conversation again and compare. Raises RecordingError or ClientError with a sentence."""
    speed = speed or MAX_SPEED
    if save is not None and not await asyncio.to_thread(save.is_dir):
        raise RecordingError(f"--save {save}: there is no such folder")
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
        listening = asyncio.create_task(live.receive())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_TIMEOUT_S):
                    await live.connected.wait()
            if not live.is_ready:
                raise ConnectError(live.close_reason or f"the relay was not ready within {TURN_TIMEOUT_S:.0f} s")
            try:
                await _run_script(recording, timeline, live, speed)
            except ClosedError:
                await listening  # it knows why
            if live.close_reason:
                live.notes.append(f"{live.close_reason}, in turn {len(live.turns)} of {len(recorded_turns(timeline))}")
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        return live, client.output_format


async def _run_script(recording: Recording, timeline: Timeline, run: LiveRun, speed: float) -> None:
    last: float | None = None
    then = recorded_turns(timeline)
    for at, what in client_script(recording, timeline):
        if run.close_reason:
            return
        if isinstance(what, WaitForTurn):
            await run.wait_for_turn(what)
            run.begin_turn(then[len(run.turns)] if len(run.turns) < len(then) else ComparedTurn())
            last = at
            continue
        if last is not None:
            await asyncio.sleep(max(0.0, at - last) / speed)
        last = at
        if isinstance(what, dict) and what["type"] in ("text", "commit"):
            run.expect_response(what)
        await run.send(what)
    run.turns = run.turns or [ComparedTurn()]
    await run.wait_for_turn(WaitForTurn(None))


def _recorded_hello(recording: Recording) -> tuple[SessionOptions, Sequence[ToolSpec]]:
    """What the recorded client asked for in its last hello, and its tools."""
    options = recording.header.setup.options
    hello: JsonObject = {"turn": recording.header.setup.config.turn.kind}
    tools: Sequence[ToolSpec] = ()
    for _, event, commands in normalized_entries(recording):
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
    """Where to speak the device protocol: the URL itself, or a relay of our own in front of a Realtime endpoint."""
    if "/realtime" not in urlsplit(url).path:
        yield url
        return
    from aiohttp import web

    from relay.app.server import create_app
    from relay.config.settings import Settings

    app = create_app(Settings.load(upstream=url, host="127.0.0.1", port=0, record="off"))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    except OSError as error:
        raise RelayError(f"the relay in front of {url} cannot listen: {error.strerror}") from error
    finally:
        await runner.cleanup()
