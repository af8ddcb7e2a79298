"""The text of the conversation, as a device client is sent it: `transcript` messages (D12).

What a user said comes late and in any order, so each message carries the item's place in the conversation. What a user
typed is sent when the upstream has taken the item. An item without a transcript is reported too, so that the client
does not wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from relay.session.device import events as ev
from relay.session.device.commands import Command, SendError, SendTranscript
from relay.session.device.conversation import ConversationLog


@dataclass(slots=True)
class Transcripts:
    """Who said what, by item; commands go to `_emit`."""

    _items: ConversationLog
    _emit: Callable[[Command], None]

    def item_added(self, event: ev.ItemAdded) -> None:
        """An item has its place. Typed text is sent at once; the text of speech comes as its transcript."""
        item = event.item
        entry = self._items.mark_added(item.id, item.role, event.previous_item_id)
        if item.kind == "message" and item.role == "user" and item.text:
            self._items.set_text(item.id, item.text)
            self._emit(SendTranscript("user", item.id, entry.order, item.text, final=True))

    def user_transcript(self, event: ev.UserTranscript) -> None:
        """What the user said, in part or whole."""
        self._send("user", event.item_id, event.text, final=event.final)

    def user_transcript_failed(self, event: ev.UserTranscriptFailed) -> None:
        """The upstream could not transcribe what the user said; it has heard the audio all the same."""
        reason = event.message or "The upstream gave no reason."
        self._emit(SendError("transcription_failed", f"There is no transcript of {event.item_id}: {reason}"))

    def assistant_text_done(self, event: ev.TextDone) -> None:
        """The whole text of a content part of the assistant's."""
        self._send("assistant", event.item_id, event.text, final=True)

    def _send(self, role: str, item_id: str, text: str, *, final: bool) -> None:
        entry = self._items.get_or_create(item_id)
        entry.role = role
        if final:
            self._items.set_text(item_id, text)
        self._emit(SendTranscript(role, item_id, entry.order, text, final))
