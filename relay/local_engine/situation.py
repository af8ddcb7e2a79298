"""What a response has to go by, read from the items before it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from relay.json_types import json_object
from relay.local_engine.brain import Situation
from relay.local_engine.grammar import Grammar
from relay.local_engine.items import Record


@lru_cache(maxsize=64)
def grammar_of(tools_json: bytes) -> Grammar:
    """The grammar of a list of tools; sessions with the same tools share it, and by it their recognisers."""
    return Grammar(orjson.loads(tools_json))


def situation(records: Sequence[Record], tool_choice: Any) -> Situation:
    """What is new since the assistant last spoke: the user's last words, and outputs of calls."""
    names = {r.item["call_id"]: r.item["name"] for r in records if r.item["type"] == "function_call"}
    said: str | None = None
    silent = False
    outputs: list[tuple[str, str]] = []
    returned: set[str] = set()
    for record in records:
        item = record.item
        if item["type"] == "function_call_output":
            returned.add(item["call_id"])
            if not record.answered:
                outputs.append((names.get(item["call_id"], "tool"), item["output"]))
        elif item.get("role") == "user" and not record.answered:
            silent = record.is_silence
            said = None if silent else record.text
        elif item.get("role") == "assistant":
            said, outputs, silent = None, [], False
    waiting = [name for call_id, name in names.items() if call_id not in returned]
    return Situation(said, outputs, waiting, tool_choice, silent, _last_call(records))


def _last_call(records: Sequence[Record]) -> tuple[str, dict[str, Any]] | None:
    for record in reversed(records):
        if record.item["type"] == "function_call":
            arguments = json_object(record.item["arguments"])  # None: a client may have made the item
            return None if arguments is None else (record.item["name"], arguments)
    return None
