"""The conversation: client events in, effects out, in the orders that real clients rely on.

Pure: there is no socket, clock or randomness here: ids come from an injected function, time is the count of audio
milliseconds. Effects are carried out in order by the session (session.py): `Send` goes to the client, the others ask
ears and voice to do something, whose results come back through the methods.
"""

from collections.abc import Callable

import orjson

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.commands import AwaitSpeech, Configure, Effect, Forget, HangUp, Listen, Recognise, Send
from relay.local_engine.realtime.input_turns import InputTurns
from relay.local_engine.realtime.items import Items
from relay.local_engine.realtime.response import Response
from relay.local_engine.realtime.response_manager import ResponseDesk
from relay.local_engine.realtime.session_config import default_session, merge_session, response_settings, shown
from relay.local_engine.realtime.validation import Fault, a_text, an_object, need, only

_LONGEST_EVENT_ID = 512


class Conversation:
    """One session's state. Every method returns the effects of what it was told."""

    def __init__(
        self, model: str, new_id: Callable[[str], str], *, kind: str = "realtime", expires_at: int | None = None
    ) -> None:
        """`kind` is "realtime" or "transcription"; `expires_at` (Unix time in s) is only told, not kept."""
        self._new_id = new_id
        self._effects: list[Effect] = []
        self._session = default_session(new_id("sess"), model, kind=kind, expires_at=expires_at)
        self._items = Items(self._send, new_id)
        self._recognising: dict[str, bool] = {}
        self._turns = InputTurns(self._items, self._send, new_id)
        self._responses = ResponseDesk(self._items, self._send, self._effects.append, new_id, self._finished)
        self.conversation_id = self._responses.conversation_id
        self._owes_response = False
        self._has_spoken = False
        self._is_awaiting = False

    @property
    def position_ms(self) -> int:
        """How much audio the client has sent."""
        return round(self._turns.tape.position_ms)

    def complain(self, fault: Fault, event_id: str | None = None) -> list[Effect]:
        """Answer something wrong with an error event."""
        error = {"type": "invalid_request_error", "code": fault.code, "message": str(fault), "param": fault.param}
        self._send({"type": "error", "error": error | {"event_id": event_id}})
        return self._taken()

    # -- what the client sends ----------------------------------------------------------------------------------------

    def start(self) -> list[Effect]:
        """The connection is open."""
        self._send({"type": "session.created", "session": shown(self._session)})
        self._effects.append(self._configure())
        return self._taken()

    def receive(self, message: str | bytes) -> list[Effect]:
        """One message of the client, whatever it holds; a wrong one is answered with an error event."""
        event_id: str | None = None
        try:
            try:
                event = an_object(orjson.loads(message), "event")
            except orjson.JSONDecodeError as error:
                raise Fault(f"The message is not valid JSON: {error}", code="invalid_json") from error
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"][:_LONGEST_EVENT_ID]
            kind = a_text(need(event, "type"), "type", 200)
            if kind not in _HANDLERS:
                raise Fault(f"Invalid value: '{kind}'. Supported values are: {', '.join(_HANDLERS)}.", param="type")
            handler, *fields = _HANDLERS[kind]
            only(event, ("type", "event_id", *fields), "")
            if event.get("event_id") is not None:
                a_text(event["event_id"], "event_id", _LONGEST_EVENT_ID)
            handler(self, event)
        except Fault as fault:
            return self.complain(fault, event_id)
        return self._taken()

    def _session_update(self, event: JsonObject) -> None:
        self._session = merge_session(self._session, need(event, "session"), has_spoken=self._has_spoken)
        self._send({"type": "session.updated", "session": shown(self._session)})
        self._effects.append(self._configure())
        if not self._turn_detection.get("idle_timeout_ms"):
            self._await_speech(None)

    def _append(self, event: JsonObject) -> None:
        audio = self._turns.append(event, self._input)
        if audio:
            self._effects.append(Listen(audio))

    def _commit(self, event: JsonObject) -> None:
        self._recognise(self._turns.commit(), then_respond=False)

    def _clear(self, event: JsonObject) -> None:
        self._effects.append(Forget())
        self._turns.clear()

    def _output_clear(self, event: JsonObject) -> None:
        raise Fault("A WebSocket session has no output audio buffer.", param="type")

    def _item_create(self, event: JsonObject) -> None:
        record, audio = self._items.create(event)
        if audio:
            record.audio_ms = round(len(audio) / REALTIME_FORMATS[self._input["format"]["type"]].bytes_per_ms)
            self._items.shelf.add(record.id, audio)
            self._recognise(record.id, then_respond=False, clip=audio)

    def _response_create(self, event: JsonObject) -> None:
        if self._session["type"] == "transcription":
            raise Fault("A transcription session creates no responses.", param="type")
        params = event.get("response")
        self._start(response_settings(self._session, {} if params is None else params))

    def _response_cancel(self, event: JsonObject) -> None:
        wanted = event.get("response_id")
        response = self._responses.find(None if wanted is None else a_text(wanted, "response_id"))
        if response is None:
            raise Fault("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._responses.cancel(response, "client_cancelled")

    # -- what ears, voice and clock report ----------------------------------------------------------------------------

    def speech_started(self, start_ms: int) -> list[Effect]:
        """The user began to speak; `start_ms` is where the turn's audio begins."""
        self._await_speech(None)
        self._turns.started(start_ms)
        if self._responses.active is not None and self._turn_detection.get("interrupt_response", False):
            self._responses.cancel(self._responses.active, "turn_detected")
        return self._taken()

    def speech_stopped(self, end_ms: int) -> list[Effect]:
        """The user's turn is over: it becomes an item, and is recognised."""
        item_id = self._turns.stopped(end_ms)
        if item_id is not None:
            self._recognise(item_id, then_respond=bool(self._turn_detection.get("create_response", False)))
        return self._taken()

    def recognised(self, item_id: str, text: str | None, *, failure: str | None = None) -> list[Effect]:
        """What was said in an item: lower-case words, or None if the engine did not understand it.

        `failure` says why there is no telling.
        """
        create_response = self._recognising.pop(item_id, False)
        record = self._items.get(item_id)
        if record is not None:
            record.heard = text
            if self._input["transcription"] is not None:
                self._turns.transcribe(record, text, failure)
        self._responses.deaf = bool(self._recognising)
        self._responses.words_are_there()
        # A user who speaks again already is answered behind that turn, which is about both.
        if create_response and record is not None and not self._turns.is_speaking:
            if self._responses.active is None:
                self._start(response_settings(self._session, {}))
            else:
                self._owes_response = True
        return self._taken()

    def still_silent(self) -> list[Effect]:
        """The user has said nothing for `idle_timeout_ms` after the answer: the assistant takes the word."""
        self._is_awaiting = False
        idle_ms = self._turn_detection.get("idle_timeout_ms")
        if idle_ms and self._responses.active is None and not self._turns.is_speaking:
            self._turns.idle(idle_ms)
            self._start(response_settings(self._session, {}))
        return self._taken()

    def expired(self, minutes: int) -> list[Effect]:
        """The session's time is over."""
        message = f"Your session hit the maximum duration of {minutes} minutes."
        return [*self.complain(Fault(message, code="session_expired")), HangUp(1001, message)]

    def sound(self, response_id: str, sentence: str, audio: bytes) -> list[Effect]:
        """One sentence of a response, synthesised."""
        response = self._responses.find(response_id)
        if response is not None:
            self._has_spoken = True
            self._responses.say(response, sentence, audio)
        return self._taken()

    def spoken(self, response_id: str) -> list[Effect]:
        """All sentences of a response are synthesised."""
        response = self._responses.find(response_id)
        if response is not None:
            self._responses.said_all(response)
        return self._taken()

    def failed(self, response_id: str, message: str) -> list[Effect]:
        """A response cannot be spoken."""
        response = self._responses.find(response_id)
        if response is not None:
            self._responses.finish(response, "failed", message)
        return self._taken()

    # -- small change -------------------------------------------------------------------------------------------------

    @property
    def _input(self) -> JsonObject:
        return dict(self._session["audio"]["input"])

    @property
    def _turn_detection(self) -> JsonObject:
        """The rules of turns; a transcription session only listens."""
        rules = dict(self._input["turn_detection"] or {})
        if self._session["type"] == "transcription":
            rules |= {"create_response": False, "idle_timeout_ms": None}
        return rules

    def _start(self, settings: JsonObject) -> None:
        if settings["conversation"] != "none" and self._responses.active is None:
            self._owes_response = False
            self._await_speech(None)
        self._responses.create(settings)

    def _finished(self, response: Response) -> None:
        if self._responses.active is not None or self._turns.is_speaking:
            return
        if self._owes_response:
            self._start(response_settings(self._session, {}))
        elif response.in_conversation and (idle_ms := self._turn_detection.get("idle_timeout_ms")):
            self._await_speech(response.audio_ms + idle_ms)

    def _await_speech(self, ms: int | None) -> None:
        if ms is not None or self._is_awaiting:
            self._is_awaiting = ms is not None
            self._effects.append(AwaitSpeech(ms))

    def _recognise(self, item_id: str, *, then_respond: bool, clip: bytes | None = None) -> None:
        self._recognising[item_id] = then_respond
        self._responses.deaf = True
        self._effects.append(Recognise(item_id, clip))

    def _configure(self) -> Configure:
        tools = orjson.dumps(self._session["tools"])
        return Configure(self._input["format"]["type"], self._input["turn_detection"], tools)

    def _send(self, event: JsonObject) -> None:
        kind = event.pop("type")
        self._effects.append(Send({"type": kind, "event_id": self._new_id("event"), **event}))

    def _taken(self) -> list[Effect]:
        effects = self._effects.copy()
        self._effects.clear()
        return effects


_Handler = Callable[[Conversation, JsonObject], None]
_HANDLERS: dict[str, tuple[_Handler, *tuple[str, ...]]] = {
    "session.update": (Conversation._session_update, "session"),
    "input_audio_buffer.append": (Conversation._append, "audio"),
    "input_audio_buffer.commit": (Conversation._commit,),
    "input_audio_buffer.clear": (Conversation._clear,),
    "output_audio_buffer.clear": (Conversation._output_clear,),
    "conversation.item.create": (Conversation._item_create, "item", "previous_item_id"),
    "conversation.item.delete": (lambda self, event: self._items.delete(event), "item_id"),
    "conversation.item.retrieve": (lambda self, event: self._items.retrieve(event), "item_id"),
    "conversation.item.truncate": (
        lambda self, event: self._items.truncate(event),
        "item_id",
        "content_index",
        "audio_end_ms",
    ),
    "response.create": (Conversation._response_create, "response"),
    "response.cancel": (Conversation._response_cancel, "response_id"),
}
