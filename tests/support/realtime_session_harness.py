"""A harness for a Realtime session: events from client and upstream in, the events to both out."""

import base64
import itertools
import json
from typing import Any

from relay.session.common.model import ToolSpec
from relay.session.common.policy import RESTRICTED_ALLOW, Policy, Principal, RealtimePolicy
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import (
    ForwardToClient,
    RealtimeClientEvent,
    RealtimeCommand,
    RealtimeServerEvent,
    SendToClient,
    SendToUpstream,
)
from relay.session.realtime.session import RealtimeSession

Obj = dict[str, Any]

CLOCK = ToolSpec("clock", "Tells the time.", {"type": "object", "properties": {}}, examples=("what time is it",))
DICE = ToolSpec("dice", "Rolls dice.", {"type": "object", "properties": {}}, protected=True)
LAMP = {"type": "function", "name": "lamp", "description": "Switches.", "parameters": {"type": "object"}}

GUARDED = RealtimePolicy(instructions="Be the museum.", allow=RESTRICTED_ALLOW)
SPEECH = {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0}
SPEECH_ENDS = {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 900}
CREATE = {"type": "response.create", "event_id": "c1"}


class RealtimeSessionHarness:
    """Feeds events of `client(...)` and `upstream(...)`; collects the events sent to both."""

    def __init__(self, *tools: ToolSpec, policy: RealtimePolicy | None = None, **options: Any) -> None:
        numbers = itertools.count(1)
        principal = Principal(policy=Policy(realtime=policy or RealtimePolicy()))
        self.session = RealtimeSession("rs_1", principal, tools, lambda: str(next(numbers)), **options)
        self.now = 0.0
        self.client_events: list[Obj] = []
        self.upstream_events: list[Obj] = []
        self.raw: list[bytes] = []
        self.tool_runs: list[cmd.RunTool] = []
        self.end_commands: list[RealtimeCommand] = []
        self.gates: list[cmd.InputCommand] = []

    def ready(self, **session: Any) -> "RealtimeSessionHarness":
        """Send `session.created`, and accept the configuration if there is one."""
        self.upstream(type="session.created", session={"type": "realtime", "model": "m"} | session)
        if self.upstream_events and self.upstream_events[-1]["type"] == "session.update":
            self.upstream(type="session.updated", session=session | self.upstream_events[-1]["session"])
        self.clear()
        return self

    def client(self, *events: Obj, **event: Any) -> "RealtimeSessionHarness":
        for client_event in (*events, *((event,) if event else ())):
            self.feed(RealtimeClientEvent(json.loads(json.dumps(client_event))))
        return self

    def upstream(self, *events: Obj, **event: Any) -> "RealtimeSessionHarness":
        for server_event in (*events, *((event,) if event else ())):
            if server_event["type"] == "response.output_audio.delta":
                self._audio(server_event)
            else:
                self.feed(RealtimeServerEvent(json.dumps(server_event).encode(), server_event))
        return self

    def _audio(self, delta: Obj) -> None:
        """Handle an audio delta as the downlink does."""
        session, view = self.session, self.session.delta_forwarding
        n_bytes = len(base64.b64decode(delta["delta"]))
        session.ledger.add_unpaced_output(n_bytes, self.now, view.output_bytes_per_ms)
        rewritten = view.rewrite(delta)
        self.client_events.append(dict(rewritten))
        if rewritten is delta:
            self.raw.append(json.dumps(delta).encode())

    def append_audio(self, n_bytes: int = 960) -> "RealtimeSessionHarness":
        """Handle an append of audio as the uplink does."""
        self.session.ledger.input_bytes += n_bytes
        return self

    def tool_returns(self, call_id: str, output: str = '"ok"') -> "RealtimeSessionHarness":
        self.feed(ev.ToolCallFinished(call_id, "done", output, 1))
        return self

    def feed(self, event: Any) -> None:
        for command in self.session.handle(event, self.now):
            match command:
                case SendToClient(body):
                    self.client_events.append(dict(body))
                case ForwardToClient(raw):
                    self.raw.append(bytes(raw))
                    self.client_events.append(json.loads(bytes(raw)))
                case SendToUpstream(body):
                    self.upstream_events.append(dict(body))
                case cmd.RunTool():
                    self.tool_runs.append(command)
                case cmd.SetInputGate() | cmd.ReleaseInput():
                    self.gates.append(command)
                case _:
                    self.end_commands.append(command)

    def clear(self) -> None:
        for records in (self.client_events, self.upstream_events, self.raw, self.tool_runs):
            records.clear()

    def take_client_events(self) -> list[Obj]:
        client_events, self.client_events = self.client_events, []
        return client_events

    def take_upstream_events(self) -> list[Obj]:
        sent, self.upstream_events = self.upstream_events, []
        return sent

    def client_event_types(self) -> list[str]:
        return [event["type"] for event in self.take_client_events()]

    def upstream_event_types(self) -> list[str]:
        return [event["type"] for event in self.take_upstream_events()]


def response_created(response_id: str, **response: Any) -> Obj:
    return {"type": "response.created", "event_id": "e", "response": {"id": response_id, "output": []} | response}


def message_item(item_id: str, status: str = "completed") -> Obj:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": []}


def call_item(call_id: str, name: str, status: str = "completed") -> Obj:
    return {
        "id": f"item_{call_id}", "type": "function_call", "status": status, "call_id": call_id, "name": name,
        "arguments": "{}",
    }  # fmt: skip


def response_done(response_id: str, *output: Obj, status: str = "completed", **response: Any) -> Obj:
    body = {"id": response_id, "status": status, "output": list(output), "usage": {"total_tokens": 5}}
    return {"type": "response.done", "event_id": "e", "response": body | response}


def call_events(response_id: str, call: Obj, index: int = 0, previous: str | None = None) -> list[Obj]:
    """The events of the API about a call, without the start and end of the response."""
    about = {"response_id": response_id, "item_id": call["id"], "output_index": index}
    begun = call | {"status": "in_progress", "arguments": ""}
    return [
        {"type": "response.output_item.added", "response_id": response_id, "output_index": index, "item": begun},
        {"type": "conversation.item.added", "previous_item_id": previous, "item": begun},
        {"type": "response.function_call_arguments.delta", "call_id": call["call_id"], "delta": "{}", **about},
        {"type": "response.function_call_arguments.done", "call_id": call["call_id"], "name": call["name"],
         "arguments": "{}", **about},
        {"type": "response.output_item.done", "response_id": response_id, "output_index": index, "item": call},
        {"type": "conversation.item.done", "previous_item_id": previous, "item": call},
    ]  # fmt: skip


def output_added(call_id: str, item_id: str, previous: str | None) -> list[Obj]:
    item = {"id": item_id, "type": "function_call_output", "call_id": call_id, "output": "ok"}
    return [
        {"type": f"conversation.item.{what}", "previous_item_id": previous, "item": item} for what in ("added", "done")
    ]


def user_item(item_id: str, previous: str | None = None) -> Obj:
    item = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    return {"type": "conversation.item.added", "previous_item_id": previous, "item": item}


def ready_session(*tools: ToolSpec, **options: Any) -> RealtimeSessionHarness:
    """A session that is ready."""
    return RealtimeSessionHarness(*tools, **options).ready()
