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
from relay.recording.replay.comparison import ComparedCall, ComparedTurn
from relay.session.device.turn_metrics import TOTAL_METRIC

TURN_TIMEOUT_S = 30.0
SETTLE_S = 2.0
"""How long what is told behind an answer may take, late transcripts and the latency, if the recorded turn had them."""
NOT_CALLED_ERROR = "this tool was not called when the conversation was recorded"


@dataclass(frozen=True, slots=True)
class WaitForTurn:
    """Before a turn: wait for the end of the answer, or until that much of it has been heard."""

    into_response_ms: float | None


class LiveRun:
    """The conversation as it goes now."""

    def __init__(self, socket: ClientConnection, speed: float, timeline: Timeline) -> None:
        self.turns: list[ComparedTurn] = []
        self.notes: list[str] = []
        self.output_audio = bytearray()
        self.connected = asyncio.Event()
        self.input = self.output = AudioFormat("pcm16", 16_000)
        self._socket = socket
        self._speed = speed
        self._changed = asyncio.Condition()
        self._player = VirtualPlayer(self.output.bytes_per_ms)
        self._is_response_pending = False
        self._responding_turn: ComparedTurn | None = None
        self._playing_item_ids: set[str] = set()
        self._playback_started_at: float | None = None
        self._is_playback_starting = False
        self._tool_result_tasks: set[asyncio.Task[None]] = set()
        self._recorded_turn = ComparedTurn()
        self._recorded_outputs = {run.name: deque[str]() for run in timeline.tools}
        for run in timeline.tools:
            self._recorded_outputs[run.name].append(run.output)
        self._loop = asyncio.get_running_loop()
        self.close_reason = ""
        self._last_error = ""

    async def receive(self) -> None:
        """Take what comes, until the connection ends."""
        try:
            async for received in self._socket:
                async with self._changed:
                    self._take(received)
                    self._changed.notify_all()
            self.close_reason = "the relay closed the connection"
        except ConnectionClosed as error:
            self.close_reason = how_it_closed(error, self._last_error)
        finally:
            self.connected.set()
            async with self._changed:
                self._changed.notify_all()

    async def report_playback(self) -> None:
        """Tell what was played, until cancelled."""
        while True:
            for item_id, played_ms in self._player.reports(self._now()):
                await self.send({"type": "playback", "itemId": item_id, "playedMs": played_ms})
            await asyncio.sleep(0.05)

    async def send(self, what: bytes | JsonObject) -> None:
        """Say something."""
        await self._socket.send(what if isinstance(what, bytes) else orjson.dumps(what).decode())

    def begin_turn(self, recorded: ComparedTurn) -> None:
        """The next turn of the user's begins, of which `recorded` is what came of it when it was recorded."""
        self.turns.append(ComparedTurn())
        self._recorded_turn = recorded
        self._is_response_pending = bool(recorded.assistant or recorded.calls)
        self._playback_started_at = None  # an answer that began before this turn says nothing about the next one

    async def wait_for_turn(self, step: WaitForTurn) -> None:
        """Wait, saying nothing but silence, until the turn may begin."""
        if not self.turns:
            return
        silence = encode(bytes(self.input.rate_hz * FRAME_MS // 1000 * 2), self.input)
        until = self._loop.time() + TURN_TIMEOUT_S
        settled_by: float | None = None
        while not self.close_reason and not self._is_far_enough(step):
            now = self._loop.time()
            if self.is_over:
                settled_by = now + SETTLE_S if settled_by is None else settled_by
                if now >= settled_by or self._is_complete:
                    return
            if now > until:
                self.notes.append(f"turn {len(self.turns)} was not over after {TURN_TIMEOUT_S:.0f} s")
                return
            await self.send(silence)
            await asyncio.sleep(FRAME_MS / 1000 / self._speed)

    def _is_far_enough(self, step: WaitForTurn) -> bool:
        if step.into_response_ms is None or self._playback_started_at is None:
            return False
        return (self._now() - self._playback_started_at) * 1000 >= step.into_response_ms

    @property
    def is_ready(self) -> bool:
        """Whether the relay is there and ready."""
        return self.connected.is_set() and not self.close_reason

    @property
    def is_over(self) -> bool:
        """Whether the answer to the last turn has come to its end, sound and all."""
        return not self._is_response_pending and not self._playing_item_ids and self._player.next_at() is None

    @property
    def _is_complete(self) -> bool:
        """Whether all has been told of this turn that was told of the recorded one."""
        turn, then = self._turn, self._recorded_turn
        return bool(turn.user or not then.user) and (turn.latency_ms is not None or then.latency_ms is None)

    def _now(self) -> float:
        return self._loop.time() * self._speed

    def _take(self, received: str | bytes) -> None:
        if isinstance(received, bytes):
            if self._is_playback_starting:
                self._is_playback_starting = False
                self._playback_started_at = self._now()
            self.output_audio += received[: MAX_SAVED_BYTES - len(self.output_audio)]
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
                self._responding_turn = self._turn
                self._is_response_pending = True
            case "AIResponseEnd":
                answered = self._responding_turn or self._turn
                if answered is self._turn:  # the end of what a barge-in cut short answers no later turn
                    self._is_response_pending = message.get("more") is True
                answered.assistant = f"{answered.assistant} {message.get('finalText', '')}".strip()
            case "audioStart":
                self._playing_item_ids.add(item_id)
                self._player.start(item_id)
                self._is_playback_starting = True
            case "audioEnd":
                self._playing_item_ids.discard(item_id)
                self._player.end(item_id)
            case "interrupted":
                self._playing_item_ids.clear()
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
                self._turn.calls.append(ComparedCall(str(message.get("name")), arguments))
            case "latency":
                self._turn.latency_ms = message.get(TOTAL_METRIC.wire_name)
            case "toolCall":
                self._answer_call(str(message.get("callId")), str(message.get("name")))
            case "error" | "goodbye":
                self._last_error = str(message.get("message") or message.get("reason"))[:300]
                self.notes.append(self._last_error)

    def _answer_call(self, call_id: str, name: str) -> None:
        """The client's own tools say again what they said then; the last output stands for all further ones."""
        outputs = self._recorded_outputs.get(name)
        result = (
            {"output": outputs.popleft() if len(outputs) > 1 else outputs[0]}
            if outputs
            else {"error": NOT_CALLED_ERROR}
        )
        answer = asyncio.create_task(self.send({"type": "toolResult", "callId": call_id, **result}))
        self._tool_result_tasks.add(answer)
        answer.add_done_callback(self._tool_result_tasks.discard)

    @property
    def _turn(self) -> ComparedTurn:
        if not self.turns:
            self.turns.append(ComparedTurn())
        return self.turns[-1]

    def expect_response(self, message: JsonObject) -> None:
        """A typed or committed turn wants an answer."""
        self._is_response_pending = True
        self._turn.user = message.get("text", self._turn.user)
