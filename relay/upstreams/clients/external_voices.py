"""The external voices of the device sessions: what the settings say of them, and how to connect to one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self

from relay.config import Settings
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.policy import Policy
from relay.core.values import EXTERNAL_VOICE, SpeechRules
from relay.errors import ConfigError
from relay.navai_options import NavaiOptions
from relay.peers.elevenlabs import ElevenLabsOptions, ElevenLabsVoice
from relay.peers.provider import ProviderClient
from relay.wire.elevenlabs import VoiceOutput

DEFAULT_MODEL = "eleven_flash_v2_5"
"""The one with the least delay."""
REALTIME_IGNORES = "ElevenLabs voices are for device sessions only: clients of /v1/realtime hear the model's own voice"
_RANGES = {"stability": (0.0, 1.0), "similarity_boost": (0.0, 1.0), "style": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class ExternalVoices:
    """The external voices that a device session may have; `rules` is None where there are none."""

    options: ElevenLabsOptions | None = None
    rules: SpeechRules | None = None
    default: str | None = None
    by_policy: Mapping[str, str] = field(default_factory=dict)
    """The external voices that policies name, by the policies' names."""

    @classmethod
    def of(cls, navai: NavaiOptions, settings: Settings, by_policy: Mapping[str, str]) -> Self:
        """What the settings say, and the policies that name voices. Raises ConfigError with all that makes no sense."""
        if navai.elevenlabs_api_key is None:
            _refuse(
                f"RELAY_POLICIES: policies.{name}.voice is {voice}, which needs ELEVENLABS_API_KEY"
                for name, voice in by_policy.items()
            )
            return cls()
        given = {name: value for name, value in asdict(navai.elevenlabs_voice_settings).items() if value is not None}
        _refuse(
            f"ELEVENLABS_{name.upper()} must be from {low:g} to {high:g}, not {given[name]:g}"
            for name, (low, high) in _RANGES.items()
            if name in given and not low <= given[name] <= high
        )
        options = ElevenLabsOptions(
            base_url=navai.elevenlabs_base_url,
            api_key=navai.elevenlabs_api_key,
            model_id=navai.elevenlabs_model_id or DEFAULT_MODEL,
            voice_settings=given,
        )
        default = navai.elevenlabs_voice_id if navai.tts_provider == "elevenlabs" else None
        return cls(options, SpeechRules(settings.voice_mode, settings.fallback_voice), default, by_policy)

    @property
    def default_voice(self) -> str | None:
        """The external voice of the settings, as a session's configuration names it."""
        return None if self.default is None else EXTERNAL_VOICE + self.default

    def rules_for(self, policy: Policy) -> SpeechRules | None:
        """`rules` with a fallback that the policy allows: its own voice of the model's, else the settings', if any."""
        rules = self.rules
        if rules is None or rules.fallback_voice is None:
            return rules
        return replace(rules, fallback_voice=policy.default_voice(rules.fallback_voice, kind="model"))

    def connector(
        self, provider: ProviderClient, secrets: KnownSecrets = NO_SECRETS
    ) -> Callable[[Callable[[VoiceOutput], None]], ElevenLabsVoice] | None:
        """Makes a session's connection to a voice; None where there is none."""
        options = self.options
        return None if options is None else lambda feed: ElevenLabsVoice(options, provider, feed, secrets)

    @property
    def names(self) -> dict[str, str]:
        """The ids of the voices that somebody configured, each with the setting that names it."""
        named = {voice.removeprefix(EXTERNAL_VOICE): f"policies.{name}.voice" for name, voice in self.by_policy.items()}
        return named if self.default is None else named | {self.default: "ELEVENLABS_VOICE_ID"}

    def describe(self) -> list[str]:
        """What the start-up log says of them."""
        who = {} if self.default is None else {"": EXTERNAL_VOICE + self.default}
        who |= {f" of policy {name}": voice for name, voice in self.by_policy.items()}
        if self.options is None or self.rules is None or not who:
            return []
        after = f"after a failure {self.rules.fallback_voice}" if self.rules.fallback_voice else "after a failure text"
        how = f"{self.options.model_id} · {self.rules.mode} · {after}"
        return [*(f"voice{whose} {voice} · {how}" for whose, voice in who.items()), REALTIME_IGNORES]


def _refuse(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise ConfigError("\n".join(found))
