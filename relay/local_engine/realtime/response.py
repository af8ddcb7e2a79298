"""One response: emits its events in the order that all known clients accept.

response.created, then per item: output_item.added, conversation.item.added, (content_part.added, deltas, *.done,
content_part.done | function_call_arguments.*), output_item.done, conversation.item.done; finally response.done.
"""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pybase64

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.item_records import ItemRecord, new_item
from relay.local_engine.realtime.items import ItemList
from relay.local_engine.realtime.validation import EventSink

CHUNK_MS = 100
_ARGUMENTS_CHUNK_CHARS = 16  # characters: more than one delta, as clients must expect
_CHARS_PER_TOKEN = 4
_AUDIO_MS_PER_TOKEN = 50
_INPUT_AUDIO_MS_PER_TOKEN = 100
_UNUSED_TOKEN_KINDS = {"image_tokens": 0, "cached_tokens": 0}


class Response:
    """A response in progress; every method emits the events of its step.

    `conversation_id` is None for an out-of-band response: its items are not added to `items`. `input_items` are the
    items that it answers. `audio_ms` is the length of its audio so far.
    """

    def __init__(
        self,
        settings: JsonObject,
        items: ItemList,
        emit: EventSink,
        new_id: Callable[[str], str],
        *,
        conversation_id: str | None,
        input_items: Iterable[ItemRecord],
    ) -> None:
        self.id = new_id("resp")
        self.settings = settings
        self._new_id = new_id
        self._emit = emit
        self._conversation_id = conversation_id
        self._items = items
        self.in_conversation = conversation_id is not None
        self.is_audio: bool = settings["output_modalities"] == ["audio"]
        text_chars, input_audio_ms = len(settings["instructions"]), 0
        for record in input_items:
            text_chars += record.n_chars
            if record.item.get("role") == "user":
                input_audio_ms += record.audio_ms
        self._input_tokens = (-(-text_chars // _CHARS_PER_TOKEN), -(-input_audio_ms // _INPUT_AUDIO_MS_PER_TOKEN))
        self._output: list[ItemRecord] = []
        self._open_message: ItemRecord | None = None
        self._previous: str | None = None
        self._text_chars = 0
        self.audio_ms = 0
        emit({"type": "response.created", "response": self._response_object("in_progress")})

    def add_function_call(self, name: str, arguments: dict[str, Any]) -> None:
        """Add a complete function call."""
        text = orjson.dumps(arguments).decode()
        call_id = self._new_id("call")
        members = {"call_id": call_id, "name": name, "arguments": ""}
        record = ItemRecord(new_item(self._new_id("item"), "function_call", "in_progress", **members))
        self._add_output_item(record)
        position = self._position(record, call_id=call_id)
        for start in range(0, len(text), _ARGUMENTS_CHUNK_CHARS):
            delta = text[start : start + _ARGUMENTS_CHUNK_CHARS]
            self._emit({"type": "response.function_call_arguments.delta", **position, "delta": delta})
        self._emit({"type": "response.function_call_arguments.done", **position, "name": name, "arguments": text})
        record.item |= {"arguments": text}
        self._text_chars += len(text) + len(name)
        self._finish_output_item(record, "completed")

    def begin_message(self) -> None:
        """Open the message that `add_sentence` adds to."""
        record = ItemRecord(new_item(self._new_id("item"), "message", "in_progress", role="assistant", content=[]))
        self._open_message = record
        self._add_output_item(record)
        part = {"type": "audio", "transcript": ""} if self.is_audio else {"type": "text", "text": ""}
        self._emit({"type": "response.content_part.added", **self._position(record, content_index=0), "part": part})

    def add_sentence(self, sentence: str, audio: bytes) -> bool:
        """Add a sentence and its audio, in the output format; returns False if `max_output_tokens` cut it short."""
        assert self._open_message is not None
        record = self._open_message
        position = self._position(record, content_index=0)
        delta = f" {sentence}" if record.spoken_sentences else sentence
        length_ms = len(audio) // self._bytes_per_ms
        remaining_tokens = self._remaining_tokens()
        if not self.is_audio:
            is_complete = len(delta) <= remaining_tokens * _CHARS_PER_TOKEN
            delta = delta[: remaining_tokens * _CHARS_PER_TOKEN]
            self._emit({"type": "response.output_text.delta", **position, "delta": delta})
            self._text_chars += len(delta)
            record.spoken_sentences.append((delta.strip(), 0))
            return is_complete
        is_complete = length_ms <= remaining_tokens * _AUDIO_MS_PER_TOKEN
        if self.in_conversation:
            self._items.audio_cache.append(record.id, audio)
        if not is_complete:
            length_ms = remaining_tokens * _AUDIO_MS_PER_TOKEN
            audio = audio[: length_ms * self._bytes_per_ms]
        self._emit({"type": "response.output_audio_transcript.delta", **position, "delta": delta})
        self._emit_audio(audio, position)
        self.audio_ms += length_ms
        self._text_chars += len(delta)
        record.spoken_sentences.append((sentence, length_ms))
        record.audio_ms += length_ms
        record.bytes_per_ms = self._bytes_per_ms
        return is_complete

    def _emit_audio(self, audio: bytes, position: JsonObject) -> None:
        """Emit a sentence's audio as deltas of `CHUNK_MS` each."""
        step = CHUNK_MS * self._bytes_per_ms
        for start in range(0, len(audio), step):
            # `delta` comes last: some clients read the audio of such an event without parsing it.
            delta = pybase64.b64encode(audio[start : start + step]).decode()
            self._emit({"type": "response.output_audio.delta", **position, "delta": delta})

    def end_message(self, status: str) -> None:
        """Close the open message, if any; `status` is "completed" or "incomplete"."""
        record, self._open_message = self._open_message, None
        if record is None:
            return
        position = self._position(record, content_index=0)
        text = " ".join(sentence for sentence, _ in record.spoken_sentences)
        if self.is_audio:
            self._emit({"type": "response.output_audio.done", **position})
            self._emit({"type": "response.output_audio_transcript.done", **position, "transcript": text})
            part = {"type": "audio", "transcript": text}
        else:
            self._emit({"type": "response.output_text.done", **position, "text": text})
            part = {"type": "text", "text": text}
        self._emit({"type": "response.content_part.done", **position, "part": part})
        record.item["content"] = [part | {"type": f"output_{part['type']}"}]
        self._finish_output_item(record, status)
        record.truncate_transcript()  # the client may have truncated it while it was generated

    def finish(self, status: str, reason: str | None = None) -> int:
        """Emit `response.done`; returns the tokens used. `reason` is why it is incomplete, or the error message."""
        self.end_message("completed" if status == "completed" else "incomplete")
        usage = self._usage()
        self._emit({"type": "response.done", "response": self._response_object(status, reason, usage)})
        return int(usage["total_tokens"])

    def _add_output_item(self, record: ItemRecord) -> None:
        self._output.append(record)
        self._emit(self._output_item_event("response.output_item.added", record))
        if self.in_conversation:
            self._previous = self._items.add(record)
            self._emit(self._conversation_item_event("conversation.item.added", record))

    def _finish_output_item(self, record: ItemRecord, status: str) -> None:
        record.item["status"] = status
        self._emit(self._output_item_event("response.output_item.done", record))
        if self.in_conversation:
            self._emit(self._conversation_item_event("conversation.item.done", record))

    def _output_item_event(self, kind: str, record: ItemRecord) -> JsonObject:
        position = {"response_id": self.id, "output_index": self._output.index(record)}
        return {"type": kind, **position, "item": dict(record.item)}

    def _conversation_item_event(self, kind: str, record: ItemRecord) -> JsonObject:
        return {"type": kind, "previous_item_id": self._previous, "item": dict(record.item)}

    def _position(self, record: ItemRecord, **more: Any) -> JsonObject:
        """Return the position fields of an event about the last item."""
        return {"response_id": self.id, "item_id": record.id, "output_index": len(self._output) - 1, **more}

    @property
    def _bytes_per_ms(self) -> int:
        return REALTIME_FORMATS[self.settings["output"]["format"]["type"]].bytes_per_ms

    def _output_tokens(self) -> tuple[int, int]:
        return -(-self._text_chars // _CHARS_PER_TOKEN), -(-self.audio_ms // _AUDIO_MS_PER_TOKEN)

    def _remaining_tokens(self) -> int:
        """Tokens left under `max_output_tokens`; in an audio response only the audio counts."""
        max_tokens = self.settings["max_output_tokens"]
        text, audio = self._output_tokens()
        return 10**9 if max_tokens == "inf" else max(max_tokens - (audio if self.is_audio else text), 0)

    def _response_object(self, status: str, reason: str | None = None, usage: JsonObject | None = None) -> JsonObject:
        output = self.settings["output"]
        voice = output["voice"]
        details: JsonObject | None = None
        if status not in ("in_progress", "completed"):
            error = {"type": "server_error", "code": "voice_failed", "message": reason}
            details = {"type": status} | ({"error": error} if status == "failed" else {"reason": reason})
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [dict(record.item) for record in self._output],
            "conversation_id": self._conversation_id,
            "output_modalities": self.settings["output_modalities"],
            "max_output_tokens": self.settings["max_output_tokens"],
            "audio": {
                "output": {"format": output["format"], "voice": voice["id"] if isinstance(voice, dict) else voice}
            },
            "usage": usage,
            "metadata": self.settings["metadata"],
        }

    def _usage(self) -> JsonObject:
        """Estimate the usage: one token for 4 characters, 50 ms of output audio or 100 ms of input audio."""
        text_in, audio_in = self._input_tokens
        text_out, audio_out = self._output_tokens()
        return {
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {"text_tokens": text_in, "audio_tokens": audio_in} | _UNUSED_TOKEN_KINDS,
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }
