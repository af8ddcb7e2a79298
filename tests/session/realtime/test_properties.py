"""Invariants of every Realtime session, whatever its client, user, tools and upstream do."""

import itertools
import json
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.session.common.limits import RELAY_EVENT_ID_PREFIX
from relay.session.common.policy import RealtimePolicy
from relay.session.device import events as ev
from tests.support.realtime_session_harness import (
    CLOCK,
    DICE,
    RealtimeSessionHarness,
    call_events,
    call_item,
    output_added,
    response_created,
    response_done,
)

Obj = dict[str, Any]
BUSY = "conversation_already_has_active_response"
UNTOUCHED = [
    {"type": "response.output_audio.delta", "response_id": "r", "item_id": "m", "delta": "AAAA"},
    {"type": "rate_limits.updated", "rate_limits": []},
    {"type": "not.known.yet", "payload": [1, {"x": None}]},
]
OUTPUTS = {
    "nothing": (),
    "server": ("clock",),
    "two": ("clock", "dice"),
    "client": ("lamp",),
    "mixed": ("clock", "lamp"),
    # What no model should do: a call_id that was given before, in this response or in another one.
    "twice": ("clock", "dice by the same id"),
    "twice the client's": ("lamp", "lamp by the same id"),
    "both by one id": ("clock", "lamp by the same id"),
    "both by one id, the client's first": ("lamp", "clock by the same id"),
    "again": ("clock by a server's id", "dice"),
    "again the client's": ("lamp by a client's id", "lamp"),
    "the server's for the client": ("lamp by a server's id",),
    "the client's for the server": ("clock by a client's id", "clock"),
}


class Model:
    """A model upstream that obeys the protocol: one response at a time, requests answered in order, at any time."""

    def __init__(self, harness: RealtimeSessionHarness) -> None:
        self.harness = harness
        self.inbox: deque[Obj] = deque()
        self.active: str | None = None
        self.created: list[Obj] = []
        self.numbers = itertools.count(1)
        self.items: list[str] = []
        self.outputs: Counter[str] = Counter()
        self.calls: list[str] = []
        self.client_calls: list[str] = []
        self.hidden: set[str] = set()
        self.speaking = False
        self.mixed: set[str] = set()
        self.sent_outputs: set[str] = set()

    def collect(self) -> None:
        """Take what the relay has sent since."""
        for event in self.harness.take_upstream_events():
            if event["type"] == "response.create" and (event.get("response") or {}).get("conversation") != "none":
                queue = self.harness.session.turns.queue
                assert queue.slot.request_id == event["event_id"], "requested past the slot"
                # The relay's own request is the follow-up of a later turn, which does not wait for this one's calls.
                is_clients = not event["event_id"].startswith(RELAY_EVENT_ID_PREFIX)
                assert not is_clients or self.mixed <= self.sent_outputs, "a mixed response's outputs come first"
            elif event["type"] == "conversation.item.create" and event["item"]["type"] == "function_call_output":
                self.sent_outputs.add(event["item"]["call_id"])
            self.inbox.append(event)

    def emit(self, *events: Obj) -> None:
        self.harness.upstream(*events)
        self.collect()

    def read_one(self) -> None:
        if not self.inbox:
            return
        event = self.inbox.popleft()
        match event["type"]:
            case "response.create":
                self._create(event)
            case "response.cancel":
                response_id = event.get("response_id") or self.active
                if self.active is not None and response_id == self.active:
                    self.finish("nothing", "cancelled")
                else:
                    self._refuse(event, "response_cancel_not_active")
            case "conversation.item.create":
                item = event["item"]
                if item["type"] == "function_call_output":
                    self.outputs[item["call_id"]] += 1
                    previous = self.items[-1] if self.items else None
                    item_id = f"item_{next(self.numbers)}"
                    self.items.append(item_id)
                    if item["call_id"] in self.calls:
                        self.hidden.add(item_id)
                    self.emit(*output_added(item["call_id"], item_id, previous))

    def _refuse(self, event: Obj, code: str) -> None:
        self.emit({"type": "error", "error": {"code": code, "message": "m", "event_id": event.get("event_id")}})

    def _create(self, event: Obj) -> None:
        response = event.get("response") or {}
        if response.get("conversation") == "none":
            number = f"oob_{next(self.numbers)}"
            about = {"metadata": response.get("metadata"), "conversation_id": None}
            self.emit(response_created(number, **about), response_done(number, **about))
        elif self.active is not None:
            self._refuse(event, BUSY)
        else:
            self.begin(response.get("metadata"))

    def begin(self, metadata: Any = None) -> None:
        self.active = f"resp_{next(self.numbers)}"
        self.emit(response_created(self.active, metadata=metadata, conversation_id="conv"))

    def finish(self, kind: str, status: str = "completed") -> None:
        if self.active is None:
            return
        response_id, self.active = self.active, None
        output = []
        for index, description in enumerate(OUTPUTS[kind]):
            name, _, source = description.partition(" by ")
            call_id = self._call_id(source, output)
            call = call_item(call_id, name) | {"id": f"item_{next(self.numbers)}"}
            if call_id not in self.calls + self.client_calls:
                (self.client_calls if name == "lamp" else self.calls).append(call_id)
            if name != "lamp" or call_id in self.calls:
                self.hidden.add(call["id"])
            previous = self.items[-1] if self.items else None
            self.items.append(call["id"])
            self.emit(*call_events(response_id, call, index, previous))
            output.append(call)
        if kind == "mixed":
            self.mixed.add(self.calls[-1])
        self.emit(response_done(response_id, *output, status=status, conversation_id="conv"))

    def _call_id(self, source: str, output: list[Obj]) -> str:
        if source == "the same id":
            return str(output[-1]["call_id"])
        known = {"a server's id": self.calls, "a client's id": self.client_calls}.get(source)
        return known[-1] if known else f"call_{next(self.numbers)}"

    def speech(self) -> None:
        if not self.speaking:
            self.speaking = True
            self.emit({"type": "input_audio_buffer.speech_started", "item_id": "u", "audio_start_ms": 0})
            if self.active is not None:
                self.finish("nothing", "cancelled")

    def silence(self, *, answers: bool) -> None:
        if self.speaking:
            self.speaking = False
            self.emit({"type": "input_audio_buffer.speech_stopped", "item_id": "u", "audio_end_ms": 9})
            if answers and self.active is None:
                self.begin()


