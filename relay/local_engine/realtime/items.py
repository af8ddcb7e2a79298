"""The conversation's items: their order, the client events that change them, and a cache of their audio."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import pybase64

from relay.json_types import JsonObject
from relay.local_engine.realtime.item_records import ItemRecord, parse_client_item
from relay.local_engine.realtime.validation import (
    EventSink,
    InvalidRequestError,
    check_integer,
    check_string,
    require_field,
)

MAX_ITEMS = 1000
MAX_TOTAL_CHARS = 4_000_000
"""The limit for the text of all items. Above either limit the oldest items are removed, without an event."""
MAX_CACHED_AUDIO_BYTES = 6 * 1024 * 1024
"""The limit for the audio of all items. Above it the oldest items lose their audio, but not their text."""


class ItemAudioCache:
    """Audio by item id, in the item's wire format."""

    def __init__(self) -> None:
        self._audio_by_item: OrderedDict[str, bytearray] = OrderedDict()
        self._bytes = 0

    def append(self, item_id: str, audio: bytes) -> None:
        """Append to an item's audio; evicts the oldest items over the bound."""
        if not audio:
            return
        self._audio_by_item.setdefault(item_id, bytearray()).extend(audio)
        self._bytes += len(audio)
        while self._bytes > MAX_CACHED_AUDIO_BYTES:
            _, oldest = self._audio_by_item.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, item_id: str) -> bytes:
        """Return an item's audio, empty if it has none or was evicted."""
        return bytes(self._audio_by_item.get(item_id, b""))

    def truncate(self, item_id: str, n_bytes: int) -> None:
        """Keep only the first `n_bytes` of an item."""
        audio = self._audio_by_item.get(item_id)
        if audio is not None and len(audio) > n_bytes:
            self._bytes -= len(audio) - n_bytes
            del audio[n_bytes:]

    def discard(self, item_id: str) -> None:
        """Drop an item's audio."""
        self._bytes -= len(self._audio_by_item.pop(item_id, b""))


class ItemList:
    """The items in their order, with their audio. Handles `conversation.item.*`; raises InvalidRequestError."""

    def __init__(self, send: EventSink, new_id: Callable[[str], str]) -> None:
        self.audio_cache = ItemAudioCache()
        self._send = send
        self._new_id = new_id
        self._records: dict[str, ItemRecord] = {}
        self._order: list[str] = []
        self._chars = 0

    def __iter__(self) -> Iterator[ItemRecord]:
        return (self._records[item_id] for item_id in self._order)

    def get(self, item_id: str) -> ItemRecord | None:
        """Return the record of an item, or None."""
        return self._records.get(item_id)

    def add(self, record: ItemRecord, after: str | None = None) -> str | None:
        """Insert an item after `after` ("root": first; None: last); returns the id of the item before it."""
        index = len(self._order)
        if after is not None:
            index = 0 if after == "root" else self._order.index(after) + 1
        self._records[record.id] = record
        self._order.insert(index, record.id)
        self._chars += record.n_chars
        previous = self._order[index - 1] if index else None
        while len(self._order) > 1 and (len(self._order) > MAX_ITEMS or self._chars > MAX_TOTAL_CHARS):
            self._remove(self._order[0] if self._order[0] != record.id else self._order[1])
        return previous

    def announce(self, record: ItemRecord, previous: str | None) -> None:
        """Send `conversation.item.added` and `.done` for an item that is complete from the start."""
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._send({"type": kind, "previous_item_id": previous, "item": dict(record.item)})

    def create(self, event: JsonObject) -> tuple[ItemRecord, bytes]:
        """Add the client's item; returns its record and its audio, which may be empty."""
        record, audio = parse_client_item(require_field(event, "item"), self._new_id("item"))
        if record.id in self._records:
            raise InvalidRequestError(
                f"Error adding item: an item with ID '{record.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        after = event.get("previous_item_id")
        if after is not None and after != "root" and check_string(after, "previous_item_id") not in self._records:
            raise InvalidRequestError(
                f"Error adding item: the previous item with ID '{after[:200]}' does not exist.",
                code="item_create_invalid_previous_item_id",
                param="previous_item_id",
            )
        call_ids = (known.item["call_id"] for known in self if known.item["type"] == "function_call")
        if record.item["type"] == "function_call_output" and record.item["call_id"] not in call_ids:
            raise InvalidRequestError(
                f"Tool call ID '{record.item['call_id']}' not found in conversation.",
                code="invalid_tool_call_id",
                param="item.call_id",
            )
        self.announce(record, self.add(record, after))
        return record, audio

    def delete(self, event: JsonObject) -> None:
        """Remove an item."""
        item_id = self._require_item(event, "item_delete_invalid_item_id").id
        self._remove(item_id)
        self._send({"type": "conversation.item.deleted", "item_id": item_id})

    def retrieve(self, event: JsonObject) -> None:
        """Send an item with its audio, as far as that is still cached."""
        record = self._require_item(event, "item_retrieve_invalid_item_id")
        item = dict(record.item)
        audio = self.audio_cache.get(record.id)
        if audio:
            encoded = pybase64.b64encode(audio).decode()
            item["content"] = [
                part | {"audio": encoded} if part["type"] in ("input_audio", "output_audio") else part
                for part in item["content"]
            ]
        self._send({"type": "conversation.item.retrieved", "item": item})

    def truncate(self, event: JsonObject) -> None:
        """Truncate an assistant's audio to the played part, and its transcript with it.

        An `audio_end_ms` beyond the audio means its end: a player's clock may be a little ahead.
        """
        record = self._require_item(event, "item_truncate_invalid_item_id")
        index = check_integer(require_field(event, "content_index"), "content_index", 0, 100)
        end_ms = check_integer(require_field(event, "audio_end_ms"), "audio_end_ms", 0, 2**53)
        if record.item.get("role") != "assistant" or not record.audio_ms:
            raise InvalidRequestError(
                "Only an assistant's audio can be truncated.", code="item_truncate_invalid_item_id"
            )
        earlier = record.audio_ms if record.truncated_at_ms is None else record.truncated_at_ms
        record.truncated_at_ms = min(end_ms, earlier)
        self.audio_cache.truncate(record.id, record.truncated_at_ms * record.bytes_per_ms)
        record.truncate_transcript()
        position = {"item_id": record.id, "content_index": index}
        self._send({"type": "conversation.item.truncated", **position, "audio_end_ms": record.truncated_at_ms})

    def _require_item(self, event: JsonObject, code: str) -> ItemRecord:
        item_id = check_string(require_field(event, "item_id"), "item_id")
        record = self.get(item_id)
        if record is None:
            raise InvalidRequestError(f"Item with item_id '{item_id[:200]}' not found.", code=code, param="item_id")
        return record

    def _remove(self, item_id: str) -> None:
        record = self._records.pop(item_id)
        self._order.remove(item_id)
        self._chars = max(self._chars - record.n_chars, 0)
        self.audio_cache.discard(item_id)
