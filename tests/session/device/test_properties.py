"""Properties of every device session, with any client, and with a likely or a hostile upstream."""

import itertools
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCMU
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.openai.audio_events import decode_audio
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.limits import FAULT_WINDOW_S, SessionLimits
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import DeviceOptions, Item, SentAudio, SessionConfig, ToolSpec, TurnDetection, Usage
from relay.session.common.session_state import Phase
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.negotiation import MAX_UPDATES
from relay.session.device.session import DeviceSession
from tests.support.device_schema import check
from tests.support.media import InputAudio, MediaPath, OutputAudio

Op = tuple[str, int, int, int]
Key = tuple[str, int]

CLOCK = ToolSpec("clock", "Tells the time.", {"type": "object"}, visible_to_client=True)
DOOR = ToolSpec("door", "Opens the door.", {"type": "object"}, timeout_ms=2000)
"""A client's own tool; it is in no configuration until a hello adds it, and then runs on the client."""
TO_UPSTREAM = cmd.UpstreamCommand
TO_CLIENT = cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd


class ModelChecker:
    """One session, a clock, a playout that answers as the real one does, and the rules every command is held to."""

    def __init__(
        self,
        config: SessionConfig,
        options: DeviceOptions,
        *,
        one_response_at_a_time: bool,
        limits: SessionLimits | None = None,
    ) -> None:
        numbers = itertools.count(1)
        self.limits = limits or SessionLimits()
        self.session = DeviceSession("rs_1", config, options, lambda: f"relay_{next(numbers)}", limits=self.limits)
        self.media = MediaPath(self.session)
        self.now = 0.0
        self.commands: list[cmd.Command] = []
        self.listeners: list[Callable[[cmd.Command], None]] = []
        self.upstream_codec, self.device_codec = OpenAIUpstreamCodec(), DeviceCodec()
        self.one_response_at_a_time = one_response_at_a_time
        # the playout
        self.part_bytes: dict[Key, int] = {}
        self.sent_quarters = 4
        self.pending: deque[Any] = deque()
        # the events that the session was sent
        self.requested: str | None = None
        self.alive: dict[str, None] = {}
        self.silenced: set[str] = set()
        self.received_bytes: dict[Key, int] = {}
        # what it has done
        self.ran: set[str] = set()
        self.returned: set[str] = set()
        self.client_calls: set[str] = set()
        self.outputs: list[str] = []
        self.hellos_owed = 0
        self.muted = False
        self.heard_at = 0.0
        self.started_parts: set[Key] = set()
        self.open_parts: dict[Key, int] = {}
        self.responses_open = 0
        self.last_end: cmd.SendResponseEnd | None = None

    @property
    def ended(self) -> bool:
        return self.session.state.phase is Phase.ENDED

    def feed(self, event: Any) -> None:
        """One event, and whatever the playout reports of what follows from it."""
        self.pending.append(event)
        while self.pending:
            self._step(self.pending.popleft())

    def wait(self, seconds: float) -> None:
        """Let time pass; the session gets its ticks when it wants them."""
        until = self.now + seconds
        for _ in range(200):
            deadline = self.session.deadline
            assert deadline is None or type(deadline) is float
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.feed(ev.DeadlineReached())
            after = self.session.deadline
            assert after is None or after > self.now, "a tick at the deadline must get somewhere"
        else:
            raise AssertionError("the session wants ticks for ever")
        self.now = until
        longest_s = self.limits.max_duration_s
        assert longest_s is None or self.ended or self.now < longest_s, "a session that lasts too long"

    def _step(self, event: Any) -> None:
        was_over = self.ended
        commands = self.media.handle(event, self.now)
        if was_over:
            assert not commands
            assert self.session.deadline is None
            return
        self._track(event)
        self._answers(event, commands)
        for command in commands:
            self._check_encodable(command)
            self._check_command(event, command)
            for listener in self.listeners:
                listener(command)
        if self.ended:
            assert isinstance(commands[-1], cmd.CloseUpstream), "nothing is requested after the end"
        self.commands.extend(commands)
        if isinstance(event, ev.ToolCallFinished) and event.call_id in self.ran and not self.ended:
            assert self.outputs.count(event.call_id) == 1
        assert len(self.outputs) == len(set(self.outputs)), "a call has one output"

    def _answers(self, event: ev.Event, commands: Sequence[cmd.Command]) -> None:
        """What the client did wrong is answered once; what it did right is not answered as a fault."""
        errors = [command.code for command in commands if isinstance(command, cmd.SendError)]
        if self.ended and "too_many_faults" in errors:
            errors.remove("too_many_faults")
        if type(event) in ev.CLIENT_EVENTS:
            self.heard_at = self.now
        match event:
            case ev.ClientProtocolError(code):
                assert errors == [code]
            case ev.ClientRateLimited():
                assert errors == ["too_fast"]
            case ev.ToolResult(call_id):
                known = call_id in self.client_calls | self.ran | set(self.outputs)
                assert errors == ([] if known else ["unknown_call"])
                if call_id in self.client_calls:
                    assert [*self.outputs, *self._outputs(commands)].count(call_id) == 1
            case ev.Hello():
                refused = [code for code in errors if code in ("hello_too_late", "hello_refused")]
                assert len(refused) <= 1
                self.hellos_owed += not refused
        self.hellos_owed -= sum(isinstance(command, cmd.SendReady) for command in commands)
        assert self.hellos_owed >= 0, "a hello is answered once"
        if "idle" in errors:
            assert self.now - self.heard_at >= (self.limits.max_idle_s or 0.0) - 1e-6, "who speaks is not idle"

    def _outputs(self, commands: Sequence[cmd.Command]) -> list[str | None]:
        items = [command.item for command in commands if isinstance(command, cmd.CreateItem)]
        return [item.call_id for item in items if item.kind == "function_call_output"]

    def _check_input(self, command: InputAudio) -> None:
        """The microphone of a half-duplex device counts as silent while something plays, and only then."""
        silence = self.session.options.input.silence(command.n_bytes)
        assert (bytes(command.raw) == silence) == self.muted
        assert len(command.raw) == command.n_bytes

    def _check_encodable(self, command: cmd.Command) -> None:
        if isinstance(command, TO_UPSTREAM):
            self.upstream_codec.encode(command)
        elif isinstance(command, TO_CLIENT):
            check(json.loads(self.device_codec.encode(command)), "toClient")

    def _track(self, event: ev.Event) -> None:
        match event:
            case ev.ResponseCreated(response_id, request_id):
                if request_id in (None, self.requested):
                    self.requested = None
                if not self.one_response_at_a_time:
                    self.alive.clear()  # the last one created is the one that counts
                self.alive[response_id] = None
            case ev.ResponseDone():
                self.alive.pop(event.response_id, None)
                if event.request_id is not None and event.request_id == self.requested:
                    self.requested = None
            case ev.UpstreamErrorEvent(event_id=event_id) if event_id is not None and event_id == self.requested:
                self.requested = None
            case ev.FirstAudioSent():
                self.muted = self.session.options.half_duplex
            case ev.PlayoutFinished() | ev.PlayoutCleared():
                self.muted = False

    def _check_command(self, event: ev.Event, command: cmd.Command) -> None:
        match command:
            case cmd.SendError(code="upstream_stalled"):
                self.silenced |= self.alive.keys()
                self.alive.clear()
                self.requested = None
            case cmd.CreateResponse(event_id):
                assert self.requested is None, "two responses requested at once"
                assert not self.alive, "a response requested while one is active"
                self.requested = event_id
            case cmd.CancelResponse(response_id):
                self.silenced.add(response_id)
            case cmd.RunTool(call_id) | cmd.SendToolCall(call_id):
                assert call_id not in self.ran | self.client_calls, "no call runs twice"
                assert isinstance(event, ev.ResponseDone)
                assert event.status == "completed"
                assert call_id in [item.call_id for item in event.output]
                (self.ran if isinstance(command, cmd.RunTool) else self.client_calls).add(call_id)
            case cmd.CreateItem(item) if item.kind == "function_call_output":
                assert item.call_id is not None
                self.outputs.append(item.call_id)
            case cmd.SendTextDelta() | cmd.SendTranscript(role="assistant"):
                assert getattr(event, "response_id", "") not in self.silenced, "words after the silence"
            case cmd.SendResponseStart():
                self.responses_open += 1
            case cmd.SendResponseEnd():
                self.responses_open -= 1
                assert self.responses_open >= 0, "an end without a start"
                self.last_end = command
            case _:
                self._check_audio(event, command)

    def _check_audio(self, event: ev.Event, command: cmd.Command) -> None:
        match command:
            case InputAudio():
                self._check_input(command)
            case OutputAudio():
                key = (command.item_id, command.content_index)
                assert command.response_id not in self.silenced, "sound after the silence"
                assert key in self.open_parts or not self.one_response_at_a_time, "audio outside of its part"
                self.open_parts[key] = self.open_parts.get(key, 0) + command.n_bytes
                self.received_bytes[key] = self.received_bytes.get(key, 0) + command.n_bytes
                if key not in self.part_bytes:
                    self.pending.append(ev.FirstAudioSent(command.item_id))
                self.part_bytes[key] = self.part_bytes.get(key, 0) + command.n_bytes
            case cmd.SendAudioStart(item_id, content_index):
                assert getattr(event, "response_id", "") not in self.silenced, "sound after the silence"
                self.open_parts[item_id, content_index] = 0
            case cmd.SendAudioEnd(item_id, content_index, total_ms):
                assert total_ms == self.open_parts.pop((item_id, content_index)) // self.bytes_per_ms
            case cmd.ClearPlayout():
                self.silenced |= self.alive.keys()
                self.pending.append(ev.PlayoutCleared(self._sent_audio()))
            case cmd.TruncateItem(item_id, content_index, audio_end_ms):
                received_ms = self.received_bytes[item_id, content_index] // self.bytes_per_ms
                assert 0 < audio_end_ms <= received_ms, "the cut is within what was received"
            case cmd.SendInterrupted():
                assert command.played_ms >= 0

    @property
    def bytes_per_ms(self) -> int:
        return self.session.config.output_format.bytes_per_ms

    def _sent_audio(self) -> tuple[SentAudio, ...]:
        parts = []
        for (item_id, content_index), n_bytes in self.part_bytes.items():
            sent_ms = n_bytes // self.bytes_per_ms * self.sent_quarters // 4
            parts.append(SentAudio(item_id, content_index, sent_ms, sent_ms * self.sent_quarters // 4))
        self.part_bytes.clear()
        self.open_parts.clear()
        return tuple(parts)


# -- the ends of a session --------------------------------------------------------------------------------------------


class Client:
    """Does what clients can do, sense or no sense."""

    def __init__(self, world: ModelChecker) -> None:
        self.world = world

    def act(self, name: str, a: int, b: int) -> None:
        getattr(self, name)(a, b)

    def mic(self, a: int, b: int) -> None:
        raw = b"ab" * (32 * (a + 1))
        self.world.feed(InputAudio(raw))

    def long_mic(self, a: int, b: int) -> None:
        raw = b"ab" * 16_000
        self.world.feed(InputAudio(raw))

    def too_fast(self, a: int, b: int) -> None:
        self.world.feed(ev.ClientRateLimited("audio" if b % 2 else "messages"))

    def silence(self, a: int, b: int) -> None:
        """The playout reports that all has been played, and the room is quiet."""
        if not self.world.open_parts:
            self.world.feed(ev.PlayoutFinished())

    def tool_result(self, a: int, b: int) -> None:
        """The result of a call of the client's own: the right one, late, doubled, or (seldom) of a call never made."""
        call_ids = sorted(self.world.client_calls)
        if a == 7 and b == 7:
            self.world.feed(ev.ToolResult("call_never", "1"))
        elif call_ids:
            self.world.feed(ev.ToolResult(call_ids[-1 - a % len(call_ids)], "x" * (b * 5000), failed=b == 3))

    def playback(self, a: int, b: int) -> None:
        known = [item_id for item_id, _ in self.world.received_bytes] or ["item_?"] * (a == 7)
        if not known:
            return
        self.world.feed(ev.Playback(known[-1 - a % len(known)], b * 150))

    def text(self, a: int, b: int) -> None:
        self.world.feed(ev.UserText(f"text {a}"))

    def commit(self, a: int, b: int) -> None:
        self.world.feed(ev.Commit())

    def clear(self, a: int, b: int) -> None:
        self.world.feed(ev.Clear())

    def interrupt(self, a: int, b: int) -> None:
        self.world.sent_quarters = b % 5
        self.world.feed(ev.Interrupt())

    def hello(self, a: int, b: int) -> None:
        hellos = [
            ev.Hello(),
            ev.Hello(("voice",), voice=f"voice_{b}"),
            ev.Hello(("maxAheadMs", "output"), max_ahead_ms=None, output=PCM16_24K),
            ev.Hello(("turn",), turn=("server_vad", "semantic_vad", "manual")[b % 3]),
            ev.Hello(("tools",), tools=(DOOR,) * (b % 4 != 3)),
            ev.Hello(("tools", "duplex"), tools=(DOOR, CLOCK), half_duplex=bool(b % 2)),
            ev.Hello(("input",), input=(PCM16_16K, PCM16_24K, PCMU)[b % 3]),
        ]
        self.world.feed(hellos[a] if a < len(hellos) else ev.ClientProtocolError("bad_json", "That is not JSON."))

    def leave(self, a: int, b: int) -> None:
        ends: list[ev.Event] = [
            ev.Bye(),
            ev.ClientClosed(1006),
            ev.ClientBackpressure(10**6),
            ev.ServerDraining(),
            ev.KeyRevoked(),
            ev.InternalFailure("x"),
        ]
        if a == 7:  # seldom, or nothing else would be seen
            self.world.feed(ends[b % len(ends)])

    def wait(self, a: int, b: int) -> None:
        self.world.wait((0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 20.0, 31.0)[a])

    def tool(self, a: int, b: int) -> None:
        """A tool reports progress, its end, or (which the session must tolerate) its end again."""
        world = self.world
        if not world.ran:
            return
        call_id = sorted(world.ran)[-1 - a % len(world.ran)]
        if b == 0:
            world.feed(ev.ToolCallProgress(call_id, "still at it", 5))
            return
        status = ("done", "failed", "timeout", "cancelled")[b % 4]
        world.returned.add(call_id)
        world.feed(ev.ToolCallFinished(call_id, status, '"ok"', 5))  # type: ignore[arg-type]


class LikelyUpstream:
    """Behaves as the Realtime API does: one response at a time, answers to what it is asked, in likely order."""

    def __init__(self, world: ModelChecker, *, echoes: bool) -> None:
        self.world = world
        self.echoes = echoes
        self.introduced = False
        self.replies: deque[ev.Event] = deque()
        self.updates: deque[tuple[str, SessionConfig]] = deque()
        self.requests: deque[str] = deque()
        self.turn = TurnDetection()
        self.active: str | None = None
        self.active_request: str | None = None
        self.cancelled = False
        self.items: list[Item] = []
        self.unfinished: list[str] = []
        self.speaking = False
        self.owes_response = False
        self.numbers = itertools.count(1)
        self.configured_once = False
        world.listeners.append(self.receive)

    def receive(self, command: cmd.Command) -> None:
        match command:
            case cmd.ConfigureSession(config, event_id):
                self.updates.append((event_id, config))
            case cmd.CreateResponse(event_id):
                self.requests.append(event_id)
            case cmd.CancelResponse(response_id):
                if response_id == self.active:
                    self.cancelled = True
                else:
                    self.replies.append(ev.UpstreamErrorEvent("response_cancel_not_active", "no such response"))
            case cmd.CommitInput():
                self.replies.append(ev.InputCommitted(self.new("item")))
            case cmd.ClearInput():
                self.replies.append(ev.InputCleared())
            case cmd.CreateItem(item):
                self.replies.append(ev.ItemAdded(Item(self.new("item"), item.kind, item.role, text=item.text)))
            case cmd.DeleteItem(item_id):
                self.replies.append(ev.ItemDeleted(item_id))
            case cmd.TruncateItem(item_id, _, audio_end_ms):
                self.replies.append(ev.ItemTruncated(item_id, audio_end_ms))

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"

    def act(self, a: int, b: int, _: int = 0) -> None:
        """Do one of the things that could come next."""
        if not self.introduced:
            self.introduced = True
            self.world.feed(ev.UpstreamOpened())
            self.world.feed(ev.SessionCreated(model="m", engine="relay-local" if b % 2 else None))
            return
        if self.updates:
            self.update(refuse=self.configured_once and b == 7)
        elif self.replies:
            self.world.feed(self.replies.popleft())
        else:
            choices = [*self.for_requests(b), *self.for_response(b), *(self.for_user(b) if b < 3 else ())]
            if choices:
                choices[a % len(choices)]()

    def update(self, *, refuse: bool) -> None:
        event_id, config = self.updates.popleft()
        if refuse:
            self.world.feed(ev.UpstreamErrorEvent("invalid_value", "no such voice", event_id=event_id))
            return
        self.turn = config.turn
        self.configured_once = True
        self.world.feed(ev.SessionUpdated())

    def for_requests(self, b: int) -> list[Callable[[], None]]:
        return [lambda: self.answer_request(b)] if self.requests else []

    def answer_request(self, b: int) -> None:
        request_id = self.requests.popleft()
        if self.active is not None:
            code = "conversation_already_has_active_response"
            self.world.feed(ev.UpstreamErrorEvent(code, "one at a time", event_id=request_id))
        elif b == 7:
            self.world.feed(ev.UpstreamErrorEvent("rate_limit_exceeded", "slow down", event_id=request_id))
        else:
            self.begin(request_id)

    def begin(self, request_id: str | None) -> None:
        self.active, self.active_request = self.new("resp"), request_id if self.echoes else None
        self.items, self.unfinished, self.cancelled, self.owes_response = [], [], False, False
        self.world.feed(ev.ResponseCreated(self.active, self.active_request))

    def for_response(self, b: int) -> list[Callable[[], None]]:
        if self.active is None:
            return []
        if self.cancelled:
            return [lambda: self.end("cancelled", b)]
        choices: list[Callable[[], None]] = [lambda: self.add_item(b), lambda: self.end("completed", b)]
        if self.unfinished:
            choices += [lambda: self.audio(b)] * 3 + [lambda: self.text(b), lambda: self.audio_done(b)]
        if b > 5:
            choices.append(lambda: self.end(("incomplete", "failed")[b % 2], b))
        return choices

    def add_item(self, b: int) -> None:
        item = Item(self.new("item"), "message", "assistant")
        self.items.append(item)
        self.unfinished.append(item.id)
        self.world.feed(ev.OutputItemAdded(self.active or "", item))
        if b % 4:
            self.world.feed(ev.ItemAdded(item))

    def audio(self, b: int) -> None:
        n_bytes = (b + 1) * 101 * self.world.bytes_per_ms // 2  # odd numbers of half milliseconds
        item_id = self.unfinished[-1]
        self.world.feed(OutputAudio(self.active or "", item_id, 0, n_bytes))

    def text(self, b: int) -> None:
        self.world.feed(ev.TextDelta(self.active or "", self.unfinished[-1], 0, "some words ", spoken=True))

    def audio_done(self, b: int) -> None:
        item_id = self.unfinished.pop(b % len(self.unfinished))
        self.world.feed(ev.TextDone(self.active or "", item_id, 0, "some words", spoken=True))
        self.world.feed(ev.OutputAudioDone(self.active or "", item_id, 0))

    def end(self, status: str, b: int) -> None:
        response_id, self.active = self.active or "", None
        calls = []
        if status in ("completed", "cancelled") and b % 3 == 0:
            whole = "completed" if status == "completed" or b % 2 else "incomplete"
            calls = [self.call(whole) for _ in range(b % 3 + 1)]
        if b == 5 and self.world.ran:
            calls.append(Item("item_again", "function_call", call_id=min(self.world.ran), name="clock", arguments="{}"))
        usage = Usage(10, 5, 15) if b % 2 else Usage()
        event = ev.ResponseDone(
            response_id, status, output=(*self.items, *calls), usage=usage, request_id=self.active_request
        )  # type: ignore[arg-type]
        self.world.feed(event)

    def call(self, status: str) -> Item:
        call_id = self.new("call")
        name = "door" if len(call_id) % 2 or self.world.session.ledger.accepted_input_bytes % 3 else "clock"
        return Item(self.new("item"), "function_call", None, status, call_id, name, "{}")

    def for_user(self, b: int) -> list[Callable[[], None]]:
        if self.turn.kind == "manual":
            return []
        if self.owes_response and self.active is None:
            return [lambda: self.begin(None)]
        return [self.stop if self.speaking else self.start]

    def start(self) -> None:
        self.speaking = True
        if self.active is not None and self.turn.interrupt_response:
            self.cancelled = True
        self.world.feed(ev.SpeechStarted(self.new("item")))

    def stop(self) -> None:
        self.speaking = False
        item_id = self.new("item")
        self.world.feed(ev.SpeechStopped(item_id, 100))
        self.world.feed(ev.InputCommitted(item_id))
        self.world.feed(ev.UserTranscript(item_id, "well", final=True))
        self.owes_response = self.turn.create_response

    def finish(self) -> None:
        """Complete everything that is pending, and start nothing new."""
        for _ in range(300):
            if self.world.ended:
                return
            for call_id in sorted(self.world.ran - self.world.returned):
                self.world.returned.add(call_id)
                self.world.feed(ev.ToolCallFinished(call_id, "done", '"ok"', 5))
            if not self.introduced or self.updates or self.replies:
                self.act(0, 0)
            elif self.speaking:
                self.stop()
            elif self.active is not None:
                self.end("cancelled" if self.cancelled else "completed", 1)
            elif self.requests:
                self.answer_request(0)
            elif self.owes_response:
                self.begin(None)
            elif self.world.session.deadline is not None:
                self.world.wait(5.0)
            else:
                return
        raise AssertionError("the session finds no end of asking")


STATUSES = ("completed", "cancelled", "incomplete", "failed")


class HostileUpstream:
    """Says anything at any time, about ids that it may or may not have heard of."""

    def __init__(self, world: ModelChecker) -> None:
        self.world = world
        self.requests: list[str | None] = [None, "relay_x"]
        world.listeners.append(self.receive)

    def receive(self, command: cmd.Command) -> None:
        event_id = getattr(command, "event_id", None)
        if event_id is not None:
            self.requests.append(event_id)

    def act(self, a: int, b: int, what: int) -> None:
        self.world.feed(self.event(a, b, what))

    def event(self, a: int, b: int, what: int) -> ev.Event:
        response, item, part = f"resp_{a % 3}", f"item_{b % 3}", b % 2
        request_id = self.requests[-1 - a % min(4, len(self.requests))]
        status: Any = STATUSES[a % 4]
        calls = [
            Item(
                f"item_{n}",
                "function_call",
                None,
                (None, "completed", "incomplete")[(a + n) % 3],
                f"call_{n}",
                ("clock", "door")[(b + n) % 2],
                ("{}", None, "[", '{"wide":1}')[a % 4],
            )
            for n in range(b % 4)
        ]
        items = [Item(item, "message", "assistant"), Item("", "mystery"), *calls]
        code = (None, "conversation_already_has_active_response", "response_cancel_not_active", "odd")[b % 4]
        events: list[ev.Event] = [
            OutputAudio(response, item, part, (a + 1) * 999),
            OutputAudio(response, item, part, b),
            ev.TextDelta(response, item, part, "word", spoken=True),
            ev.TextDone(response, item, part, "words", spoken=False),
            ev.OutputAudioDone(response, item, part),
            ev.ResponseCreated(response, request_id),
            ev.ResponseDone(response, status, output=tuple(items), request_id=request_id),
            ev.ResponseDone(f"resp_{b}", "completed", output=tuple(items), usage=Usage(1, 2, 3)),
            ev.SpeechStarted(item, a * 10**6),
            ev.SpeechStopped(item, b * 10**9),
            ev.InputCommitted(item),
            ev.InputCleared(),
            ev.UserTranscript(item, "well", final=bool(a % 2)),
            ev.UserTranscriptFailed(item, "no"),
            ev.ItemAdded(Item(item, "message", ("user", "assistant", None)[a % 3], text="x" * (a % 2))),
            ev.ItemDeleted(item),
            ev.ItemTruncated(item, 10**9),
            ev.OutputItemAdded(response, items[0]),
            ev.UpstreamErrorEvent(code, "no", event_id=request_id),
            ev.SessionCreated(),
            ev.SessionUpdated(),
            ev.UpstreamOpened(),
            ev.IgnoredUpstreamEvent(f"type.{a}{b}"),
            ev.MalformedUpstreamMessage("not JSON"),
        ]
        return events[what % len(events)]


# -- the properties ---------------------------------------------------------------------------------------------------

CLIENT_OPS = [
    *["mic", "long_mic", "playback", "playback", "text", "commit", "clear", "interrupt", "hello", "leave"],
    *["wait", "wait", "tool", "tool", "tool", "tool_result", "tool_result", "too_fast", "silence", "silence"],
]
OPS = st.lists(
    st.tuples(st.sampled_from(["up"] * 16 + CLIENT_OPS), st.integers(0, 7), st.integers(0, 7), st.integers(0, 23)),
    min_size=40,
    max_size=80,
)
TURNS = st.sampled_from(
    [
        TurnDetection(),
        TurnDetection(interrupt_response=False),
        TurnDetection(create_response=False),
        TurnDetection("semantic_vad"),
        TurnDetection("manual"),
    ]
)
OPTIONS = st.builds(
    DeviceOptions,
    st.just(PCM16_16K),
    st.sampled_from([PCM16_16K, PCM16_24K, PCMU]),
    half_duplex=st.booleans(),
)
LIMITS = st.sampled_from([SessionLimits(), SessionLimits(), SessionLimits(90.0, None), SessionLimits(None, 12.0)])
HELLOS = st.lists(
    st.tuples(st.just("hello"), st.integers(0, 7), st.integers(0, 7), st.just(0)), max_size=MAX_UPDATES + 2
)
"""A client that says hello again and again; later ones are seldom early enough to count."""


def world_of(turn: TurnDetection, options: DeviceOptions, limits: SessionLimits, *, likely: bool) -> ModelChecker:
    config = SessionConfig(turn=turn, tools=(CLOCK,))
    return ModelChecker(config, options, one_response_at_a_time=likely, limits=limits)


def play(ops: Sequence[Op], client: Client, upstream: LikelyUpstream | HostileUpstream) -> None:
    for name, a, b, what in ops:
        if name == "up":
            client.world.sent_quarters = (a + b) % 5
            upstream.act(a, b, what)
        else:
            client.act(name, a, b)


@given(hellos=HELLOS, ops=OPS, turn=TURNS, options=OPTIONS, limits=LIMITS, echoes=st.booleans())
@settings(max_examples=100, deadline=None)
def test_with_a_likely_upstream_every_rule_holds_and_nothing_is_left_open(
    hellos: list[Op], ops: list[Op], turn: TurnDetection, options: DeviceOptions, limits: SessionLimits, echoes: bool
) -> None:
    world = world_of(turn, options, limits, likely=True)
    upstream = LikelyUpstream(world, echoes=echoes)
    play([*hellos, *ops], Client(world), upstream)
    upstream.finish()
    if world.ended:
        return
    turns = world.session.turns
    assert turns.responses.slot.is_free
    assert not turns.user.typed_turns, "a typed turn that nobody answers"
    assert turns.tools.calls.n_running == 0
    assert not turns.tools.calls.is_follow_up_due
    assert world.ran | world.client_calls <= set(world.outputs), "every call that ran has its output"
    assert world.hellos_owed == 0, "every hello has its answer"
    assert world.responses_open == 0, "a response that began is told to have ended"
    assert not world.open_parts, "an item whose audio was neither ended nor dropped"
    assert world.last_end is None or not world.last_end.more, "a client that was told to wait for more"


@given(hellos=HELLOS, ops=OPS, turn=TURNS, options=OPTIONS, limits=LIMITS)
@settings(max_examples=100, deadline=None)
def test_with_a_hostile_upstream_every_rule_holds(
    hellos: list[Op], ops: list[Op], turn: TurnDetection, options: DeviceOptions, limits: SessionLimits
) -> None:
    world = world_of(turn, options, limits, likely=False)
    play([("up", 0, 0, 19), *hellos, ("up", 0, 0, 20), *ops], Client(world), HostileUpstream(world))


def containers(value: object, path: str = "session", seen: set[int] | None = None) -> Iterator[tuple[str, int]]:
    """Every container within a session at any depth, with its length; one with several names comes once."""
    seen = set() if seen is None else seen
    if isinstance(value, str | bytes | memoryview):
        yield path, len(value) // 64  # as long as one of the longest texts may be, as an entry
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        yield path, len(value)
        for member in value.values():
            yield from containers(member, f"{path}{{}}", seen)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield path, len(value)
        for member in value:
            yield from containers(member, f"{path}[]", seen)
    elif type(value).__module__.startswith(("relay.session", "relay.session")):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in {*slots, *getattr(value, "__dict__", ())}:
            yield from containers(getattr(value, name), f"{path}.{name}", seen)


def kept(session: DeviceSession) -> int:
    """How many entries a session keeps in all, each container within a bound."""
    total = 0
    for path, length in containers(session):
        assert length <= 4096, f"{path} holds {length}"
        total += length
    return total


def weight(value: object, seen: set[int]) -> int:
    """How many bytes a session and all that it alone holds take."""
    if id(value) in seen or isinstance(value, type | Callable):  # type: ignore[arg-type]
        return 0
    seen.add(id(value))
    total = sys.getsizeof(value)
    if isinstance(value, Mapping):
        total += sum(weight(key, seen) + weight(member, seen) for key, member in value.items())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        total += sum(weight(member, seen) for member in value)
    if type(value).__module__.startswith(("relay.session", "relay.session")) and not isinstance(value, Enum):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        total += sum(weight(getattr(value, name), seen) for name in {*slots, *getattr(value, "__dict__", ())})
    return total


HELD_BYTES = 12 * 1024 * 1024
"""What the rules of one session hold at most, whatever both ends do: ids of 256 characters that take four bytes each,
texts that do, and nothing ever taken back. An ordinary session of two hours holds some 100 KB."""


@pytest.mark.parametrize("ready", [True, False])
def test_a_flood_of_the_longest_ids_and_texts_is_held_within_its_bound(ready: bool) -> None:
    numbers = itertools.count(1)
    session = DeviceSession("rs_1", SessionConfig(), DeviceOptions(), lambda: f"relay_{next(numbers)}")
    codec, media = OpenAIUpstreamCodec(), MediaPath(session)
    media.handle(ev.SessionCreated(), 0.0)
    if ready:
        media.handle(ev.SessionUpdated(), 0.0)
    long, now = "\U0001f600", 1.0

    def upstream(kind: str, **fields: Any) -> None:
        decoded = codec.decode(json.dumps({"type": kind, **fields}).encode())
        if isinstance(decoded, AudioDelta):
            decoded = OutputAudio(*decoded[:3], len(decode_audio(decoded.audio)))
        media.handle(decoded, now)

    for n in range(5000):
        item_id, response_id, call_id = (f"{name}{n:06}".ljust(256, long) for name in ("item", "resp", "call"))
        ids = {"response_id": response_id, "item_id": item_id, "content_index": 0}
        words = long * (70_000 if n % 100 == 0 else 100)
        upstream("response.created", response={"id": response_id, "metadata": {"relay_request": item_id}})
        upstream("response.output_audio.delta", **ids, delta="AAAA")
        upstream("response.output_audio_transcript.delta", **ids, delta=words)
        upstream("response.output_audio_transcript.done", **ids, transcript=words)
        upstream("conversation.item.added", item={"id": item_id, "type": "message", "role": item_id, "content": []})
        upstream("input_audio_buffer.speech_started", item_id=item_id)
        call = {"id": item_id, "type": "function_call", "call_id": call_id, "name": item_id, "arguments": words}
        upstream("response.done", response={"id": item_id, "status": "completed", "output": [call]})
        upstream(f"{n}{words}")
        upstream("response.created", response={"id": item_id * 4000 if n % 1000 == 0 else f"{n}"})
        session.handle(ev.UserText(long * 32_768), now)
        session.handle(ev.Hello(("voice", "instructions"), voice=words[:128], instructions=long * 32_768), now)
        if session.state.phase is Phase.ENDED:
            break
        now += FAULT_WINDOW_S  # a client that keeps just within its faults
    held = weight(session, set())
    assert session.state.phase is not Phase.ENDED
    assert held <= HELD_BYTES, f"{held / 1024:.0f} KiB"


@pytest.mark.parametrize("ready", [True, False])
def test_a_flood_of_ever_new_ids_leaves_no_more_than_the_bounds(ready: bool) -> None:
    numbers = itertools.count(1)
    config = SessionConfig(turn=TurnDetection("manual"))
    session = DeviceSession("rs_1", config, DeviceOptions(), lambda: f"relay_{next(numbers)}")
    media = MediaPath(session)
    media.handle(ev.SessionCreated(), 0.0)
    if ready:
        media.handle(ev.SessionUpdated(), 0.0)
    totals = []
    for n in range(3000):
        response, item = f"resp_{n:06}", f"item_{n:06}"
        for event in (
            ev.Hello(("voice",), voice=f"voice_{n}"),
            ev.UserText("hi"),
            InputAudio(bytes(6400)) if n > 100 else ev.IgnoredUpstreamEvent(f"t{n}"),
            ev.Commit(),
            ev.ResponseCreated(response),
            OutputAudio(response, item, 0, 4800) if n > 100 else ev.MalformedUpstreamMessage(f"t{n}"),
            ev.TextDelta(response, item, 0, "x" * 100, spoken=True),
            ev.Interrupt() if n % 100 == 0 else ev.FirstAudioSent(item),
            ev.UserTranscript(f"user_{n:06}", "x", final=True),
            ev.UpstreamErrorEvent(f"code_{n}", "no"),
            ev.ResponseDone(f"gone_{n:06}", "cancelled", output=(Item("i", "function_call", call_id=f"call_{n:06}"),)),
        ):
            media.handle(event, n * 100.0)
        if n % 750 == 749:
            totals.append(kept(session))
    assert session.state.phase is not Phase.ENDED
    assert totals[3] <= totals[2] + 1024, "only the ids of calls, which must not run twice, are still gathered"
