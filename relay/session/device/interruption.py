"""Barge-in: the client falls silent at once, then the upstream's history is made to say what was heard (D2).

    begin ──DropAudio──► playout ──AudioDropped──► finish: interrupted, cancel, truncate or delete
       └──nothing was playing: cancel at once

The playout answers `ClearPlayout` with what it had sent, so that the position is known before anything goes upstream. A
part that was never heard is deleted, with its item if no other part of it was heard. One that was heard in part is
truncated, where the upstream does not do so by itself. What an external voice spoke is corrected by `TtsSwitch`.
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
    """Silences one client; commands go to `_emit`, ids come from `_next_id`."""

    _responses: Responses
    _playback: PlaybackLedger
    _items: ConversationLog
    _tts: TtsSwitch
    _timer: TurnTimer
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    _truncates: bool
    """Whether the upstream has to be asked to truncate an item."""
    _to_cancel: str | None = None

    def begin(self, *, cancel: bool) -> None:
        """Let nothing more be heard of what is being said; `cancel` if the upstream does not stop by itself (D2.2)."""
        active_id, cancellable_id = self._responses.discard_active()
        self._to_cancel = cancellable_id if cancel else None
        is_idle = self._playback.is_idle
        if not is_idle:
            self._emit(ClearPlayout())
        if self._tts.speaker is not None:
            self._tts.speaker.interrupt(active_id)
        if is_idle:
            self._cancel()

    def finish(self, event: ev.PlayoutCleared, now: float) -> None:
        """The client is silent: send it where, cancel the response, and correct the history."""
        cuts = self._playback.interrupt(event.parts, now)
        self._report(cuts, now)
        self._cancel()
        self._tts.record_interruption(cuts)
        cuts = [cut for cut in cuts if cut.source == "model"]
        settled = {cut.item_id for cut in cuts if cut.action != "delete"}
        for cut in cuts:
            if cut.action == "truncate":
                self._items.truncate_to_played(cut.item_id, cut.played_ms, cut.received_ms)
                if self._truncates:
                    self._emit(TruncateItem(cut.item_id, cut.content_index, cut.played_ms, self._next_id()))
            elif cut.action == "delete" and cut.item_id not in settled:
                settled.add(cut.item_id)
                entry = self._items.get_or_create(cut.item_id)
                entry.heard_text = ""
                if entry.in_conversation:
                    self._emit(DeleteItem(cut.item_id, self._next_id()))

    def _report(self, cuts: Iterable[InterruptedPart], now: float) -> None:
        stopped = next((cut for cut in cuts if cut.action != "keep"), None)
        if stopped is None:
            return
        heard = self._tts.heard_text(stopped)
        if heard is None:
            heard = self._items.truncate_to_played(stopped.item_id, stopped.played_ms, stopped.received_ms)
        self._timer.interrupted_sent(now)
        self._emit(SendInterrupted(stopped.item_id, stopped.played_ms, heard, stopped.estimated))

    def _cancel(self) -> None:
        if self._to_cancel is not None:
            self._responses.cancel(self._to_cancel)
            self._to_cancel = None
