"""The conversation's items as clients handle them: create, delete, retrieve, truncate."""

from collections.abc import Callable

import pybase64

from relay.json_types import JsonObject
from relay.local_engine.audio_shelf import AudioShelf
from relay.local_engine.items import Items, Record, client_item
from relay.local_engine.protocol import Fault, a_text, a_whole_number, need

Send = Callable[[JsonObject], None]


def announce(send: Send, record: Record, previous: str | None) -> None:
    """Tell the client of an item that is complete from the start."""
    for kind in ("conversation.item.added", "conversation.item.done"):
        send({"type": kind, "previous_item_id": previous, "item": dict(record.item)})


class ItemDesk:
    """Carries out `conversation.item.*` on `items`; raises Fault for what can't be done."""

    def __init__(self, items: Items, shelf: AudioShelf, send: Send, new_id: Callable[[str], str]) -> None:
        self._items = items
        self._shelf = shelf
        self._send = send
        self._new_id = new_id

    def create(self, event: JsonObject) -> tuple[Record, bytes]:
        """Add the client's item; returns it and the audio that came with it (maybe none)."""
        record, audio = client_item(need(event, "item"), self._new_id("item"))
        if record.id in self._items:
            raise Fault(
                f"Error adding item: an item with ID '{record.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        after = event.get("previous_item_id")
        if after is not None and after != "root" and a_text(after, "previous_item_id") not in self._items:
            raise Fault(
                f"Error adding item: the previous item with ID '{after[:200]}' does not exist.",
                code="item_create_invalid_previous_item_id",
                param="previous_item_id",
            )
        call_id = record.item.get("call_id", "")
        if record.item["type"] == "function_call_output" and not self._items.has_call(call_id):
            raise Fault(
                f"Tool call ID '{call_id}' not found in conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        announce(self._send, record, self._items.add(record, after))
        return record, audio

    def delete(self, event: JsonObject) -> None:
        """Remove an item."""
        item_id = self._known(event, "item_delete_invalid_item_id").id
        self._items.remove(item_id)
        self._shelf.drop(item_id)
        self._send({"type": "conversation.item.deleted", "item_id": item_id})

    def retrieve(self, event: JsonObject) -> None:
        """Show an item with its audio, as far as that is still kept."""
        record = self._known(event, "item_retrieve_invalid_item_id")
        item = dict(record.item)
        audio = self._shelf.get(record.id)
        if audio:
            sound = pybase64.b64encode(audio).decode()
            item["content"] = [
                part | {"audio": sound} if part["type"] in ("input_audio", "output_audio") else part
                for part in item["content"]
            ]
        self._send({"type": "conversation.item.retrieved", "item": item})

    def truncate(self, event: JsonObject) -> None:
        """Cut an assistant's audio to what was heard, and its transcript with it.

        Cut at what exists if asked for more: a player's clock may be a little ahead.
        """
        record = self._known(event, "item_truncate_invalid_item_id")
        index = a_whole_number(need(event, "content_index"), "content_index", 0, 100)
        end_ms = a_whole_number(need(event, "audio_end_ms"), "audio_end_ms", 0, 2**53)
        if record.item.get("role") != "assistant" or not record.audio_ms:
            raise Fault("Only an assistant's audio can be truncated.", code="item_truncate_invalid_item_id")
        earlier = record.audio_ms if record.truncated_ms is None else record.truncated_ms
        record.truncated_ms = min(end_ms, earlier)
        if record.bytes_per_ms:
            self._shelf.cut(record.id, record.truncated_ms * record.bytes_per_ms)
        record.cut_transcript()
        place = {"item_id": record.id, "content_index": index}
        self._send({"type": "conversation.item.truncated", **place, "audio_end_ms": record.truncated_ms})

    def _known(self, event: JsonObject, code: str) -> Record:
        item_id = a_text(need(event, "item_id"), "item_id")
        record = self._items.get(item_id)
        if record is None:
            raise Fault(f"Item with item_id '{item_id[:200]}' not found.", code=code, param="item_id")
        return record
