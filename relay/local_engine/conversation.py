"""The conversation as a pure state machine: client events and what ears and voice report in, effects out.

No socket, thread, clock or randomness here: ids come from an injected function, time is the count of audio
milliseconds. Effects are carried out in order by the session (session.py): `Send` goes to the client, the others ask
ears and voice to do something, whose results come back through the methods.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from relay.local_engine.brain import Plan, plan
from relay.local_engine.effects import Configure, Effect, Forget, Hush, Listen, Recognise, Send, Speak
from relay.local_engine.grammar import Grammar
from relay.local_engine.input_turns import BYTES_PER_MS, InputTurns
from relay.local_engine.item_desk import ItemDesk
from relay.local_engine.items import Items, Record, client_item
from relay.local_engine.protocol import (
    Fault,
    Obj,
    a_text,
    an_object,
    error_object,
    need,
    only,
)
from relay.local_engine.responses import Response, input_tokens
from relay.local_engine.session_config import default_session, merge_session, response_settings
from relay.local_engine.situation import grammar_of, situation

MOST_SIDE_RESPONSES = 4


class Conversation:
    """One session's state. Every method returns the effects of what it was told."""

    def __init__(self, model: str, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id
        self._effects: list[Effect] = []
        self._session = default_session(new_id("sess"), model)
        self._conversation_id = new_id("conv")
        self._items = Items()
        self._active: Response | None = None
        self._side: dict[str, Response] = {}
        self._calls_after: dict[str, Plan] = {}
        self._unplanned: Response | None = None
        self._recognising: dict[str, bool] = {}
        self._desk = ItemDesk(self._items, self._send, new_id)
        self._turns = InputTurns(self._items, self._send, new_id)
        self._owes_response = False
        self._has_spoken = False

    # -- what the client sends ----------------------------------------------------------------------------------------

    def start(self) -> list[Effect]:
        """The connection is open."""
        self._send({"type": "session.created", "session": self._session})
        self._effects.append(self._configure())
        return self._taken()

    def receive(self, message: str | bytes) -> list[Effect]:
        """One message of the client, whatever it holds; a wrong one is answered with an error event."""
        event_id: str | None = None
        try:
            event = _parsed(message)
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"][:512]
            kind = a_text(need(event, "type"), "type", 200)
            handler = _HANDLERS.get(kind)
            if handler is None:
                raise Fault(f"Invalid value: '{kind}'. Supported values are: {', '.join(_HANDLERS)}.", param="type")
            handler(self, event)
        except Fault as fault:
            self._send({"type": "error", "error": error_object(fault, event_id)})
        return self._taken()

    def _session_update(self, event: Obj) -> None:
        self._session = merge_session(self._session, need(event, "session"), has_spoken=self._has_spoken)
        self._send({"type": "session.updated", "session": self._session})
        self._effects.append(self._configure())

    def _append(self, event: Obj) -> None:
        audio = self._turns.append(event, self._input)
        if audio:
            self._effects.append(Listen(audio))

    def _commit(self, event: Obj) -> None:
        self._recognise(self._turns.commit(), then_respond=False)

    def _clear(self, event: Obj) -> None:
        self._effects.append(Forget())
        self._turns.clear()

    def _output_clear(self, event: Obj) -> None:
        raise Fault("A WebSocket session has no output audio buffer.", param="type")

    def _item_create(self, event: Obj) -> None:
        record, audio = self._desk.create(event)
        if audio:
            record.audio_ms = round(len(audio) / BYTES_PER_MS[self._input["format"]["type"]])
            self._recognise(record.id, then_respond=False, clip=audio)

    def _response_create(self, event: Obj) -> None:
        params = event.get("response")
        settings = response_settings(self._session, {} if params is None else params)
        if settings["conversation"] == "none":
            self._start_aside(settings)
            return
        if self._active is not None:
            raise Fault(
                f"Conversation already has an active response in progress: {self._active.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        if settings["input"] is not None:
            settings["input"] = self._inputs(settings["input"])
        self._start_response(settings)

    def _response_cancel(self, event: Obj) -> None:
        wanted = event.get("response_id")
        response = self._active
        if wanted is not None:
            wanted = a_text(wanted, "response_id")
            known = [self._active, *self._side.values()]
            response = next((one for one in known if one is not None and one.id == wanted), None)
        if response is None:
            raise Fault("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._cancel(response, "client_cancelled")

    # -- what ears and voice report -----------------------------------------------------------------------------------

    def speech_started(self, start_ms: int) -> list[Effect]:
        """The user began to speak; `start_ms` is where the turn's audio begins."""
        self._turns.started(start_ms)
        if self._active is not None and self._turn_detection.get("interrupt_response", False):
            self._cancel(self._active, "turn_detected")
        return self._taken()

    def speech_stopped(self, end_ms: int) -> list[Effect]:
        """The user's turn is over: it becomes an item, and is recognised."""
        item_id = self._turns.stopped(end_ms)
        if item_id is not None:
            self._recognise(item_id, then_respond=bool(self._turn_detection.get("create_response", False)))
        return self._taken()

    def recognised(self, item_id: str, text: str | None) -> list[Effect]:
        """What was said in an item: lower-case words, or None if the engine did not understand it."""
        create_response = self._recognising.pop(item_id, False)
        record = self._items.get(item_id)
        if record is not None:
            record.heard = text
            if self._input["transcription"] is not None:
                self._turns.transcribe(record, text)
        if self._unplanned is not None and not self._recognising:
            response, self._unplanned = self._unplanned, None
            self._carry_out(response, self._plan(response.settings))
        if create_response and record is not None:
            if self._active is None:
                self._start_response(response_settings(self._session, {}))
            else:
                self._owes_response = True
        return self._taken()

    def sound(self, response_id: str, sentence: str, audio: bytes) -> list[Effect]:
        """One sentence of a response, synthesised."""
        response = self._running(response_id)
        if response is not None:
            self._has_spoken = True
            if not response.say(sentence, audio):
                self._effects.append(Hush(response_id))
                self._finish(response, "incomplete", "max_output_tokens")
        return self._taken()

    def spoken(self, response_id: str) -> list[Effect]:
        """All sentences of a response are synthesised."""
        response = self._running(response_id)
        if response is not None:
            response.end_message("completed")
            self._call(response)
        return self._taken()

    def failed(self, response_id: str, message: str) -> list[Effect]:
        """A response cannot be spoken."""
        response = self._running(response_id)
        if response is not None:
            self._finish(response, "failed", message)
        return self._taken()

    # -- responses ----------------------------------------------------------------------------------------------------

    def _start_response(self, settings: Obj) -> None:
        self._owes_response = False
        given = settings["input"]
        response = Response(
            settings,
            new_id=self._new_id,
            emit=self._send,
            conversation_id=self._conversation_id,
            add_item=self._items.add,
            input_tokens=input_tokens(self._items if given is None else given, settings["instructions"]),
        )
        self._active = response
        if self._recognising:
            self._unplanned = response
        else:
            self._carry_out(response, self._plan(settings))

    def _start_aside(self, settings: Obj) -> None:
        """A response outside the conversation: it reads it, or its own input, and leaves no trace in it."""
        if len(self._side) >= MOST_SIDE_RESPONSES:
            raise Fault(
                f"Only {MOST_SIDE_RESPONSES} responses outside the conversation can run at a time.",
                code="conversation_already_has_active_response",
            )
        inputs = list(self._items) if settings["input"] is None else self._inputs(settings["input"])
        response = Response(
            settings,
            new_id=self._new_id,
            emit=self._send,
            conversation_id=self._conversation_id,
            add_item=None,
            input_tokens=input_tokens(inputs, settings["instructions"]),
        )
        self._side[response.id] = response
        state = situation(inputs, settings["tool_choice"])
        self._carry_out(response, plan(self._grammar(settings), state))

    def _inputs(self, given: Sequence[Any]) -> list[Record]:
        records: list[Record] = []
        for index, value in enumerate(given):
            path = f"response.input[{index}]"
            if an_object(value, path).get("type") == "item_reference":
                only(value, ("type", "id"), f"{path}.")
                known = self._items.get(a_text(need(value, "id", f"{path}."), f"{path}.id"))
                if known is None:
                    raise Fault(f"Item '{value['id'][:200]}' not found.", param=f"{path}.id")
                records.append(known)
            else:
                records.append(client_item(value, self._new_id("item"), path)[0])
        return records

    def _grammar(self, settings: Obj) -> Grammar:
        return grammar_of(orjson.dumps(settings["tools"]))

    def _plan(self, settings: Obj) -> Plan:
        records = list(self._items) if settings["input"] is None else settings["input"]
        state = situation(records, settings["tool_choice"])
        for record in records:
            record.answered = True
        return plan(self._grammar(settings), state)

    def _carry_out(self, response: Response, todo: Plan) -> None:
        if not response.settings["parallel_tool_calls"]:
            todo = Plan(todo.sentences, todo.calls[:1])
        self._calls_after[response.id] = todo
        if not todo.sentences:
            self._call(response)
            return
        response.begin_message()
        if response.is_spoken:
            self._effects.append(Speak(response.id, todo.sentences, response.settings["output"]))
            return
        for sentence in todo.sentences:
            if not response.say(sentence, b""):
                self._finish(response, "incomplete", "max_output_tokens")
                return
        response.end_message("completed")
        self._call(response)

    def _call(self, response: Response) -> None:
        for call in self._calls_after[response.id].calls:
            response.call(call.name, call.arguments)
        self._finish(response, "completed")

    def _cancel(self, response: Response, reason: str) -> None:
        self._effects.append(Hush(response.id))
        self._finish(response, "cancelled", reason)

    def _finish(self, response: Response, status: str, reason: str | None = None) -> None:
        self._calls_after.pop(response.id, None)
        self._side.pop(response.id, None)
        if self._unplanned is response:
            self._unplanned = None
        if self._active is response:
            self._active = None
        response.finish(status, reason)
        if self._active is None and self._owes_response and not self._turns.is_speaking:
            self._start_response(response_settings(self._session, {}))

    def _running(self, response_id: str) -> Response | None:
        if self._active is not None and self._active.id == response_id:
            return self._active
        return self._side.get(response_id)

    # -- small change -------------------------------------------------------------------------------------------------

    @property
    def _input(self) -> Obj:
        return dict(self._session["audio"]["input"])

    @property
    def _turn_detection(self) -> Obj:
        return dict(self._input["turn_detection"] or {})

    def _recognise(self, item_id: str, *, then_respond: bool, clip: bytes | None = None) -> None:
        self._recognising[item_id] = then_respond
        self._effects.append(Recognise(item_id, clip))

    def _configure(self) -> Configure:
        return Configure(self._input["format"]["type"], self._input["turn_detection"], self._grammar(self._session))

    def _send(self, event: Obj) -> None:
        kind = event.pop("type")
        self._effects.append(Send({"type": kind, "event_id": self._new_id("event"), **event}))

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects


def _parsed(message: str | bytes) -> Obj:
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise Fault(f"The message is not valid JSON: {error}", code="invalid_json") from error
    return an_object(event, "event")


_HANDLERS: dict[str, Callable[[Conversation, Obj], None]] = {
    "session.update": Conversation._session_update,
    "input_audio_buffer.append": Conversation._append,
    "input_audio_buffer.commit": Conversation._commit,
    "input_audio_buffer.clear": Conversation._clear,
    "output_audio_buffer.clear": Conversation._output_clear,
    "conversation.item.create": Conversation._item_create,
    "conversation.item.delete": lambda self, event: self._desk.delete(event),
    "conversation.item.retrieve": lambda self, event: self._desk.retrieve(event),
    "conversation.item.truncate": lambda self, event: self._desk.truncate(event),
    "response.create": Conversation._response_create,
    "response.cancel": Conversation._response_cancel,
}
