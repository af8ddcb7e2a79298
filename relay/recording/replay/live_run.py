"""One live run of a recorded conversation: what a relay answers to the recorded user."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from relay.client import (
    AudioEndEvent,
    AudioEvent,
    AudioStartEvent,
    ClientError,
    ConnectedEvent,
    ErrorEvent,
    FunctionTool,
    GoodbyeEvent,
    InterruptedEvent,
    LatencyEvent,
    RelayClient,
    RelayEvent,
    ResponseEndedEvent,
    ResponseStartedEvent,
    ToolError,
    ToolEvent,
    TranscriptEvent,
    VirtualPlayer,
)
from relay.json_types import JsonObject
from relay.recording.derive.timeline import Timeline
from relay.recording.replay.comparison import ComparedCall, ComparedTurn
from relay.session.common.model import ToolSpec

FRAME_MS = 20
MAX_SAVED_BYTES = 64 * 1024 * 1024
"""Kept of the live answers' audio, about 23 minutes at 24 kHz."""
TURN_TIMEOUT_S = 30.0
SETTLE_S = 2.0
"""How long what is told behind an answer may take, late transcripts and the latency, if the recorded turn had them."""
NOT_CALLED_ERROR = "this tool was not called when the conversation was recorded"


def recorded_tools(definitions: Iterable[ToolSpec], timeline: Timeline) -> list[FunctionTool]:
    """The client's own tools, which return what they returned then; further calls get the last output again."""
    outputs: dict[str, deque[str]] = {}
    for run in timeline.tools:
        outputs.setdefault(run.name, deque()).append(run.output)
    return [
        FunctionTool(spec.name, _recorded_tool(outputs.get(spec.name)), spec.description, dict(spec.parameters))
        for spec in definitions
    ]


def _recorded_tool(outputs: deque[str] | None) -> Callable[..., Awaitable[str]]:
    async def run(**_: object) -> str:
        if not outputs:
            raise ToolError(NOT_CALLED_ERROR)
        return outputs.popleft() if len(outputs) > 1 else outputs[0]

    return run


@dataclass(frozen=True, slots=True)
class WaitForTurn:
    """Before a turn: wait for the end of the answer, or until that much of it has been heard."""

    into_response_ms: float | None


class LiveRun:
    """The conversation as it goes now."""

    def __init__(self, client: RelayClient, player: VirtualPlayer, speed: float) -> None:
        self.turns: list[ComparedTurn] = []
        self.notes: list[str] = []
        self.output_audio = bytearray()
        self.connected = asyncio.Event()
        self._client = client
        self._speed = speed
        self._changed = asyncio.Condition()
        self._player = player
        self._is_response_pending = False
        self._responding_turn: ComparedTurn | None = None
        self._playing_item_ids: set[str] = set()
        self._playback_started_at: float | None = None
        self._is_playback_starting = False
        self._recorded_turn = ComparedTurn()
        self._loop = asyncio.get_running_loop()
        self.close_reason = ""

    async def receive(self) -> None:
        """Take what comes, until the connection ends."""
        try:
            async for event in self._client:
                async with self._changed:
                    self._take(event)
                    self._changed.notify_all()
        except ClientError as error:
            self.close_reason = str(error)
        finally:
            self.connected.set()
            async with self._changed:
                self._changed.notify_all()

    async def send(self, what: bytes | JsonObject) -> None:
        """Say something."""
        await (self._client.send_audio(what) if isinstance(what, bytes) else self._client.send(what))

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
        input_format = self._client.input_format
        silence = input_format.silence(input_format.frame_bytes(FRAME_MS))
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

    def _take(self, event: RelayEvent) -> None:
        match event:
            case ConnectedEvent():
                self.connected.set()
            case AudioEvent(data=data):
                if self._is_playback_starting:
                    self._is_playback_starting = False
                    self._playback_started_at = self._now()
                self.output_audio += data[: MAX_SAVED_BYTES - len(self.output_audio)]
            case ResponseStartedEvent():
                self._responding_turn = self._turn
                self._is_response_pending = True
            case ResponseEndedEvent(more=more, final_text=text):
                answered = self._responding_turn or self._turn
                if answered is self._turn:  # the end of what a barge-in cut short answers no later turn
                    self._is_response_pending = more
                answered.assistant = f"{answered.assistant} {text}".strip()
            case AudioStartEvent(item_id=item_id):
                self._playing_item_ids.add(item_id)
                self._is_playback_starting = True
            case AudioEndEvent(item_id=item_id):
                self._playing_item_ids.discard(item_id)
            case InterruptedEvent():
                self._playing_item_ids.clear()
            case TranscriptEvent(role="user", final=True, text=text):
                if text != self._turn.user:  # what was typed may come back as a transcript
                    self._turn.user = f"{self._turn.user} {text}".strip()
            case ToolEvent(status="started", name=name, arguments=arguments):
                self._turn.calls.append(ComparedCall(name, arguments))
            case LatencyEvent(total_ms=total_ms):
                self._turn.latency_ms = total_ms
            case ErrorEvent(message=reason) | GoodbyeEvent(reason=reason):
                self.notes.append(reason[:300])

    @property
    def _turn(self) -> ComparedTurn:
        if not self.turns:
            self.turns.append(ComparedTurn())
        return self.turns[-1]

    def expect_response(self, message: JsonObject) -> None:
        """A typed or committed turn wants an answer."""
        self._is_response_pending = True
        self._turn.user = message.get("text", self._turn.user)
