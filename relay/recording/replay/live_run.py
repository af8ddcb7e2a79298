"""A recorded conversation as it goes now: what a live relay answers to the recorded user."""

import asyncio
from collections import deque
from dataclasses import dataclass

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from audio.formats import AudioFormat
from audio.transcode import encode
from relay.cli.talk.talk import MAX_SAVED_BYTES
from relay.client.connection import how_it_closed
from relay.client.virtual_player import FRAME_MS, VirtualPlayer, parse_format
from relay.json_types import JsonObject
from relay.recording.derive.timeline import Timeline
from relay.recording.replay.comparison import Call, Exchange
from relay.session.device.turn_metrics import TOTAL_METRIC

PATIENCE_S = 30.0
SETTLE_S = 2.0
"""How long what is told behind an answer may take, late transcripts and the latency, if the recorded turn had them."""
NOT_CALLED = "this tool was not called when the conversation was recorded"


@dataclass(frozen=True, slots=True)
class Hold:
    """Before a turn: wait for the end of the answer, or until that much of it has been heard."""

    into_answer_ms: float | None


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
                self._turn.latency_ms = message.get(TOTAL_METRIC.wire_name)
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
