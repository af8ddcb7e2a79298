"""One live run of a recorded conversation."""

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
from relay.recording.live_replay.comparison import ComparedCall, ComparedTurn
from relay.session.common.model import ToolSpec

FRAME_MS = 20
MAX_SAVED_BYTES = 64 * 1024 * 1024
"""The limit of the saved audio, about 23 minutes at 24 kHz."""
TURN_TIMEOUT_S = 30.0
SETTLE_S = 2.0
"""How long to wait after a response for a late transcript and the latency, if the recorded turn had them."""
NOT_CALLED_ERROR = "this tool was not called when the conversation was recorded"


def recorded_tools(definitions: Iterable[ToolSpec], timeline: Timeline) -> list[FunctionTool]:
    """Create the client's tools. They return the recorded outputs in order; further calls return the last one again."""
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
    """A wait before a turn: until the response has ended, or until part of it has been played."""

    into_response_ms: float | None


class LiveRun:
    """The state of the live conversation."""

    def __init__(self, client: RelayClient, player: VirtualPlayer, speed_factor: float) -> None:
        self.turns: list[ComparedTurn] = []
        self.notes: list[str] = []
        self.output_audio = bytearray()
        self.connected = asyncio.Event()
        self._client = client
        self._speed = speed_factor
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
        """Handle events until the connection ends."""
        try:
            async for event in self._client:
                async with self._changed:
                    self._on_event(event)
                    self._changed.notify_all()
        except ClientError as error:
            self.close_reason = str(error)
        finally:
            self.connected.set()
            async with self._changed:
                self._changed.notify_all()

    async def send(self, message: bytes | JsonObject) -> None:
        """Send audio or a message."""
        await (self._client.send_audio(message) if isinstance(message, bytes) else self._client.send(message))

    def begin_turn(self, recorded: ComparedTurn) -> None:
        """Start the next turn of the user; `recorded` is the same turn in the recording."""
        self.turns.append(ComparedTurn())
        self._recorded_turn = recorded
        self._is_response_pending = bool(recorded.assistant or recorded.calls)
        self._playback_started_at = None  # playback that began before this turn does not count for the next one

    async def wait_for_turn(self, step: WaitForTurn) -> None:
        """Send silence until the next turn may start."""
        if not self.turns:
            return
        input_format = self._client.input_format
        silence = input_format.silence(input_format.frame_bytes(FRAME_MS))
        deadline = self._loop.time() + TURN_TIMEOUT_S
        settle_deadline: float | None = None
        while not self.close_reason and not self._is_far_enough(step):
            now = self._loop.time()
            if self.is_response_over:
                settle_deadline = now + SETTLE_S if settle_deadline is None else settle_deadline
                if now >= settle_deadline or self._is_complete:
                    return
            if now > deadline:
                self.notes.append(f"turn {len(self.turns)} did not end within {TURN_TIMEOUT_S:.0f} s")
                return
            await self.send(silence)
            await asyncio.sleep(FRAME_MS / 1000 / self._speed)

    def _is_far_enough(self, step: WaitForTurn) -> bool:
        if step.into_response_ms is None or self._playback_started_at is None:
            return False
        return (self._now() - self._playback_started_at) * 1000 >= step.into_response_ms

    @property
    def is_ready(self) -> bool:
        """Whether the relay is connected and ready."""
        return self.connected.is_set() and not self.close_reason

    @property
    def is_response_over(self) -> bool:
        """Whether the response to the last turn has ended and was played."""
        return not self._is_response_pending and not self._playing_item_ids and self._player.next_report_at() is None

    @property
    def _is_complete(self) -> bool:
        """Whether this turn has a transcript and a latency if the recorded one had them."""
        turn, recorded = self._turn, self._recorded_turn
        return bool(turn.user or not recorded.user) and (turn.latency_ms is not None or recorded.latency_ms is None)

    def _now(self) -> float:
        return self._loop.time() * self._speed

    def _on_event(self, event: RelayEvent) -> None:
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
                responding_turn = self._responding_turn or self._turn
                if responding_turn is self._turn:  # the end of an interrupted response belongs to an earlier turn
                    self._is_response_pending = more
                responding_turn.assistant = f"{responding_turn.assistant} {text}".strip()
            case AudioStartEvent(item_id=item_id):
                self._playing_item_ids.add(item_id)
                self._is_playback_starting = True
            case AudioEndEvent(item_id=item_id):
                self._playing_item_ids.discard(item_id)
            case InterruptedEvent():
                self._playing_item_ids.clear()
            case TranscriptEvent(role="user", final=True, text=text):
                if text != self._turn.user:  # typed text may be repeated as a transcript
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
        """Expect a response to a typed or committed turn."""
        self._is_response_pending = True
        self._turn.user = message.get("text", self._turn.user)
