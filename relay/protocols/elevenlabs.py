"""Codec for ElevenLabs' multi-context WebSocket, client side: commands to messages, messages to events.

https://elevenlabs.io/docs/api-reference/text-to-speech/v-1-text-to-speech-voice-id-multi-stream-input
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import orjson

from audio.formats import AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.protocols.openai.audio_events import decode_audio
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.model import Alignment
from relay.session.common.redact import redact
from relay.session.device import commands as cmd
from relay.session.device import events as ev

INACTIVITY_TIMEOUT_S = 180
"""How long a context stays open without text; the API's maximum."""
MAX_ALIGNED_CHARS = 65_536

_G711 = {"pcmu": "ulaw_8000", "pcma": "alaw_8000"}
PERMANENT_ERROR_CODES = frozenset(
    {
        "voice_id_does_not_exist", "voice_not_found", "model_not_found", "model_id_does_not_exist", "invalid_api_key",
        "missing_permissions", "quota_exceeded", "unsupported_output_format", "output_format_not_allowed",
        "subscription_required", "max_character_limit_exceeded", "needs_authorization", "detected_unusual_activity",
    }
)  # fmt: skip
"""Errors that a retry would only repeat."""


def output_format_name(audio: AudioFormat) -> str:
    """Return ElevenLabs' name of a format."""
    return _G711.get(audio.encoding) or f"pcm_{audio.rate_hz}"


def stream_url(base_url: str, voice_id: str, audio: AudioFormat, model_id: str | None) -> str:
    """Return the URL of a voice's WebSocket. With `auto_mode` it does not buffer: the relay sends whole sentences."""
    parts = urlsplit(base_url.rstrip("/"))
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = f"{parts.path}/v1/text-to-speech/{quote(voice_id, safe='')}/multi-stream-input"
    query = {
        "output_format": output_format_name(audio),
        "auto_mode": "true",
        "sync_alignment": "true",
        "inactivity_timeout": str(INACTIVITY_TIMEOUT_S),
    } | ({"model_id": model_id} if model_id else {})
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


TtsOutput = ev.TtsEvent | ev.MalformedUpstreamMessage | TtsAudioDelta
"""What a TTS connection reports: events and audio."""


class ElevenLabsCodec:
    """One connection's codec; the first message of every context carries `voice_settings`."""

    def __init__(self, voice_settings: Mapping[str, Any] | None = None, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are redacted in errors."""
        self._secrets = secrets
        self._voice_settings = dict(voice_settings or {})
        self._open_contexts: set[str] = set()

    def encode(self, command: cmd.TtsCommand) -> list[bytes]:
        """Encode a command as text messages; an empty list if the connection has nothing to send for it."""
        match command:
            case cmd.SynthesizeSentence(context_id, text):
                return [*self._open_context(context_id), _encode_message(context_id, text=text, flush=True)]
            case cmd.FinishTtsContext(context_id):
                return self._close_context(context_id, flush=True)
            case cmd.CancelTtsContext(context_id):
                return self._close_context(context_id)
            case cmd.KeepTtsContextAlive(context_id):
                return [_encode_message(context_id, text="")] if context_id in self._open_contexts else []
            case _:
                return []

    def _open_context(self, context_id: str) -> list[bytes]:
        if context_id in self._open_contexts:
            return []
        self._open_contexts.add(context_id)
        settings = {"voice_settings": self._voice_settings} if self._voice_settings else {}
        return [_encode_message(context_id, text=" ", **settings)]

    def _close_context(self, context_id: str, **flush: bool) -> list[bytes]:
        if context_id not in self._open_contexts:  # a message for an unknown context would open one
            return []
        self._open_contexts.discard(context_id)
        return [
            *([_encode_message(context_id, **flush)] if flush else []),
            _encode_message(context_id, close_context=True),
        ]

    def decode(self, frame: str | bytes) -> list[TtsOutput]:
        """Decode one message to events and audio; an empty list if it is invalid or of no use."""
        obj = parse_json_object(frame)
        if obj is None:
            return []
        context_id = _get_text(obj, "contextId") or _get_text(obj, "context_id")
        if obj.get("error") is not None:
            return [decode_failure(obj, context_id, self._secrets)]
        events: list[TtsOutput] = []
        audio = _get_text(obj, "audio")
        if audio:
            try:
                samples = decode_audio(audio.encode())
                events.append(TtsAudioDelta(context_id, samples, _decode_alignment(obj.get("alignment"))))
            except ValueError:
                events.append(ev.MalformedUpstreamMessage("audio that is not base64"))
        if obj.get("isFinal") is True or obj.get("is_final") is True:
            events.append(ev.TtsContextDone(context_id))
        return events


def decode_failure(obj: JsonObject, context_id: str = "", secrets: KnownSecrets = NO_SECRETS) -> ev.TtsFailed:
    """Decode an error message `{message, error, code}`: `error` is its name, `code` that of the close that follows."""
    code = redact(secrets.redact(str(obj.get("error"))), 64)
    message = redact(secrets.redact(_get_text(obj, "message")) or "ElevenLabs reported no reason", 300)
    return ev.TtsFailed(message.rstrip(".") + ".", code, code not in PERMANENT_ERROR_CODES, context_id)


def _encode_message(context_id: str, **fields: Any) -> bytes:
    return orjson.dumps(fields | {"context_id": context_id})


def _get_text(obj: JsonObject, key: str) -> str:
    value = obj.get(key)
    return value if isinstance(value, str) else ""


def _decode_alignment(value: Any) -> Alignment | None:
    """Decode `{chars, charStartTimesMs, charDurationsMs}`; None if the shape is different."""
    if not isinstance(value, dict):
        return None
    chars, starts, lengths = (value.get(key) for key in ("chars", "charStartTimesMs", "charDurationsMs"))
    if not (isinstance(chars, list) and isinstance(starts, list) and isinstance(lengths, list)):
        return None
    if len(chars) != len(starts) or len(chars) != len(lengths) or len(chars) > MAX_ALIGNED_CHARS:
        return None
    if not all(isinstance(char, str) for char in chars) or not all(_is_time(ms) for ms in (*starts, *lengths)):
        return None
    return Alignment(tuple(chars), tuple(map(int, starts)), tuple(map(int, lengths)))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400_000
