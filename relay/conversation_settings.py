"""Settings of every session: voice, instructions, turn detection, and how long it may last."""

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from relay.access_settings import tidy
from relay.core.values import EXTERNAL_VOICE, SessionConfig, TurnDetection
from relay.session.common.limits import SessionLimits


class ConversationSettings(BaseSettings):
    """The part of `relay.config.Settings` that sessions begin with."""

    voice: str = Field("marin", alias="OPENAI_REALTIME_VOICE")
    instructions: str = Field("You are a helpful assistant.", alias="OPENAI_REALTIME_INSTRUCTIONS")
    language: str | None = Field(None, alias="OPENAI_REALTIME_LANGUAGE")
    voice_accent: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_ACCENT")
    voice_tone: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_TONE")

    turn: Literal["server_vad", "semantic_vad", "manual"] = Field("server_vad", alias="RELAY_TURN")
    vad_threshold: float | None = Field(None, alias="RELAY_VAD_THRESHOLD", ge=0, le=1)
    vad_prefix_padding_ms: int | None = Field(None, alias="RELAY_VAD_PREFIX_PADDING_MS", ge=0, le=10_000)
    vad_silence_ms: int | None = Field(None, alias="RELAY_VAD_SILENCE_MS", ge=0, le=10_000)
    vad_eagerness: Literal["low", "medium", "high", "auto"] | None = Field(None, alias="RELAY_VAD_EAGERNESS")
    transcription_model: str = Field("gpt-transcribe", alias="RELAY_TRANSCRIPTION_MODEL")
    noise_reduction: Literal["near_field", "far_field", "off"] = Field("off", alias="RELAY_NOISE_REDUCTION")

    voice_mode: Literal["streaming", "final"] = Field("streaming", alias="RELAY_VOICE_MODE")
    voice_fallback: Literal["model", "off"] = Field("model", alias="RELAY_VOICE_FALLBACK")

    max_duration_s: float = Field(14_400, alias="RELAY_MAX_DURATION_S", ge=0)
    max_idle_s: float = Field(1800, alias="RELAY_MAX_IDLE_S", ge=0)

    @field_validator("turn", "noise_reduction", "voice_mode", "voice_fallback", mode="before")
    @classmethod
    def _tidy_conversation(cls, value: Any) -> Any:
        return tidy(value)

    @field_validator("voice")
    @classmethod
    def _check_voice(cls, value: str) -> str:
        if value.startswith(EXTERNAL_VOICE):
            raise ValueError(
                "names the model's own voice; for another one set NAVAI_TTS_PROVIDER=elevenlabs and ELEVENLABS_VOICE_ID"
            )
        return value

    @property
    def fallback_voice(self) -> str | None:
        """The model's voice that speaks after an external one has failed; None if that is not wanted."""
        return self.voice if self.voice_fallback == "model" else None

    def session_limits(self) -> SessionLimits:
        """How long sessions may last and be quiet; 0 is for ever."""
        return SessionLimits(self.max_duration_s or None, self.max_idle_s or None)

    def session_config(self) -> SessionConfig:
        """What every session asks of the upstream, before its client has said a word; without tools."""
        model = self.transcription_model
        return SessionConfig(
            voice=self.voice,
            instructions=self.instructions,
            language=self.language,
            voice_accent=self.voice_accent,
            voice_tone=self.voice_tone,
            turn=TurnDetection(
                kind=self.turn,
                threshold=self.vad_threshold,
                prefix_padding_ms=self.vad_prefix_padding_ms,
                silence_duration_ms=self.vad_silence_ms,
                eagerness=self.vad_eagerness,
            ),
            transcription_model=None if model.lower() == "off" else model,
            noise_reduction=None if self.noise_reduction == "off" else self.noise_reduction,
        )
