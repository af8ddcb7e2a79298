"""The speech contexts of an ElevenLabs connection: parses messages and returns what can be spoken now. Pure."""

import re
from dataclasses import dataclass, field
from typing import Any

from audio.formats import PCMA, PCMU, RATES_HZ, AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.session.tts.sentences import SentenceSplitter

MAX_CONTEXTS = 5
MAX_TEXT_CHARS = 40_000
"""The limit for the text of a context or a request."""
_FORMATS = {f"pcm_{rate_hz}": AudioFormat("pcm16", rate_hz) for rate_hz in RATES_HZ["pcm16"]}
_FORMATS |= {"ulaw_8000": PCMU, "alaw_8000": PCMA}
_COMPRESSED_FORMAT = re.compile(r"(mp3|opus)_\d{5}_\d{2,3}")


class ElevenLabsError(Exception):
    """A refused request: the message, ElevenLabs' error code, and the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def parse_output_format(text: str) -> AudioFormat:
    """Parse an `output_format` such as `pcm_24000`. Raises ElevenLabsError, also for mp3 and opus: no encoder."""
    if text in _FORMATS:
        return _FORMATS[text]
    if _COMPRESSED_FORMAT.fullmatch(text) or text.startswith("pcm_"):
        message = "The local engine supports pcm_8000, pcm_16000, pcm_24000, pcm_48000, ulaw_8000 and alaw_8000 only."
        raise ElevenLabsError(message, "unsupported_output_format", 400)
    raise ElevenLabsError(f"Unknown output_format {text[:40]}.", "invalid_output_format", 400)


def parse_speed(settings: Any) -> float:
    """Return the `speed` of `voice_settings`; the other fields are only checked. Raises ElevenLabsError."""
    if settings is None:
        return 1.0
    if not isinstance(settings, dict):
        raise ElevenLabsError("voice_settings must be an object.", "invalid_voice_settings", 422)
    ranges = {"stability": (0, 1), "similarity_boost": (0, 1), "style": (0, 1), "speed": (0.7, 1.2)}
    for name, (low, high) in ranges.items():
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ElevenLabsError(f"voice_settings.{name} must be a number.", "invalid_voice_settings", 422)
        if value is not None and not low <= value <= high:
            raise ElevenLabsError(f"voice_settings.{name} must be from {low} to {high}.", "invalid_voice_settings", 422)
    return float(settings.get("speed") or 1.0)


class SpeechContext:
    """One stream of text to speak."""

    def __init__(self, context_id: str, speed: float) -> None:
        self.id = context_id
        self.speed = speed
        self.is_flushed = False
        self._splitter = SentenceSplitter()
        self._n_chars = 0

    def add_text(self, text: str, *, flush: bool) -> list[str]:
        """Add text; returns the complete sentences, with `flush` also the rest. Raises ElevenLabsError if too long."""
        self._n_chars += len(text)
        if self._n_chars > MAX_TEXT_CHARS:
            message = f"A context may have at most {MAX_TEXT_CHARS} characters."
            raise ElevenLabsError(message, "max_character_limit_exceeded", 400)
        sentences = self._splitter.feed(text)
        if flush:
            sentences.append(self._splitter.flush())
        return [sentence for sentence in sentences if sentence.strip()]


@dataclass(slots=True)
class ContextStep:
    """The result of a message: sentences to speak, a context to finish after its speech, contexts to cancel."""

    context: SpeechContext | None = None
    sentences: list[str] = field(default_factory=list)
    finished: SpeechContext | None = None
    cancelled: list[SpeechContext] = field(default_factory=list)
    is_last: bool = False


class SpeechContexts:
    """The contexts of one connection; with `multi` false there is a single one, and an empty text ends it."""

    def __init__(self, *, multi: bool) -> None:
        self._multi = multi
        self._open: dict[str, SpeechContext] = {}
        self._closing: set[SpeechContext] = set()

    def receive(self, data: str) -> ContextStep:
        """Handle one message. Raises ElevenLabsError if it is invalid, and for a sixth context."""
        obj = parse_json_object(data)
        if obj is None:
            message = "Could not parse input message, make sure it is a JSON object."
            raise ElevenLabsError(message, "invalid_input_message", 422)
        if obj.get("close_socket") is True:
            return self._close_all()
        context_id = str(obj.get("context_id") or "default") if self._multi else ""
        open_context = self._open.get(context_id)
        if obj.get("close_context") is True:
            return self._close_context(open_context)
        text = obj.get("text", "")
        if not isinstance(text, str):
            raise ElevenLabsError("text must be a string.", "invalid_input_message", 422)
        if text == "" and (open_context is None or not self._multi):
            return ContextStep() if open_context is None else self._finish_context(open_context)
        context = open_context or self._open_context(context_id, obj)
        flush = obj.get("flush") is True or obj.get("try_trigger_generation") is True
        context.is_flushed = context.is_flushed or flush
        return ContextStep(context=context, sentences=context.add_text(text, flush=flush))

    def remove(self, context: SpeechContext) -> None:
        """Remove a context whose audio has been sent completely."""
        self._closing.discard(context)

    def _open_context(self, context_id: str, obj: JsonObject) -> SpeechContext:
        if len(self._open) + len(self._closing) >= MAX_CONTEXTS:
            message = (
                f"Maximum simultaneous contexts per WebSocket connection exceeded ({MAX_CONTEXTS}). "
                "Please close an existing context before opening a new one."
            )
            raise ElevenLabsError(message, "max_active_conversations", 400)
        context = self._open[context_id] = SpeechContext(context_id, parse_speed(obj.get("voice_settings")))
        return context

    def _close_context(self, context: SpeechContext | None) -> ContextStep:
        """Close a context: a flushed one speaks its remaining text, any other is cancelled."""
        if context is None:
            return ContextStep()
        if context.is_flushed:
            return self._finish_context(context)
        del self._open[context.id]
        self._closing.add(context)
        return ContextStep(cancelled=[context])

    def _finish_context(self, context: SpeechContext) -> ContextStep:
        del self._open[context.id]
        self._closing.add(context)
        return ContextStep(context=context, sentences=context.add_text("", flush=True), finished=context)

    def _close_all(self) -> ContextStep:
        step = ContextStep(
            is_last=True, cancelled=[context for context in self._open.values() if not context.is_flushed]
        )
        self._closing.update(self._open.values())
        self._open.clear()
        return step