class ModelChecker:
    """A session, a model upstream, a client that answers its calls, and tools that return when the test says so."""

    def __init__(self) -> None:
        self.harness = RealtimeSessionHarness(CLOCK, DICE).ready()
        self.model = Model(self.harness)
        self.requests: dict[str, Obj] = {}
        self.returned: set[str] = set()
        self.client_events: list[Obj] = []
        self.items: set[str] = set()
        self.visible_calls: set[str] = set()
        self.to_answer: list[str] = []

    def do(self, op: str, n: int) -> None:
        model, harness = self.model, self.harness
        match op:
            case "create":
                event_id = f"client_{len(self.requests)}"
                wish: Obj = {"metadata": {"ask": event_id}}
                if n % 4 == 0:
                    wish["conversation"] = "none"
                self.requests[event_id] = wish
                harness.client(type="response.create", event_id=event_id, response=wish)
            case "cancel":
                harness.client(type="response.cancel", event_id=f"cancel_{n}")
            case "say":
                harness.client(type="conversation.item.create", item={"type": "message", "role": "user", "content": []})
            case "answer" if self.to_answer:
                self.answer()
            case "tool" if harness.tool_runs:
                run = harness.tool_runs[n % len(harness.tool_runs)]
                self.returned.add(run.call_id)
                harness.tool_returns(run.call_id)
            case "read":
                model.read_one()
            case "finish":
                model.finish(list(OUTPUTS)[n % len(OUTPUTS)], "completed" if n % 3 else "cancelled")
            case "speech":
                model.speech()
            case "silence":
                model.silence(answers=n % 3 != 0)
            case "untouched":
                event = UNTOUCHED[n % len(UNTOUCHED)]
                before = len(harness.raw)
                harness.upstream(event)
                assert harness.raw[before:] == [json.dumps(event).encode()]
            case "wait":
                self.wait(0.5 * (n + 1))
        model.collect()
        self._look()

    def wait(self, seconds: float) -> None:
        harness = self.harness
        until = harness.now + seconds
        for _ in range(50):
            deadline = harness.session.deadline
            if deadline is None or deadline > until:
                break
            harness.now = max(harness.now, deadline)
            harness.feed(ev.DeadlineReached())
            self.model.collect()
        harness.now = until

    def answer(self) -> None:
        output = {"type": "function_call_output", "call_id": self.to_answer.pop(0), "output": "x"}
        self.harness.client(type="conversation.item.create", item=output)

    def _take(self, event: Obj) -> None:
        """The client keeps its list of items, and answers each call that it is shown."""
        if event["type"] == "conversation.item.added":
            previous = event["previous_item_id"]
            assert previous is None or previous in self.items, "the item before it was never visible"
            self.items.add(event["item"]["id"])
        for item in event["response"]["output"] if event["type"] == "response.done" else ():
            assert item["name"] == "lamp"
            if item["call_id"] not in self.visible_calls:
                self.visible_calls.add(item["call_id"])
                self.to_answer.append(item["call_id"])

    def _look(self) -> None:
        events = self.harness.take_client_events()
        self.client_events += events
        for event in events:
            self._take(event)
        text = json.dumps(events)
        assert "clock" not in text
        assert "dice" not in text
        assert "relay_" not in text.replace('"event_id": "relay_', ""), "relay ids appear only as event ids"
        for hidden in (*self.model.calls, *self.model.hidden):
            assert f'"{hidden}"' not in text
        assert all(count == 1 for count in self.model.outputs.values()), "one output for each call"

    def settle(self) -> None:
        """Everybody does what is still theirs to do, until nobody has anything left."""
        for _ in range(400):
            before = (len(self.client_events), len(self.model.inbox), len(self.returned), self.model.active)
            self.model.silence(answers=False)
            while self.to_answer:
                self.answer()
            for run in list(self.harness.tool_runs):
                if run.call_id not in self.returned:
                    self.returned.add(run.call_id)
                    self.harness.tool_returns(run.call_id)
            while self.model.inbox or self.harness.upstream_events:
                self.model.collect()
                self.model.read_one()
            self.model.finish("nothing")
            self.wait(40.0)
            self.model.collect()
            self._look()
            if before == (len(self.client_events), len(self.model.inbox), len(self.returned), self.model.active):
                return
        raise AssertionError("the session never comes to rest")


