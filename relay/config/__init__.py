"""Settings in groups, from Python or the environment; the options of NAVAI's routes; the policy file."""

from relay.config.environment import Environment
from relay.config.server_settings import AccessSettings, LimitSettings, LogSettings, RecordingSettings, ServerSettings
from relay.config.session_settings import NavaiSettings, SessionSettings, ToolSettings, TtsSettings, TurnSettings
from relay.config.settings import Settings
from relay.config.upstream_settings import AzureSettings, OpenAISettings, UpstreamSettings

__all__ = [
    "AccessSettings",
    "AzureSettings",
    "Environment",
    "LimitSettings",
    "LogSettings",
    "NavaiSettings",
    "OpenAISettings",
    "RecordingSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "ToolSettings",
    "TtsSettings",
    "TurnSettings",
    "UpstreamSettings",
]
