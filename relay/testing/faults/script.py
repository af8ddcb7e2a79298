"""What a faulty connection sends instead of the right events; no socket and no clock here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.spec import EVERY, FAULT_KINDS, FaultSpec

EXPIRED_MESSAGE = "Your session hit the maximum duration of 60 minutes."
MALFORMED_MESSAGE = '{"type":"response.output_audio.delta","delta":"AAAA'
_ITEM_FAULTS = {"two-items": "message", "duplicate-calls": "function_call"}
_ORDER_RESTORED_BY = ("response.content_part.added", "response.function_call_arguments.done", "response.done")
_BURST_ENDS = ("response.output_audio.done", "response.output_text.done", "response.done")


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """An event goes out, `delay_s` late; those behind it do not wait."""

    event: JsonObject
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EmitText:
    """A message that is no event."""

    text: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Nothing goes out for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """The connection is closed; code 1006 means that it breaks."""

    code: int
    reason: str = ""


FaultAction = EmitEvent | EmitText | Delay | CloseSocket


class FaultScript:
    """One connection's faults: `apply` takes the right events, and gives what goes out in their place."""

    def __init__(self, faults: Iterable[FaultSpec] = ()) -> None:
        # each with how often its point had been passed when it came
        self._faults = [(fault, 0) for fault in faults if fault.point != "door"]
        self._event_counts: Counter[str] = Counter()
        self._is_silent = False
        self._held_events: list[JsonObject] = []
        self._release_at: tuple[str, ...] = ()
        self._held_created: JsonObject | None = None
        self._item_events: list[JsonObject] = []
        self._tool_name = "ghost"

    @property
    def timed_faults(self) -> list[FaultSpec]:
        """The faults that strike at a time; the caller says when it has come, with `trigger`."""
        return [fault for fault, _ in self._faults if fault.after_s is not None]

    @property
    def is_burst(self) -> bool:
        """Whether speech is to be made as fast as it can be."""
        return any(fault.name == "burst" for fault, _ in self._faults)

    def add_faults(self, faults: Iterable[FaultSpec]) -> list[FaultAction]:
        """More faults, on a connection that stands; those without a point strike at once, those at a time too."""
        actions: list[FaultAction] = []
        for fault in faults:
            if fault.point == "" and fault.after_s is None:
                actions += self.trigger(fault)
            elif fault.point not in ("", "door"):
                self._faults.append((fault, self._event_counts[fault.point]))
        return actions

    def apply(self, event: JsonObject) -> list[FaultAction]:
        """What goes out for this event."""
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
        """What a fault that has a point, a time or neither sends."""
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
                return [EmitEvent(_error("session_expired", EXPIRED_MESSAGE)), CloseSocket(1001, EXPIRED_MESSAGE)]
            case "error":
                return [EmitEvent(_error(str(fault.value), f"An error on purpose: {fault.value}."))]
            case "malformed":
                return [EmitText(MALFORMED_MESSAGE)]
            case "unknown-event":
                return [EmitEvent({"type": "response.mystery.delta", "event_id": "event_mystery", "delta": {"a": [1]}})]
        raise ValueError(f"{fault.name} strikes at its own point only")

    def _due(self, kind: str, *, shaping: bool) -> list[FaultSpec]:
        first = "session.created"  # where the faults without a point strike
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
        return [EmitEvent(event, late_s) for event in events]

    def _with_copies(self, done: JsonObject, item_type: str) -> list[JsonObject]:
        """The end of a response, before it once more the events of its first item of that type, under another id."""
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
    """The same with another item id, of at most 32 characters."""
    old, new = orjson.dumps(item_id), orjson.dumps(f"{item_id[:30]}_2")
    renamed: JsonObject = orjson.loads(orjson.dumps(value).replace(old, new))
    return renamed


def _error(code: str, message: str) -> JsonObject:
    kind = "server_error" if code == "server_error" else "invalid_request_error"
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    return {"type": "error", "event_id": f"event_{code}", "error": error}
