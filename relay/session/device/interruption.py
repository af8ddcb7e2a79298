"""Barge-in: stops the client's playback at once, then corrects the upstream's history (D2).

    begin ──ClearPlayout──► playout ──PlayoutCleared──► finish: interrupted, cancel, truncate or delete
       └──nothing was playing: cancel at once

The playout answers `ClearPlayout` with the audio that it had sent, so the played position is known before anything goes
upstream. An unheard part is deleted, with its item if no other part of that was heard. A partly heard one is truncated,
unless the upstream does so automatically. `TtsSwitch` corrects what an external voice spoke.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relay.session.device import events as ev
from relay.session.device.commands import ClearPlayout, Command, DeleteItem, SendInterrupted, TruncateItem
from relay.session.device.conversation import ConversationLog
from relay.session.device.playback import InterruptedPart, PlaybackLedger
from relay.session.device.responses import Responses
from relay.session.device.tts_switch import TtsSwitch
from relay.session.device.turn_metrics import TurnTimer


@dataclass(slots=True)
class Interruption:
    """Interrupts the assistant for one client. Commands go to `_emit`, ids come from `_next_id`."""

    _responses: Responses
    _playback: PlaybackLedger
    _conversation: ConversationLog
    _tts: TtsSwitch
    _timer: TurnTimer
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    _supports_truncation: bool
    """Whether the upstream truncates items on request."""
    _pending_cancel_id: str | None = None

    def begin(self, *, cancel_response: bool) -> None:
        """Stop all output. `cancel_response`: the upstream does not cancel its response automatically (D2.2)."""
        active_id, cancellable_id = self._responses.discard_active()
        self._pending_cancel_id = cancellable_id if cancel_response else None
        is_idle = self._playback.is_idle
        if not is_idle:
            self._emit(ClearPlayout())
        if self._tts.speaker is not None:
            self._tts.speaker.interrupt(active_id)
        if is_idle:
            self._cancel()

    def finish(self, event: ev.PlayoutCleared, now: float) -> None:
        """Report the interruption to the client, cancel the response, and correct the history."""
        parts = self._playback.interrupt(event.parts, now)
        self._report(parts, now)
        self._cancel()
        self._tts.record_interruption(parts)
        parts = [part for part in parts if part.source == "model"]
        settled_ids = {part.item_id for part in parts if part.action != "delete"}
        for part in parts:
            if part.action == "truncate":
                self._truncate(part)
            elif part.action == "delete" and part.item_id not in settled_ids:
                settled_ids.add(part.item_id)
                self._delete(part.item_id)

    def _truncate(self, part: InterruptedPart) -> None:
        self._conversation.truncate_to_played(part.item_id, part.played_ms, part.received_ms)
        if self._supports_truncation:
            self._emit(TruncateItem(part.item_id, part.content_index, part.played_ms, self._next_id()))

    def _delete(self, item_id: str) -> None:
        item = self._conversation.get_or_create(item_id)
        item.heard_text = ""
        if item.in_conversation:
            self._emit(DeleteItem(item_id, self._next_id()))

    def _report(self, parts: Iterable[InterruptedPart], now: float) -> None:
        part = next((part for part in parts if part.action != "keep"), None)
        if part is None:
            return
        heard_text = self._tts.heard_text(part)
        if heard_text is None:
            heard_text = self._conversation.truncate_to_played(part.item_id, part.played_ms, part.received_ms)
        self._timer.on_interrupted_sent(now)
        self._emit(SendInterrupted(part.item_id, part.played_ms, heard_text, part.estimated))

    def _cancel(self) -> None:
        if self._pending_cancel_id is not None:
            self._responses.cancel(self._pending_cancel_id)
            self._pending_cancel_id = None
