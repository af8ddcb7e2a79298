"""The user's spoken turns: the audio not yet committed, the turn under way, and the items that turns become."""

from collections.abc import Callable

from audio.formats import REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.local_engine.realtime.item_records import Record, decode_audio, new_item
from relay.local_engine.realtime.items import Items
from relay.local_engine.realtime.validation import Fault, Send, need

LARGEST_APPEND_BYTES = 15 * 1024 * 1024
LONGEST_BUFFER_MS = 600_000
"""Of uncommitted audio in a manual turn; more is refused. With VAD silence is dropped, so nothing piles up."""
SHORTEST_COMMIT_MS = 100
NOT_UNDERSTOOD = "[not understood]"
LONGEST_TURN_MS = 60_000
"""Of a turn that goes on for longer the last minute is kept."""
_PREFIX_MS = 6_000  # the longest prefix_padding_ms, and a little


class InputTape:
    """The most recent input audio, found again by its place in the stream (ms since the session began)."""

    def __init__(self) -> None:
        self.position_ms = 0.0
        self._audio = bytearray()
        self._bytes_per_ms = 48

    def feed(self, audio: bytes, bytes_per_ms: int, *, keep: bool) -> None:
        """Take in audio; `keep` is for a turn under way, else only what a prefix may need stays."""
        if bytes_per_ms != self._bytes_per_ms:
            self._audio.clear()
            self._bytes_per_ms = bytes_per_ms
        self._audio += audio
        self.position_ms += len(audio) / bytes_per_ms
        surplus = len(self._audio) - (LONGEST_TURN_MS if keep else _PREFIX_MS) * bytes_per_ms
        if surplus > 0:
            del self._audio[:surplus]

    def between(self, start_ms: float, end_ms: float) -> bytes:
        """What is still there of a stretch, in whole samples."""
        behind = [max(round(self.position_ms - at), 0) * self._bytes_per_ms for at in (start_ms, end_ms)]
        length = len(self._audio)
        return bytes(self._audio[max(length - behind[0], 0) : max(length - behind[1], 0)])


class InputTurns:
    """Counts the input audio in ms and makes items of turns; the audio goes to the ears, and to the shelf."""

    def __init__(self, items: Items, send: Send, new_id: Callable[[str], str]) -> None:
        self._items = items
        self.tape = InputTape()
        self._send = send
        self._new_id = new_id
        self._speech: tuple[str, int] | None = None
        self._buffer_ms = 0.0

    @property
    def is_speaking(self) -> bool:
        """Whether the user is in the middle of a turn."""
        return self._speech is not None

    def append(self, event: JsonObject, settings: JsonObject) -> bytes:
        """The audio of an append; `settings` are the session's `audio.input`."""
        audio = decode_audio(need(event, "audio"), "audio")
        if len(audio) > LARGEST_APPEND_BYTES:
            raise Fault("Invalid 'audio': at most 15 MiB can be appended at once.", param="audio")
        bytes_per_ms = REALTIME_FORMATS[settings["format"]["type"]].bytes_per_ms
        length_ms = len(audio) / bytes_per_ms
        if settings["turn_detection"] is None and self._buffer_ms + length_ms > LONGEST_BUFFER_MS:
            raise Fault(
                "The input audio buffer holds ten minutes: commit or clear it.",
                code="input_audio_buffer_full",
                param="audio",
            )
        self._buffer_ms += length_ms
        self.tape.feed(audio, bytes_per_ms, keep=self.is_speaking or settings["turn_detection"] is None)
        return audio

    def commit(self) -> str:
        """The client ends the turn; returns the item that it becomes."""
        if self._buffer_ms < SHORTEST_COMMIT_MS:
            raise Fault(
                f"Error committing input audio buffer: buffer too small. Expected at least {SHORTEST_COMMIT_MS}ms of "
                f"audio, but buffer only has {self._buffer_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        return self._end(self.tape.position_ms - self._buffer_ms, self.tape.position_ms)

    def clear(self) -> None:
        """Forget the audio not yet committed."""
        self._buffer_ms = 0
        self._speech = None
        self._send({"type": "input_audio_buffer.cleared"})

    def started(self, start_ms: int) -> None:
        """Turn detection heard the user begin."""
        item_id = self._new_id("item")
        self._speech = (item_id, start_ms)
        self._send({"type": "input_audio_buffer.speech_started", "item_id": item_id, "audio_start_ms": start_ms})

    def stopped(self, end_ms: int) -> str | None:
        """Turn detection heard the user end; returns the item that the turn becomes."""
        if self._speech is None:
            return None
        item_id, start_ms = self._speech
        self._send({"type": "input_audio_buffer.speech_stopped", "item_id": item_id, "audio_end_ms": end_ms})
        return self._end(start_ms, end_ms)

    def idle(self, idle_ms: int) -> None:
        """No turn came for `idle_ms`: the silence becomes an item of its own."""
        item_id, end_ms = self._new_id("item"), round(self.tape.position_ms)
        start_ms = max(end_ms - idle_ms, 0)
        place = {"item_id": item_id, "audio_start_ms": start_ms, "audio_end_ms": end_ms}
        self._send({"type": "input_audio_buffer.timeout_triggered", **place})
        self._end(start_ms, end_ms, item_id, is_silence=True)

    def _end(self, start_ms: float, end_ms: float, item_id: str | None = None, *, is_silence: bool = False) -> str:
        item_id = item_id or (self._speech[0] if self._speech else self._new_id("item"))
        self._speech, self._buffer_ms = None, 0
        self._items.shelf.add(item_id, self.tape.between(start_ms, end_ms))
        content = [{"type": "input_audio", "transcript": None}]
        item = new_item(item_id, "message", "completed", role="user", content=content)
        record = Record(item, audio_ms=round(end_ms - start_ms), is_silence=is_silence)
        previous = self._items.add(record)
        self._send({"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous})
        self._items.announce(record, previous)
        return item_id

    def transcribe(self, record: Record, text: str | None, failure: str | None = None) -> None:
        """Tell what was recognised in an item; None: nothing that the engine understands, or a failure."""
        parts = enumerate(record.item["content"])
        index, part = next((index, part) for index, part in parts if part["type"] == "input_audio")
        kind = "conversation.item.input_audio_transcription"
        place = {"item_id": record.id, "content_index": index}
        if failure is not None:
            error = {"type": "server_error", "code": "transcription_failed", "message": failure}
            self._send({"type": f"{kind}.failed", **place, "error": error})
            return
        transcript = NOT_UNDERSTOOD if text is None else text
        content = list(record.item["content"])
        content[index] = part | {"transcript": transcript}
        record.item["content"] = content
        if text is not None:
            self._send({"type": f"{kind}.delta", **place, "delta": transcript})
        usage = {"type": "duration", "seconds": record.audio_ms / 1000}
        self._send({"type": f"{kind}.completed", **place, "transcript": transcript, "usage": usage})
