"""The context of a response: what is new in the conversation since the assistant last spoke."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.json_types import parse_json_object
from relay.local_engine.realtime.item_records import ItemRecord


@dataclass(frozen=True, slots=True)
class TurnContext:
    """The input of one response.

    `user_text` is the user's text since the last response (None: nothing, "": not understood). `tool_outputs` are
    (function name, output) pairs since then; `pending_tools` are the functions without an output. `is_idle_timeout`:
    the user stayed silent. `last_call` is the name and the arguments of the conversation's last function call.
    """

    user_text: str | None = None
    tool_outputs: Sequence[tuple[str, str]] = ()
    pending_tools: Sequence[str] = ()
    tool_choice: Any = "auto"
    is_idle_timeout: bool = False
    last_call: tuple[str, dict[str, Any]] | None = None


def build_turn_context(records: Sequence[ItemRecord], tool_choice: Any) -> TurnContext:
    """Collect the user's last text and the tool outputs since the assistant last spoke."""
    names = {r.item["call_id"]: r.item["name"] for r in records if r.item["type"] == "function_call"}
    user_text: str | None = None
    is_idle_timeout = False
    outputs: list[tuple[str, str]] = []
    returned: set[str] = set()
    for record in records:
        item = record.item
        if item["type"] == "function_call_output":
            returned.add(item["call_id"])
            if not record.is_answered:
                outputs.append((names.get(item["call_id"], "tool"), item["output"]))
        elif item.get("role") == "user" and not record.is_answered:
            is_idle_timeout = record.is_silence
            user_text = None if is_idle_timeout else record.text
        elif item.get("role") == "assistant":
            user_text, outputs, is_idle_timeout = None, [], False
    pending_tools = [name for call_id, name in names.items() if call_id not in returned]
    call = next((record.item for record in reversed(records) if record.item["type"] == "function_call"), None)
    arguments = parse_json_object(call["arguments"]) if call else None  # None also if a client's item is invalid
    last_call = (call["name"], arguments) if call and arguments is not None else None
    return TurnContext(user_text, outputs, pending_tools, tool_choice, is_idle_timeout, last_call)
