"""What a faulty connection sends instead of the right events; no socket and no clock here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.spec import EVERY, KINDS, FaultSpec

EXPIRED = "Your session hit the maximum duration of 60 minutes."
MALFORMED = '{"type":"response.output_audio.delta","delta":"AAAA'
_ITEM_FAULTS = {"two-items": "message", "duplicate-calls": "function_call"}
_ORDER_IS_BACK = ("response.content_part.added", "response.function_call_arguments.done", "response.done")
_BURST_ENDS = ("response.output_audio.done", "response.output_text.done", "response.done")


@dataclass(frozen=True, slots=True)
class Send:
    """An event goes out, `delay_s` late; those behind it do not wait."""

    event: JsonObject
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SendRaw:
    """A message that is no event."""

    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing goes out for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """The connection is closed; code 1006 means that it breaks."""

    code: int
    reason: str = ""


Action = Send | SendRaw | Wait | Close


class Misbehaviour:
    """One connection's faults: `send` takes the right events, and gives what goes out in their place."""

    def __init__(self, faults: Iterable[FaultSpec] = ()) -> None:
        # each with how often its point had been passed when it came
        self._faults = [(fault, 0) for fault in faults if fault.point != "door"]
        self._seen: Counter[str] = Counter()
        self._is_silent = False
        self._held: list[JsonObject] = []
        self._holds_until: tuple[str, ...] = ()
        self._late_start: JsonObject | None = None
        self._item_events: list[JsonObject] = []
        self._tool = "ghost"

    @property
    def timed(self) -> list[FaultSpec]:
        """The faults that strike at a time; the caller says when it has come, with `strike`."""
        return [fault for fault, _ in self._faults if fault.after_s is not None]

    @property
    def is_hasty(self) -> bool:
        """Whether speech is to be made as fast as it can be."""
        return any(fault.name == "burst" for fault, _ in self._faults)

    def add(self, faults: Iterable[FaultSpec]) -> list[Action]:
        """More faults, on a connection that stands; those without a point strike at once, those at a time too."""
        actions: list[Action] = []
        for fault in faults:
            if fault.point == "" and fault.after_s is None:
                actions += self.strike(fault)
            elif fault.point not in ("", "door"):
                self._faults.append((fault, self._seen[fault.point]))
        return actions

    def send(self, event: JsonObject) -> list[Action]:
        """What goes out for this event."""
        kind = event["type"]
        self._seen[kind] += 1
        self._learn(event)
        if self._is_silent:
            return []
        actions = self._shaped(event)
        for fault in self._due(kind, shaping=False):
            actions += self.strike(fault)
        return actions

    def strike(self, fault: FaultSpec) -> list[Action]:
        """What a fault that has a point, a time or neither sends."""
        if self._is_silent:
            return []
        match fault.name:
            case "drop":
                self._is_silent = True
                return [Close(int(fault.value or 1006))]
            case "stall" if fault.value is not None:
                return [Wait(fault.seconds)]
            case "stall":
                self._is_silent = True
                return []
            case "session_expired":
                self._is_silent = True
                return [Send(_error("session_expired", EXPIRED)), Close(1001, EXPIRED)]
            case "error":
                return [Send(_error(str(fault.value), f"An error on purpose: {fault.value}."))]
            case "malformed":
                return [SendRaw(MALFORMED)]
            case "unknown-event":
                return [Send({"type": "response.mystery.delta", "event_id": "event_mystery", "delta": {"a": [1]}})]
        raise ValueError(f"{fault.name} strikes at its own point only")

    def _due(self, kind: str, *, shaping: bool) -> list[FaultSpec]:
        first = "session.created"  # where the faults without a point strike
        return [
            fault
            for fault, before in self._faults
            if fault.after_s is None
            and (fault.point or first) == kind
            and fault.nth in (EVERY, self._seen[kind] - before)
            and bool(KINDS[fault.name].point) == shaping
        ]

    def _learn(self, event: JsonObject) -> None:
        kind = event["type"]
        if kind in ("session.created", "session.updated"):
            tools = event["session"].get("tools") or [{}]
            self._tool = tools[0].get("name") or self._tool
        if kind == "response.created":
            self._item_events = []
        if any(fault.name in _ITEM_FAULTS for fault, _ in self._faults) and _item_id(event):
            self._item_events.append(event)

    def _shaped(self, event: JsonObject) -> list[Action]:
        kind = event["type"]
        events = [event]
        late_s = 0.0
        for fault in self._due(kind, shaping=True):
            match fault.name:
                case "burst":
                    self._holds_until = _BURST_ENDS
                case "wrong-order":
                    self._late_start = event
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
        if self._late_start is not None and kind in _ORDER_IS_BACK:
            events = [*events, self._late_start]
            self._late_start = None
        if self._holds_until:
            self._held += events
            if kind not in self._holds_until:
                return []
            events, self._held, self._holds_until = self._held, [], ()
        return [Send(one, late_s) for one in events]

    def _with_copies(self, done: JsonObject, item_type: str) -> list[JsonObject]:
        """The end of a response, before it once more the events of its first item of that type, under another id."""
        output = done["response"]["output"]
        found = next((index for index, item in enumerate(output) if item["type"] == item_type), None)
        if found is None or done["response"].get("status") != "completed":
            return [done]
        item_id = output[found]["id"]
        copies = []
        for event in self._item_events:
            if _item_id(event) == item_id:
                copy = _renamed(event, item_id) | {"event_id": f"{event.get('event_id', 'event')}_2"}
                if "output_index" in copy:
                    copy["output_index"] = len(output)
                if "previous_item_id" in copy:
                    copy["previous_item_id"] = output[-1]["id"]
                copies.append(copy)
        longer = {**done["response"], "output": [*output, _renamed(output[found], item_id)]}
        return [*copies, done | {"response": longer}]

    def _stray_arguments(self, response: JsonObject) -> JsonObject:
        return {
            "type": "response.function_call_arguments.done",
            "event_id": "event_stray",
            "response_id": response["id"],
            "item_id": "item_stray",
            "output_index": 1,
            "call_id": "call_stray",
            "name": self._tool,
            "arguments": "{}",
        }


def _item_id(event: JsonObject) -> str | None:
    item = event.get("item")
    found = item.get("id") if isinstance(item, dict) else event.get("item_id")
    return found if isinstance(found, str) else None


def _renamed(value: JsonObject, item_id: str) -> JsonObject:
    """The same with another item id, of at most 32 characters."""
    old, new = orjson.dumps(item_id), orjson.dumps(f"{item_id[:30]}_2")
    renamed: JsonObject = orjson.loads(orjson.dumps(value).replace(old, new))
    return renamed


def _error(code: str, message: str) -> JsonObject:
    kind = "server_error" if code == "server_error" else "invalid_request_error"
    error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
    return {"type": "error", "event_id": f"event_{code}", "error": error}
