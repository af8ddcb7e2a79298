"""The items of the conversation in order, with their texts, and with the text that was heard (D2.4, D12).

The log has a `ConversationItem` for every item that an event mentions, in order of first mention. Text comes in deltas
(`append_text`) and once more as a whole (`set_text`). `heard_text` is set only if playback was interrupted. It is based
on the share of the audio that was played, or on the external voice's alignment, and never ends within a word.

`in_conversation` follows the upstream's events. The upstream cannot truncate items of text, so `replace` puts a new
item in the place of an old one: after the nearest earlier item that still exists, or at the "root".

Device sessions write the log (`TurnController`, `TtsSpeaker`). Beyond `MAX_ITEMS` and `MAX_LOG_CHARS` the oldest items
are forgotten; an event of a forgotten item creates a new one.
"""

import re
from dataclasses import dataclass

MAX_ITEMS = 2000
MAX_TEXT_CHARS = 65_536
MAX_LOG_CHARS = 524_288
"""Of all items together, some ten hours of speech; beyond it the oldest items are forgotten."""

# A text may be cut at spaces, and anywhere in scripts that use none: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_BREAK = re.compile(
    r"[\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@dataclass(slots=True)
class ConversationItem:
    """One item. `text` is its generated or transcribed text; `heard_text` the part that was heard, if interrupted."""

    id: str
    order: int
    role: str | None = None
    in_conversation: bool = False
    text: str = ""
    heard_text: str | None = None
    previous_item_id: str | None = None
    replaced_by: str | None = None


class ConversationLog:
    """Items by id, in order of first mention."""

    __slots__ = ("_chars", "_items", "_next_order")

    def __init__(self) -> None:
        self._items: dict[str, ConversationItem] = {}
        self._next_order = 0
        self._chars = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get_or_create(self, item_id: str) -> ConversationItem:
        """Return the item of that id; an unknown one is added at the end."""
        item = self._items.get(item_id)
        if item is None:
            if len(self._items) >= MAX_ITEMS:
                self._forget_oldest()
            item = self._items[item_id] = ConversationItem(item_id, self._next_order)
            self._next_order += 1
        return item

    def mark_added(self, item_id: str, role: str | None, previous_item_id: str | None = None) -> ConversationItem:
        """Record that the upstream has added an item to the conversation, after `previous_item_id`."""
        item = self.get_or_create(item_id)
        item.previous_item_id = previous_item_id or item.previous_item_id
        item.role = role or item.role
        item.in_conversation = True
        return item

    def mark_deleted(self, item_id: str) -> None:
        """Record that the upstream has deleted an item."""
        item = self._items.get(item_id)
        if item is not None:
            item.in_conversation = False

    def replace(self, item_id: str, new_id: str, text: str) -> str:
        """Put an item `new_id` with `text` in the place of another. Returns the id of the item before, or "root"."""
        old = self.get_or_create(item_id)
        before_id = self._existing_before(old)
        old.in_conversation, old.replaced_by = False, new_id
        while len(self._items) >= MAX_ITEMS:
            self._forget_oldest()
        new = self._items[new_id] = ConversationItem(new_id, old.order, old.role, in_conversation=True, heard_text=text)
        self._set_text(new, text)
        return before_id

    def _existing_before(self, item: ConversationItem) -> str:
        before_id, visited_ids = item.previous_item_id, {item.id}
        while before_id is not None and before_id not in visited_ids:
            earlier = self._items.get(before_id)
            if earlier is None or earlier.in_conversation:
                return before_id
            visited_ids.add(before_id)
            before_id = earlier.replaced_by or earlier.previous_item_id
        # The upstream sent no previous item, or a circle of them: use the order of first mention.
        existing = (other for other in self._items.values() if other.in_conversation and other.order < item.order)
        last = max(existing, key=lambda other: other.order, default=None)
        return last.id if last is not None else "root"

    def append_text(self, item_id: str, text: str) -> None:
        """Append to the text of an item; text beyond `MAX_TEXT_CHARS` is not kept."""
        item = self._items.get(item_id) or self.get_or_create(item_id)
        if len(item.text) < MAX_TEXT_CHARS:
            self._set_text(item, item.text + text)

    def set_text(self, item_id: str, text: str) -> None:
        """Set the whole text of an item; text beyond `MAX_TEXT_CHARS` is not kept."""
        self._set_text(self.get_or_create(item_id), text)

    def _set_text(self, item: ConversationItem, text: str) -> None:
        self._chars -= len(item.text)
        item.text = text[:MAX_TEXT_CHARS]
        self._chars += len(item.text)
        while self._chars > MAX_LOG_CHARS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._chars -= len(self._items.pop(next(iter(self._items))).text)

    def truncate_to_played(self, item_id: str, played_ms: int, received_ms: int) -> str:
        """Set and return the text that was heard of an item, in proportion to the audio that was played (D2.4)."""
        item = self.get_or_create(item_id)
        item.heard_text = text_at_position(item.text, played_ms, received_ms)
        return item.heard_text


def text_at_position(text: str, played_ms: int, received_ms: int) -> str:
    """Return the beginning of `text` that was spoken at `played_ms` of `received_ms`, in proportion."""
    if not text or played_ms <= 0 or received_ms <= 0:
        return ""
    if played_ms >= received_ms:
        return text
    return truncate_at_word(text, len(text) * played_ms // received_ms)


def truncate_at_word(text: str, end: int) -> str:
    """Return `text` up to `end`, without a partial word in scripts that separate words by spaces."""
    if end >= len(text):
        return text
    if not _BREAK.match(text[end]):
        while end > 0 and not _BREAK.match(text[end - 1]):
            end -= 1
    return text[:end].rstrip()
