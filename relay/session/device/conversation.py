"""The items of the conversation in order: who said what, and how much of it was heard (D2.4, D12).

The log has an `ConversationItem` for every item that an event mentions; its place is that of the first mention. Text
comes in pieces (`append_text`) and once more as a whole (`set_text`). `heard` is set only where playback was cut: by
the share of time that was played, or by the external voice's own alignment. It never ends within a word.

`in_conversation` follows the upstream's events. `replace` is for items of text, which the upstream cannot truncate: the
new item takes the place of the old one, behind the nearest earlier item that still exists, or at the "root".

Device sessions write it (`TurnController`, `TtsSpeaker`). The oldest items are forgotten beyond `MAX_ITEMS` and
`MAX_LOG_CHARS`; an event of a forgotten item makes a new entry.
"""

import re
from dataclasses import dataclass

MAX_ITEMS = 2000
MAX_TEXT_CHARS = 65_536
MAX_LOG_CHARS = 524_288
"""Of all items together: some ten hours of talk; with more the oldest items are forgotten."""

# A text may be cut at spaces, and anywhere in scripts that use none: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_BREAK = re.compile(
    r"[\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@dataclass(slots=True)
class ConversationItem:
    """One item. `text` is all that was generated or transcribed; `heard_text` what reached an ear, if it was cut."""

    id: str
    order: int
    role: str | None = None
    in_conversation: bool = False
    text: str = ""
    heard_text: str | None = None
    previous_item_id: str | None = None
    replaced_by: str | None = None


class ConversationLog:
    """Items by id, each with its place; the oldest are forgotten beyond `MAX_ITEMS` and `MAX_LOG_CHARS`."""

    __slots__ = ("_chars", "_items", "_next_order")

    def __init__(self) -> None:
        self._items: dict[str, ConversationItem] = {}
        self._next_order = 0
        self._chars = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get_or_create(self, item_id: str) -> ConversationItem:
        """The entry of an item; its place is the one of its first mention."""
        entry = self._items.get(item_id)
        if entry is None:
            if len(self._items) >= MAX_ITEMS:
                self._forget_oldest()
            entry = self._items[item_id] = ConversationItem(item_id, self._next_order)
            self._next_order += 1
        return entry

    def mark_added(self, item_id: str, role: str | None, previous_item_id: str | None = None) -> ConversationItem:
        """The upstream has taken an item into the conversation, behind `previous_item_id`."""
        entry = self.get_or_create(item_id)
        entry.previous_item_id = previous_item_id or entry.previous_item_id
        entry.role = role or entry.role
        entry.in_conversation = True
        return entry

    def mark_deleted(self, item_id: str) -> None:
        """The upstream has taken an item out."""
        entry = self._items.get(item_id)
        if entry is not None:
            entry.in_conversation = False

    def replace(self, item_id: str, new_id: str, text: str) -> str:
        """`new_id` with `text` is to stand where an item stood. Returns the id of the item before it, or "root"."""
        old = self.get_or_create(item_id)
        before, passed = old.previous_item_id, {item_id}
        while before is not None and before not in passed and (earlier := self._items.get(before)) is not None:
            if earlier.in_conversation:
                break
            passed.add(before)
            before = earlier.replaced_by or earlier.previous_item_id
        if before is None or before in passed:  # an upstream that does not tell, or in a circle: what we saw last
            standing = (entry for entry in self._items.values() if entry.in_conversation and entry.order < old.order)
            last = max(standing, key=lambda entry: entry.order, default=None)
            before = last.id if last is not None else "root"
        old.in_conversation, old.replaced_by = False, new_id
        while len(self._items) >= MAX_ITEMS:
            self._forget_oldest()
        new = self._items[new_id] = ConversationItem(new_id, old.order, old.role, in_conversation=True, heard_text=text)
        self._keep(new, text)
        return before

    def append_text(self, item_id: str, text: str) -> None:
        """More text of an item; beyond `MAX_TEXT_CHARS` it is passed on but not kept."""
        entry = self._items.get(item_id) or self.get_or_create(item_id)
        if len(entry.text) < MAX_TEXT_CHARS:
            self._keep(entry, entry.text + text)

    def set_text(self, item_id: str, text: str) -> None:
        """The whole text of an item; what is beyond `MAX_TEXT_CHARS` is not kept."""
        self._keep(self.get_or_create(item_id), text)

    def _keep(self, entry: ConversationItem, text: str) -> None:
        self._chars -= len(entry.text)
        entry.text = text[:MAX_TEXT_CHARS]
        self._chars += len(entry.text)
        while self._chars > MAX_LOG_CHARS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._chars -= len(self._items.pop(next(iter(self._items))).text)

    def truncate_to_played(self, item_id: str, played_ms: int, received_ms: int) -> str:
        """The part of an item's text that was heard, in proportion to the time played, cut between words (D2.4)."""
        entry = self.get_or_create(item_id)
        entry.heard_text = text_at_position(entry.text, played_ms, received_ms)
        return entry.heard_text


def text_at_position(text: str, played_ms: int, received_ms: int) -> str:
    """The beginning of `text` that fits `played_ms` of `received_ms`, without half words where words have spaces."""
    if not text or played_ms <= 0 or received_ms <= 0:
        return ""
    if played_ms >= received_ms:
        return text
    return truncate_at_word(text, len(text) * played_ms // received_ms)


def truncate_at_word(text: str, end: int) -> str:
    """The beginning of `text` up to `end`, without the half of a word where words have spaces."""
    if end >= len(text):
        return text
    if not _BREAK.match(text[end]):
        while end > 0 and not _BREAK.match(text[end - 1]):
            end -= 1
    return text[:end].rstrip()
