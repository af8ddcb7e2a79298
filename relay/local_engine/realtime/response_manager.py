"""The responses of a conversation: one in it at a time, a few out-of-band ones, and what each says or calls."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from relay.json_types import JsonObject
from relay.local_engine.dialogue.policy import PlannedCall, plan_response
from relay.local_engine.dialogue.turn_context import build_turn_context
from relay.local_engine.nlu.grammar import grammar_for_tools
from relay.local_engine.realtime.commands import CancelSpeech, EngineCommand, Synthesize
from relay.local_engine.realtime.item_records import ItemRecord, parse_client_item
from relay.local_engine.realtime.items import ItemList
from relay.local_engine.realtime.response import Response
from relay.local_engine.realtime.validation import (
    EventSink,
    InvalidRequestError,
    check_object,
    check_string,
    reject_unknown_fields,
    require_field,
)

MAX_OUT_OF_BAND_RESPONSES = 4
REQUESTS_LIMIT, TOKENS_LIMIT = 10_000, 10_000_000
"""The limits that `rate_limits.updated` reports for a session. They are not enforced."""

_ACTIVE_RESPONSE_CODE = "conversation_already_has_active_response"


class ResponseManager:
    """Start, plan, cancel and end responses.

    `queue_command` takes commands; `on_finished` is called for every response that ended. While `is_recognizing` is
    true, a new response is created but waits for the transcript.
    """

    def __init__(
        self,
        items: ItemList,
        send: EventSink,
        queue_command: Callable[[EngineCommand], None],
        new_id: Callable[[str], str],
        on_finished: Callable[[Response], None],
    ) -> None:
        self._items = items
        self._send = send
        self._queue_command = queue_command
        self._new_id = new_id
        self._on_finished = on_finished
        self.conversation_id = new_id("conv")
        self._out_of_band: dict[str, Response] = {}
        self._pending_calls: dict[str, Sequence[PlannedCall]] = {}
        self._awaiting_transcript: Response | None = None
        self._requests = self._tokens = 0
        self.active: Response | None = None
        self.is_recognizing = False

    def create(self, settings: JsonObject) -> None:
        """Create a response, for `response.create` or turn detection. Raises InvalidRequestError.

        An out-of-band response reads the conversation, or its own input, and adds nothing to it.
        """
        is_out_of_band = settings["conversation"] == "none"
        self._check_capacity(is_out_of_band)
        if settings["input"] is not None:
            settings["input"] = self._parse_input(settings["input"])
        input_items = self._items if settings["input"] is None else settings["input"]
        conversation_id = None if is_out_of_band else self.conversation_id
        response = Response(
            settings, self._items, self._send, self._new_id, conversation_id=conversation_id, input_items=input_items
        )
        self._requests += 1
        limits = (("requests", REQUESTS_LIMIT, self._requests), ("tokens", TOKENS_LIMIT, self._tokens))
        rate_limits = [
            {"name": name, "limit": limit, "remaining": max(limit - used, 0)} for name, limit, used in limits
        ]
        self._send({"type": "rate_limits.updated", "rate_limits": rate_limits})
        if is_out_of_band:
            self._out_of_band[response.id] = response
        else:
            self.active = response
        if self.is_recognizing and not is_out_of_band:
            self._awaiting_transcript = response
        else:
            self._start(response)

    def _check_capacity(self, is_out_of_band: bool) -> None:
        if is_out_of_band and len(self._out_of_band) >= MAX_OUT_OF_BAND_RESPONSES:
            raise InvalidRequestError(
                f"Only {MAX_OUT_OF_BAND_RESPONSES} responses outside the conversation can run at a time.",
                code=_ACTIVE_RESPONSE_CODE,
            )
        if not is_out_of_band and self.active is not None:
            raise InvalidRequestError(
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
                code=_ACTIVE_RESPONSE_CODE,
            )

    def on_transcript_ready(self) -> None:
        """Start the response that waited for the transcript."""
        if self._awaiting_transcript is not None and not self.is_recognizing:
            response, self._awaiting_transcript = self._awaiting_transcript, None
            self._start(response)

    def find(self, response_id: str | None) -> Response | None:
        """Return the active response with that id; for None, that of the conversation."""
        if response_id is None or (self.active is not None and self.active.id == response_id):
            return self.active
        return self._out_of_band.get(response_id)

    def add_sentence(self, response: Response, sentence: str, audio: bytes) -> None:
        """Add a synthesized sentence to a response."""
        if not response.add_sentence(sentence, audio):
            self._queue_command(CancelSpeech(response.id))
            self.finish(response, "incomplete", "max_output_tokens")

    def complete(self, response: Response) -> None:
        """Complete a response whose message is finished: add its function calls and end it."""
        response.end_message("completed")
        for call in self._pending_calls[response.id]:
            response.add_function_call(call.name, call.arguments)
        self.finish(response, "completed")

    def cancel(self, response: Response, reason: str) -> None:
        """Cancel a response; `reason` is "client_cancelled" or "turn_detected"."""
        self._queue_command(CancelSpeech(response.id))
        self.finish(response, "cancelled", reason)

    def finish(self, response: Response, status: str, reason: str | None = None) -> None:
        """End a response with this status."""
        self._pending_calls.pop(response.id, None)
        self._out_of_band.pop(response.id, None)
        if self._awaiting_transcript is response:
            self._awaiting_transcript = None
        if self.active is response:
            self.active = None
        self._tokens += response.finish(status, reason)
        self._on_finished(response)

    def _parse_input(self, items: Sequence[Any]) -> list[ItemRecord]:
        records: list[ItemRecord] = []
        for index, value in enumerate(items):
            path = f"response.input[{index}]"
            if check_object(value, path).get("type") == "item_reference":
                reject_unknown_fields(value, ("type", "id"), f"{path}.")
                record = self._items.get(check_string(require_field(value, "id", f"{path}."), f"{path}.id"))
                if record is None:
                    raise InvalidRequestError(f"Item '{value['id'][:200]}' not found.", param=f"{path}.id")
                records.append(record)
            else:
                records.append(parse_client_item(value, self._new_id("item"), path)[0])
        return records

    def _start(self, response: Response) -> None:
        settings = response.settings
        records = list(self._items) if settings["input"] is None else settings["input"]
        plan = plan_response(
            grammar_for_tools(orjson.dumps(settings["tools"])), build_turn_context(records, settings["tool_choice"])
        )
        if response.in_conversation:
            for record in records:
                record.is_answered = True
        self._pending_calls[response.id] = plan.calls if settings["parallel_tool_calls"] else plan.calls[:1]
        if not plan.sentences:
            self.complete(response)
            return
        response.begin_message()
        if response.is_audio:
            self._queue_command(Synthesize(response.id, plan.sentences, settings["output"]))
            return
        for sentence in plan.sentences:
            if not response.add_sentence(sentence, b""):
                self.finish(response, "incomplete", "max_output_tokens")
                return
        self.complete(response)
