"""`relay replay --against`: the recorded user speaks to a live relay or model, and both conversations are compared.

The user waits as the recorded one did: a turn that came after an answer begins after the live answer, and one that cut
an answer short begins as far into the live one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from audio.files import write_wav
from audio.formats import AudioFormat
from audio.transcode import decode, encode
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.values import DeviceOptions
from relay.errors import RelayError
from relay.json_types import JsonObject
from relay.recording.derive.normalize import NormalizedEntry, normalized_entries
from relay.recording.folder import RecordingError, write_private
from relay.recording.format.lines import InputAudio
from relay.recording.reader import Recording
from relay.recording.timeline import Timeline, listen
from relay.replaying.comparison import Call, Comparison, Exchange, recorded
from relay.session.device.turn_metrics import TOTAL
from relay.talk.client import MAX_SAVED_BYTES
from relay.talk.connection import TalkError, dial, how_it_closed, target_of
from relay.talk.player import FRAME_MS, VirtualPlayer, parse_format

LEAD_MS = 500.0
"""A turn is held this long before its first word, so that its beginning is never cut."""
TOP_SPEED = 20.0
"""What `max` means to a live relay, which leaves out audio that its model does not take in time."""
PATIENCE_S = 30.0
SETTLE_S = 2.0
"""How long what is told behind an answer may take, late transcripts and the latency, if the recorded turn had them."""
NOT_CALLED = "this tool was not called when the conversation was recorded"


@dataclass(frozen=True, slots=True)
class Hold:
    """Before a turn: wait for the end of the answer, or until that much of it has been heard."""

    into_answer_ms: float | None


def acts(recording: Recording, timeline: Timeline) -> Iterator[tuple[float, bytes | JsonObject | Hold]]:
    """What the recorded client sent, each with its time (s), with the holds before each turn."""
    started_at = recording.header.beginning.started_at
    turns = sorted(timeline.speech, key=lambda one: one.start_ms)
    holds = deque((turn.start_ms - LEAD_MS, Hold(_into_answer(timeline, turn.start_ms))) for turn in turns)
    if holds:
        holds[0] = (holds[0][0], Hold(None))
    for normalized in normalized_entries(recording):
        what, now = _said(normalized), getattr(normalized.entry.line, "now", 0.0)
        if what is None:
            continue
        at_ms = (now - started_at) * 1000
        while holds and (at_ms >= holds[0][0] or isinstance(what, dict)):
            if at_ms < holds[0][0] and turns[len(turns) - len(holds)].start_ms > at_ms + LEAD_MS:
                break
            yield now, holds.popleft()[1]
        yield now, what


def _said(normalized: NormalizedEntry) -> bytes | JsonObject | None:
    if isinstance(normalized.entry.line, InputAudio):
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


def _into_answer(timeline: Timeline, at_ms: float) -> float | None:
    """How far into an answer the user began to speak; None if nothing was to be heard then."""
    playing = [item for item in timeline.heard if item.start_ms < at_ms <= item.end_ms + 100]
    return at_ms - playing[-1].start_ms if playing else None


class Live:
    """The conversation as it goes now."""

    def __init__(self, socket: ClientConnection, speed: float, timeline: Timeline) -> None:
        self.exchanges: list[Exchange] = []
        self.notes: list[str] = []
        self.saved = bytearray()
        self.connected = asyncio.Event()
        self.input = self.output = AudioFormat("pcm16", 16_000)
        self._socket = socket
        self._speed = speed
        self._news = asyncio.Condition()
        self._player = VirtualPlayer(self.output.bytes_per_ms)
        self._owed = False
        self._answering: Exchange | None = None
        self._playing: set[str] = set()
        self._sounding_since: float | None = None
        self._begins_to_sound = False
        self._answers: set[asyncio.Task[None]] = set()
        self._then = Exchange()
        self._outputs = {run.name: deque[str]() for run in timeline.tools}
        for run in timeline.tools:
            self._outputs[run.name].append(run.output)
        self._loop = asyncio.get_running_loop()
        self.closed = ""
        self._said = ""

    async def listen(self) -> None:
        """Take what comes, until the connection ends."""
        try:
            async for received in self._socket:
                async with self._news:
                    self._take(received)
                    self._news.notify_all()
            self.closed = "the relay closed the connection"
        except ConnectionClosed as error:
            self.closed = how_it_closed(error, self._said)
        finally:
            self.connected.set()
            async with self._news:
                self._news.notify_all()

    async def acknowledge(self) -> None:
        """Tell what was played, until cancelled."""
        while True:
            for item_id, played_ms in self._player.reports(self._now()):
                await self.send({"type": "playback", "itemId": item_id, "playedMs": played_ms})
            await asyncio.sleep(0.05)

    async def send(self, what: bytes | JsonObject) -> None:
        """Say something."""
        await self._socket.send(what if isinstance(what, bytes) else orjson.dumps(what).decode())

    def begin_turn(self, then: Exchange) -> None:
        """The next turn of the user's begins, of which `then` is what came of it when it was recorded."""
        self.exchanges.append(Exchange())
        self._then = then
        self._owed = bool(then.assistant or then.calls)
        self._sounding_since = None  # an answer that began before this turn says nothing about the next one

    async def hold(self, hold: Hold) -> None:
        """Wait, saying nothing but silence, until the turn may begin."""
        if not self.exchanges:
            return
        silence = encode(bytes(self.input.rate_hz * FRAME_MS // 1000 * 2), self.input)
        until = self._loop.time() + PATIENCE_S
        settled_by: float | None = None
        while not self.closed and not self._is_far_enough(hold):
            now = self._loop.time()
            if self.is_over:
                settled_by = now + SETTLE_S if settled_by is None else settled_by
                if now >= settled_by or self._is_complete:
                    return
            if now > until:
                self.notes.append(f"turn {len(self.exchanges)} was not over after {PATIENCE_S:.0f} s")
                return
            await self.send(silence)
            await asyncio.sleep(FRAME_MS / 1000 / self._speed)

    def _is_far_enough(self, hold: Hold) -> bool:
        if hold.into_answer_ms is None or self._sounding_since is None:
            return False
        return (self._now() - self._sounding_since) * 1000 >= hold.into_answer_ms

    @property
    def is_up(self) -> bool:
        """Whether the relay is there and ready."""
        return self.connected.is_set() and not self.closed

    @property
    def is_over(self) -> bool:
        """Whether the answer to the last turn has come to its end, sound and all."""
        return not self._owed and not self._playing and self._player.next_at() is None

    @property
    def _is_complete(self) -> bool:
        """Whether all has been told of this turn that was told of the recorded one."""
        turn, then = self._turn, self._then
        return bool(turn.user or not then.user) and (turn.latency_ms is not None or then.latency_ms is None)

    def _now(self) -> float:
        return self._loop.time() * self._speed

    def _take(self, received: str | bytes) -> None:
        if isinstance(received, bytes):
            if self._begins_to_sound:
                self._begins_to_sound = False
                self._sounding_since = self._now()
            self.saved += received[: MAX_SAVED_BYTES - len(self.saved)]
            self._player.feed(len(received), self._now())
            return
        message = orjson.loads(received)
        item_id = str(message.get("itemId", ""))
        match message.get("name") or message.get("type"):
            case "AIConnected":
                self.input, self.output = parse_format(message["input"]), parse_format(message["output"])
                self._player = VirtualPlayer(self.output.bytes_per_ms)
                self.connected.set()
            case "AIResponseStart":
                self._answering = self._turn
                self._owed = True
            case "AIResponseEnd":
                answered = self._answering or self._turn
                if answered is self._turn:  # the end of what a barge-in cut short answers no later turn
                    self._owed = message.get("more") is True
                answered.assistant = f"{answered.assistant} {message.get('finalText', '')}".strip()
            case "audioStart":
                self._playing.add(item_id)
                self._player.start(item_id)
                self._begins_to_sound = True
            case "audioEnd":
                self._playing.discard(item_id)
                self._player.end(item_id)
            case "interrupted":
                self._playing.clear()
                self._player.interrupt(item_id)
            case _:
                self._note(message)

    def _note(self, message: JsonObject) -> None:
        match message.get("type"):
            case "transcript" if message.get("role") == "user" and message.get("final") is True:
                if message.get("text") != self._turn.user:  # what was typed may come back as a transcript
                    self._turn.user = f"{self._turn.user} {message.get('text', '')}".strip()
            case "tool" if message.get("status") == "started":
                arguments = message.get("arguments")
                self._turn.calls.append(Call(str(message.get("name")), arguments))
            case "latency":
                self._turn.latency_ms = message.get(TOTAL.wire)
            case "toolCall":
                self._answer_call(str(message.get("callId")), str(message.get("name")))
            case "error" | "goodbye":
                self._said = str(message.get("message") or message.get("reason"))[:300]
                self.notes.append(self._said)

    def _answer_call(self, call_id: str, name: str) -> None:
        """The client's own tools say again what they said then; the last output stands for all further ones."""
        outputs = self._outputs.get(name)
        result = {"output": outputs.popleft() if len(outputs) > 1 else outputs[0]} if outputs else {"error": NOT_CALLED}
        answer = asyncio.create_task(self.send({"type": "toolResult", "callId": call_id, **result}))
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

    @property
    def _turn(self) -> Exchange:
        if not self.exchanges:
            self.exchanges.append(Exchange())
        return self.exchanges[-1]

    def owe(self, act: JsonObject) -> None:
        """A typed or committed turn wants an answer."""
        self._owed = True
        self._turn.user = act.get("text", self._turn.user)


async def run(folder: Path, url: str, speed: float | None, save: Path | None) -> Comparison:
    """Have the conversation again and compare. Raises RecordingError or TalkError with a sentence."""
    speed = speed or TOP_SPEED
    if save is not None and not await asyncio.to_thread(save.is_dir):
        raise RecordingError(f"--save {save}: there is no such folder")
    recording = Recording(folder)
    timeline = listen(recording).timeline
    options, hello = _wishes(recording)
    async with _device_address(url) as address:
        live = await _converse(recording, timeline, address, options, hello, speed)
    comparison = Comparison(recorded(timeline), live.exchanges, live.notes)
    if save is not None:
        write_private(save / f"{folder.name}.comparison.json", comparison.to_json())
        if live.saved:
            write_wav(save / f"{folder.name}.now.wav", decode(bytes(live.saved), live.output), live.output.rate_hz)
    return comparison


async def _converse(
    recording: Recording, timeline: Timeline, url: str, options: DeviceOptions, hello: JsonObject, speed: float
) -> Live:
    import os

    query = urlencode({"rate": options.input.rate_hz, "format": options.input.encoding})
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    target = target_of(
        parts._replace(query="&".join(filter(None, [parts.query, query]))).geturl(), options.input.rate_hz
    )
    async with dial(target, os.environ.get("RELAY_KEY", "").strip(), PATIENCE_S) as socket:
        live = Live(socket, speed, timeline)
        tasks = [asyncio.create_task(live.listen())]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await live.connected.wait()
            if not live.is_up:
                raise TalkError(live.closed or f"the relay was not ready within {PATIENCE_S:.0f} s")
            tasks.append(asyncio.create_task(live.acknowledge()))
            await live.send(hello)
            try:
                await _perform(recording, timeline, live, speed)
            except ConnectionClosed:
                await tasks[0]  # it knows why
            if live.closed:
                live.notes.append(f"{live.closed}, in turn {len(live.exchanges)} of {len(recorded(timeline))}")
            with suppress(ConnectionClosed):
                await live.send({"type": "bye"})
        except ConnectionClosed as error:
            raise TalkError(live.closed or how_it_closed(error, "")) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return live


async def _perform(recording: Recording, timeline: Timeline, live: Live, speed: float) -> None:
    last: float | None = None
    then = recorded(timeline)
    for at, what in acts(recording, timeline):
        if live.closed:
            return
        if isinstance(what, Hold):
            await live.hold(what)
            live.begin_turn(then[len(live.exchanges)] if len(live.exchanges) < len(then) else Exchange())
            last = at
            continue
        if last is not None:
            await asyncio.sleep(max(0.0, at - last) / speed)
        last = at
        if isinstance(what, dict) and what["type"] in ("text", "commit"):
            live.owe(what)
        await live.send(what)
    live.exchanges = live.exchanges or [Exchange()]
    await live.hold(Hold(None))


def _wishes(recording: Recording) -> tuple[DeviceOptions, JsonObject]:
    """What the recorded client asked for: the formats, and a hello with the rest of it."""
    options = recording.header.beginning.options
    hello: JsonObject = {"type": "hello", "v": 1}
    for _, event, commands in normalized_entries(recording):
        if isinstance(event, ev.Hello):
            for name in ("voice", "instructions", "language", "turn"):
                value = getattr(event, name)
                if name in event.given and value is not None:
                    hello[name] = value
            if event.tools:
                hello["tools"] = [
                    {"name": one.name, "description": one.description, "parameters": dict(one.parameters)}
                    for one in event.tools
                ]
        for command in commands:
            if isinstance(command, cmd.UseOptions):
                options = command.options
    form = {"format": options.output.encoding, "rate": options.output.rate_hz}
    turn = recording.header.beginning.config.turn.kind
    return options, {"turn": turn} | hello | {"output": form, "maxAheadMs": None}


@asynccontextmanager
async def _device_address(url: str) -> AsyncIterator[str]:
    """Where to speak the device protocol: the URL itself, or a relay of our own in front of a Realtime endpoint."""
    if "/realtime" not in urlsplit(url).path:
        yield url
        return
    from aiohttp import web

    from relay.config import Settings
    from relay.server import create_app

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
