"""The fault script of one connection: decides what is sent instead of each event. No socket and no clock."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.spec import EVERY, FAULT_KINDS, HANDSHAKE, FaultSpec

EXPIRED_MESSAGE = "Your session hit the maximum duration of 60 minutes."
MALFORMED_MESSAGE = '{"type":"response.output_audio.delta","delta":"AAAA'
_ITEM_FAULTS = {"two-items": "message", "duplicate-calls": "function_call"}
_ORDER_RESTORED_BY = ("response.content_part.added", "response.function_call_arguments.done", "response.done")
_BURST_ENDS = ("response.output_audio.done", "response.output_text.done", "response.done")


@dataclass(frozen=True, slots=True)
class DeliverEvent:
    """Send an event, `delay_s` late; later events do not wait for it."""

    event: JsonObject
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeliverText:
    """Send a text message that is not a valid event."""

    text: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Send nothing for some time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close the connection; code 1006 means without a close frame."""

    code: int
    reason: str = ""


FaultAction = DeliverEvent | DeliverText | Delay | CloseSocket


class FaultScript:
    """The faults of one connection: `apply` takes a correct event and returns the actions that replace it."""

    def __init__(self, faults: Iterable[FaultSpec] = ()) -> None:
        # each with the number of events at its point before the fault was added
        self._faults = [(fault, 0) for fault in faults if fault.point != HANDSHAKE]
        self._event_counts: Counter[str] = Counter()
        self._is_silent = False
        self._held_events: list[JsonObject] = []
        self._release_at: tuple[str, ...] = ()
        self._held_created: JsonObject | None = None
        self._item_events: list[JsonObject] = []
        self._tool_name = "ghost"

    @property
    def timed_faults(self) -> list[FaultSpec]:
        """The faults that are due at a time; the caller must then call `trigger`."""
        return [fault for fault, _ in self._faults if fault.after_s is not None]

    @property
    def is_burst(self) -> bool:
        """Whether audio is sent in bursts, so that it should be generated without pacing."""
        return any(fault.name == "burst" for fault, _ in self._faults)

    def add_faults(self, faults: Iterable[FaultSpec]) -> list[FaultAction]:
        """Add faults to an open connection. Faults without a point or time are triggered immediately."""
        actions: list[FaultAction] = []
        for fault in faults:
            if fault.point == "" and fault.after_s is None:
                actions += self.trigger(fault)
            elif fault.point not in ("", HANDSHAKE):
                self._faults.append((fault, self._event_counts[fault.point]))
        return actions

    def apply(self, event: JsonObject) -> list[FaultAction]:
        """Return the actions for this event."""
        kind = event["type"]
        self._event_counts[kind] += 1
        self._observe(event)
        if self._is_silent:
            return []
        actions = self._reshape(event)
        for fault in self._due(kind, shaping=False):
            actions += self.trigger(fault)
        return actions

    def trigger(self, fault: FaultSpec) -> list[FaultAction]:
        """Return the actions of a fault that is not bound to one kind of event."""
        if self._is_silent:
            return []
        match fault.name:
            case "drop":
                self._is_silent = True
                return [CloseSocket(int(fault.value or 1006))]
            case "stall" if fault.value is not None:
                return [Delay(fault.seconds)]
            case "stall":
                self._is_silent = True
                return []
            case "session_expired":
                self._is_silent = True
                return [DeliverEvent(_error("session_expired", EXPIRED_MESSAGE)), CloseSocket(1001, EXPIRED_MESSAGE)]
            case "error":
                return [DeliverEvent(_error(str(fault.value), f"Injected error: {fault.value}."))]
            case "malformed":
                return [DeliverText(MALFORMED_MESSAGE)]
            case "unknown-event":
                return [
                    DeliverEvent({"type": "response.mystery.delta", "event_id": "event_mystery", "delta": {"a": [1]}})
                ]
        raise ValueError(f"{fault.name} applies only to {FAULT_KINDS[fault.name].point}")

    def _due(self, kind: str, *, shaping: bool) -> list[FaultSpec]:
        first = "session.created"  # the point of faults without one
        return [
            fault
            for fault, before in self._faults
            if fault.after_s is None
            and (fault.point or first) == kind
            and fault.nth in (EVERY, self._event_counts[kind] - before)
            and bool(FAULT_KINDS[fault.name].point) == shaping
        ]

    def _observe(self, event: JsonObject) -> None:
        kind = event["type"]
        if kind in ("session.created", "session.updated"):
            tools = event["session"].get("tools") or [{}]
            self._tool_name = tools[0].get("name") or self._tool_name
        if kind == "response.created":
            self._item_events = []
        if any(fault.name in _ITEM_FAULTS for fault, _ in self._faults) and _item_id(event):
            self._item_events.append(event)

    def _reshape(self, event: JsonObject) -> list[FaultAction]:
        kind = event["type"]
        events = [event]
        late_s = 0.0
        for fault in self._due(kind, shaping=True):
            match fault.name:
                case "burst":
                    self._release_at = _BURST_ENDS
                case "wrong-order":
                    self._held_created = event
                    return []
                case "no-done":
                    events = []
                case "double-done":
                    events = events * 2
                case "late-done":
                    late_s = fault.seconds
                case "late-arguments" if event["response"].get("status") == "cancelled":
                    events = [*events, self._stray_arguments(event["response"])]
                case "two-items" | "duplicate-calls":
                    events = self._with_copies(event, _ITEM_FAULTS[fault.name])
        if self._held_created is not None and kind in _ORDER_RESTORED_BY:
            events = [*events, self._held_created]
            self._held_created = None
        if self._release_at:
            self._held_events += events
            if kind not in self._release_at:
                return []
            events, self._held_events, self._release_at = self._held_events, [], ()
        return [DeliverEvent(event, late_s) for event in events]

    def _with_copies(self, done: JsonObject, item_type: str) -> list[JsonObject]:
        """Repeat the events of the first item of that type with another id, before the end of its response."""
        output = done["response"]["output"]
        index = next((index for index, item in enumerate(output) if item["type"] == item_type), None)
        if index is None or done["response"].get("status") != "completed":
            return [done]
        item_id = output[index]["id"]
        copies = []
        for event in self._item_events:
            if _item_id(event) == item_id:
                copy = _rename_item(event, item_id) | {"event_id": f"{event.get('event_id', 'event')}_2"}
                if "output_index" in copy:
                    copy["output_index"] = len(output)
                if "previous_item_id" in copy:
                    copy["previous_item_id"] = output[-1]["id"]
                copies.append(copy)
        longer = {**done["response"], "output": [*output, _rename_item(output[index], item_id)]}
        return [*copies, done | {"response": longer}]

    def _stray_arguments(self, response: JsonObject) -> JsonObject:
        return {
            "type": "response.function_call_arguments.done",
            "event_id": "event_stray",
            "response_id": response["id"],
            "item_id": "item_stray",
            "output_index": 1,
            "call_id": "call_stray",
            "name": self._tool_name,
            "arguments": "{}",
        }


def _item_id(event: JsonObject) -> str | None:
    item = event.get("item")
    item_id = item.get("id") if isinstance(item, dict) else event.get("item_id")
    return item_id if isinstance(item_id, str) else None


def _rename_item(value: JsonObject, item_id: str) -> JsonObject:
    """Return a copy with another item id, of at most 32 characters."""
    old, new = orjson.dumps(item_id), orjson.dumps(f"{item_id[:30]}_2")
    renamed: JsonObject = orjson.loads(orjson.dumps(value).replace(old, new))
    return renamed


def _error(code: str, message: str) -> JsonObject:
    kind = "server_error" if code == "server_error" else "invalid_request_error"
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    return {"type": "error", "event_id": f"event_{code}", "error": error}
