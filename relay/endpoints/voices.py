"""The external voices of the device sessions: what the settings say of them, checked, and the way to them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

from relay.core import events as ev
from relay.core.values import EXTERNAL_VOICE, SessionConfig, SpeechRules
from relay.endpoints.navai_options import NavaiOptions
from relay.errors import ConfigError
from relay.peers.elevenlabs import ElevenLabsOptions, ElevenLabsVoice
from relay.peers.provider import ProviderClient

DEFAULT_MODEL = "eleven_flash_v2_5"
"""The one with the least delay."""
REALTIME_IGNORES = (
    "NAVAI_TTS_PROVIDER=elevenlabs is for device sessions: clients of /v1/realtime hear the model's own voice"
)
_RANGES = {"stability": (0.0, 1.0), "similarity_boost": (0.0, 1.0), "style": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class Voices:
    """What a device session can be spoken by besides the model; `rules` is None where there is nothing."""

    options: ElevenLabsOptions | None = None
    rules: SpeechRules | None = None
    default: str | None = None

    @classmethod
    def of(cls, navai: NavaiOptions, mode: Literal["streaming", "final"], fallback_voice: str | None) -> Self:
        """What the settings say. Raises ConfigError naming a setting that is out of range."""
        if navai.elevenlabs_api_key is None:
            return cls()
        given = {name: value for name, value in asdict(navai.elevenlabs_voice_settings).items() if value is not None}
        for name, (low, high) in _RANGES.items():
            if name in given and not low <= given[name] <= high:
                raise ConfigError(f"ELEVENLABS_{name.upper()} must be from {low:g} to {high:g}, not {given[name]:g}")
        options = ElevenLabsOptions(
            base_url=navai.elevenlabs_base_url,
            api_key=navai.elevenlabs_api_key,
            model_id=navai.elevenlabs_model_id or DEFAULT_MODEL,
            voice_settings=given,
        )
        default = navai.elevenlabs_voice_id if navai.tts_provider == "elevenlabs" else None
        return cls(options, SpeechRules(mode, fallback_voice), default)

    def for_session(self, config: SessionConfig) -> SessionConfig:
        """A session's configuration with the voice that speaks where a client names none."""
        return config if self.default is None else replace(config, voice=EXTERNAL_VOICE + self.default)

    def way(self, provider: ProviderClient) -> Callable[[Callable[[ev.VoiceEvent], None]], ElevenLabsVoice] | None:
        """What makes a session's connection to a voice."""
        options = self.options
        return None if options is None else lambda feed: ElevenLabsVoice(options, provider, feed)

    @property
    def lines(self) -> list[str]:
        """What the start says about them."""
        if self.options is None or self.rules is None or self.default is None:
            return []
        after = f"after a failure {self.rules.fallback_voice}" if self.rules.fallback_voice else "after a failure text"
        model = self.options.model_id
        return [f"voice {EXTERNAL_VOICE}{self.default} · {model} · {self.rules.mode} · {after}", REALTIME_IGNORES]