OPS = ["create", "cancel", "say", "answer", "tool", "read", "finish", "speech", "silence", "untouched", "wait"]
_steps = st.lists(
    st.tuples(st.sampled_from([*OPS, "read", "finish", "tool", "create"]), st.integers(0, 38)), min_size=12, max_size=60
)


@settings(max_examples=500, deadline=None)
@given(_steps)
def test_any_interleaving(steps: list[tuple[str, int]]) -> None:
    checker = ModelChecker()
    for op, n in steps:
        checker.do(op, n)
    checker.settle()
    outputs = checker.model.outputs
    assert set(checker.model.client_calls) == checker.visible_calls, "the client sees its own calls, and all of them"
    assert outputs == Counter(dict.fromkeys(checker.model.calls + checker.model.client_calls, 1))
    ran = Counter(run.call_id for run in checker.harness.tool_runs)
    assert all(count == 1 for count in ran.values())
    assert set(ran) <= set(checker.model.calls)
    begun = Counter(
        event["response"]["metadata"]["ask"]
        for event in checker.client_events
        if event["type"] == "response.created" and event["response"].get("metadata")
    )
    refused = Counter(event["error"]["event_id"] for event in checker.client_events if event["type"] == "error")
    for event_id in checker.requests:
        assert begun[event_id] + refused[event_id] == 1, (
            f"{event_id} was answered {begun[event_id]}, {refused[event_id]}"
        )
    active = 0
    for event in checker.client_events:
        if event.get("response", {}).get("conversation_id") == "conv":
            active += 1 if event["type"] == "response.created" else -1
            assert active in (0, 1)
    assert active == 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_kinds = st.sampled_from(
    ["session.created", "session.updated", "session.update", "conversation.item.added", "conversation.item.create",
     "conversation.item.delete", "conversation.item.deleted", "response.create", "response.created", "response.done",
     "response.cancel", "response.output_item.added", "input_audio_buffer.committed", "error", "brand.new"]
)  # fmt: skip
_names = st.sampled_from(
    ["session", "item", "response", "error", "event_id", "item_id", "previous_item_id", "response_id", "output_index"]
)
_inside = st.dictionaries(
    st.sampled_from(["type", "id", "tools", "instructions", "audio", "input", "output", "content", "role", "metadata",
                     "conversation", "name", "call_id", "status", "event_id", "code", "tool_choice", "model",
                     "turn_detection"]),
    _json, max_size=5,
)  # fmt: skip
_event = st.builds(
    lambda kind, rest: rest | {"type": kind}, _kinds, st.dictionaries(_names, _json | _inside, max_size=4)
)


@pytest.mark.parametrize(
    "policy", [RealtimePolicy(), RealtimePolicy(instructions="x", allow=frozenset(), max_output_tokens=5)]
)
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), _event), max_size=20))
def test_no_shape_of_any_event_breaks_a_session(policy: RealtimePolicy, events: list[tuple[bool, Obj]]) -> None:
    harness = RealtimeSessionHarness(CLOCK, policy=policy).ready()
    for from_client, event in events:
        if from_client:
            harness.client(event)
        else:
            harness.upstream(event)
    for event in harness.client_events + harness.upstream_events:
        json.dumps(event)
