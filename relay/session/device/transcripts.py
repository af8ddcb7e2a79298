"""The transcripts of the conversation, as they are sent to a device client in `transcript` messages (D12).

Transcripts of the user's speech come late and in any order, so each message has the item's place in the conversation. A
typed turn is sent when the upstream has added its item. An item without a transcript is reported too, so that the
client does not wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from relay.session.device import events as ev
from relay.session.device.commands import Command, SendError, SendTranscript
from relay.session.device.conversation import ConversationLog


@dataclass(slots=True)
class Transcripts:
    """Sends transcripts, item by item. Commands go to `_emit`."""

    _conversation: ConversationLog
    _emit: Callable[[Command], None]

    def on_item_added(self, event: ev.ItemAdded) -> None:
        """Record the place of an item. Send typed text at once; the text of speech comes as its transcript."""
        item = event.item
        order = self._conversation.mark_added(item.id, item.role, event.previous_item_id).order
        if item.kind == "message" and item.role == "user" and item.text:
            self._conversation.set_text(item.id, item.text)
            self._emit(SendTranscript("user", item.id, order, item.text, final=True))

    def on_user_transcript(self, event: ev.UserTranscript) -> None:
        """Send a transcript of the user's speech, in part or whole."""
        self._send("user", event.item_id, event.text, final=event.final)

    def on_user_transcript_failed(self, event: ev.UserTranscriptFailed) -> None:
        """Report that a transcription failed; the model has heard the audio all the same."""
        reason = event.message or "The upstream gave no reason."
        self._emit(SendError("transcription_failed", f"There is no transcript of {event.item_id}: {reason}"))

    def on_assistant_text_done(self, event: ev.TextDone) -> None:
        """Send the whole text of a content part of the assistant."""
        self._send("assistant", event.item_id, event.text, final=True)

    def _send(self, role: str, item_id: str, text: str, *, final: bool) -> None:
        item = self._conversation.get_or_create(item_id)
        item.role = role
        if final:
            self._conversation.set_text(item_id, text)
        self._emit(SendTranscript(role, item_id, item.order, text, final))
