"""The conversation: client events in, commands out, in the event order that real clients rely on.

Pure: no socket, clock or random number. Ids come from an injected function; time is counted in milliseconds of audio.
The connection (connection.py) carries out the commands in order: `SendEvent` goes to the client, the others go to the
input pipeline, the speech backend and the timers. Their results come back through the `on_…` methods.
"""

from collections.abc import Callable

import orjson

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.commands import (
    ClearInputBuffer,
    CloseConnection,
    ConfigureInput,
    EngineCommand,
    FeedAudio,
    SendEvent,
    SetIdleTimer,
    TranscribeTurn,
)
from relay.local_engine.realtime.input_turns import InputTurns
from relay.local_engine.realtime.items import ItemList
from relay.local_engine.realtime.response import Response
from relay.local_engine.realtime.response_manager import ResponseManager
from relay.local_engine.realtime.session_config import default_session, merge_session, response_settings, session_object
from relay.local_engine.realtime.validation import (
    InvalidRequestError,
    check_object,
    check_string,
    reject_unknown_fields,
    require_field,
)

_MAX_EVENT_ID_CHARS = 512


class Conversation:
    """One session's state. Every public method returns the commands to carry out."""

    def __init__(
        self, model: str, new_id: Callable[[str], str], *, session_type: str = "realtime", expires_at: int | None = None
    ) -> None:
        """`session_type` is "realtime" or "transcription"; `expires_at` (Unix time in s) is only reported here."""
        self._new_id = new_id
        self._commands: list[EngineCommand] = []
        self._session = default_session(new_id("sess"), model, session_type=session_type, expires_at=expires_at)
        self._items = ItemList(self._send, new_id)
        self._pending_transcripts: dict[str, bool] = {}
        self._turns = InputTurns(self._items, self._send, new_id)
        self._responses = ResponseManager(
            self._items, self._send, self._commands.append, new_id, self._on_response_finished
        )
        self.conversation_id = self._responses.conversation_id
        self._is_response_pending = False
        self._has_assistant_spoken = False
        self._is_idle_timer_set = False

    @property
    def input_position_ms(self) -> int:
        """Milliseconds of audio that the client has sent."""
        return round(self._turns.ring_buffer.position_ms)

    def send_error(self, request_error: InvalidRequestError, event_id: str | None = None) -> list[EngineCommand]:
        """Send an `error` event; `event_id` is that of the client event at fault."""
        error = {
            "type": "invalid_request_error",
            "code": request_error.code,
            "message": str(request_error),
            "param": request_error.param,
        }
        self._send({"type": "error", "error": error | {"event_id": event_id}})
        return self._take_commands()

    # -- client events ------------------------------------------------------------------------------------------------

    def start(self) -> list[EngineCommand]:
        """Open the session: send `session.created`."""
        self._send({"type": "session.created", "session": session_object(self._session)})
        self._commands.append(self._input_config())
        return self._take_commands()

    def receive(self, message: str | bytes) -> list[EngineCommand]:
        """Handle one message of the client; an invalid one is answered with an `error` event."""
        event_id: str | None = None
        try:
            try:
                event = check_object(orjson.loads(message), "event")
            except orjson.JSONDecodeError as error:
                raise InvalidRequestError(f"The message is not valid JSON: {error}", code="invalid_json") from error
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"][:_MAX_EVENT_ID_CHARS]
            kind = check_string(require_field(event, "type"), "type", 200)
            if kind not in _HANDLERS:
                raise InvalidRequestError(
                    f"Invalid value: '{kind}'. Supported values are: {', '.join(_HANDLERS)}.", param="type"
                )
            handler, *fields = _HANDLERS[kind]
            reject_unknown_fields(event, ("type", "event_id", *fields), "")
            if event.get("event_id") is not None:
                check_string(event["event_id"], "event_id", _MAX_EVENT_ID_CHARS)
            handler(self, event)
        except InvalidRequestError as fault:
            return self.send_error(fault, event_id)
        return self._take_commands()

    def _update_session(self, event: JsonObject) -> None:
        self._session = merge_session(
            self._session, require_field(event, "session"), has_spoken=self._has_assistant_spoken
        )
        self._send({"type": "session.updated", "session": session_object(self._session)})
        self._commands.append(self._input_config())
        if not self._turn_detection.get("idle_timeout_ms"):
            self._set_idle_timer(None)

    def _append_audio(self, event: JsonObject) -> None:
        audio = self._turns.append(event, self._audio_input)
        if audio:
            self._commands.append(FeedAudio(audio))

    def _commit_audio(self, event: JsonObject) -> None:
        self._transcribe(self._turns.commit(), create_response=False)

    def _clear_audio(self, event: JsonObject) -> None:
        self._commands.append(ClearInputBuffer())
        self._turns.clear()

    def _clear_output(self, event: JsonObject) -> None:
        raise InvalidRequestError("A WebSocket session has no output audio buffer.", param="type")

    def _create_item(self, event: JsonObject) -> None:
        record, audio = self._items.create(event)
        if audio:
            record.audio_ms = round(len(audio) / REALTIME_FORMATS[self._audio_input["format"]["type"]].bytes_per_ms)
            self._items.audio_cache.append(record.id, audio)
            self._transcribe(record.id, create_response=False, audio=audio)

    def _create_response(self, event: JsonObject) -> None:
        if self._session["type"] == "transcription":
            raise InvalidRequestError("A transcription session creates no responses.", param="type")
        params = event.get("response")
        self._start_response(response_settings(self._session, {} if params is None else params))

    def _cancel_response(self, event: JsonObject) -> None:
        response_id = event.get("response_id")
        response = self._responses.find(None if response_id is None else check_string(response_id, "response_id"))
        if response is None:
            raise InvalidRequestError(
                "Cancellation failed: no active response found", code="response_cancel_not_active"
            )
        self._responses.cancel(response, "client_cancelled")

    # -- reports of the input pipeline, the speech backend and the timers ---------------------------------------------

    def on_speech_started(self, start_ms: int) -> list[EngineCommand]:
        """Handle the start of a user turn; `start_ms` is the position of its first audio."""
        self._set_idle_timer(None)
        self._turns.on_speech_started(start_ms)
        if self._responses.active is not None and self._turn_detection.get("interrupt_response", False):
            self._responses.cancel(self._responses.active, "turn_detected")
        return self._take_commands()

    def on_speech_stopped(self, end_ms: int) -> list[EngineCommand]:
        """Handle the end of a user turn: it becomes an item and is transcribed."""
        item_id = self._turns.on_speech_stopped(end_ms)
        if item_id is not None:
            self._transcribe(item_id, create_response=bool(self._turn_detection.get("create_response", False)))
        return self._take_commands()

    def on_transcript(self, item_id: str, text: str | None, *, failure: str | None = None) -> list[EngineCommand]:
        """Handle the transcript of an item: lower-case words, or None if the engine did not understand it.

        `failure` says why there is no transcript.
        """
        create_response = self._pending_transcripts.pop(item_id, False)
        record = self._items.get(item_id)
        if record is not None:
            record.transcript = text
            if self._audio_input["transcription"] is not None:
                self._turns.set_transcript(record, text, failure)
        self._responses.is_recognizing = bool(self._pending_transcripts)
        self._responses.on_transcript_ready()
        # If the user speaks again already, the response after that turn answers both.
        if create_response and record is not None and not self._turns.is_user_speaking:
            if self._responses.active is None:
                self._start_response(response_settings(self._session, {}))
            else:
                self._is_response_pending = True
        return self._take_commands()

    def on_idle_timeout(self) -> list[EngineCommand]:
        """Handle `idle_timeout_ms` of silence after a response: the assistant responds again."""
        self._is_idle_timer_set = False
        idle_ms = self._turn_detection.get("idle_timeout_ms")
        if idle_ms and self._responses.active is None and not self._turns.is_user_speaking:
            self._turns.on_idle_timeout(idle_ms)
            self._start_response(response_settings(self._session, {}))
        return self._take_commands()

    def on_session_expired(self, minutes: int) -> list[EngineCommand]:
        """End a session that reached its maximum duration."""
        message = f"Your session hit the maximum duration of {minutes} minutes."
        return [*self.send_error(InvalidRequestError(message, code="session_expired")), CloseConnection(1001, message)]

    def on_sentence_audio(self, response_id: str, sentence: str, audio: bytes) -> list[EngineCommand]:
        """Handle the synthesized audio of one sentence."""
        response = self._responses.find(response_id)
        if response is not None:
            self._has_assistant_spoken = True
            self._responses.add_sentence(response, sentence, audio)
        return self._take_commands()

    def on_speech_done(self, response_id: str) -> list[EngineCommand]:
        """Complete a response: all its sentences are synthesized."""
        response = self._responses.find(response_id)
        if response is not None:
            self._responses.complete(response)
        return self._take_commands()

    def on_speech_failed(self, response_id: str, message: str) -> list[EngineCommand]:
        """Fail a response: its speech cannot be synthesized."""
        response = self._responses.find(response_id)
        if response is not None:
            self._responses.finish(response, "failed", message)
        return self._take_commands()

    # -- helpers ------------------------------------------------------------------------------------------------------

    @property
    def _audio_input(self) -> JsonObject:
        return dict(self._session["audio"]["input"])

    @property
    def _turn_detection(self) -> JsonObject:
        """The active `turn_detection`; a transcription session never responds."""
        turn_detection = dict(self._audio_input["turn_detection"] or {})
        if self._session["type"] == "transcription":
            turn_detection |= {"create_response": False, "idle_timeout_ms": None}
        return turn_detection

    def _start_response(self, settings: JsonObject) -> None:
        if settings["conversation"] != "none" and self._responses.active is None:
            self._is_response_pending = False
            self._set_idle_timer(None)
        self._responses.create(settings)

    def _on_response_finished(self, response: Response) -> None:
        if self._responses.active is not None or self._turns.is_user_speaking:
            return
        if self._is_response_pending:
            self._start_response(response_settings(self._session, {}))
        elif response.in_conversation and (idle_ms := self._turn_detection.get("idle_timeout_ms")):
            self._set_idle_timer(response.audio_ms + idle_ms)

    def _set_idle_timer(self, timeout_ms: int | None) -> None:
        if timeout_ms is not None or self._is_idle_timer_set:
            self._is_idle_timer_set = timeout_ms is not None
            self._commands.append(SetIdleTimer(timeout_ms))

    def _transcribe(self, item_id: str, *, create_response: bool, audio: bytes | None = None) -> None:
        self._pending_transcripts[item_id] = create_response
        self._responses.is_recognizing = True
        self._commands.append(TranscribeTurn(item_id, audio))

    def _input_config(self) -> ConfigureInput:
        tools = orjson.dumps(self._session["tools"])
        return ConfigureInput(self._audio_input["format"]["type"], self._audio_input["turn_detection"], tools)

    def _send(self, event: JsonObject) -> None:
        kind = event.pop("type")
        self._commands.append(SendEvent({"type": kind, "event_id": self._new_id("event"), **event}))

    def _take_commands(self) -> list[EngineCommand]:
        commands = self._commands.copy()
        self._commands.clear()
        return commands


_Handler = Callable[[Conversation, JsonObject], None]
_HANDLERS: dict[str, tuple[_Handler, *tuple[str, ...]]] = {
    "session.update": (Conversation._update_session, "session"),
    "input_audio_buffer.append": (Conversation._append_audio, "audio"),
    "input_audio_buffer.commit": (Conversation._commit_audio,),
    "input_audio_buffer.clear": (Conversation._clear_audio,),
    "output_audio_buffer.clear": (Conversation._clear_output,),
    "conversation.item.create": (Conversation._create_item, "item", "previous_item_id"),
    "conversation.item.delete": (lambda self, event: self._items.delete(event), "item_id"),
    "conversation.item.retrieve": (lambda self, event: self._items.retrieve(event), "item_id"),
    "conversation.item.truncate": (
        lambda self, event: self._items.truncate(event),
        "item_id",
        "content_index",
        "audio_end_ms",
    ),
    "response.create": (Conversation._create_response, "response"),
    "response.cancel": (Conversation._cancel_response, "response_id"),
}
