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
_ENCODED = re.compile(r"(mp3|opus)_\d{5}_\d{2,3}")


class Problem(Exception):
    """What was asked is refused: the sentence, ElevenLabs' name of it, and the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def read_format(text: str) -> AudioFormat:
    """`pcm_24000` and the like. Raises Problem; mp3 and opus need encoders that the engine does not have."""
    if text in _FORMATS:
        return _FORMATS[text]
    if _ENCODED.fullmatch(text) or text.startswith("pcm_"):
        message = "The local engine speaks pcm_8000, pcm_16000, pcm_24000, pcm_48000, ulaw_8000 and alaw_8000 only."
        raise Problem(message, "unsupported_output_format", 400)
    raise Problem(f"There is no output_format {text[:40]}.", "invalid_output_format", 400)


def read_speed(settings: Any) -> float:
    """The `speed` of `voice_settings`; the engine has no use for the others. Raises Problem for what can't be."""
    if settings is None:
        return 1.0
    if not isinstance(settings, dict):
        raise Problem("voice_settings must be an object.", "invalid_voice_settings", 422)
    ranges = {"stability": (0, 1), "similarity_boost": (0, 1), "style": (0, 1), "speed": (0.7, 1.2)}
    for name, (low, high) in ranges.items():
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise Problem(f"voice_settings.{name} must be a number.", "invalid_voice_settings", 422)
        if value is not None and not low <= value <= high:
            raise Problem(f"voice_settings.{name} must be from {low} to {high}.", "invalid_voice_settings", 422)
    return float(settings.get("speed") or 1.0)


class Context:
    """One stream of text to be spoken."""

    def __init__(self, context_id: str, speed: float) -> None:
        self.id = context_id
        self.speed = speed
        self.flushed = False
        self._splitter = SentenceSplitter()
        self._n_chars = 0

    def add(self, text: str, *, flush: bool) -> list[str]:
        """More text; returns what can be spoken, with `flush` all that there is. Raises Problem over the bound."""
        self._n_chars += len(text)
        if self._n_chars > MAX_TEXT_CHARS:
            message = f"A context may have {MAX_TEXT_CHARS} characters."
            raise Problem(message, "max_character_limit_exceeded", 400)
        sentences = self._splitter.feed(text)
        if flush:
            sentences.append(self._splitter.flush())
        return [sentence for sentence in sentences if sentence.strip()]


@dataclass(slots=True)
class Did:
    """What a message led to; `hushed` contexts speak no more, `ended` ones when they have said everything."""

    speak: Context | None = None
    sentences: list[str] = field(default_factory=list)
    ended: Context | None = None
    hushed: list[Context] = field(default_factory=list)
    end_socket: bool = False


class Contexts:
    """The contexts of one connection; with `multi` false there is one, which an empty text ends."""

    def __init__(self, *, multi: bool) -> None:
        self._multi = multi
        self._open: dict[str, Context] = {}
        self._closing: set[Context] = set()

    def receive(self, data: str) -> Did:
        """One message. Raises Problem for what is none, and for the sixth context."""
        obj = parse_json_object(data)
        if obj is None:
            message = "Could not parse input message, make sure it is a JSON object."
            raise Problem(message, "invalid_input_message", 422)
        if obj.get("close_socket") is True:
            return self._close_all()
        context_id = str(obj.get("context_id") or "default") if self._multi else ""
        known = self._open.get(context_id)
        if obj.get("close_context") is True:
            return self._close(known)
        text = obj.get("text", "")
        if not isinstance(text, str):
            raise Problem("text must be a string.", "invalid_input_message", 422)
        if text == "" and (known is None or not self._multi):
            return Did() if known is None else self._end(known)
        context = known or self._begin(context_id, obj)
        flush = obj.get("flush") is True or obj.get("try_trigger_generation") is True
        context.flushed = context.flushed or flush
        return Did(speak=context, sentences=context.add(text, flush=flush))

    def finished(self, context: Context) -> None:
        """Everything of a context has been sent."""
        self._closing.discard(context)

    def _begin(self, context_id: str, obj: JsonObject) -> Context:
        if len(self._open) + len(self._closing) >= MAX_CONTEXTS:
            message = (
                f"Maximum simultaneous contexts per WebSocket connection exceeded ({MAX_CONTEXTS}). "
                "Please close an existing context before opening a new one."
            )
            raise Problem(message, "max_active_conversations", 400)
        context = self._open[context_id] = Context(context_id, read_speed(obj.get("voice_settings")))
        return context

    def _close(self, context: Context | None) -> Did:
        """A context that was told to flush says what it has; any other one is silent at once."""
        if context is None:
            return Did()
        if context.flushed:
            return self._end(context)
        del self._open[context.id]
        self._closing.add(context)
        return Did(hushed=[context])

    def _end(self, context: Context) -> Did:
        del self._open[context.id]
        self._closing.add(context)
        return Did(speak=context, sentences=context.add("", flush=True), ended=context)

    def _close_all(self) -> Did:
        did = Did(end_socket=True, hushed=[context for context in self._open.values() if not context.flushed])
        self._closing.update(self._open.values())
        self._open.clear()
        return did
