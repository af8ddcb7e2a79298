"""The user's spoken turns: uncommitted audio, the turn in progress, and the items that turns become."""

from collections.abc import Callable

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.item_records import ItemRecord, decode_audio, new_item
from relay.local_engine.realtime.items import ItemList
from relay.local_engine.realtime.validation import EventSink, InvalidRequestError, require_field

MAX_APPEND_BYTES = 15 * 1024 * 1024
MAX_BUFFER_MS = 600_000
"""Uncommitted audio of a manual turn; more is refused. With turn detection silence is dropped, so there is no bound."""
MIN_COMMIT_MS = 100
NOT_UNDERSTOOD = "[not understood]"
MAX_TURN_MS = 60_000
"""The audio kept of a turn; a longer turn keeps its end."""
_MAX_PREFIX_MS = 6_000  # the longest prefix_padding_ms, and a little


class InputRingBuffer:
    """The most recent input audio, addressed by its position in the stream (ms since the session began)."""

    def __init__(self) -> None:
        self.position_ms = 0.0
        self._audio = bytearray()
        self._bytes_per_ms = 48

    def append(self, audio: bytes, bytes_per_ms: int, *, in_turn: bool) -> None:
        """Append audio. Outside a turn only the longest possible prefix is kept."""
        if bytes_per_ms != self._bytes_per_ms:
            self._audio.clear()
            self._bytes_per_ms = bytes_per_ms
        self._audio += audio
        self.position_ms += len(audio) / bytes_per_ms
        surplus = len(self._audio) - (MAX_TURN_MS if in_turn else _MAX_PREFIX_MS) * bytes_per_ms
        if surplus > 0:
            del self._audio[:surplus]

    def slice_ms(self, start_ms: float, end_ms: float) -> bytes:
        """Return what is still kept of a span, in whole samples."""
        ages_bytes = [max(round(self.position_ms - at), 0) * self._bytes_per_ms for at in (start_ms, end_ms)]
        length = len(self._audio)
        return bytes(self._audio[max(length - ages_bytes[0], 0) : max(length - ages_bytes[1], 0)])


class InputTurns:
    """Track the input position in ms and turn committed audio into conversation items."""

    def __init__(self, items: ItemList, send: EventSink, new_id: Callable[[str], str]) -> None:
        self._items = items
        self.ring_buffer = InputRingBuffer()
        self._send = send
        self._new_id = new_id
        self._open_turn: tuple[str, int] | None = None
        self._buffer_ms = 0.0

    @property
    def is_user_speaking(self) -> bool:
        """Whether a turn is in progress."""
        return self._open_turn is not None

    def append(self, event: JsonObject, audio_input: JsonObject) -> bytes:
        """Decode and buffer the audio of an append; `audio_input` is the session's `audio.input`."""
        audio = decode_audio(require_field(event, "audio"), "audio")
        if len(audio) > MAX_APPEND_BYTES:
            raise InvalidRequestError("Invalid 'audio': at most 15 MiB can be appended at once.", param="audio")
        bytes_per_ms = REALTIME_FORMATS[audio_input["format"]["type"]].bytes_per_ms
        length_ms = len(audio) / bytes_per_ms
        if audio_input["turn_detection"] is None and self._buffer_ms + length_ms > MAX_BUFFER_MS:
            raise InvalidRequestError(
                "The input audio buffer is full: it holds ten minutes. Commit or clear it.",
                code="input_audio_buffer_full",
                param="audio",
            )
        self._buffer_ms += length_ms
        self.ring_buffer.append(
            audio, bytes_per_ms, in_turn=self.is_user_speaking or audio_input["turn_detection"] is None
        )
        return audio

    def commit(self) -> str:
        """End a manual turn; returns the id of its item. Raises InvalidRequestError if it is too short."""
        if self._buffer_ms < MIN_COMMIT_MS:
            raise InvalidRequestError(
                f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS}ms of "
                f"audio, but buffer only has {self._buffer_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        return self._commit_turn(self.ring_buffer.position_ms - self._buffer_ms, self.ring_buffer.position_ms)

    def clear(self) -> None:
        """Drop the uncommitted audio."""
        self._buffer_ms = 0
        self._open_turn = None
        self._send({"type": "input_audio_buffer.cleared"})

    def on_speech_started(self, start_ms: int) -> None:
        """Start a detected turn."""
        item_id = self._new_id("item")
        self._open_turn = (item_id, start_ms)
        self._send({"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": start_ms})

    def on_speech_stopped(self, end_ms: int) -> str | None:
        """End a detected turn; returns the id of its item."""
        if self._open_turn is None:
            return None
        item_id, start_ms = self._open_turn
        self._send({"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": end_ms})
        return self._commit_turn(start_ms, end_ms)

    def on_idle_timeout(self, idle_ms: int) -> None:
        """Commit `idle_ms` of silence as an item of its own."""
        item_id, end_ms = self._new_id("item"), round(self.ring_buffer.position_ms)
        start_ms = max(end_ms - idle_ms, 0)
        span = {"item_id": item_id, "audio_start_ms": start_ms, "audio_end_ms": end_ms}
        self._send({"type": "input_audio_buffer.timeout_triggered", **span})
        self._commit_turn(start_ms, end_ms, item_id, is_silence=True)

    def _commit_turn(
        self, start_ms: float, end_ms: float, item_id: str | None = None, *, is_silence: bool = False
    ) -> str:
        item_id = item_id or (self._open_turn[0] if self._open_turn else self._new_id("item"))
        self._open_turn, self._buffer_ms = None, 0
        self._items.audio_cache.append(item_id, self.ring_buffer.slice_ms(start_ms, end_ms))
        content = [{"type": "input_audio", "transcript": None}]
        item = new_item(item_id, "message", "completed", role="user", content=content)
        record = ItemRecord(item, audio_ms=round(end_ms - start_ms), is_silence=is_silence)
        previous = self._items.add(record)
        self._send({"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous})
        self._items.announce(record, previous)
        return item_id

    def set_transcript(self, record: ItemRecord, text: str | None, failure: str | None = None) -> None:
        """Store and send the transcript of an item; None: not understood, or a failure."""
        parts = enumerate(record.item["content"])
        index, part = next((index, part) for index, part in parts if part["type"] == "input_audio")
        kind = "conversation.item.input_audio_transcription"
        position = {"item_id": record.id, "content_index": index}
        if failure is not None:
            error = {"type": "server_error", "code": "transcription_failed", "message": failure}
            self._send({"type": f"{kind}.failed", **position, "error": error})
            return
        transcript = NOT_UNDERSTOOD if text is None else text
        content = list(record.item["content"])
        content[index] = part | {"transcript": transcript}
        record.item["content"] = content
        if text is not None:
            self._send({"type": f"{kind}.delta", **position, "delta": transcript})
        usage = {"type": "duration", "seconds": record.audio_ms / 1000}
        self._send({"type": f"{kind}.completed", **position, "transcript": transcript, "usage": usage})
