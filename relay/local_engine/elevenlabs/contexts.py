"""ElevenLabs' contexts as the engine keeps them: what a message asks for, what can be spoken now; no socket in here."""

import re
from dataclasses import dataclass, field
from typing import Any

from audio.formats import PCMA, PCMU, RATES_HZ, AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.session.tts.sentences import SentenceSplitter

MAX_CONTEXTS = 5
MAX_TEXT_CHARS = 40_000
"""Of one context, and of one request."""
_FORMATS = {f"pcm_{rate_hz}": AudioFormat("pcm16", rate_hz) for rate_hz in RATES_HZ["pcm16"]}
_FORMATS |= {"ulaw_8000": PCMU, "alaw_8000": PCMA}
_COMPRESSED_FORMAT = re.compile(r"(mp3|opus)_\d{5}_\d{2,3}")


class ElevenLabsError(Exception):
    """What was asked is refused: the sentence, ElevenLabs' name of it, and the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def parse_output_format(text: str) -> AudioFormat:
    """`pcm_24000` and the like. Raises Problem; mp3 and opus need encoders that the engine does not have."""
    if text in _FORMATS:
        return _FORMATS[text]
    if _COMPRESSED_FORMAT.fullmatch(text) or text.startswith("pcm_"):
        message = "The local engine speaks pcm_8000, pcm_16000, pcm_24000, pcm_48000, ulaw_8000 and alaw_8000 only."
        raise ElevenLabsError(message, "unsupported_output_format", 400)
    raise ElevenLabsError(f"There is no output_format {text[:40]}.", "invalid_output_format", 400)


def parse_speed(settings: Any) -> float:
    """The `speed` of `voice_settings`; the engine has no use for the others. Raises Problem for what can't be."""
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
    """One stream of text to be spoken."""

    def __init__(self, context_id: str, speed: float) -> None:
        self.id = context_id
        self.speed = speed
        self.is_flushed = False
        self._splitter = SentenceSplitter()
        self._n_chars = 0

    def add_text(self, text: str, *, flush: bool) -> list[str]:
        """More text; returns what can be spoken, with `flush` all that there is. Raises Problem over the bound."""
        self._n_chars += len(text)
        if self._n_chars > MAX_TEXT_CHARS:
            message = f"A context may have {MAX_TEXT_CHARS} characters."
            raise ElevenLabsError(message, "max_character_limit_exceeded", 400)
        sentences = self._splitter.feed(text)
        if flush:
            sentences.append(self._splitter.flush())
        return [sentence for sentence in sentences if sentence.strip()]


@dataclass(slots=True)
class ContextStep:
    """What a message led to; `cancelled` contexts speak no more, `finished` ones when they have said everything."""

    context: SpeechContext | None = None
    sentences: list[str] = field(default_factory=list)
    finished: SpeechContext | None = None
    cancelled: list[SpeechContext] = field(default_factory=list)
    is_last: bool = False


class SpeechContexts:
    """The contexts of one connection; with `multi` false there is one, which an empty text ends."""

    def __init__(self, *, multi: bool) -> None:
        self._multi = multi
        self._open: dict[str, SpeechContext] = {}
        self._closing: set[SpeechContext] = set()

    def receive(self, data: str) -> ContextStep:
        """One message. Raises Problem for what is none, and for the sixth context."""
        obj = parse_json_object(data)
        if obj is None:
            message = "Could not parse input message, make sure it is a JSON object."
            raise ElevenLabsError(message, "invalid_input_message", 422)
        if obj.get("close_socket") is True:
            return self._close_all()
        context_id = str(obj.get("context_id") or "default") if self._multi else ""
        known = self._open.get(context_id)
        if obj.get("close_context") is True:
            return self._close_context(known)
        text = obj.get("text", "")
        if not isinstance(text, str):
            raise ElevenLabsError("text must be a string.", "invalid_input_message", 422)
        if text == "" and (known is None or not self._multi):
            return ContextStep() if known is None else self._finish_context(known)
        context = known or self._open_context(context_id, obj)
        flush = obj.get("flush") is True or obj.get("try_trigger_generation") is True
        context.is_flushed = context.is_flushed or flush
        return ContextStep(context=context, sentences=context.add_text(text, flush=flush))

    def remove(self, context: SpeechContext) -> None:
        """Everything of a context has been sent."""
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
        """A context that was told to flush says what it has; any other one is silent at once."""
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
        did = ContextStep(
            is_last=True, cancelled=[context for context in self._open.values() if not context.is_flushed]
        )
        self._closing.update(self._open.values())
        self._open.clear()
        return did
