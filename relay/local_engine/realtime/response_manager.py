"""The responses of a conversation: at most one in it, a few beside it, and what each is going to say or call."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from relay.json_types import JsonObject
from relay.local_engine.dialogue.policy import Call, plan, situation_of
from relay.local_engine.nlu.grammar import grammar_of
from relay.local_engine.realtime.commands import Effect, Hush, Speak
from relay.local_engine.realtime.item_records import Record, client_item
from relay.local_engine.realtime.items import Items
from relay.local_engine.realtime.response import Response
from relay.local_engine.realtime.validation import Fault, Send, a_text, an_object, need, only

MOST_SIDE_RESPONSES = 4
REQUESTS_LIMIT, TOKENS_LIMIT = 10_000, 10_000_000
"""Of a session, as `rate_limits.updated` tells them: they are counted, and nothing is refused for their sake."""

_REFUSED = "conversation_already_has_active_response"


class ResponseDesk:
    """Starts, plans, cancels and ends responses.

    `ask` takes effects, `on_finished` is told of every response that ended. `deaf` is true while recognition is under
    way: a response that was asked for before the words are there begins, and waits for them.
    """

    def __init__(
        self,
        items: Items,
        send: Send,
        ask: Callable[[Effect], None],
        new_id: Callable[[str], str],
        on_finished: Callable[[Response], None],
    ) -> None:
        self._items = items
        self._send = send
        self._ask = ask
        self._new_id = new_id
        self._on_finished = on_finished
        self.conversation_id = new_id("conv")
        self._side: dict[str, Response] = {}
        self._calls_after: dict[str, Sequence[Call]] = {}
        self._unplanned: Response | None = None
        self._requests = self._tokens = 0
        self.active: Response | None = None
        self.deaf = False

    def create(self, settings: JsonObject) -> None:
        """A client's `response.create`, or one that turn detection asks for; raises Fault.

        One outside the conversation reads it, or its own input, and leaves no trace in it.
        """
        is_aside = settings["conversation"] == "none"
        self._check_room(is_aside)
        if settings["input"] is not None:
            settings["input"] = self._inputs(settings["input"])
        before = self._items if settings["input"] is None else settings["input"]
        conversation_id = None if is_aside else self.conversation_id
        response = Response(
            settings, self._items, self._send, self._new_id, conversation_id=conversation_id, before=before
        )
        self._requests += 1
        limits = (("requests", REQUESTS_LIMIT, self._requests), ("tokens", TOKENS_LIMIT, self._tokens))
        told = [{"name": name, "limit": limit, "remaining": max(limit - used, 0)} for name, limit, used in limits]
        self._send({"type": "rate_limits.updated", "rate_limits": told})
        if is_aside:
            self._side[response.id] = response
        else:
            self.active = response
        if self.deaf and not is_aside:
            self._unplanned = response
        else:
            self._carry_out(response)

    def _check_room(self, is_aside: bool) -> None:
        """Raise Fault where one more response, in the conversation or outside it, is too many."""
        if is_aside and len(self._side) >= MOST_SIDE_RESPONSES:
            raise Fault(
                f"Only {MOST_SIDE_RESPONSES} responses outside the conversation can run at a time.", code=_REFUSED
            )
        if not is_aside and self.active is not None:
            raise Fault(
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
                code=_REFUSED,
            )

    def words_are_there(self) -> None:
        """Recognition is done: the response that waited for it goes on."""
        if self._unplanned is not None and not self.deaf:
            response, self._unplanned = self._unplanned, None
            self._carry_out(response)

    def find(self, response_id: str | None) -> Response | None:
        """The response under way with that id; without one, that of the conversation."""
        if response_id is None or (self.active is not None and self.active.id == response_id):
            return self.active
        return self._side.get(response_id)

    def say(self, response: Response, sentence: str, audio: bytes) -> None:
        """A sentence with its sound is ready."""
        if not response.say(sentence, audio):
            self._ask(Hush(response.id))
            self.finish(response, "incomplete", "max_output_tokens")

    def said_all(self, response: Response) -> None:
        """Nothing more is to be said: the calls follow, and the end."""
        response.end_message("completed")
        for call in self._calls_after[response.id]:
            response.call(call.name, call.arguments)
        self.finish(response, "completed")

    def cancel(self, response: Response, reason: str) -> None:
        """Stop a response: "client_cancelled" or "turn_detected"."""
        self._ask(Hush(response.id))
        self.finish(response, "cancelled", reason)

    def finish(self, response: Response, status: str, reason: str | None = None) -> None:
        """End a response."""
        self._calls_after.pop(response.id, None)
        self._side.pop(response.id, None)
        if self._unplanned is response:
            self._unplanned = None
        if self.active is response:
            self.active = None
        self._tokens += response.finish(status, reason)
        self._on_finished(response)

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

    def _carry_out(self, response: Response) -> None:
        settings = response.settings
        records = list(self._items) if settings["input"] is None else settings["input"]
        todo = plan(grammar_of(orjson.dumps(settings["tools"])), situation_of(records, settings["tool_choice"]))
        if response.in_conversation:
            for record in records:
                record.answered = True
        self._calls_after[response.id] = todo.calls if settings["parallel_tool_calls"] else todo.calls[:1]
        if not todo.sentences:
            self.said_all(response)
            return
        response.begin_message()
        if response.is_spoken:
            self._ask(Speak(response.id, todo.sentences, settings["output"]))
            return
        for sentence in todo.sentences:
            if not response.say(sentence, b""):
                self.finish(response, "incomplete", "max_output_tokens")
                return
        self.said_all(response)
