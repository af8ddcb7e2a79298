"""Handles the events of a response in a device session: from `response.created` to `response.done`.

    first output ──► `AIResponseStart` ──► text, audio parts ──► `response.done`: tool calls ──► `AIResponseEnd`

Text goes to the client at once, and to the external voice if there is one. Audio goes through the downlink; this module
announces the start and end of its content parts. A response with tool calls only is continued by the next response, so
the client is not sent its end. The end has the whole text, and `more` while a follow-up is due. An external voice may
defer the end until its audio is announced. A stalled response ends like a failed one. Output of discarded responses is
ignored. `TurnController` requests the next response afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from relay.session.common.limits import STALL_TIMEOUT_S
from relay.session.common.model import ResponseStatus
from relay.session.device import events as ev
from relay.session.device.commands import (
    Command,
    SendAudioEnd,
    SendAudioStart,
    SendError,
    SendResponseEnd,
    SendResponseStart,
    SendTextDelta,
)
from relay.session.device.conversation import MAX_TEXT_CHARS, ConversationLog
from relay.session.device.playback import PlaybackLedger
from relay.session.device.responses import Responses
from relay.session.device.transcripts import Transcripts
from relay.session.device.tts_switch import TtsSwitch
from relay.session.device.turn_metrics import TurnTimer
from relay.session.tools.dispatcher import ToolDispatcher

MAX_RESPONSES = 32
"""Responses whose text is kept; beyond it the oldest are forgotten."""
STALLED_MESSAGE = (
    f"The model has sent nothing for {STALL_TIMEOUT_S:.0f} seconds; its response was abandoned. Ask again."
)


@dataclass(slots=True)
class ResponseText:
    """The text of one response that the client was sent."""

    is_started: bool = False
    text: str = ""


@dataclass(slots=True)
class ResponseHandler:
    """Applies the events of a response to text, playback and speech. Commands go to `_emit`."""

    _responses: Responses
    _transcripts: Transcripts
    _conversation: ConversationLog
    _playback: PlaybackLedger
    _tts: TtsSwitch
    _tools: ToolDispatcher
    _timer: TurnTimer
    _emit: Callable[[Command], None]
    _texts: dict[str, ResponseText] = field(default_factory=dict)

    def handle(self, event: ev.ResponseEvent, now: float) -> None:
        """Handle one event."""
        match event:
            case ev.ResponseCreated():
                self._open(event.response_id)
                if not self._responses.on_created(event) and self._tts.speaker is not None:
                    self._tts.speaker.on_response_abandoned(event.response_id)
            case ev.OutputAudioStarted():
                self._on_output_started(event, now)
            case ev.OutputAudioDone():
                self._on_audio_done(event.response_id, event.item_id, event.content_index)
            case ev.TextDelta():
                self.on_text_delta(event, now)
            case ev.TextDone():
                self._on_text_done(event, now)
            case ev.ResponseDone():
                self._on_response_done(event, now)
            case _:
                assert_never(event)

    def _open(self, response_id: str) -> ResponseText:
        response = self._texts.get(response_id)
        if response is None:
            if len(self._texts) >= MAX_RESPONSES:
                del self._texts[next(iter(self._texts))]
            response = self._texts[response_id] = ResponseText()
        return response

    def _start(self, response_id: str) -> ResponseText:
        response = self._open(response_id)
        if not response.is_started:
            response.is_started = True
            self._emit(SendResponseStart())
        return response

    def on_text_delta(self, event: ev.TextDelta, now: float) -> None:
        """Handle a delta of the assistant's text. The session may call this directly, so it notes the event itself."""
        self._responses.note_upstream_event(now)
        if event.response_id in self._responses.discarded:
            return
        response = self._texts.get(event.response_id)
        if response is None or not response.is_started:
            response = self._start(event.response_id)
        if len(response.text) < MAX_TEXT_CHARS:
            response.text = (response.text + event.text)[:MAX_TEXT_CHARS]
        self._conversation.append_text(event.item_id, event.text)
        if self._tts.speaker is not None:
            self._timer.on_text_received(now)
            self._tts.speaker.on_text_delta(event, now)
        self._emit(SendTextDelta(event.text))

    def _on_text_done(self, event: ev.TextDone, now: float) -> None:
        if event.response_id not in self._responses.discarded:
            self._transcripts.on_assistant_text_done(event)
            if self._tts.speaker is not None:
                self._tts.speaker.on_part_done(event.response_id, now)

    def _on_output_started(self, event: ev.OutputAudioStarted, now: float) -> None:
        if event.response_id in self._responses.discarded:
            return
        self._playback.start(event.item_id, event.content_index, event.response_id)
        self._start(event.response_id)
        self._conversation.get_or_create(event.item_id)
        self._timer.on_audio_received(event.item_id, now)
        self._emit(SendAudioStart(event.item_id, event.content_index))

    def _on_audio_done(self, response_id: str, item_id: str, content_index: int) -> None:
        if response_id not in self._responses.discarded:
            total_ms = self._playback.complete(item_id, content_index)
            if total_ms is not None:
                self._emit(SendAudioEnd(item_id, content_index, total_ms))

    def _complete_parts(self, response_id: str) -> None:
        # The client must not wait for the end of an item if the upstream never sent `audio.done`.
        for item_id, content_index in self._playback.incomplete_parts(response_id):
            self._on_audio_done(response_id, item_id, content_index)

    def _on_response_done(self, event: ev.ResponseDone, now: float) -> None:
        is_own, response_id = self._responses.on_done(event), event.response_id
        response = self._texts.pop(response_id, None)
        self._complete_parts(response_id)
        if self._tts.speaker is not None:
            self._tts.speaker.on_response_done(event, now)
        self._responses.count_usage(event)
        calls = self._tools.accept(event, suppress_follow_up=self._responses.suppresses_follow_up(response_id))
        if event.status == "failed":
            self._emit(SendError("response_failed", _failure_message(event), retryable=True))
        has_begun = response is not None and response.is_started
        is_continued = event.status == "completed" and bool(calls) and not has_begun  # the follow-up ends the turn
        if (response is not None or is_own) and not is_continued:
            self._end(response, event.status, response_id)
        for call in calls:
            self._tools.start(call, now)

    def end_unstarted(self, status: ResponseStatus) -> None:
        """End the response that the client expects before any of its output came."""
        self._end(None, status, "")

    def _end(self, response: ResponseText | None, status: ResponseStatus, response_id: str) -> None:
        response = response or ResponseText()
        if not response.is_started:
            self._emit(SendResponseStart())
        end = SendResponseEnd(response.text, status, more=self._tools.calls.expects_follow_up)
        if self._tts.speaker is None or not self._tts.speaker.defer_end(response_id, end):
            self._emit(end)

    def on_upstream_error(self, event: ev.UpstreamErrorEvent, now: float) -> bool:
        """Handle an error of the upstream. Returns whether it refuses a request for a response."""
        result = self._responses.on_upstream_error(event, now)
        if result == "failed":
            self._emit(SendError("response_failed", event.message, retryable=True))
            self.end_unstarted("failed")
        return result != "unrelated"

    def abandon_stalled(self, now: float) -> bool:
        """Abandon the active response if it has stalled. Returns whether a response that had begun was abandoned."""
        stalled_at = self._responses.deadline
        if stalled_at is None or now < stalled_at:
            return False
        response_id = self._responses.abandon_stalled()
        self._emit(SendError("upstream_stalled", STALLED_MESSAGE, retryable=True))
        if response_id is None:
            self.end_unstarted("failed")
            return False
        self._complete_parts(response_id)
        self._responses.abandon(response_id)
        if self._tts.speaker is not None:
            self._tts.speaker.stream.end(response_id, now)
        self._end(self._texts.pop(response_id, None), "failed", response_id)
        return True


def _failure_message(event: ev.ResponseDone) -> str:
    code = f" ({event.error_code})" if event.error_code else ""
    return f"The model could not answer{code}: {event.error_message or 'no reason was given'}"
